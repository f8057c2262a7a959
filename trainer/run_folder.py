"""A run is a folder: what it holds, who writes it, and which checkpoints are complete. Light: no torch.

config.yaml  run.json  events.jsonl  train.log  checkpoint-N/  adapter or model files  training_loss.png
"""

import fcntl
import json
import os
import shutil
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import psutil

CONFIG, IDENTITY, EVENTS, LOG, LOCK, PLOT = (
    "config.yaml",
    "run.json",
    "events.jsonl",
    "train.log",
    ".lock",
    "training_loss.png",
)
STATE, OPTIMIZER, RNG = RESUME_FILES = ("trainer_state.json", "optimizer.pt", "rng_state.pt")
WEIGHT_FILES = (
    "adapter_model.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
)


@dataclass(frozen=True)
class Identity:
    """Which process writes a run. `started`: seconds since the epoch; `boot_id` tells machine restarts apart."""

    pid: int
    started: float
    boot_id: str
    host: str

    @classmethod
    def of(cls, pid: int) -> "Identity":
        return cls(pid, psutil.Process(pid).create_time(), boot_id(), socket.gethostname())

    def is_alive(self) -> bool:
        """Whether that very process still runs here: the pid may have been given to another since."""
        if self.boot_id != boot_id():
            return False
        try:
            process = psutil.Process(self.pid)
            # Start times are derived from the clock, which may be set between two readings.
            same = abs(process.create_time() - self.started) < 2.0
            return same and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, ValueError, OverflowError):
            return False


def boot_id() -> str:
    """The kernel's id of this boot; "" where there is none (not Linux)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def write_identity(folder: Path, identity: Identity) -> None:
    write_whole(folder / IDENTITY, json.dumps(asdict(identity)) + "\n")


def write_whole(path: Path, text: str) -> None:
    """A file with all of `text`, or as it was: written beside and renamed."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """What a killed trainer left half-done; only for who holds the lock."""
    for path in folder.glob(".*"):
        if path.suffix in (".saving", ".removing"):
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix == ".tmp":
            path.unlink(missing_ok=True)


def read_identity(folder: Path) -> Identity | None:
    """None when absent or not readable as an identity."""
    try:
        found = json.loads((folder / IDENTITY).read_text())
        identity = Identity(int(found["pid"]), float(found["started"]), str(found["boot_id"]), str(found["host"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None
    return identity if identity.pid > 0 else None


def lock(folder: Path) -> IO[str] | None:
    """The run's exclusive lock, held until the file or its process is gone; None when another holds it."""
    file = (folder / LOCK).open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoint-N folders, oldest first; a half-written one has another name."""
    found = [
        path
        for path in folder.glob("checkpoint-*")
        if path.name.removeprefix("checkpoint-").isdigit() and has_weights(path)
    ]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step after which `checkpoint` was saved, by its name."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def has_weights(folder: Path) -> bool:
    """Whether `folder` holds an adapter or a model."""
    return any((folder / name).is_file() for name in WEIGHT_FILES)


def is_resumable(checkpoint: Path) -> bool:
    """Whether a run can go on from `checkpoint`: it has the optimizer's and the random states."""
    return all((checkpoint / name).is_file() for name in RESUME_FILES)


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def holds_run(folder: Path) -> bool:
    """Whether a run has been started in `folder`: its results must not be overwritten.

    run.json alone does not count: whoever starts a trainer may write it before the trainer checks.
    """
    return any((folder / name).exists() for name in (EVENTS, CONFIG)) or has_weights(folder)
