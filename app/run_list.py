"""The list of all runs: one row a run, read again only where its files have changed.

What a row says is derived as app/runs.py derives it. A run whose files are broken has a row with what can be told.
"""

import os
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from app import runs
from app.course import Course
from trainer import run_folder
from trainer.events import Event, read_events
from trainer.plain_file import open_plain
from trainer.run_folder import Identity
from trainer.settings import TrainSettings

# Tabs that ask at the same time share an answer.
SHARED_S = 0.5
SHOWN = {b"model_name_or_path", b"adapter_name_or_path", b"dataset", b"finetuning_type", b"quantization_bit"}
MOST_CONFIG_BYTES = 2**20
# libyaml's parser, where it is there, takes a tenth of the time.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Row:
    """`folder`: its path. `based_on`: paths of the model and the adapter that it goes on from. `best`: step and value of the lowest eval loss, of a run without validation of the lowest logged loss.

    `seconds`: how long it has taken; `started`: when the run began, seconds since the epoch.
    """

    name: str
    status: runs.Status
    stage: Event
    started: float
    host: str = ""
    folder: str = ""
    based_on: tuple[str, ...] = ()
    model: str = ""
    dataset: str = ""
    method: str = ""
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    best: tuple[int, float] | None = None
    validated: bool = False
    seconds: float = 0.0
    resumable: bool = False

    @property
    def alive(self) -> bool:
        """Whether it trains on this machine."""
        return self.status in ("starting", "running")


_Stat = tuple[int, int, int]


@dataclass
class _Kept:
    """What is known of a run, and the state that its files had then."""

    events_stat: _Stat | None = None
    offset: int = 0
    course: Course = field(default_factory=Course)
    identity_stat: _Stat | None = None
    identity: Identity | None = None
    dead: bool = False
    config_stat: _Stat | None = None
    config: dict[str, str] = field(default_factory=dict)
    based_on: tuple[str, ...] = ()
    folder_stat: _Stat | None = None
    resumable: bool = False


class RunList:
    """The rows of `runs_dir`, newest first."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        self._lock = threading.Lock()
        self._kept: dict[Path, _Kept] = {}
        self._last: tuple[float, list[Row]] = (-SHARED_S, [])

    def rows(self) -> list[Row]:
        with self._lock:
            if time.monotonic() - self._last[0] >= SHARED_S:
                folders = runs.find(self._runs_dir)
                self._kept = {folder: self._kept.get(folder) or _Kept() for folder in folders}
                rows = [_row(folder, self._kept[folder], time.time()) for folder in folders]
                self._last = time.monotonic(), rows
            return self._last[1]

    def forget(self) -> None:
        """The next answer is a new one: something has just been done."""
        with self._lock:
            self._last = (-SHARED_S, [])


def _row(folder: Path, kept: _Kept, now: float) -> Row:
    _follow_events(folder, kept)
    _follow_identity(folder, kept)
    _follow_config(folder, kept)
    course = kept.course
    identity = None if kept.dead and not course.finished else kept.identity
    status = runs.status_of(folder, course, identity)
    # For good, where the machine that knows is this one.
    kept.dead = status == "died" and not (identity and identity.is_of_another_machine())
    row = Row(
        name=folder.name,
        status=status,
        stage=course.stage,
        started=kept.identity.started if kept.identity else course.began or 0.0,
        host=kept.identity.host if kept.identity else "",
        step=course.step,
        total_steps=course.total_steps,
        loss=course.loss,
        best=course.best,
        validated=course.eval_losses.lowest is not None,
        model=kept.config.get("model", ""),
        dataset=kept.config.get("dataset", ""),
        method=kept.config.get("method", ""),
        folder=str(folder),
        based_on=kept.based_on,
    )
    until = now if row.alive else course.latest
    resumable = status in ("stopped", "failed", "died") and _resumable(folder, kept)
    return replace(row, seconds=course.seconds(until), resumable=resumable)


def _stat(path: Path) -> _Stat | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _follow_events(folder: Path, kept: _Kept) -> None:
    """Reads what was appended; all of it when the file is another one, shorter, or changed without growing."""
    path = folder / run_folder.EVENTS
    before, now = kept.events_stat, _stat(path)
    if now == before:
        return
    if before is None or now is None or now[0] != before[0] or now[1] <= before[1]:
        kept.course, kept.offset = Course(), 0
    lines: list[bytes] = []
    _, kept.offset = read_events(path, kept.offset, lines.append)
    kept.course.take_lines(lines)
    kept.events_stat = now


def _follow_identity(folder: Path, kept: _Kept) -> None:
    now = _stat(folder / run_folder.IDENTITY)
    if now != kept.identity_stat:
        kept.identity_stat, kept.identity, kept.dead = now, run_folder.read_identity(folder), False


def _follow_config(folder: Path, kept: _Kept) -> None:
    path = folder / run_folder.CONFIG
    now = _stat(path)
    if now != kept.config_stat:
        values = _values(path)
        kept.config_stat, kept.config = now, _said(values)
        paths = (values.get("model_name_or_path"), values.get("adapter_name_or_path"))
        kept.based_on = tuple(path.rstrip("/") for path in paths if isinstance(path, str) and path)


def based_on(settings: TrainSettings) -> tuple[str, ...]:
    """As Row.based_on."""
    paths = (settings.model_name_or_path, settings.adapter_name_or_path)
    return tuple(path.rstrip("/") for path in paths if path)


def _values(path: Path) -> dict[Any, Any]:
    """SHOWN's, as config.yaml has them; none of one that cannot be read."""
    try:
        with open_plain(path) as file:
            values = yaml.load(_excerpt(file.read(MOST_CONFIG_BYTES)), Loader=_LOADER)  # noqa: S506  # a safe one, written in C
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _said(values: dict[Any, Any]) -> dict[str, str]:
    """Model, dataset and method; what is not what it should be is left out."""
    if not values:
        return {}
    method, bits = _words(values.get("finetuning_type")), values.get("quantization_bit")
    return {
        "model": os.path.basename(_words(values.get("model_name_or_path")).rstrip("/")),
        "dataset": _words(values.get("dataset")),
        "method": f"{method} · {bits} bit" if bits in (4, 8) else method,
    }


def _excerpt(config: bytes) -> bytes:
    """The lines of SHOWN's keys, and those that go on with them: reading all of it takes five times as long."""
    kept, wanted = [], False
    for line in config.split(b"\n"):
        if line[:1].isalpha():
            wanted = line.partition(b":")[0] in SHOWN
        if wanted:
            kept.append(line)
    return b"\n".join(kept)


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(item for item in value if isinstance(item, str))
    return value if isinstance(value, str) else ""


def _resumable(folder: Path, kept: _Kept) -> bool:
    """A checkpoint that is renamed into place, or removed, changes its folder."""
    now = _stat(folder)
    if now != kept.folder_stat:
        kept.folder_stat = now
        kept.resumable = any(run_folder.is_resumable(path) for path in run_folder.checkpoints(folder))
    return kept.resumable
