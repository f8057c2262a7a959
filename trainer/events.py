"""A run's events: append-only, one flat JSON object a line, written by rank 0 only.

Light: no torch. Codes and values, never sentences. NaN and infinities are written as Python's
json writes them and read back the same.
"""

import json
import os
import time
from pathlib import Path
from typing import Any, Literal

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
_NUMBERS = ("time", "step", "total_steps", "loss", "eval_loss", "here", "machines")


class EventLog:
    """Appends events to `path`; a line is written in one call, so readers see whole lines or a torn last one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        _end_torn_line(path)

    @property
    def path(self) -> Path:
        return self._path

    def append(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values}, ensure_ascii=False)
        with self._path.open("ab", buffering=0) as file:
            file.write(line.encode() + b"\n")

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


class FollowerLog(EventLog):
    """The log of a process that is not the run's first: what every process would write is left to that one.

    Only what concerns this process alone is written: that its memory was short, and why it failed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, event: str, **values: Any) -> None:
        of_all = event == "warning" and str(values.get("code")).startswith(("samples_", "started_again"))
        if event in ("warning", "finished") and not of_all and values.get("outcome") in (None, "failed"):
            super().append(event, **values)


def _end_torn_line(path: Path) -> None:
    """A killed writer may leave half a line; the next one must not be glued to it."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """The complete events after byte `offset`, and the offset to go on from.

    A missing file has no events; lines that are no whole event (torn or corrupt) are passed over.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    end = data.rfind(b"\n") + 1
    events = (_parsed(line) for line in data[:end].splitlines())
    return [event for event in events if event is not None], offset + end


def _parsed(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and _is_whole(event) else None


def _is_whole(event: Event) -> bool:
    """Whether `event` has what its kind must have, numbers where numbers belong."""
    needed = ["event", "time", *FIELDS.get(str(event.get("event")), ())]
    if event.get("stage") == "training":
        needed += ["step", "total_steps"]
    if event.get("stage") == "waiting_for_machines":
        needed += ["address", "here", "machines"]
    return all(
        isinstance(event.get(name), int | float if name in _NUMBERS else str)  # bool is an int, and harmless
        for name in needed
    )
