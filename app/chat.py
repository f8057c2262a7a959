"""Client of the chat process: starts it, loads a model into it, streams its replies, ends it.

    for part in chat.generate(messages, temperature=0.7): …              texts, then a Done
    for column, part in chat.compare(messages, [None, adapter]): …       the same for each column

One per page server, shared by its tabs. Never imports torch. Memory comes back because unloading ends the process.
"""

import queue
import sys
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from app.chat_worker import Event, Worker
from trainer import sampling
from trainer.launch import Launch
from trainer.model_folder import check_adapter_folder, check_model_folder
from trainer.problems import Problem

State = Literal["unloaded", "starting", "loading", "ready", "generating", "dead"]

STOPPING_S = 5.0
# A process that was told to stop says at once how far it was, unless it computes what cannot be left, or hangs.
_HEEDING_S = 0.12
ANY_DEVICE = Launch()


@dataclass(frozen=True)
class Done:
    """How a reply ended, and its numbers. `tokens_per_second` is decoding alone, None for less than two tokens."""

    finish: Literal["stop", "length", "context", "cancelled"]
    tokens: int = 0
    prompt_tokens: int = 0
    seconds: float = 0.0
    first_token_s: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True)
class Status:
    """The chat process at one moment. `seconds`: of loading, so far or in all. `problem`: why it is not ready.

    `way`: how answers are computed, by captured graphs, a lean pass, or transformers' own loop. `index`: of the
    accelerator that the process was started on, "" where there was nothing to choose. `warnings`: of a model that is
    ready all the same.
    `stopping`: it was told to leave the answer that it writes. After a failed change of adapter the state is ready, with
    the adapter before it, and `problem` set.
    """

    state: State = "unloaded"
    stage: str | None = None
    seconds: float = 0.0
    model: Path | None = None
    adapter: Path | None = None
    device: str | None = None
    dtype: str | None = None
    way: Literal["graphs", "lean", "transformers"] | None = None
    memory_gib: float | None = None
    pid: int | None = None
    problem: Problem | None = None
    index: str = ""
    warnings: tuple[Problem, ...] = ()
    stopping: bool = False


class ChatProcess:
    """Safe to use from several threads. Whatever becomes of the process, `load` works again."""

    def __init__(self, log: Path, command: Sequence[str] = (sys.executable, "-m", "trainer.chat"),
                 trust_remote_code: bool = False) -> None:  # fmt: skip
        """`log` receives what the process writes to stderr. `trust_remote_code`: models may bring code of their own."""
        self._log, self._command, self._trust = log, command, trust_remote_code
        self._lock = threading.Condition(threading.RLock())
        self._changing = threading.RLock()  # One load or unload begins at a time; taken before `_lock`.
        self._status = Status()
        self._wanted: tuple[Path, str, Launch] | None = None  # Model, type and device of the process at hand.
        self._worker: Worker | None = None
        self._loading: Future[Status] | None = None
        self._load_began = 0.0
        self._replies = 0
        self._reply: _Reply | None = None

    @property
    def status(self) -> Status:
        with self._lock:
            if self._status.state in ("starting", "loading"):
                return replace(self._status, seconds=time.monotonic() - self._load_began)
            return replace(self._status, stopping=self._reply is not None and bool(self._reply.told_to_stop))

    def load(
        self,
        model: str | Path,
        adapter: str | Path | None = None,
        template: str = "auto",
        dtype: str = "auto",
        place: Launch = ANY_DEVICE,
    ) -> Status:
        """`begin_load`, waited for. Raises Problem when it fails, chat_unloaded when someone unloads meanwhile."""
        return self.begin_load(model, adapter, template, dtype, place).result()

    def begin_load(
        self,
        model: str | Path,
        adapter: str | Path | None = None,
        template: str = "auto",
        dtype: str = "auto",
        place: Launch = ANY_DEVICE,
    ) -> "Future[Status]":
        """Starts loading and returns at once; `status` follows it. `place`: the device that the process is to see.

        With the same model, type and device at hand only the adapter changes, unless the process heeds no stop. Raises
        Problem, leaving all as it was, for a folder that cannot be right, chat_busy while a reply is written,
        chat_loading while loading.
        """
        model = check_model_folder(model).absolute()
        adapter = check_adapter_folder(adapter).absolute() if adapter else None
        with self._changing:
            with self._lock:
                heeds = self._wait_for_abandoned_reply()
                if self._status.state in ("starting", "loading"):
                    raise Problem("chat_loading")
                if self._status.state == "generating" and heeds:
                    raise Problem("chat_busy")
            if self._worker is not None and (not heeds or self._wanted != (model, dtype, place)):
                self.unload()
            with self._lock:
                return self._send_load(model, adapter, template, dtype, place)

    def generate(self, messages: list[dict[str, Any]], **values: Any) -> Generator[str | Done, None, None]:
        """Text as it comes, then one Done, with the loaded adapter. Closing the generator early ends the reply in the
        process too.

        `values`: Sampling's, tools, skip_special_tokens, enable_thinking. Raises Problem: chat_not_loaded,
        chat_busy, a value out of range, what the model meets, or why the process died.
        """
        for _, part in self._stream(messages, None, values):
            if isinstance(part, Problem):
                raise part
            yield part

    def compare(
        self,
        messages: list[dict[str, Any]],
        columns: Sequence[str | Path | None],
        conversations: Sequence[list[dict[str, Any]]] | None = None,
        **values: Any,
    ) -> Generator[tuple[int, str | Done | Problem], None, None]:
        """One to three answers to one question, each with the number of its column: texts, then a Done, or a Problem
        of this column alone. They come side by side where the model can, else one after the other.

        `columns`: adapters on the loaded base, None for the base alone. `conversations`: of each column, where each goes
        on with its own answers; else `messages` are those of all. `values`, closing and the Problems that are
        raised, which end all columns: as `generate`.
        """
        asked: list[dict[str, Any]] = [{"adapter": str(Path(one).absolute()) if one else None} for one in columns]
        for column, own in zip(asked, conversations or (), strict=False):
            column["messages"] = own
        yield from self._stream(messages, asked, values)

    def _stream(
        self, messages: list[dict[str, Any]], columns: list[dict[str, Any]] | None, values: dict[str, Any]
    ) -> "Generator[tuple[int, str | Done | Problem], None, None]":
        sampling.parse(values)
        reply = self._begin_reply(messages, columns, values)
        try:
            while (part := reply.parts.get()) is not None:
                if isinstance(part, Problem):
                    raise part
                yield part
        finally:
            with self._lock:
                if self._reply is reply:
                    self.stop()

    def stop(self) -> None:
        """Ends the replies being written, if any: their generator gives Done("cancelled"), and their texts stay.

        Also where the process goes on for a while: `status` says so, and who asks next waits for it.
        """
        with self._lock:
            reply = self._reply
            if reply is None or self._worker is None or reply.told_to_stop:
                return
            reply.told_to_stop = time.monotonic()
            self._worker.send({"op": "stop"})
        leaving = threading.Timer(_HEEDING_S, self._leave, [reply])
        leaving.daemon = True
        leaving.start()

    def _leave(self, reply: "_Reply") -> None:
        with self._lock:
            reply.end(Done("cancelled"))

    def unload(self) -> None:
        """Ends the process, whatever it does, and returns when it is gone. A reply in the making ends as cancelled."""
        with self._changing:
            with self._lock:
                worker, self._worker = self._worker, None
                self._status = Status()
                self._end_reply(Done("cancelled"))
                self._end_loading(Problem("chat_unloaded"))
            if worker is not None:
                worker.end()

    # Below: with the lock held.

    def _send_load(
        self, model: Path, adapter: Path | None, template: str, dtype: str, place: Launch
    ) -> "Future[Status]":
        self._load_began = time.monotonic()
        if self._worker is None:
            try:
                self._worker = Worker(self._command, self._log, self._on_event, self._on_end,
                                      place.environment(0))  # fmt: skip
            except OSError as error:  # No memory for a process, or no place for its log.
                raise Problem("python_error", kind=type(error).__name__, detail=str(error)) from error
            self._wanted = (model, dtype, place)
            self._status = Status("starting", "starting", pid=self._worker.pid, model=model, adapter=adapter,
                                  index=",".join(place.devices))  # fmt: skip
        else:
            self._status = replace(self._status, state="loading", stage=None, problem=None)
        self._loading = future = Future[Status]()
        self._worker.send(
            {
                "op": "load",
                "model": str(model),
                "adapter": str(adapter) if adapter else None,
                "template": template,
                "dtype": dtype,
                "trust_remote_code": self._trust,
            }
        )
        return future

    def _begin_reply(
        self, messages: list[dict[str, Any]], columns: list[dict[str, Any]] | None, values: dict[str, Any]
    ) -> "_Reply":
        with self._lock:
            if not self._wait_for_abandoned_reply():
                raise Problem("chat_not_stopping", seconds=f"{STOPPING_S:g}")
            if self._status.state == "generating":
                raise Problem("chat_busy")
            if self._status.state in ("starting", "loading"):
                raise Problem("chat_loading")
            if self._status.state != "ready" or self._worker is None:
                raise Problem("chat_not_loaded")
            self._replies += 1
            self._reply = reply = _Reply(self._replies, None if columns is None else len(columns))
            self._status = replace(self._status, state="generating", problem=None)
            request = {**values, "op": "generate", "id": reply.id, "messages": messages}
            self._worker.send(request | ({} if columns is None else {"columns": columns}))
            return reply

    def _wait_for_abandoned_reply(self) -> bool:
        """A reply told to stop is over in a moment: who asks next need not hear that it is busy. False when it is not."""
        reply = self._reply
        if reply is None or not reply.told_to_stop:
            return True
        left = reply.told_to_stop + STOPPING_S - time.monotonic()
        return self._lock.wait_for(lambda: self._reply is not reply, max(left, 0.0))

    def _end_reply(self, last: "Done | Problem") -> None:
        """Of all its columns: `last` is for each that has not ended, a Problem for all of them."""
        if self._reply is not None:
            self._reply.end(last)
            self._reply = None
            self._lock.notify_all()

    def _end_column(self, column: int, last: "Done | Problem") -> None:
        reply = self._reply
        if reply is None:
            return
        reply.put(column, last)
        reply.computed.discard(column)
        if not reply.computed:
            self._status = replace(self._status, state="ready")
            self._end_reply(Done("cancelled"))

    def _end_loading(self, outcome: "Status | Problem") -> None:
        future, self._loading = self._loading, None
        if future is not None:
            if isinstance(outcome, Problem):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    # Called by the worker's thread.

    def _on_event(self, worker: Worker, event: Event) -> None:
        with self._lock:
            if worker is not self._worker:
                return
            kind = event.pop("event", None)
            if kind == "delta" and self._reply is not None and event["id"] == self._reply.id:
                self._reply.put(event["column"], event["text"])
            elif kind == "done" and self._reply is not None and event.pop("id") == self._reply.id:
                self._end_column(event.pop("column"), Done(**event))
            elif kind == "stage":
                state: State = "starting" if event["stage"] == "starting" else "loading"
                self._status = replace(self._status, state=state, stage=event["stage"])
            elif kind == "loaded":
                self._on_loaded(event)
            elif kind == "problem":
                self._on_problem(worker, event)

    def _on_loaded(self, event: Event) -> None:
        self._status = replace(
            self._status,
            state="ready",
            stage=None,
            seconds=time.monotonic() - self._load_began,
            model=Path(event["model"]),
            adapter=Path(event["adapter"]) if event["adapter"] else None,
            device=event["device"],
            dtype=event["dtype"],
            way=event["way"],
            memory_gib=event["memory_gib"],
            warnings=tuple(Problem(one["code"], **one["values"]) for one in event["warnings"]),
        )
        self._end_loading(self._status)

    def _on_problem(self, worker: Worker, event: Event) -> None:
        problem = Problem(event["code"], **event["values"])
        if event["op"] == "generate" and self._reply is not None and event["id"] != self._reply.id:
            return
        if event["op"] == "generate" and "column" in event and self._reply is not None and self._reply.compared:
            self._end_column(event["column"], problem)
            return
        if event["op"] == "generate":
            self._status = replace(self._status, state="ready", problem=problem)
            self._end_reply(problem)
            return
        if event["model_kept"]:
            self._status = replace(self._status, state="ready", stage=None, problem=problem)
        else:
            self._worker = None
            self._status = Status(problem=problem)
            worker.kill()
        self._end_loading(problem)

    def _on_end(self, worker: Worker, why: Problem) -> None:
        with self._lock:
            if worker is not self._worker:
                return
            self._worker = None
            self._status = replace(self._status, state="dead", stage=None, pid=None, memory_gib=None, problem=why)
            self._end_reply(why)
            self._end_loading(why)


class _Reply:
    """The columns of a reply on their way from the worker's thread to the generator that a tab reads.

    `columns`: how many, None for a reply that is compared with none. `open`: those that have not ended here, `computed`:
    in the process, which may take longer after a stop. `parts` ends with None, or with a Problem of the whole.
    """

    def __init__(self, number: int, columns: int | None) -> None:
        self.id = number
        self.parts: queue.SimpleQueue[tuple[int, str | Done | Problem] | Problem | None] = queue.SimpleQueue()
        self.compared = columns is not None
        self.open = set(range(1 if columns is None else columns))
        self.computed = set(self.open)
        self.told_to_stop = 0.0  # when

    def put(self, column: int, part: "str | Done | Problem") -> None:
        if column in self.open:
            self.parts.put((column, part))
            if not isinstance(part, str):
                self.open.discard(column)

    def end(self, last: "Done | Problem") -> None:
        if isinstance(last, Problem):
            self.parts.put(last)
            return
        for column in sorted(self.open):
            self.put(column, last)
        self.parts.put(None)
