"""`tunedesk download`: the process that downloads. The page starts it too, in a session of its own; events tell both.

Ending it at any moment, also with SIGKILL, costs nothing: what has arrived is used by the next one.
"""

import argparse
import errno
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from trainer.command import terminal_language
from trainer.download import (
    EXAMPLE,
    FOLDER,
    LABELS,
    Plan,
    Wanted,
    folder_of,
    size_words,
    take_lock,
    wanted,
    write_plan,
    write_request,
)
from trainer.download_reach import HUBS, failure
from trainer.events import EventLog
from trainer.problems import Language, Problem, sentence
from trainer.run_folder import EVENTS, Identity, write_identity
from trainer.terminal_parser import TerminalParser

# How often the events say how far it is, and over how long a speed is taken.
TICK_S, WINDOW_S = 1.0, 10.0
# Attempts in a row that bring not a byte.
MOST_FAILURES, LONGEST_WAIT_S = 4, 8.0
# Links, locks and lists, beside the files themselves.
SPARE_BYTES = 2**22

_WORDS: dict[str, dict[Language, str]] = {
    "about": {
        "en": "Download a model into the hub's own cache. Interrupted, it goes on where it stopped when started again.",
        "zh": "把模型下载到模型库自己的缓存。中断后再次运行，会从停下的地方继续。",
    },
    "endpoint": {
        "en": "address of a mirror (default: HF_ENDPOINT or MODELSCOPE_ENDPOINT, else the hub's own); a token is sent "
        "only to the hub and to what these variables name",
        "zh": "镜像地址（默认取 HF_ENDPOINT 或 MODELSCOPE_ENDPOINT，否则为官方地址）；令牌只发送给官方地址和这些变量所指的地址",
    },
    "revision": {"en": "branch, tag or commit", "zh": "分支、标签或提交"},
    "runs": {"en": "folder whose {folder} keeps the state", "zh": "状态记录在该目录的 {folder} 中"},
    "starting": {"en": "Asking {hub} about {model} …", "zh": "正在向 {hub} 查询 {model}……"},
    "planned": {
        "en": "{files} files, {total}; {here} are here already.",
        "zh": "{files} 个文件，共 {total}；已有 {here}。",
    },
    "downloaded": {"en": "{here} of {total}, {speed}/s, {left} left", "zh": "{here} / {total}，{speed}/s，剩余 {left}"},
    "completed": {"en": "Downloaded to {path}", "zh": "已下载到 {path}"},
    "stopped": {
        "en": "Stopped. What has arrived is kept; the same command goes on.",
        "zh": "已停止。已下载的部分保留，用同样的命令即可继续。",
    },
}


def parser(language: Language) -> argparse.ArgumentParser:
    words = {key: text[language] for key, text in _WORDS.items()}
    result = TerminalParser("tunedesk download", words["about"], language)
    result.add_argument("model", metavar="ORG/NAME", help=f"{LABELS['model'][language]} ({EXAMPLE})")
    result.add_argument("--hub", default="huggingface", metavar="|".join(HUBS), help=LABELS["hub"][language])
    result.add_argument("--endpoint", default="", metavar="URL", help=words["endpoint"])
    result.add_argument("--revision", default="", metavar="…", help=words["revision"])
    result.add_argument("--runs-dir", default="runs", metavar="DIR", help=words["runs"].format(folder=FOLDER))
    # The page holds the lock already, so that two clicks cannot both get it, and hands it on.
    result.add_argument("--lock-descriptor", type=int, help=argparse.SUPPRESS)
    return result


def run_download(argv: list[str]) -> int:
    """0: the model is here. 1: it failed. 2: it could not start. 130: it was stopped."""
    language = terminal_language()
    arguments = parser(language).parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        asked = wanted(arguments.hub, arguments.model, arguments.revision, arguments.endpoint)
        given = arguments.lock_descriptor
        held = take_lock(asked) if given is None else os.fdopen(given, "r")
        folder = folder_of(Path(arguments.runs_dir).expanduser().absolute(), asked)
        events = _begin(folder, asked, language)
    except Problem as problem:
        print(problem.sentence(language), file=sys.stderr)
        return 2
    return Download(asked, folder, events, held, stop).run()


def _begin(folder: Path, asked: Wanted, language: Language) -> EventLog:
    """The state's folder, with room for the last event. Raises Problem."""
    try:
        write_request(folder, asked)
        write_identity(folder, Identity.of(os.getpid()))
        (folder / EVENTS).unlink(missing_ok=True)  # how an earlier attempt ended
        events = _terminal_log(asked, language)(folder / EVENTS)
        events.keep_room()
        events.append("stage", stage="starting")
    except OSError as error:
        raise Problem("download_not_started", path=str(folder), detail=error.strerror or str(error)) from None
    return events


class Download:
    """One attempt: a thread that downloads, and this one, which says how far it is and ends it."""

    def __init__(self, asked: Wanted, folder: Path, events: EventLog, held: IO[str], stop: threading.Event) -> None:
        self._asked, self._folder, self._events, self._held, self._stop = asked, folder, events, held, stop
        self._plan: Plan | None = None
        self._path = ""
        self._error: BaseException | None = None
        self._seen: deque[tuple[float, int]] = deque()

    def run(self) -> int:
        """The exit status. A stopped one leaves at once, with its threads in the middle of their files."""
        thread = threading.Thread(target=self._work, daemon=True, name="download")
        thread.start()
        begun, told = time.monotonic(), time.monotonic()
        while thread.is_alive() and not self._stop.is_set():
            thread.join(0.05)
            if self._plan and time.monotonic() - told >= TICK_S:
                told = time.monotonic()
                self._tell(self._plan)
        if thread.is_alive():
            self._events.append("finished", outcome="stopped")
            sys.stderr.flush()
            os._exit(130)
        if self._error is None:
            assert self._plan
            self._events.append("finished", outcome="completed", path=self._path, bytes=self._plan.total,
                                seconds=round(time.monotonic() - begun, 1))  # fmt: skip
            return 0
        problem = _as_problem(self._error, self._asked)
        if problem.code == "python_error":
            traceback.print_exception(self._error)
        self._events.append("finished", outcome="failed", code=problem.code, **problem.values)
        return 1

    def _tell(self, plan: Plan) -> None:
        now, here = time.monotonic(), plan.here()
        self._seen.append((now, here))
        while now - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()
        since, before = self._seen[0]
        speed = max(0.0, (here - before) / (now - since)) if now > since else 0.0
        self._events.append("downloaded", bytes=here, total=plan.total, bytes_per_second=round(speed))

    def _work(self) -> None:
        try:
            address, about = self._asked.address, self._asked.about
            if detail := failure(address):
                raise Problem("download_unreachable", hub=about.name, address=address, detail=detail)
            library = _library(self._asked)
            plan = self._plan_of(library)
            self._events.append("planned", files=len(plan.files), bytes=plan.here(), total=plan.total)
            self._plan = plan
            self._path = str(self._fetched(library, plan))
        except BaseException as error:
            self._error = error

    def _plan_of(self, library: ModuleType) -> Plan:
        """What is to come, once it is known to have room. Raises Problem."""
        plan: Plan = library.plan(self._asked)
        if not any(file.name.endswith(".safetensors") for file in plan.files):
            names = ", ".join(file.name for file in plan.files[:3]) or "–"
            raise Problem("download_no_weights", name=self._asked.model, found=names)
        _check_room(self._asked, plan)
        try:
            return write_plan(self._folder, plan)
        except OSError as error:
            raise Problem("download_not_started", path=str(self._folder), detail=error.strerror) from None

    def _fetched(self, library: ModuleType, plan: Plan) -> Path:
        """The snapshot's folder. A connection that breaks is taken up again, as long as that brings something."""
        failures = 0
        while True:
            before = plan.here()
            try:
                path: Path = library.fetch(self._asked, plan)
                return path
            except Exception as error:
                problem = _as_problem(error, self._asked)
                failures = 0 if plan.here() > before else failures + 1
                if problem.code != "download_broken_off" or failures >= MOST_FAILURES:
                    raise
                traceback.print_exception(error)
            self._stop.wait(min(2.0**failures / 2, LONGEST_WAIT_S))


def _library(asked: Wanted) -> ModuleType:
    """The part that speaks the hub's language; imported only now, as it takes half a second."""
    if asked.hub == "huggingface":
        from trainer import download_huggingface

        return download_huggingface
    from trainer import download_modelscope

    return download_modelscope


def _check_room(asked: Wanted, plan: Plan) -> None:
    """Raises Problem unless what is missing fits onto the disk of the cache."""
    needed = plan.total - plan.here()
    there = next(path for path in (asked.cache, *asked.cache.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed and needed + SPARE_BYTES > free:
        raise Problem("download_no_room", name=asked.model, needed=size_words(needed), free=size_words(free),
                      path=str(asked.cache), variable=asked.about.cache)  # fmt: skip


def _as_problem(error: BaseException, asked: Wanted) -> Problem:
    if isinstance(error, Problem):
        return error
    for one in _causes(error):
        number = getattr(one, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT):
            return Problem("download_disk_full", path=str(asked.cache))
        if number in (errno.EACCES, errno.EROFS, errno.EPERM):
            return Problem("download_unwritable", path=str(asked.cache), detail=os.strerror(number),
                           variable=asked.about.cache)  # fmt: skip
    if problem := _library(asked).explained(error, asked):
        found: Problem = problem
        return found
    lines = str(error).strip().splitlines() or [""]
    return Problem("python_error", kind=type(error).__name__, detail=lines[0][:300])


def _causes(error: BaseException) -> list[BaseException]:
    """`error`, what it was raised from, and what the files of a whole repository failed for."""
    found: list[BaseException] = []
    new = [error]
    while new and len(found) < 50:
        one = new.pop()
        found.append(one)
        failed = getattr(one, "failed_files", None)
        new += [*(failed.values() if isinstance(failed, dict) else ()), *filter(None, [one.__cause__])]
    return found


def time_words(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _terminal_log(asked: Wanted, language: Language) -> type[EventLog]:
    """An event log that says on stderr, in words, what it writes."""
    on_terminal = sys.stderr.isatty()

    class TerminalLog(EventLog):
        def append(self, event: str, **values: Any) -> None:
            super().append(event, **values)
            if text := _said(event, values, asked, language):
                passing = event == "downloaded" and on_terminal
                print(
                    f"\r\033[K{text}" if on_terminal else text, end="" if passing else "\n", file=sys.stderr, flush=True
                )

    return TerminalLog


def _said(event: str, values: dict[str, Any], asked: Wanted, language: Language) -> str | None:
    if "code" in values:
        return sentence(values["code"], values, language)
    found = _WORDS.get(str(values.get("stage") or values.get("outcome") or event))
    if found is None:
        return None
    speed, here, total = (values.get(key, 0) for key in ("bytes_per_second", "bytes", "total"))
    left = time_words((total - here) / speed) if speed else "?"
    return found[language].format(**{**values, "hub": asked.about.name, "model": asked.model, "here": size_words(here),
                                     "total": size_words(total), "speed": size_words(speed), "left": left})  # fmt: skip
