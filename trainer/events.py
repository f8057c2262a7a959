"""A run's events: append-only, one flat JSON object a line, written by rank 0 only.

Light: no torch. Codes and values, never sentences. NaN and infinities are written as Python's
json writes them and read back the same.
"""

import errno
import json
import math
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

from trainer.plain_file import open_plain

Event = dict[str, Any]
Outcome = Literal["completed", "stopped", "failed"]
Stage = Literal[
    "starting",
    "waiting_for_machines",
    "loading_model",
    "preparing_data",
    "training",
    "evaluating",
    "saving",
    "stopping",
]


# What an event of a kind must hold to be read; kinds not named here are passed through.
FIELDS: dict[str, tuple[str, ...]] = {
    "stage": ("stage",),
    "step": ("step", "total_steps", "loss"),
    "progress": ("step", "total_steps"),
    "evaluated": ("step", "eval_loss"),
    "saved": ("step", "path"),
    "warning": ("code",),
    "finished": ("outcome",),
}
# Of any kind, where they are given: words, numbers to count with, and such as may be NaN or missing.
_TEXTS = ("event", "stage", "path", "code", "outcome", "address")
_COUNTS = ("step", "total_steps", "here", "machines")
_NUMBERS = ("loss", "eval_loss", "learning_rate", "grad_norm", "epoch", "tokens_per_second", "memory_gib", "seconds")
# The latest time that a date can show, and the largest count that a float holds exactly.
_MOST_TIME, _MOST_COUNT = 2.0**37, 2**53

# Room for the last event on a disk that is full; longer than any.
SPARE, SPARE_BYTES = ".spare", 2**16
# A line of ours is shorter. What has none of these bytes' ends is not kept in memory until it has.
MOST_LINE_BYTES, CHUNK_BYTES = 2**20, 2**20


class EventLog:
    """Appends events to `path`; a line is written in one call, so readers see whole lines or a torn last one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):  # a FIFO would be waited for
            raise OSError(errno.EINVAL, "not a file", str(path))

    @property
    def path(self) -> Path:
        return self._path

    def keep_room(self) -> None:
        """Takes the room that the finished event needs now, while there is some. Raises OSError when there is none."""
        # No zeros: file systems that compress would keep no room for them.
        self._spare.write_bytes(os.urandom(SPARE_BYTES))

    def append(self, event: str, **values: Any) -> None:
        """Raises OSError when the disk is full; a finished event has room of its own."""
        text = json.dumps({"event": event, "time": round(time.time(), 3), **values}, ensure_ascii=False)
        # A name that is no UTF-8 has surrogates, which JSON can escape.
        line = text.encode(errors="backslashreplace") + b"\n"
        if event == "finished":
            self._spare.unlink(missing_ok=True)
        _append_line(self._path, line)

    def stage(self, stage: Stage, **values: Any) -> None:
        self.append("stage", stage=stage, **values)

    def finish_once(self, outcome: Outcome, **values: Any) -> None:
        """The finished event, unless another process of this run has written it: the first knows the cause."""
        events, _ = read_events(self._path)
        for event in reversed(events):
            if event["event"] == "finished":
                return
            if event.get("stage") == "starting":
                break
        self.append("finished", outcome=outcome, **values)

    @property
    def _spare(self) -> Path:
        return self._path.with_name(SPARE)


class FollowerLog(EventLog):
    """The log of a process that is not the run's first: what every process would write is left to that one.

    Only what concerns this process alone is written: that its memory was short, and why it failed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, event: str, **values: Any) -> None:
        of_all = event == "warning" and str(values.get("code")).startswith(("samples_", "template_", "started_again"))
        if event in ("warning", "finished") and not of_all and values.get("outcome") in (None, "failed"):
            super().append(event, **values)


def _append_line(path: Path, line: bytes) -> None:
    """A killed writer or a full disk may have left half a line; the next one must not be glued to it."""
    with path.open("ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        while line:  # a disk that is nearly full takes a part, and refuses the rest
            line = line[file.write(line) :]


def read_events(
    path: Path, offset: int = 0, parse: Callable[[bytes], Event | None] | None = None
) -> tuple[list[Event], int]:
    """The complete events after byte `offset`, and the offset to go on from. `parse`: instead of `parsed`.

    A file that is missing or cannot be read has no events; lines that are no whole event (torn, corrupt, or longer
    than any of ours) are passed over.
    """
    events: list[Event] = []
    try:
        with open_plain(path) as file:
            file.seek(offset)
            return events, _read_lines(file, offset, events, parse or parsed)
    except OSError:
        return [], offset


def _read_lines(file: IO[bytes], offset: int, events: list[Event], parse: Callable[[bytes], Event | None]) -> int:
    """Adds the events of the whole lines from `offset` on; returns where the line begins that is not whole yet."""
    rest = b""
    while data := file.read(CHUNK_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        events += [event for line in lines if (event := parse(line)) is not None]
        offset += sum(len(line) + 1 for line in lines)
        if len(rest) > MOST_LINE_BYTES:
            offset, rest = offset + len(rest), b""
    return offset


def parsed(line: bytes) -> Event | None:
    """The event of `line`; None when it is torn or corrupt."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and _is_whole(event) else None


def _is_whole(event: Event) -> bool:
    """Whether `event` has what its kind must have, and numbers, in range, where numbers belong."""
    needed = ["event", "time", *FIELDS.get(str(event.get("event")), ())]
    if event.get("stage") == "training":
        needed += ["step", "total_steps"]
    if event.get("stage") == "waiting_for_machines":
        needed += ["address", "here", "machines"]
    return all(event.get(name) is not None for name in needed) and all(
        _fits(name, value) for name, value in event.items()
    )


def _fits(name: str, value: Any) -> bool:
    if name == "time":
        return isinstance(value, int | float) and math.isfinite(value) and abs(value) < _MOST_TIME
    if name in _COUNTS:
        return isinstance(value, int) and 0 <= value < _MOST_COUNT
    if name in _NUMBERS:
        return value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < _MOST_COUNT)
    return name not in _TEXTS or isinstance(value, str)
