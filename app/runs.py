"""A run is a folder: start it, find it, follow it, stop it. Status is derived, never stored."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from app.arguments import PROJECT
from app.chat_death import oom_kills
from trainer import run_folder
from trainer.events import Event, read_events
from trainer.launch import Launch
from trainer.problems import Problem
from trainer.settings import TrainSettings, label
from trainer.settings_file import to_flags

Status = Literal["starting", "running", "completed", "stopped", "failed", "died"]
SETTINGS_FOLDER = "_settings"
LOG_TAIL_BYTES = 16_000
ALL_DEVICES = Launch()


@dataclass(frozen=True)
class Run:
    """What the folder says now. `problem`: why a run failed or died."""

    folder: Path
    status: Status
    stage: Event
    events: list[Event] = field(repr=False)
    problem: Problem | tuple[str, dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def alive(self) -> bool:
        return self.status in ("starting", "running")

    def last(self, kind: str) -> Event | None:
        return next((event for event in reversed(self.events) if event["event"] == kind), None)

    @property
    def resumable(self) -> bool:
        """Whether it ended before its end and left a checkpoint with optimizer state."""
        return self.status in ("stopped", "failed", "died") and any(
            run_folder.is_resumable(path) for path in run_folder.checkpoints(self.folder)
        )


class _EventCache:
    """The events of the files read last, so that a page's tick reads only what is new."""

    def __init__(self, most_files: int = 8) -> None:
        self._lock = threading.Lock()
        self._most_files = most_files
        self._kept: dict[Path, tuple[int, int, list[Event]]] = {}  # inode, offset, events

    def of(self, path: Path) -> list[Event]:
        with self._lock:
            try:
                stat = path.stat()
            except OSError:
                self._kept.pop(path, None)
                return []
            inode, offset, found = self._kept.pop(path, (stat.st_ino, 0, []))
            if inode != stat.st_ino or stat.st_size < offset:  # another file, or one cut short
                offset, found = 0, []
            new, offset = read_events(path, offset)
            found = [*found, *new] if new else found
            self._kept[path] = (stat.st_ino, offset, found)
            if len(self._kept) > self._most_files:
                self._kept.pop(next(iter(self._kept)))
            return found


_events = _EventCache()


def command(settings: TrainSettings, launch: Launch = ALL_DEVICES, node_rank: int | None = None) -> list[str]:
    """The argv that trains on machine `node_rank` (None: this one): shown by the preview and executed by `start`,
    word for word. What the trainer learns from its environment is set by a leading `env`."""
    program = Path(sys.executable).with_name("tunedesk")
    head = [str(program)] if program.exists() else [sys.executable, "-m", "app"]
    words = launch.prefix(launch.node_rank if node_rank is None else node_rank)
    return [*words, *head, "train", *to_flags(settings)]


def start(settings: TrainSettings, launch: Launch = ALL_DEVICES) -> Path:
    """Starts the trainer in a session of its own, its output in train.log. `settings` have been checked.

    Raises Problem when the folder is taken or cannot be written; returns the run folder.
    """
    folder = Path(settings.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (held := run_folder.lock(folder)) is None:
            raise Problem("output_in_use", label=label("output_dir"), path=str(folder))
        held.close()
        killed_before = oom_kills()
        with (folder / run_folder.LOG).open("ab") as log:
            process = subprocess.Popen(
                command(settings, launch),
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        run_folder.write_identity(folder, run_folder.Identity.of(process.pid))
    except OSError as error:
        raise Problem(
            "output_not_writable", label=label("output_dir"), path=str(folder), detail=error.strerror
        ) from None
    _children[process.pid] = _Child(process, killed_before)
    # Waited for, so that an ended trainer is no zombie while nobody looks at the page.
    threading.Thread(target=process.wait, daemon=True, name=f"run-{process.pid}").start()
    return folder


@dataclass(frozen=True)
class _Child:
    process: "subprocess.Popen[bytes]"
    oom_kills_before: int


# Children of this page process, kept only so that a dead one is reaped and its exit status known.
_children: dict[int, _Child] = {}


def stop(folder: Path) -> bool:
    """Asks the trainer to finish its step, save and end. False when none is alive."""
    identity = run_folder.read_identity(folder)
    if identity is None or not identity.is_alive():
        return False
    try:
        os.kill(identity.pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):  # it ended just now, or it is another user's
        return False
    return True


def read(folder: Path) -> Run:
    """The run in `folder`, whatever state its files are in."""
    events = _events.of(folder / run_folder.EVENTS)
    identity = run_folder.read_identity(folder)
    if identity and (child := _children.get(identity.pid)):
        child.process.poll()
    since_start = _last_start(events)
    current = events[since_start:]
    stage = next((event for event in reversed(current) if event["event"] == "stage"), {"stage": "starting"})
    finished = next((event for event in reversed(current) if event["event"] == "finished"), None)
    alive = identity is not None and identity.is_alive()
    if finished and not (alive and _newer(identity, finished)):
        return _finished(folder, events, stage, finished)
    if alive:
        return Run(folder, "running" if current else "starting", stage, events)
    if _ended_before_training(identity, current):
        return Run(folder, "stopped", stage, events)
    return Run(folder, "died", stage, events, _cause_of_death(folder, identity, current))


def _ended_before_training(identity: run_folder.Identity | None, current: list[Event]) -> bool:
    """Whether our trainer was asked to end while it was still starting: there was no step to save."""
    child = _children.get(identity.pid) if identity else None
    trained = any(event.get("stage") == "training" for event in current)
    return child is not None and child.process.returncode == -signal.SIGTERM and not trained


def _last_start(events: list[Event]) -> int:
    """Where the last attempt begins: a resumed run's events follow those of the first attempt."""
    starts = [
        position
        for position, event in enumerate(events)
        if event["event"] == "stage" and event.get("stage") == "starting"
    ]
    return starts[-1] if starts else 0


def _newer(identity: run_folder.Identity | None, finished: Event) -> bool:
    """Whether the process began after the finished event: a resumed trainer that has written nothing yet."""
    return identity is not None and identity.started > float(finished["time"]) + 1.0


def _finished(folder: Path, events: list[Event], stage: Event, finished: Event) -> Run:
    outcome = finished.get("outcome")
    status: Status = outcome if outcome in ("completed", "stopped") else "failed"
    problem = None
    if status == "failed":
        values = {key: value for key, value in finished.items() if key not in ("event", "time", "outcome", "code")}
        problem = (str(finished.get("code", "died")), values)
    return Run(folder, status, stage, events, problem)


def _cause_of_death(folder: Path, identity: run_folder.Identity | None, current: list[Event]) -> Problem:
    if identity and identity.host != os.uname().nodename:
        return Problem("other_host", host=identity.host)
    if identity and identity.boot_id != run_folder.boot_id():
        return Problem("machine_restarted")
    child = _children.get(identity.pid) if identity else None
    if child and child.process.returncode is not None and child.process.returncode < 0:
        number = signal.Signals(-child.process.returncode)
        if number == signal.SIGKILL and oom_kills() > child.oom_kills_before:
            return Problem("out_of_host_memory")
        return Problem("killed", signal=number.name)
    lines = [line for line in log_tail(folder).splitlines() if line.strip()]
    # A Python program that fails ends its log with the name of the exception.
    if lines and (not current or any(line.startswith("Traceback") for line in lines[-60:])):
        kind, _, detail = lines[-1].strip().partition(": ")
        return Problem("python_error", kind=kind[:100], detail=detail[:300])
    return Problem("vanished")


def find(runs_dir: Path) -> list[Path]:
    """Run folders, newest first."""
    found = []
    try:
        entries = list(os.scandir(runs_dir))
    except OSError:
        return []
    for entry in entries:
        try:
            if entry.is_dir() and not entry.name.startswith((".", "_")):
                found.append((os.stat(Path(entry.path) / run_folder.IDENTITY).st_mtime, entry.path))
        except OSError:
            continue  # not a run, or gone since it was listed
    return [Path(path) for _, path in sorted(found, reverse=True)]


def latest(runs_dir: Path) -> Run | None:
    """The run that every page shows: the one started last."""
    found = find(runs_dir)
    return read(found[0]) if found else None


def alive(runs_dir: Path) -> Run | None:
    """A run that trains now on this machine."""
    for folder in find(runs_dir):
        identity = run_folder.read_identity(folder)
        if identity is not None and identity.is_alive():
            run = read(folder)
            if run.alive:
                return run
    return None


def log_tail(folder: Path) -> str:
    """The end of train.log, whole lines, progress bars' carriage returns resolved to their last state."""
    try:
        with (folder / run_folder.LOG).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL_BYTES))
            data = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = data.splitlines(keepends=False) if size <= LOG_TAIL_BYTES else data.splitlines()[1:]
    return "\n".join(lines)


def new_name() -> str:
    """A name for the next run, as LLaMA-Factory gives it."""
    return time.strftime("train_%Y-%m-%d-%H-%M-%S")


def is_proposed(name: str) -> bool:
    """Whether `name` is one of `new_name`'s, not a person's."""
    return re.fullmatch(r"train_(\d+-){5}\d+", name) is not None


def folder_for(runs_dir: Path, name: str) -> Path:
    """The folder of the run `name` below `runs_dir`. Raises Problem for names that are no plain folder name."""
    name = name.strip()
    named = {"label": label("output_dir"), "value": f"`{name}`"}
    if not name:
        raise Problem("setting_missing", label=label("output_dir"))
    if name.startswith((".", "_", "-")):
        raise Problem("output_bad_name", **named, detail=name[0])
    if bad := next((char for char in name if char in '/\\:*?"<>|' or not char.isprintable()), None):
        raise Problem("output_bad_name", **named, detail=repr(bad))
    if len(name.encode()) > 200:
        raise Problem("output_bad_name", **named, detail="> 200 bytes")
    return runs_dir.absolute() / name
