"""A run is a folder: what it holds, who writes it, and which checkpoints are complete. Light: no torch.

config.yaml  run.json  events.jsonl  train.log  checkpoint-N/  adapter or model files  training_loss.png
"""

import fcntl
import json
import os
import shutil
import socket
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, Any

import psutil

from trainer import oom
from trainer.events import read_events
from trainer.plain_file import read_plain

CONFIG, IDENTITY, EVENTS, LOG, LOCK, PLOT = (
    "config.yaml",
    "run.json",
    "events.jsonl",
    "train.log",
    ".lock",
    "training_loss.png",
)
# There while the page has asked the trainer to end, and nobody else.
STOP_ASKED = ".stop_asked"
# There when a page asks whose signals do not reach the trainer: it is on another machine, or in another pod.
STOP_WANTED = ".stop_wanted"
STATE, OPTIMIZER, RNG = RESUME_FILES = ("trainer_state.json", "optimizer.pt", "rng_state.pt")
WEIGHT_FILES = (
    "adapter_model.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
)


@dataclass(frozen=True)
class Identity:
    """Which process writes a run, and how it found the folder.

    `started`: seconds since the epoch; `ticks`: the same as the kernel counts it since the machine's start, which no
    setting of the clock changes; `boot_id` tells machine restarts apart, `pid_namespace` the containers of one boot.
    `devices`: those that it takes, as accelerators.chosen names them; () for all of the machine's. `folder` and `inode`:
    of the run folder, so that a copy is known; `filesystem`: the number of what it is mounted from. `ends_before`:
    finished events that were there; `log_before`: bytes of its log. `oom_kills`: what `oom_counter` said.
    """

    pid: int
    started: float
    boot_id: str
    host: str
    devices: tuple[str, ...] = ()
    ticks: int = 0
    folder: str = ""
    inode: int = 0
    filesystem: int = 0
    pid_namespace: str = ""
    ends_before: int = 0
    log_before: int = 0
    oom_counter: str = ""
    oom_kills: int = 0
    copied: bool = False

    @classmethod
    def of(cls, pid: int, devices: tuple[str, ...] = ()) -> "Identity":
        counter = oom.counter(pid)
        return cls(
            pid,
            psutil.Process(pid).create_time(),
            boot_id(),
            socket.gethostname(),
            devices,
            ticks=_ticks(pid) or 0,
            pid_namespace=_pid_namespace(),
            oom_counter=str(counter),
            oom_kills=oom.kills(counter) or 0,
        )

    def is_alive(self) -> bool:
        """Whether that very process still runs here: the pid may have been given to another since."""
        if self.copied or self.boot_id != boot_id():
            return False
        try:
            process = psutil.Process(self.pid)
            # Where there is no /proc, start times are derived from the clock, which may be set between two readings.
            ticks = _ticks(self.pid)
            known = self.ticks and ticks is not None
            same = self.ticks == ticks if known else abs(process.create_time() - self.started) < 2.0
            return same and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, ValueError, OverflowError):
            return False

    def is_of_another_machine(self) -> bool:
        """Whether it was written where processes cannot be seen from here: another host, or another container of this
        one's, which may go by this one's name."""
        if self.copied or self.is_alive():
            return False
        return self.host != socket.gethostname() or (
            self.boot_id == boot_id() and self.pid_namespace not in ("", _pid_namespace())
        )

    def shares_locks(self, folder: Path) -> bool:
        """Whether a lock that it holds in `folder` is seen here: the same kernel, and the same mounted file system."""
        try:
            return self.boot_id == boot_id() and self.filesystem == folder.stat().st_dev
        except OSError:
            return False

    def memory_was_short(self) -> bool | None:
        """Whether the kernel has ended a process of this one's control group for memory since; None: it cannot tell."""
        now = oom.kills(Path(self.oom_counter)) if self.oom_counter else None
        return None if now is None else now > self.oom_kills


def _ticks(pid: int) -> int | None:
    """When `pid` started, in the kernel's ticks since the machine's start; None where /proc does not say."""
    try:
        # The second field is the program's name, which may hold spaces and brackets.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _pid_namespace() -> str:
    """What the kernel calls the processes that are seen from here; "" where it has no name for them."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def boot_id() -> str:
    """The kernel's id of this boot; "" where there is none (not Linux)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def write_identity(folder: Path, identity: Identity) -> None:
    """To be written before the process it names writes anything else."""
    found = replace(
        identity,
        folder=str(folder.absolute()),
        inode=folder.stat().st_ino,
        filesystem=folder.stat().st_dev,
        ends_before=sum(event["event"] == "finished" for event in read_events(folder / EVENTS)[0]),
        log_before=identity.log_before or _size(folder / LOG),
    )
    values = asdict(found)
    del values["copied"]
    write_whole(folder / IDENTITY, json.dumps(values) + "\n")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def write_whole(path: Path, text: str) -> None:
    """A file with all of `text`, or as it was: written beside and renamed."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """What a killed trainer left half-done; only for who holds the lock."""
    for path in folder.glob(".*"):
        if path.suffix in (".saving", ".removing"):
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix == ".tmp" and not _is_being_written(path):
            path.unlink(missing_ok=True)


def _is_being_written(beside: Path) -> bool:
    """Whether the process that `write_whole` ran in still lives, as the page does that has just started this one."""
    writer = beside.stem.rpartition(".")[2]
    return writer.isdecimal() and len(writer) < 10 and psutil.pid_exists(int(writer))


def read_identity(folder: Path) -> Identity | None:
    """None when absent or not readable as an identity."""
    try:
        found = json.loads(read_plain(folder / IDENTITY))
        identity = Identity(**{one.name: _as(one.type, found[one.name]) for one in fields(Identity)
                               if one.name in found and one.name != "copied"})  # fmt: skip
    except (OSError, ValueError, TypeError, KeyError, OverflowError, AttributeError, RecursionError):
        return None
    return replace(identity, copied=_is_copy(folder, identity)) if 0 < identity.pid < 2**31 else None


def _as(kind: Any, value: Any) -> Any:
    """`value` as the type that a field of Identity declares."""
    if kind in (int, float, str):
        return kind(value)
    return tuple(map(str, value or ()))


def _is_copy(folder: Path, identity: Identity) -> bool:
    """Whether `identity` was written into another folder, of which this is a copy. A moved one keeps its inode, one
    that is mounted elsewhere too; where inodes do not last, the path does."""
    if not identity.folder or identity.folder == str(folder.absolute()):
        return False
    try:
        return folder.stat().st_ino != identity.inode
    except OSError:
        return False


def lock(folder: Path) -> IO[str] | None:
    """The run's exclusive lock, held until the file or its process is gone; None when another holds it."""
    # Not waited for, should somebody have put a FIFO there.
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    file = os.fdopen(descriptor, "r")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def is_locked(folder: Path) -> bool:
    """Whether some process holds the run's lock; of a shared disk, where it passes locks on, also one elsewhere."""
    try:
        with open(
            folder / LOCK, opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
        ) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # none, or not to be had: nothing is known
        return False
    return False


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
    return any(os.path.isfile(folder / name) for name in WEIGHT_FILES)


def is_resumable(checkpoint: Path) -> bool:
    """Whether a run can go on from `checkpoint`: it has the optimizer's and the random states."""
    return all(os.path.isfile(checkpoint / name) for name in RESUME_FILES)


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def holds_run(folder: Path) -> bool:
    """Whether a run has been started in `folder`: its results must not be overwritten.

    run.json alone does not count: whoever starts a trainer may write it before the trainer checks.
    """
    return any((folder / name).exists() for name in (EVENTS, CONFIG)) or has_weights(folder)
