"""The chat process's two pipes: JSON lines in and out, kept safe from libraries that print or read.

Light: no torch.
"""

import contextlib
import io
import json
import os
import queue
import sys
import threading
import time
from typing import IO, Any

from trainer.problems import Problem

Request = dict[str, Any]

# Time for a reply in the making to be dropped when the page is gone, before the process ends regardless.
_GRACE_S = 2.0


class _Log(io.TextIOWrapper):
    """Standard error, which the page has made a file of: on a full disk what libraries print is lost, and only that."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def guarded_stdout() -> IO[str]:
    """The real stdout. Whatever else is printed in this process, by C libraries too, goes to stderr from now on."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr = _Log(io.FileIO(2, "w", closefd=False), "utf-8", "replace", write_through=True)
    return os.fdopen(kept, "w", encoding="utf-8", errors="replace", newline="\n")


def guarded_stdin() -> IO[str]:
    """The real stdin; whatever else reads finds nothing."""
    kept = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return os.fdopen(kept, encoding="utf-8", errors="replace")


class Replies:
    """Writes events as JSON lines."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def send(self, event: str, **values: Any) -> None:
        # Surrogates, as a broken file name holds, have no UTF-8: ASCII keeps every line readable.
        line = json.dumps({"event": event, **values}, default=str)
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    def stage(self, stage: str) -> None:
        self.send("stage", stage=stage, seconds=round(time.monotonic() - self._started, 3))

    def problem(self, problem: Problem, **values: Any) -> None:
        self.send("problem", code=problem.code, values=problem.values, **values)

    def begin(self) -> None:
        """Stages count their seconds from here."""
        self._started = time.monotonic()


class Inbox:
    """Requests in order, read by a thread so that "stop" arrives while a reply is being written."""

    def __init__(self, stream: IO[str]) -> None:
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._latest = threading.Event()
        threading.Thread(target=self._read, args=(stream,), name="requests", daemon=True).start()

    def next(self) -> Request | None:
        """The next request, waited for; None when there will be no more."""
        return self._requests.get()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            if line.strip():
                self._take(_parsed(line))
        self._latest.set()
        self._requests.put(None)
        # The page is gone: nobody waits for a model still loading or a prompt still being read.
        time.sleep(_GRACE_S)
        os._exit(0)

    def _take(self, request: Request) -> None:
        if request.get("op") == "stop":
            self._latest.set()
            return
        if request.get("op") == "generate":
            # Each reply has its own flag, so that a stop sent right after it is never lost or left over.
            self._latest = request["cancel"] = threading.Event()
        self._requests.put(request)


def _parsed(line: str) -> Request:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        request = None
    return request if isinstance(request, dict) else {"op": None, "line": line[:80]}
