"""`python -m trainer.look`: shows datasets as the trainer sees them, for the page: JSON lines in, JSON lines out.

    {"op": "page", "id": N, "settings": {…}, "dataset": NAME, "page": 1, "page_size": 4}
    {"op": "check", "id": N, "settings": {…}, "dataset": NAME}    {"op": "stop", "id": N}

Events: page, progress, checked, stopped, problem, each with the request's id. A check runs beside the pages. Without
torch; transformers' tokenizers come with the first request that needs them. The end of stdin ends the process.
"""

import json
import os
import queue
import sys
import threading
import traceback
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trainer import records
from trainer.chat_failure import as_problem
from trainer.chat_pipes import Replies, Request, guarded_stdin, guarded_stdout
from trainer.encoding import REFUSALS, go_without_torch, in_both, load_template
from trainer.problems import Problem
from trainer.records import BadRow, Record
from trainer.settings import TrainSettings, parse

if TYPE_CHECKING:
    from trainer.chat_template import ChatTemplate
    from trainer.dataset_check import Survey

# Tokens of a sample that are sent: nobody reads more, and a page must not choke on them.
MOST_TOKENS = 20_000
_MOST_TEMPLATES, _MOST_SURVEYS = 2, 4
# What a survey does not depend on.
_AFTERWARDS = ("cutoff_len", "dataset", "max_samples", "output_dir", "val_size", "seed")


class Templates:
    """The last templates that were asked for. Each thread has its own: tokenizers do not like to be shared."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], ChatTemplate] = OrderedDict()

    def of(self, settings: TrainSettings) -> "ChatTemplate":
        """Raises Problem as the trainer would."""
        from trainer.sample_cache import tokenizer_content

        chosen = (settings.model_name_or_path, settings.template, settings.trust_remote_code)
        key = (*chosen, *tokenizer_content(Path(settings.model_name_or_path)))
        if key not in self._kept:
            self._kept[key] = load_template(settings)
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST_TEMPLATES:
            self._kept.popitem(last=False)
        return self._kept[key]


class Looker:
    """Answers requests; checks are answered by a thread of their own, in order."""

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self._templates = Templates()
        self._checks: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._surveys: OrderedDict[str, Survey] = OrderedDict()
        self._stops: dict[Any, threading.Event] = {}
        threading.Thread(target=self._check_all, name="checks", daemon=True).start()

    def take(self, request: Request) -> None:
        """Answers `request`, or has it answered."""
        op = request.get("op")
        if op == "page":
            self._answer(self._page, request)
        elif op == "check":
            self._stops[request.get("id")] = request["stopped"] = threading.Event()
            self._checks.put(request)
        elif op == "stop":
            if stop := self._stops.get(request.get("id")):
                stop.set()
        else:
            self._answer(_unknown, request)

    def _answer(self, operation: Callable[[Request], None], request: Request) -> None:
        try:
            operation(request)
        except BrokenPipeError:
            os._exit(0)  # nobody listens any more
        except Exception as error:  # whatever fails is told, and its traceback goes to stderr
            problem = as_problem(getattr(error, "problems", [error])[0])
            if not hasattr(error, "problems") and not isinstance(error, Problem):
                traceback.print_exception(error)
            self._replies.problem(problem, id=request.get("id"), op=request.get("op"))

    # ---- pages ----

    def _page(self, request: Request) -> None:
        settings = parse(request["settings"])
        page, size = int(request.get("page") or 1), int(request.get("page_size") or 4)
        found, total = records.preview(Path(settings.dataset_dir), str(request["dataset"]), page, size)
        template = self._templates.of(settings)
        samples = [_shown(item, settings, template) for item in found]
        self._replies.send("page", id=request.get("id"), total=total, samples=samples)

    # ---- checks ----

    def _check_all(self) -> None:
        templates = Templates()
        while True:
            request = self._checks.get()
            self._answer(lambda request: self._check(request, templates), request)
            self._stops.pop(request.get("id"), None)

    def _check(self, request: Request, templates: Templates) -> None:
        from trainer import dataset_check

        number, stop = request.get("id"), request["stopped"]
        if stop.is_set():
            return self._replies.send("stopped", id=number)
        settings, name = parse(request["settings"]), str(request["dataset"])
        template = templates.of(settings) if settings.model_name_or_path else None

        def progress(rows: int, done: int, of: int) -> None:
            self._replies.send("progress", id=number, rows=rows, bytes=done, of_bytes=of)

        key = _survey_key(settings, name, template)
        if key not in self._surveys:
            try:
                self._surveys[key] = dataset_check.check(settings, name, template, progress, stop.is_set)
            except dataset_check.Stopped:
                return self._replies.send("stopped", id=number)
        self._surveys.move_to_end(key)
        while len(self._surveys) > _MOST_SURVEYS:
            self._surveys.popitem(last=False)
        self._replies.send("checked", id=number, **self._surveys[key].checked(settings.cutoff_len).event())


def _unknown(request: Request) -> None:
    raise Problem("look_protocol", detail=str(request.get("op") or request.get("line")))


def _survey_key(settings: TrainSettings, name: str, template: "ChatTemplate | None") -> str:
    """What a survey depends on; the files as they are now."""
    from trainer.dataset_files import find_source

    source = find_source(Path(settings.dataset_dir), name)
    stats = [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns, stat.st_ino) for path in source.files]
    values = settings.model_dump(exclude=set(_AFTERWARDS))
    return json.dumps([values, repr(source), stats, template.source if template else None, id(template)])


def _shown(item: "Record | BadRow", settings: TrainSettings, template: "ChatTemplate") -> dict[str, Any]:
    """One row as the page has it: (id, text, trained, kept) of each token, or why the row is bad."""
    from trainer.training_records import filled

    if isinstance(item, BadRow):
        return {"row": item.row, "kind": None, "tokens": [], "length": 0, "trained": 0, "cut_at": None,
                "bad": item.reason}  # fmt: skip
    record = filled(item, settings, Counter())
    shown: dict[str, Any] = {"row": record.row, "kind": record.kind, "bad": None}
    try:
        tokens = template.tokens(
            list(record.messages), record.tools or None, settings.cutoff_len, settings.train_on_prompt,
            settings.mask_history,
        )  # fmt: skip
    except Problem as problem:
        if problem.code not in REFUSALS:
            raise
        return shown | {"tokens": [], "length": 0, "trained": 0, "cut_at": None, "bad": in_both(problem)}
    cut_at = next((at for at, token in enumerate(tokens) if not token.kept), None)
    return shown | {
        "tokens": [[token.id, token.text, int(token.trained), int(token.kept)] for token in tokens[:MOST_TOKENS]],
        "length": len(tokens),
        "trained": sum(token.trained and token.kept for token in tokens),
        "cut_at": cut_at,
    }


def _requests(stream: IO[str]) -> Any:
    for line in stream:
        if line.strip():
            try:
                request = json.loads(line)
            except (ValueError, RecursionError):
                request = None
            yield request if isinstance(request, dict) else {"op": None, "line": line[:80]}


def main() -> int:
    """Serves until stdin ends or nobody reads stdout any more."""
    go_without_torch()
    looker = Looker(Replies(guarded_stdout()))
    for request in _requests(guarded_stdin()):
        looker.take(request)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # a check that is under way has nobody to tell
