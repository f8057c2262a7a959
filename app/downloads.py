"""Downloads for the page: start one, follow it, pause, go on, cancel. Status is derived from folders, never stored."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from app.arguments import PROJECT
from trainer import run_folder
from trainer.download import (
    FOLDER,
    LOG,
    Wanted,
    folder_of,
    read_plan,
    read_request,
    remove_arrived,
    take_lock,
    write_request,
)
from trainer.events import read_events
from trainer.problems import Problem

Status = Literal["running", "completed", "stopped", "failed", "died"]
# The last events are enough: each says how far everything is.
TAIL_BYTES = 16_384
END_WAIT_S = 3.0


@dataclass(frozen=True)
class Download:
    """What the folder says now. `here` of `total` bytes have arrived; `total` 0: the hub has not said yet.

    `problem`: why it failed or died. `path`: of a completed one, what to type for the model.
    """

    folder: Path
    asked: Wanted
    status: Status
    here: int = 0
    total: int = 0
    bytes_per_second: float = 0
    path: str = ""
    problem: Problem | tuple[str, dict[str, Any]] | None = None

    @property
    def alive(self) -> bool:
        return self.status == "running"


def command(asked: Wanted, runs_dir: Path) -> list[str]:
    """The argv that downloads, in a terminal too."""
    program = Path(sys.executable).with_name("tunedesk")
    head = [str(program)] if program.exists() else [sys.executable, "-m", "app"]
    given = {
        "--hub": asked.hub,
        "--endpoint": asked.endpoint,
        "--revision": asked.revision,
        "--runs-dir": str(runs_dir),
    }
    return [*head, "download", asked.model, *(word for flag, value in given.items() if value for word in (flag, value))]


def start(asked: Wanted, runs_dir: Path) -> Path:
    """Starts the download in a session of its own, or goes on with it. Returns its folder. Raises Problem."""
    folder = folder_of(runs_dir, asked)
    with take_lock(asked) as held:
        try:
            write_request(folder, asked)
            (folder / run_folder.EVENTS).unlink(missing_ok=True)  # how the last attempt ended
            with (folder / LOG).open("wb") as log:
                process = subprocess.Popen(
                    [*command(asked, runs_dir), "--lock-descriptor", str(held.fileno())],
                    cwd=PROJECT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=(held.fileno(),),
                )
            run_folder.write_identity(folder, run_folder.Identity.of(process.pid))
        except OSError as error:
            raise Problem("download_not_started", path=str(folder), detail=error.strerror or str(error)) from None
    # Waited for, so that an ended download is no zombie while nobody looks at the page.
    threading.Thread(target=process.wait, daemon=True, name=f"download-{process.pid}").start()
    return folder


def read(folder: Path) -> Download | None:
    """The download in `folder`; None when there is none, or none that can be read. Cheap enough for a timer."""
    asked = read_request(folder)
    if asked is None:
        return None
    events, _ = read_events(folder / run_folder.EVENTS, _tail(folder / run_folder.EVENTS))
    last = next((event for event in reversed(events) if event["event"] in ("downloaded", "planned")), {})
    figures = {key: _number(last.get(key)) for key in ("bytes", "total", "bytes_per_second")}
    shown: dict[str, Any] = {"here": figures["bytes"], "total": figures["total"]}
    if events and events[-1]["event"] == "finished":
        return _finished(folder, asked, events[-1], shown)
    identity = run_folder.read_identity(folder)
    if identity is not None and identity.is_alive():
        return Download(folder, asked, "running", bytes_per_second=figures["bytes_per_second"], **shown)
    return Download(folder, asked, "died", problem=Problem("download_died"), **shown)


def _finished(folder: Path, asked: Wanted, event: dict[str, Any], shown: dict[str, Any]) -> Download:
    outcome = event.get("outcome")
    if outcome == "completed":
        total = _number(event.get("bytes"))
        plan = read_plan(folder)
        path = str(event.get("path", ""))
        if plan and not asked.revision:  # what stays when the model is updated
            path = plan.repository
        return Download(folder, asked, "completed", total, total, path=path)
    if outcome == "stopped":
        return Download(folder, asked, "stopped", **shown)
    values = {key: value for key, value in event.items() if key not in ("event", "time", "outcome", "code")}
    return Download(folder, asked, "failed", problem=(str(event.get("code", "download_died")), values), **shown)


def find(runs_dir: Path) -> list[Path]:
    """The folders of downloads that have not been put away; those that run first, then the newest."""
    found = []
    try:
        entries = list(os.scandir(runs_dir / FOLDER))
    except OSError:
        return []
    for entry in entries:
        with contextlib.suppress(OSError):  # gone since it was listed
            if entry.is_dir(follow_symlinks=False) and (one := read(Path(entry.path))):
                found.append((one.alive, entry.stat().st_mtime, entry.path))
    return [Path(path) for _, _, path in sorted(found, reverse=True)]


def pause(folder: Path) -> bool:
    """Ends the download; what has arrived stays for the next `start`. False when none was alive."""
    identity = run_folder.read_identity(folder)
    if identity is None or not identity.is_alive():
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):  # either costs nothing that has arrived
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(identity.pid, number)
        until = time.monotonic() + END_WAIT_S
        while identity.is_alive() and time.monotonic() < until:
            time.sleep(0.02)
        if not identity.is_alive():
            break
    return True


def cancel(folder: Path) -> None:
    """Ends the download and removes what it has brought. Raises Problem when that cannot be done."""
    pause(folder)
    asked, plan = read_request(folder), read_plan(folder)
    if asked is None:
        return
    with take_lock(asked):
        try:
            if plan is not None:
                remove_arrived(asked, plan)
        except OSError as error:
            raise Problem("download_unwritable", path=str(asked.cache), detail=error.strerror,
                          variable=asked.about.cache) from None  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)


def dismiss(folder: Path) -> None:
    """Puts away a download that has ended, and keeps all that it has brought."""
    found = read(folder)
    if found is not None and not found.alive:
        shutil.rmtree(folder, ignore_errors=True)


def _tail(path: Path) -> int:
    try:
        return max(0, path.stat().st_size - TAIL_BYTES)
    except OSError:
        return 0


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**63 else 0
