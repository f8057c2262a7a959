"""A run is a folder: start it, find it, follow it, stop it. Status is derived, never stored."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from app import run_death
from app.arguments import PROJECT
from app.course import Course
from trainer import run_folder
from trainer.accelerators import chosen
from trainer.events import Event, read_events
from trainer.launch import Launch
from trainer.plain_file import open_plain
from trainer.problems import Problem
from trainer.settings import TrainSettings, label
from trainer.settings_file import to_flags

log = logging.getLogger("app")

Status = Literal["starting", "running", "elsewhere", "completed", "stopped", "failed", "died"]
# Another machine's run, on a shared disk, of which nothing has been heard for so long, is taken for dead. Longer than
# a trainer is silent while it loads, evaluates or saves.
SILENT_S = 600.0
# Of another pod of this machine, whose locks are seen here: longer than a trainer takes until it holds its run's.
SILENT_HERE_S = 60.0
SETTINGS_FOLDER = "_settings"
LOG_TAIL_BYTES = 16_000
ALL_DEVICES = Launch()


@dataclass(frozen=True)
class Run:
    """What the folder says now. `problem`: why a run failed or died. `host`: the machine that it is on; `heard`: when
    it wrote last, seconds since the epoch."""

    folder: Path
    status: Status
    stage: Event
    events: list[Event] = field(repr=False)
    problem: Problem | tuple[str, dict[str, Any]] | None = None
    host: str = ""
    heard: float = 0.0

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def alive(self) -> bool:
        """Whether it trains on this machine."""
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
    """The events of the files read last, so that a page's tick reads only what is new, and what they come to."""

    def __init__(self, most_files: int = 8) -> None:
        self._lock = threading.Lock()
        self._most_files = most_files
        self._kept: dict[Path, tuple[int, int, list[Event], Course]] = {}  # inode, offset

    def of(self, path: Path) -> tuple[list[Event], Course]:
        with self._lock:
            try:
                stat = path.stat()
            except OSError:
                self._kept.pop(path, None)
                return [], Course()
            inode, offset, found, course = self._kept.pop(path, (stat.st_ino, 0, [], Course()))
            if inode != stat.st_ino or stat.st_size < offset:  # another file, or one cut short
                offset, found, course = 0, [], Course()
            new, offset = read_events(path, offset)
            found = [*found, *new] if new else found
            course.take(new)
            self._kept[path] = (stat.st_ino, offset, found, course)
            if len(self._kept) > self._most_files:
                self._kept.pop(next(iter(self._kept)))
            return found, course


_events = _EventCache()


def command(settings: TrainSettings, launch: Launch = ALL_DEVICES, node_rank: int | None = None) -> list[str]:
    """The argv that trains on machine `node_rank` (None: this one): shown by the preview and executed by `start`,
    word for word. What the trainer learns from its environment is set by a leading `env`."""
    program = Path(sys.executable).with_name("tunedesk")
    head = [str(program)] if program.exists() else [sys.executable, "-m", "app"]
    words = launch.prefix(launch.node_rank if node_rank is None else node_rank)
    return [*words, *head, "train", *to_flags(settings)]


def devices_of(launch: Launch) -> tuple[str, ...]:
    """The devices of this machine that `launch` takes, as run.json records them; () for all."""
    return chosen({**os.environ, **launch.environment(launch.node_rank)})


def share_devices(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Whether two runs that take these devices would stand in each other's way."""
    return not first or not second or not set(first).isdisjoint(second)


def start(settings: TrainSettings, launch: Launch = ALL_DEVICES, inherited: int | None = None) -> Path:
    """Starts the trainer in a session of its own, its output in train.log. `settings` have been checked.

    `inherited`: a file descriptor that stays open as long as the trainer lives.
    Raises Problem when the folder is taken or cannot be written; returns the run folder.
    """
    folder = Path(settings.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (held := run_folder.lock(folder)) is None:
            raise Problem("output_in_use", label=label("output_dir"), path=str(folder))
        held.close()
        # Not every shared disk has locks that other machines see.
        if (there := read(folder)).status == "elsewhere":
            raise Problem("output_in_use_elsewhere", label=label("output_dir"), path=str(folder), host=there.host)
        log_before = _log_size(folder)
        with (folder / run_folder.LOG).open("ab") as output:
            process = subprocess.Popen(
                command(settings, launch),
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=() if inherited is None else (inherited,),
            )
        identity = replace(run_folder.Identity.of(process.pid, devices_of(launch)), log_before=log_before)
        _children[process.pid] = _Child(process, identity.ticks)
        run_folder.write_identity(folder, identity)
    except OSError as error:
        raise Problem(
            "output_not_writable", label=label("output_dir"), path=str(folder), detail=error.strerror
        ) from None
    # Waited for, so that an ended trainer is no zombie while nobody looks at the page.
    threading.Thread(target=process.wait, daemon=True, name=f"run-{process.pid}").start()
    return folder


def _log_size(folder: Path) -> int:
    """Bytes of the run's log. Raises OSError when it is no file, which could be waited for without end."""
    path = folder / run_folder.LOG
    if not path.exists():
        return 0
    with open_plain(path) as file:
        return file.seek(0, os.SEEK_END)


@dataclass(frozen=True)
class _Child:
    process: "subprocess.Popen[bytes]"
    ticks: int


# Children of this page process, kept only so that a dead one is reaped and its exit status known.
_children: dict[int, _Child] = {}


def stop(folder: Path) -> bool:
    """Asks the trainer to finish its step, save and end; one on another machine by a file in the folder, which its
    trainer looks for every other second. False when none is alive."""
    identity = run_folder.read_identity(folder)
    if identity is None or not identity.is_alive():
        return read(folder).status == "elsewhere" and _want_stop(folder)
    try:
        (folder / run_folder.STOP_ASKED).touch()  # else the trainer says that it was asked from outside
    except OSError as error:
        log.warning("%s: %s", folder, error)
    try:
        os.kill(identity.pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):  # it ended just now, or it is another user's
        return False
    return True


def _want_stop(folder: Path) -> bool:
    try:
        (folder / run_folder.STOP_WANTED).touch()
    except OSError as error:
        log.warning("%s: %s", folder, error)
        return False
    return True


def read(folder: Path) -> Run:
    """The run in `folder`, whatever state its files are in."""
    events, course = _events.of(folder / run_folder.EVENTS)
    identity = run_folder.read_identity(folder)
    status = status_of(folder, course, identity)
    stage, finished = course.stage, course.finished
    if status == "died":
        return Run(folder, status, stage, events, run_death.cause(folder, identity, course, _returncode(identity)))
    problem = None
    if status == "failed" and finished:
        values = {key: value for key, value in finished.items() if key not in ("event", "time", "outcome", "code")}
        problem = (str(finished.get("code", "died")), values)
    host, heard = (identity.host, run_death.heard(course, identity)) if identity else ("", 0.0)
    return Run(folder, status, stage, events, problem, host, heard)


def _returncode(identity: run_folder.Identity | None) -> int | None:
    """Of a trainer that this page process has started and that is gone; None of others."""
    child = _children.get(identity.pid) if identity else None
    if identity is None or child is None or child.ticks != identity.ticks:
        return None
    try:
        return child.process.wait(1)  # the thread that waits for it may not have heard yet
    except subprocess.TimeoutExpired:
        return None


def status_of(folder: Path, course: Course, identity: run_folder.Identity | None) -> Status:
    """What the `course` of the run in `folder`, and whether the process of `identity` lives, come to."""
    finished, alive = course.finished, identity is not None and identity.is_alive()
    elsewhere = not alive and identity is not None and _lives_elsewhere(folder, identity, course)
    if finished and not (
        (alive or elsewhere) and identity and course.ends <= identity.ends_before
    ):  # its process has written nothing yet
        outcome = finished.get("outcome")
        return outcome if outcome in ("completed", "stopped") else "failed"
    if alive:
        return "running" if course.begun and not finished else "starting"
    if elsewhere:
        return "elsewhere"
    return "stopped" if _ended_before_training(identity, course) else "died"


def _lives_elsewhere(folder: Path, identity: run_folder.Identity, course: Course) -> bool:
    """Whether another machine's run holds its lock, or has been heard of lately: more cannot be known here."""
    if not identity.is_of_another_machine() or _returncode(identity) is not None:
        return False
    if identity.shares_locks(folder) and course.began is not None and course.began >= identity.started:
        return run_folder.is_locked(folder)  # which a trainer holds once it has begun: else its container has ended
    patience_s = SILENT_HERE_S if identity.boot_id == run_folder.boot_id() else SILENT_S
    return abs(time.time() - run_death.heard(course, identity)) < patience_s or run_folder.is_locked(folder)


def _ended_before_training(identity: run_folder.Identity | None, course: Course) -> bool:
    """Whether our trainer was asked to end while it was still starting: there was no step to save."""
    return not course.trained and _returncode(identity) == -signal.SIGTERM


def find(runs_dir: Path) -> list[Path]:
    """Run folders, newest first. One whose name is no text is left out: no page could show it."""
    found = []
    try:
        entries = list(os.scandir(runs_dir))
    except OSError:
        return []
    for entry in entries:
        try:
            if entry.is_dir() and not entry.name.startswith((".", "_")):
                entry.name.encode()
                found.append((_began(Path(entry.path)), entry.path))
        except (OSError, UnicodeEncodeError):
            continue  # not a run, or gone since it was listed
    return [Path(path) for _, path in sorted(found, reverse=True)]


def _began(folder: Path) -> float:
    """When the last attempt began, as its files tell. Raises OSError when `folder` holds no run."""
    try:
        return os.stat(folder / run_folder.IDENTITY).st_mtime
    except OSError:  # lost, and the run with it if it were not for its events
        return os.stat(folder / run_folder.EVENTS).st_mtime


def named(runs_dir: Path, name: str) -> Path | None:
    """The folder of the run `name`, if there is such a run."""
    return next((folder for folder in find(runs_dir) if folder.name == name), None)


def latest(runs_dir: Path) -> Run | None:
    """The run started last: what a page shows that was asked for no other."""
    found = find(runs_dir)
    return read(found[0]) if found else None


def alive(runs_dir: Path) -> list[Run]:
    """The runs that train now on this machine, newest first."""
    folders = [folder for folder, _ in _living(runs_dir)]
    return [run for folder in folders if (run := read(folder)).alive]


def training_on(runs_dir: Path, devices: tuple[str, ...]) -> list[Run]:
    """The runs that train now on any of `devices` (() for all)."""
    folders = [folder for folder, theirs in _living(runs_dir) if share_devices(theirs, devices)]
    return [run for folder in folders if (run := read(folder)).alive]


def taken(runs_dir: Path) -> list[tuple[str, ...]]:
    """The devices of each trainer that lives, also of one that has finished and is only ending: it holds memory."""
    return [devices for _, devices in _living(runs_dir)]


def _living(runs_dir: Path) -> list[tuple[Path, tuple[str, ...]]]:
    found = []
    for folder in find(runs_dir):
        identity = run_folder.read_identity(folder)
        if identity is not None and identity.is_alive():
            found.append((folder, identity.devices))
    return found


def log_tail(folder: Path) -> str:
    """The end of train.log, whole lines, progress bars' carriage returns resolved to their last state."""
    try:
        with open_plain(folder / run_folder.LOG) as file:
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
