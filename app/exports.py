"""Exports for the page: start one, follow it, cancel it. Status is derived from folders, never stored; no torch here.

What a page does: `start(parse({...}))` with the form's values, a timer on `read(target)`, `cancel(target)` on a click,
`discard(target)` when a failed one has been seen, `find(folder)` after a reload. Problems have their sentences in
trainer/problems.py; stages are codes for the page's own words.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from app.arguments import PROJECT
from app.chat_death import oom_kills
from trainer import export_plan, run_folder
from trainer.events import Event, read_events
from trainer.export_plan import LOG, MODEL, partial
from trainer.export_settings import ExportSettings, label, to_flags
from trainer.launch import Launch
from trainer.problems import Problem

_LOCK_WAIT_S = 2
ANYWHERE = Launch()
Status = Literal["running", "completed", "stopped", "failed", "died"]
Stage = Literal["starting", "loading_model", "merging", "saving", "checking"]


@dataclass(frozen=True)
class Export:
    """What the folders say now.

    `problem`: why it failed or died. `warnings`: as events, each with `code` and values.
    `written` of `total`: bytes of weights on the disk, and how many they will be, about.
    `record`: of a completed one: path, bytes, files, difference, tolerance, effect, dtype, seconds.
    """

    target: Path
    status: Status
    stage: Stage = "starting"
    problem: Problem | tuple[str, dict[str, Any]] | None = None
    warnings: tuple[Event, ...] = ()
    written: int = 0
    total: int = 0
    record: dict[str, Any] | None = None

    @property
    def alive(self) -> bool:
        return self.status == "running"


def command(settings: ExportSettings) -> list[str]:
    """The argv that exports; `start` puts before it what device it is to see."""
    program = Path(sys.executable).with_name("tunedesk")
    head = [str(program)] if program.exists() else [sys.executable, "-m", "app"]
    return [*head, "export", *to_flags(settings)]


def start(settings: ExportSettings, place: Launch = ANYWHERE) -> Path:
    """Checks `settings` (export_settings.parse) and starts the export in a session of its own. `place`: the device that
    it is to see.

    Returns the target folder, by which the other functions know it. Raises Problem when it cannot start; reads and
    writes no weights, so it may be called from a click.
    """
    plan = export_plan.check(settings)
    folder = plan.partial
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = _lock(folder, plan.target)
        (folder / run_folder.EVENTS).unlink(missing_ok=True)  # how the last attempt ended
        held.close()
        killed_before = oom_kills()
        with (folder / LOG).open("wb") as log:
            process = subprocess.Popen(
                [*place.prefix(), *command(settings)],
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        run_folder.write_identity(folder, run_folder.Identity.of(process.pid))
    except OSError as error:
        raise Problem("output_not_writable", label=label("export_dir"), path=str(plan.target),
                      detail=error.strerror) from None  # fmt: skip
    _children[process.pid] = (process, killed_before)
    # Waited for, so that an ended export is no zombie while nobody looks at the page.
    threading.Thread(target=process.wait, daemon=True, name=f"export-{process.pid}").start()
    return plan.target


# Children of this page process and the kernel's kills before each, kept only so that their exit is known.
_children: dict[int, tuple["subprocess.Popen[bytes]", int]] = {}


def _lock(folder: Path, target: Path) -> IO[str]:
    """The folder's lock. An export that has said how it ended may hold it for a moment more."""
    until = time.monotonic() + _LOCK_WAIT_S
    while (held := run_folder.lock(folder)) is None:
        found = read(target)
        if time.monotonic() > until or (found and found.alive):
            raise Problem("export_in_use", label=label("export_dir"), path=str(target))
        time.sleep(0.01)
    return held


def read(target: Path) -> Export | None:
    """The export to `target`, whatever state its files are in; None when there is none.

    Cheap enough for a timer. A completed one is told by the record in `target`, whoever made it and however long ago.
    """
    if record := export_plan.read_record(target):
        size = int(record.get("bytes", 0))
        return Export(target, "completed", "checking", written=size, total=size, record=record)
    folder = partial(target)
    if not folder.is_dir():
        return None
    events, _ = read_events(folder / run_folder.EVENTS)
    identity = run_folder.read_identity(folder)
    stages = [event for event in events if event["event"] == "stage"]
    shown: dict[str, Any] = {
        "stage": stages[-1]["stage"] if stages else "starting",
        "warnings": tuple(event for event in events if event["event"] == "warning"),
        "written": sum(_size(path) for path in (folder / MODEL).glob("*.safetensors")),
        "total": int(stages[0].get("bytes", 0)) if stages else 0,
    }
    if events and events[-1]["event"] == "finished":
        return _finished(target, events[-1], shown)
    if identity is not None and identity.is_alive():
        return Export(target, "running", **shown)
    # It may have ended well since we looked for the record.
    if export_plan.read_record(target):
        return read(target)
    problem = _cause_of_death(folder, identity)
    if problem.values.get("signal") == signal.SIGTERM.name:  # cancelled before it could answer
        return Export(target, "stopped", **shown)
    return Export(target, "died", problem=problem, **shown)


def check_ended(target: Path) -> None:
    """Raises Problem export_running while the export to `target` goes on: who follows it would lose sight of it."""
    found = read(target)
    if found and found.alive:
        raise Problem("export_running", path=str(target))


def cancel(target: Path) -> bool:
    """Asks the export to end; it removes what it has written, and `read` says "stopped". False when none is alive."""
    found, identity = read(target), run_folder.read_identity(partial(target))
    if found is None or not found.alive or identity is None:
        return False
    try:
        os.kill(identity.pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):  # it ended just now, or it is another user's
        return False
    return True


def discard(target: Path) -> bool:
    """Removes what an export left that failed, was stopped or died; `read` says None then. False when it is alive."""
    folder = partial(target)
    try:
        held = run_folder.lock(folder)
    except OSError:  # nothing there
        return True
    if held is None:
        return False
    with held:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def find(folder: Path) -> list[Path]:
    """Targets in `folder` that `read` knows: running exports, those that ended badly, and finished ones; newest first."""
    found: dict[Path, float] = {}
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return []
    for entry in entries:
        name = entry.name.removeprefix(".").removesuffix(".partial")
        begun = entry.name == partial(Path(name)).name
        try:
            if begun or (Path(entry.path) / export_plan.RECORD).is_file():
                found[folder / name] = max(entry.stat().st_mtime, found.get(folder / name, 0.0))
        except OSError:
            continue  # gone since it was listed
    return sorted(found, key=lambda target: found[target], reverse=True)


def _finished(target: Path, finished: Event, shown: dict[str, Any]) -> Export:
    outcome = finished.get("outcome")
    if outcome == "completed":  # its record was there a moment ago, and somebody has moved the model
        return Export(target, "completed", record=finished, **shown)
    if outcome == "stopped":
        return Export(target, "stopped", **shown)
    values = {key: value for key, value in finished.items() if key not in ("event", "time", "outcome", "code")}
    return Export(target, "failed", problem=(str(finished.get("code", "export_died")), values), **shown)


def _cause_of_death(folder: Path, identity: run_folder.Identity | None) -> Problem:
    if identity and identity.host != os.uname().nodename:
        return Problem("other_host", host=identity.host)
    process, killed_before = _children.get(identity.pid, (None, 0)) if identity else (None, 0)
    code = _exit_code(process) if process else None
    if code is not None and code < 0:
        number = signal.Signals(-code)
        if number == signal.SIGKILL and oom_kills() > killed_before:
            return Problem("out_of_host_memory")
        return Problem("export_killed", signal=number.name)
    return Problem("export_died", log=str(folder / LOG))


def _exit_code(process: "subprocess.Popen[bytes]") -> int | None:
    """Of a process that is gone; the thread that waits for it may not have heard yet."""
    try:
        return process.wait(1)
    except subprocess.TimeoutExpired:
        return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # moved to its place just now
        return 0
