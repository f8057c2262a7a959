"""Deletes a run: only what lies in the runs folder itself, never a run that trains. It is moved aside, then removed."""

import logging
import os
import shutil
import threading
import time
from pathlib import Path

from app import runs
from app.run_queue import TRASH, Queue
from trainer import run_folder
from trainer.problems import Problem

log = logging.getLogger(__name__)


def remove(runs_dir: Path, name: str) -> threading.Thread:
    """Deletes the run `name`: gone when this returns; the thread, already started, gives its room back.

    Raises Problem.
    """
    folder = runs.named(runs_dir, name)
    if folder is None:
        raise Problem("run_gone", name=name)
    if folder.is_symlink():
        raise Problem("run_elsewhere", name=name)
    try:
        with Queue(runs_dir).held():  # nothing is started meanwhile
            if name in Queue(runs_dir).names():
                raise Problem("run_is_queued", name=name)
            aside = _moved_aside(folder)
    except OSError as error:
        raise Problem("run_not_deleted", name=name, path=str(runs_dir), detail=error.strerror) from None
    thread = threading.Thread(target=_empty, args=(aside,), name=f"removal-{name}")
    thread.start()
    return thread


def _moved_aside(folder: Path) -> Path:
    """Where `folder` now is. Raises Problem when it trains, OSError when it cannot be moved."""
    identity = run_folder.read_identity(folder)
    held = run_folder.lock(folder)
    if held is None or (identity is not None and identity.is_alive()):
        raise Problem("run_is_training", name=folder.name)
    if (there := runs.read(folder)).status == "elsewhere":
        raise Problem("run_trains_elsewhere", name=folder.name, host=there.host)
    with held:
        trash = folder.parent / TRASH
        trash.mkdir(exist_ok=True)
        aside = trash / f"{time.time_ns()}-{os.getpid()}"
        folder.rename(aside)
    return aside


def _empty(aside: Path) -> None:
    try:
        shutil.rmtree(aside)
    except OSError as error:  # the next page that starts tries again
        log.warning("%s: %s", aside, error)
