"""Trainings as forks of one process that has torch already, each killed at a chosen moment: seconds instead of minutes.

`python -m tests.trainer.forks` reads requests from standard input, a JSON list a line (the arguments, the run folder,
where to kill), and answers each with the exit status and the file operations on the run folder.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

# What Python tells of itself: https://docs.python.org/3/library/audit_events.html
OPERATIONS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "shutil.rmtree")


@dataclass(frozen=True)
class Ended:
    """`status`: as the shell has it, negative for a signal. `operations`: "stage operation path", in order. `errors`: what
    it wrote to stderr."""

    status: int
    operations: list[str]
    errors: str = ""


class Forks:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def train(self, argv: list[str], folder: Path, kill: tuple[str, int] | float | None = None) -> Ended:
        """Trains with `argv`. `kill`: a pattern, and before which of the operations that match it to die; or after
        how many seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([argv, str(folder), kill]) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))


@contextmanager
def forks() -> Iterator[Forks]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # a pool of threads does not survive a fork
    argv = [sys.executable, "-m", "tests.trainer.forks"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield Forks(process)
    finally:
        process.kill()
        process.communicate()


class Watch:
    """Counts what a training does with its folder, and kills it there."""

    def __init__(self, folder: str, kill: list[Any] | None, report: int) -> None:
        self._folder, self._report, self._stage = folder, report, "starting"
        self._pattern, self._left = (re.compile(kill[0]), int(kill[1])) if kill else (re.compile(""), 0)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in OPERATIONS or not args or isinstance(args[0], int):
            return
        path = os.fsdecode(args[0])
        if not path.startswith(self._folder):
            return
        operation = f"{self._stage} {event} {path.removeprefix(self._folder)}"
        os.write(self._report, operation.encode() + b"\n")
        if self._left and self._pattern.search(operation):
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


def fork(argv: list[str], folder: str, kill: list[Any] | float | None) -> Ended:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        reading, report = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            os.dup2(errors.fileno(), 2)
            train(argv, Watch(folder, kill if isinstance(kill, list) else None, report))
        os.close(report)
        timer = threading.Timer(kill, os.kill, (pid, signal.SIGKILL)) if isinstance(kill, float) else None
        if timer:
            timer.start()
        with os.fdopen(reading) as file:
            operations = file.read().splitlines()
        if timer:
            timer.cancel()
            timer.join()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        errors.seek(0)
        return Ended(status, operations, errors.read())


def train(argv: list[str], watch: "Watch") -> NoReturn:
    """Trains, and ends this process."""
    sys.addaudithook(watch)
    from trainer import events
    from trainer.command import main

    append = events.EventLog.append

    def told(log: events.EventLog, event: str, **values: Any) -> None:
        append(log, event, **values)
        watch._stage = values.get("stage", watch._stage)

    events.EventLog.append = told  # type: ignore[method-assign]
    os._exit(main(argv))


def serve() -> None:
    import peft  # noqa: F401
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401

    import trainer.train  # noqa: F401

    for line in sys.stdin:
        ended = fork(*json.loads(line))
        print(json.dumps([ended.status, ended.operations, ended.errors]), flush=True)


if __name__ == "__main__":
    serve()
