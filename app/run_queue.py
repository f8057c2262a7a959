"""Runs that wait for their devices: one file each in runs/_queue, so that they outlive the page and a kill -9.

One page process at a time keeps the queue; the lock by which it does so dies with it. A run starts once: a trainer
inherits the lock of the file that it was started from, and its own events tell that it has begun.
"""

import fcntl
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from app import runs
from trainer import address, run_folder
from trainer.events import read_events
from trainer.launch import Launch
from trainer.plain_file import read_plain
from trainer.prepare import check
from trainer.problems import Problem, Problems
from trainer.settings import TrainSettings, label, parse

FOLDER, TRASH = "_queue", "_trash"
ORDER, LOCK, KEEPER = "order", "lock", "keeper"
SUFFIX = ".json"
LOOK_S = 1.0
log = logging.getLogger(__name__)

Refusal = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """A queued run. `settings` is None where its file cannot be read; `refused`: why it cannot start, as codes and
    values of sentences. `added`: seconds since the epoch."""

    name: str
    settings: TrainSettings | None
    launch: Launch
    added: float
    refused: tuple[Refusal, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        return runs.devices_of(self.launch)


class Queue:
    """The queue of `runs_dir`. Each method sees and leaves what is on the disk: pages share it."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        self.folder = runs_dir / FOLDER

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else changes the queue, or starts a run, meanwhile. Raises OSError where no lock can be had."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def entries(self) -> list[Entry]:
        """In the order in which they are to start."""
        try:
            names = [path.name.removesuffix(SUFFIX) for path in self.folder.iterdir() if path.name.endswith(SUFFIX)]
        except OSError:
            return []
        entries = [_read(self._path(name), name) for name in names if not name.startswith(".")]
        order = {name: place for place, name in enumerate(self._order())}
        return sorted(entries, key=lambda entry: (order.get(entry.name, len(order)), entry.added, entry.name))

    def names(self) -> list[str]:
        return [entry.name for entry in self.entries()]

    def add(self, settings: TrainSettings, launch: Launch) -> int:
        """Puts a run, whose settings have been checked, at the end; returns its place, from 1. Raises Problem."""
        name = Path(settings.output_dir).name
        entry = {"settings": settings.model_dump(mode="json"), "launch": asdict(launch), "added": time.time()}
        try:
            with self.held():
                self.refuse_twice(settings)
                names = self.names()
                run_folder.write_whole(self._path(name), json.dumps(entry, ensure_ascii=False))
                self._put_in_order([*names, name])
        except OSError as error:
            raise Problem("output_not_writable", label=label("output_dir"), path=str(self.folder),
                          detail=error.strerror) from None  # fmt: skip
        return len(names) + 1

    def refuse_twice(self, settings: TrainSettings) -> None:
        """Raises Problem when the run of `settings` is in the queue."""
        name, names = Path(settings.output_dir).name, self.names()
        if name in names:
            raise Problem("queued_already", label=label("output_dir"), name=name, place=names.index(name) + 1)

    def cancel(self, name: str) -> bool:
        """Takes a run out; False when it is not in the queue, as when it has started meanwhile."""
        with self.held():
            if name not in self.names():
                return False
            self._path(name).unlink()
            return True

    def move(self, name: str, by: int) -> bool:
        """Moves a run `by` places, up where negative; False when it is not in the queue."""
        with self.held():
            names = self.names()
            if name not in names:
                return False
            place = names.index(name) + by
            names.remove(name)
            names.insert(max(0, place), name)
            self._put_in_order(names)
            return True

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _order(self) -> list[str]:
        try:
            found = json.loads(read_plain(self.folder / ORDER))
        except (OSError, ValueError, RecursionError):  # none yet, or broken: then by age
            return []
        return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []

    def _put_in_order(self, names: list[str]) -> None:
        run_folder.write_whole(self.folder / ORDER, json.dumps(names, ensure_ascii=False))

    # ---- starting ----

    def start_next(self, check_paths: Callable[[TrainSettings], None]) -> Path | None:
        """Starts the first run whose devices are free and that overtakes none that waits for one of them."""
        entries = [entry for entry in self.entries() if not entry.refused]
        awaited = runs.taken(self._runs_dir) if entries else []
        for entry in entries:
            if self._lives(entry):
                self._take_out(entry)
                continue
            if any(runs.share_devices(entry.devices, devices) for devices in awaited):
                awaited.append(entry.devices)
                continue
            return self._begin(entry, check_paths)
        return None

    def _begin(self, entry: Entry, check_paths: Callable[[TrainSettings], None]) -> Path | None:
        settings = entry.settings
        assert settings is not None  # else it is refused
        refused = () if self._has_begun(entry) else _refusals(settings, entry.launch, check_paths)
        with self.held(), self._claimed(entry) as claim:
            if claim is None:
                return None
            if self._has_begun(entry):  # by a page process that died before it could take it out
                self._path(entry.name).unlink()
            elif refused:
                self._refuse(entry, refused)
            elif not any(runs.share_devices(entry.devices, devices) for devices in runs.taken(self._runs_dir)):
                return self._start(entry, settings, claim)
        return None

    def _start(self, entry: Entry, settings: TrainSettings, claim: IO[str]) -> Path | None:
        try:
            folder = runs.start(settings, entry.launch, claim.fileno())
        except Problem as problem:
            self._refuse(entry, ((problem.code, problem.values),))
            return None
        self._path(entry.name).unlink()
        return folder

    @contextmanager
    def _claimed(self, entry: Entry) -> Iterator[IO[str] | None]:
        """The lock of the run's file. None when the file is gone, or a trainer holds it, whose page process died before
        it could take the run out: that is done when the run's folder says which process it is."""
        try:
            file = self._path(entry.name).open("r+")
        except FileNotFoundError:  # cancelled
            yield None
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            yield file

    def _lives(self, entry: Entry) -> bool:
        identity = run_folder.read_identity(self._runs_dir / entry.name)
        return identity is not None and identity.is_alive()

    def _take_out(self, entry: Entry) -> None:
        """Takes out a run whose trainer lives, unless that one began before the run was queued and is about to end."""
        with self.held(), self._claimed(entry) as claim:
            if claim is None or self._has_begun(entry):
                self._path(entry.name).unlink(missing_ok=True)

    def _has_begun(self, entry: Entry) -> bool:
        """Whether a trainer has begun in its folder since it was queued."""
        assert entry.settings is not None
        events, _ = read_events(Path(entry.settings.output_dir) / run_folder.EVENTS)
        return any(event.get("stage") == "starting" and event["time"] >= entry.added for event in events)

    def _refuse(self, entry: Entry, refused: tuple[Refusal, ...]) -> None:
        """It keeps its place and lets others pass, until a person has seen why and taken it out."""
        path = self._path(entry.name)
        found = json.loads(read_plain(path))
        run_folder.write_whole(path, json.dumps({**found, "refused": refused}, ensure_ascii=False, default=str))


def _refusals(
    settings: TrainSettings, launch: Launch, check_paths: Callable[[TrainSettings], None]
) -> tuple[Refusal, ...]:
    try:
        check_paths(settings)
        check(settings)
        address.check(launch)
    except Problem as problem:
        return ((problem.code, problem.values),)
    except Problems as several:
        return tuple((problem.code, problem.values) for problem in several.problems)
    return ()


def _read(path: Path, name: str) -> Entry:
    try:
        found = json.loads(read_plain(path))
        launch = Launch(**{**found["launch"], "devices": tuple(found["launch"]["devices"])})
        refused = tuple((str(code), dict(values)) for code, values in found.get("refused", ()))
        # The runs folder may have been moved since.
        output_dir = str(path.parent.parent.absolute() / name)
        settings = parse({**found["settings"], "output_dir": output_dir})
        return Entry(name, settings, launch, float(found["added"]), refused)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        return Entry(name, None, Launch(), 0.0, (("queue_broken", {"path": str(path), "detail": detail}),))


class Keeper:
    """Starts queued runs from this page process, while no other page process does."""

    def __init__(self, runs_dir: Path, check_paths: Callable[[TrainSettings], None]) -> None:
        self._runs_dir, self._check_paths = runs_dir, check_paths
        self._queue = Queue(runs_dir)
        self._lock: IO[str] | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._keep, daemon=True, name="queue").start()

    def stop(self) -> None:
        self._ended.set()

    def _keep(self) -> None:
        shutil.rmtree(self._runs_dir / TRASH, ignore_errors=True)  # what a page that was killed had moved aside
        said = ""
        while not self._ended.wait(LOOK_S):
            try:
                self.look()
                said = ""
            except OSError as error:  # a folder that cannot be written to now may be later
                if str(error) != said:
                    said = str(error)
                    log.warning("queue: %s", error)

    def look(self) -> Path | None:
        """Starts at most one run; returns its folder."""
        if not self._queue.names() or not self._keeps():
            return None
        return self._queue.start_next(self._check_paths)

    def _keeps(self) -> bool:
        """Whether this process keeps the queue: as soon as it can, and then to its end."""
        if self._lock is None:
            file = (self._queue.folder / KEEPER).open("a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            self._lock = file
        return True


def start_now(runs_dir: Path, settings: TrainSettings, launch: Launch) -> runs.Run | None:
    """Starts a run at once, unless its devices train already: then the run that trains on them. Raises Problem."""
    try:
        queue = Queue(runs_dir)
        with queue.held():
            queue.refuse_twice(settings)
            if busy := runs.training_on(runs_dir, runs.devices_of(launch)):
                return busy[0]
            runs.start(settings, launch)
            return None
    except OSError as error:
        raise Problem("output_not_writable", label=label("output_dir"), path=str(runs_dir),
                      detail=error.strerror) from None  # fmt: skip
