"""The chat process, `python -m trainer.chat`: holds a model and answers JSON lines on stdin with JSON lines on stdout.

    {"op": "load", "model": PATH, "adapter": PATH | null, "template": "auto", "dtype": "auto",
     "trust_remote_code": false}
    {"op": "generate", "id": N, "messages": [{"role", "content"}], "tools": [...] | null,
     "columns": [{"adapter": PATH | null, "messages": a column's own, if any}, ...], and any of Sampling's values}
    {"op": "stop"}                       ends the replies being written; the end of stdin ends the process

Events: stage, loaded, delta, done, problem. `columns`: one to three answers to one question, from the base and from
adapters on it; without it one answer, with the loaded adapter. Then delta, done and a column's own problem carry
"column", its number from 0; a problem without it ends the request. Unloading is ending the process. Light until `main`.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import sampling, torch_import, unused_accelerators
from trainer.chat_failure import as_problem
from trainer.chat_pipes import Inbox, Replies, Request, guarded_stdin, guarded_stdout
from trainer.compare import Column, columns_of, failing, in_turn, messages_of
from trainer.declared import ComputeType
from trainer.model_folder import check_adapter_folder, check_model_folder
from trainer.problems import Problem

if TYPE_CHECKING:
    from concurrent.futures import Future

    from trainer.chat_model import ChatModel
    from trainer.generate import Finish
    from trainer.weights import Weights


class Session:
    """What the process holds between two requests: a model, or none."""

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self._model: ChatModel | None = None
        self._unused: list[Problem] | None = None

    def load(self, request: Request) -> None:
        started = time.monotonic()
        model = check_model_folder(str(request.get("model") or ""))
        adapter = check_adapter_folder(str(request["adapter"])) if request.get("adapter") else None
        dtype: Any = request.get("dtype") or "auto"
        torch_import.prepare()
        weights = _begin(model, dtype) if self._model is None else None
        from trainer import chat_model  # takes seconds

        self._model = loaded = chat_model.load(
            self._model,
            model,
            adapter,
            dtype=dtype,
            template=request.get("template") or "auto",
            on_stage=self._replies.stage,
            weights=weights,
            trust_remote_code=request.get("trust_remote_code") is True,
        )
        self._replies.send(
            "loaded",
            model=str(loaded.folder),
            adapter=str(loaded.adapter) if loaded.adapter else None,
            device=loaded.device.name,
            dtype=loaded.dtype,
            way=loaded.way,
            template=loaded.template.name,
            template_origin=loaded.template.origin,
            warnings=[
                {"code": problem.code, "values": problem.values}
                for problem in (*self._of_the_device(), *loaded.template.warnings(str(loaded.folder)))
            ],
            seconds=round(time.monotonic() - started, 3),
            memory_gib=round(loaded.device.memory_gib(), 3),
        )

    def _of_the_device(self) -> list[Problem]:
        """Asked once: what a machine has does not change, and an adapter is to be had at once."""
        if self._unused is None:
            problem = unused_accelerators.problem()
            self._unused = [problem] if problem else []
        return self._unused

    def generate(self, request: Request) -> None:
        """Every column ends with a done event or a problem of its own."""
        if (model := self._model) is None:
            raise Problem("chat_not_loaded")
        columns = [_placed(model, column) for column in columns_of(request, model.adapter)]
        replies = [
            failing(column) if isinstance(column, Exception) else _reply(model, request, column, messages)
            for (column, _), messages in zip(columns, messages_of(request, len(columns)), strict=True)
        ]
        for number, part in in_turn(replies, [alone for _, alone in columns]):
            names = {"id": request.get("id"), "column": number}
            if isinstance(part, str):
                self._replies.send("delta", **names, text=part)
            elif isinstance(part, Exception):
                self._tell(part, request, column=number)
            else:
                self._replies.send("done", **names, **_numbers(part))
        model.get_ready()

    def answer(self, request: Request) -> None:
        """Does what `request` asks; whatever fails becomes a problem event, and its traceback goes to stderr."""
        operations: dict[str, Callable[[Request], None]] = {"load": self.load, "generate": self.generate}
        self._replies.begin()
        try:
            operation = operations.get(str(request.get("op")))
            if operation is None:
                raise Problem("chat_protocol", detail=str(request.get("op") or request.get("line")))
            operation(request)
        except BrokenPipeError:
            raise
        except Exception as error:
            self._tell(error, request)

    def _tell(self, error: Exception, request: Request, **values: Any) -> None:
        problem = as_problem(error)
        if not isinstance(error, Problem):
            traceback.print_exception(error)
        names = {"op": request.get("op"), "id": request.get("id"), **values}
        self._replies.problem(problem, **names, model_kept=self._model is not None)


def _placed(model: "ChatModel", column: Column) -> tuple[Column, bool]:
    """The column, and whether it has to be written alone; an adapter that cannot be read becomes its error."""
    if isinstance(column, Exception):
        return column, False
    try:
        return column, not model.stands_beside(column)
    except Exception as error:
        return error, False


def _reply(
    model: "ChatModel", request: Request, adapter: Path | None, messages: Any
) -> "Generator[str | Finish, None, None]":
    return model.reply(
        messages,
        sampling.parse(request),
        request["cancel"],
        enable_thinking=bool(request.get("enable_thinking", True)),
        skip_special_tokens=bool(request.get("skip_special_tokens", True)),
        tools=request.get("tools"),
        adapter=adapter,
    )


def _begin(model: Path, dtype: ComputeType) -> "Future[Weights | None]":
    """Starts what loading waits for and needs no library but torch: reading weights, compiling kernels."""
    from trainer.kernels_ahead import compile_ahead
    from trainer.weights import Weights

    compile_ahead(model, dtype)
    return Weights.ahead(model, dtype)


def _numbers(finish: "Finish") -> dict[str, Any]:
    return {
        "finish": finish.reason,
        "tokens": finish.tokens,
        "prompt_tokens": finish.prompt_tokens,
        "seconds": round(finish.seconds, 4),
        "first_token_s": finish.first_token_s and round(finish.first_token_s, 4),
        "tokens_per_second": finish.tokens_per_second and round(finish.tokens_per_second, 1),
    }


def main() -> int:
    """Serves until stdin ends or nobody reads stdout any more."""
    replies = Replies(guarded_stdout())
    replies.stage("starting")
    inbox = Inbox(guarded_stdin())
    # Models come from folders; a library that asks a hub would keep the user waiting for its retries.
    os.environ["HF_HUB_OFFLINE"] = "1"
    session = Session(replies)
    try:
        while (request := inbox.next()) is not None:
            session.answer(request)
    except BrokenPipeError:
        pass
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Interpreter shutdown frees gigabytes piece by piece; the system does it at once.
    os._exit(code)
