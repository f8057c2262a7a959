"""Why a trainer ended without a word of its own, as far as its folder and the kernel tell: whoever asks, and whenever."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

from app.course import Course
from trainer import run_folder
from trainer.plain_file import open_plain
from trainer.problems import Problem
from trainer.run_folder import Identity

# Signals that a process meets by its own doing.
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
# Of the log's end; a traceback through libraries takes some.
LOG_BYTES = 64_000
# Less room than this, and not even the last event could be written.
FULL_BYTES = 2**16
_EXCEPTION = re.compile(r"^((?:\w+\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning))(?:: (.*))?$")


def cause(folder: Path, identity: Identity | None, course: Course, returncode: int | None) -> Problem:
    """`returncode`: of our own child, None when another page process has started it."""
    if identity and identity.copied:
        return Problem("run_copied", path=identity.folder)
    if identity and identity.is_of_another_machine() and identity.shares_locks(folder):
        return _said(_log_lines(folder, identity.log_before), 0) or Problem("container_ended", host=identity.host)
    if identity and identity.is_of_another_machine():
        return Problem("host_silent", host=identity.host, ago=ago(time.time() - heard(course, identity)))
    if identity and identity.boot_id != run_folder.boot_id():
        return Problem("machine_restarted")
    short = identity.memory_was_short() if identity else None
    lines = _log_lines(folder, identity.log_before if identity else 0)
    number = -returncode if returncode is not None and returncode < 0 else 0
    if number == signal.SIGKILL and short:
        return Problem("out_of_host_memory")
    if problem := _said(lines, number):
        return problem
    if number != signal.SIGKILL and number:
        return Problem("killed", signal=_name(number))
    if returncode is None and short:
        return Problem("out_of_host_memory")
    if course.stage.get("stage") == "stopping":
        return Problem("killed_while_stopping")
    if number:
        return Problem("killed", signal=_name(number))
    if _is_full(folder):
        return Problem("disk_full", path=str(folder))
    if not course.begun and _is_damaged(folder / run_folder.EVENTS):
        return Problem("record_damaged", file=run_folder.EVENTS)
    if lines and not course.begun:
        return Problem("not_started", detail=lines[-1][:300])
    if returncode is None and short is not None:
        return Problem("killed_unseen")
    if identity is None:
        return Problem("record_damaged", file=run_folder.IDENTITY)
    return Problem("died" if returncode is not None else "vanished")


def _is_damaged(events: Path) -> bool:
    """Whether there is an events file that holds something, but no event; one that cannot be read holds none."""
    try:
        return events.exists() and (not events.is_file() or events.stat().st_size > 0)
    except OSError:  # cannot be asked for, so it can be no better read
        return True


def heard(course: Course, identity: Identity) -> float:
    """When the run wrote last, seconds since the epoch by its machine's clock."""
    return max(course.latest, identity.started)


def ago(seconds: float) -> dict[str, str]:
    """A span of time in words, by language, in the largest unit of which it holds two or more."""
    minutes = max(1, int(abs(seconds) // 60))
    units = [(1440, "days", "天"), (60, "hours", "小时"), (1, "minutes", "分钟")]
    size, en, zh = next(((size, en, zh) for size, en, zh in units if minutes >= 2 * size), (1, "minute", "分钟"))
    return {"en": f"{minutes // size} {en}", "zh": f"{minutes // size} {zh}"}


def _said(lines: list[str], number: int) -> Problem | None:
    """What the log's end says, or the signal of a crash."""
    for line in reversed(lines):  # faulthandler's and the C library's last words
        if line.startswith("Fatal Python error: "):
            return Problem("crashed", detail=line.removeprefix("Fatal Python error: ")[:100])
    if number in CRASHES:
        return Problem("crashed", detail=_name(number))
    begins = [position for position, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    if not number and begins:
        found = [match for line in lines[begins[-1] + 1 :] if (match := _EXCEPTION.match(line))]
        kind, detail = (found[-1].group(1), found[-1].group(2) or "") if found else (lines[-1][:100], "")
        return Problem("python_error", kind=kind, detail=detail[:300])
    return None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _log_lines(folder: Path, begin: int) -> list[str]:
    """The end of what the last attempt has logged: what was in the log before is of another."""
    try:
        with open_plain(folder / run_folder.LOG) as file:
            size = file.seek(0, os.SEEK_END)
            if size < begin:  # begun anew by somebody
                begin = 0
            file.seek(max(begin, size - LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < FULL_BYTES
    except OSError:
        return False
