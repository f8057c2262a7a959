"""The process that holds the model, seen from the page: its pipes, its log, and how it ended. What is said over the pipes
is app/chat.py's."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import trainer
from app.chat_death import oom_kills, reason
from trainer.problems import Problem

Event = dict[str, Any]

_ROOT = Path(trainer.__file__).resolve().parent.parent
_END_S = 2.5
_LOG_MOST = 1_000_000


class Worker:
    """One process and the thread that reads it. The thread ends with the process and reaps it."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        on_event: Callable[["Worker", Event], None],
        on_end: Callable[["Worker", Problem], None],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """`variables`: set in the process's environment beside this process's own."""
        self._log, self._on_event, self._on_end = log, on_event, on_end
        self._oom_kills = oom_kills()
        with _log_file(log) as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=_ROOT,
                env={**_environment(), **(variables or {})},
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._thread = threading.Thread(target=self._read, name=f"chat-{self.pid}", daemon=True)
        self._thread.start()

    def send(self, request: Event) -> None:
        """A process that died meanwhile is noticed by the thread."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def end(self) -> None:
        """Returns when the process is gone: it has nothing to save, so it is asked once and then killed."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        self._thread.join(_END_S)
        self.kill()
        self._thread.join()

    def kill(self) -> None:
        """Returns when the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                self._on_event(self, json.loads(line))
        # Its stdout is closed, so nothing more can be had from it.
        try:
            returncode = process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            returncode = process.wait()
        process.stdout.close()
        with contextlib.suppress(OSError):
            process.stdin.close()
        self._on_end(self, reason(returncode, self._oom_kills, self._log))


def _log_file(path: Path) -> IO[bytes]:
    """Without a place for it there is no log: a chat on a full or read-only disk is better than none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        large = path.exists() and path.stat().st_size > _LOG_MOST
        return path.open("wb" if large else "ab")
    except OSError:
        return Path(os.devnull).open("ab")


def _environment() -> dict[str, str]:
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
