"""Who holds a device: runs and the chat by their process trees, others by what the vendor's tool calls them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from app import runs
from app.chat import Status
from app.text import Text
from trainer import run_folder
from trainer.launch import Launch
from trainer.smi import Accelerator, DeviceProcess

# The number that Linux gives the machine's own namespace of processes; in a container it is another one.
MACHINES_OWN = "pid:[4026531836]"
# A driver holds some of a device that nobody uses: of a 910B 5 %, of a 310P 9 %.
SHARE_OF_IDLE = 0.15
# Ill, but at work, as the vendor has it: 一般告警 and 重要告警.
WORKING = ("", "warning", "alarm")


@dataclass(frozen=True)
class Holder:
    """`name`: a run's, or a process's as far as it is known. `pid`: of a process that is not ours, 0 if unknown."""

    kind: Literal["run", "chat", "process"]
    name: str = ""
    pid: int = 0

    def words(self, text: Text) -> str:
        if self.kind == "chat":
            return text("device.chat")
        if self.kind == "run":
            return self.name
        known = f"{self.pid} ({self.name})" if self.name else str(self.pid)
        return known if self.pid else self.name or text("device.unknown_process")


@dataclass(frozen=True)
class _Claim:
    """A process of ours and the devices that it was started on; () for all that this page sees."""

    holder: Holder
    pid: int
    devices: tuple[str, ...]

    def takes(self, index: str) -> bool:
        return not self.devices or index in self.devices


def holders(found: Sequence[Accelerator], runs_dir: Path, chat: Status) -> dict[str, list[Holder]]:
    """Of each device's index who holds it, ours first.

    A run holds the devices that it was started on, with or without memory there. Tools in containers list processes by
    the host's numbers, or none: those that cannot be ours here are taken for ours where one of ours has that device.
    """
    claims = _claims(found, runs_dir, chat)
    return {one.index: _of(one, claims, contained()) for one in found}


def contained() -> bool:
    """Whether processes have other numbers here than for the machine's driver."""
    try:
        return os.readlink("/proc/self/ns/pid") != MACHINES_OWN
    except OSError:  # not Linux
        return False


def _claims(found: Sequence[Accelerator], runs_dir: Path, chat: Status) -> list[_Claim]:
    claims = []
    for folder in runs.find(runs_dir):
        identity = run_folder.read_identity(folder)
        if identity is not None and identity.is_alive() and identity.devices != ("cpu",):
            claims.append(_Claim(Holder("run", folder.name), identity.pid, identity.devices))
    if chat.pid is not None and found:
        claims.append(_Claim(Holder("chat"), chat.pid, (chat.index or found[0].index,)))
    return claims


def _of(device: Accelerator, claims: list[_Claim], contained: bool) -> list[Holder]:
    ours = [claim.holder for claim in claims if claim.takes(device.index)]
    others: list[Holder] = []
    for process in device.processes:
        certain = process.inner is not None or not contained
        owner = _owner(process, claims, None if certain else device.index)
        if owner is not None:
            ours += [owner] if owner not in ours else []
        elif certain or not ours:
            others.append(Holder("process", _name(process), process.inner or process.pid))
    return ours + others


def _owner(process: DeviceProcess, claims: list[_Claim], on: str | None) -> Holder | None:
    """Whose process it is, by its ancestors. `on`: the device that an owner has to have, where numbers may be others'."""
    pid = process.inner or process.pid
    try:
        line = {pid, *(one.pid for one in psutil.Process(pid).parents())}
    except (psutil.Error, ValueError, OverflowError):
        return None
    return next((one.holder for one in claims if one.pid in line and (on is None or one.takes(on))), None)


def _name(process: DeviceProcess) -> str:
    """Without its folders, which make it unreadable."""
    return process.name.rpartition("/")[2]


def usable(device: Accelerator, held: Sequence[Holder]) -> bool:
    """Whether nobody uses a device and it works: what a person would choose who looks for a free one."""
    if held or device.health.lower() not in WORKING:
        return False
    if not device.total_gib:  # it shares the host's memory, or is too ill to tell
        return not device.health
    return device.used_gib < SHARE_OF_IDLE * device.total_gib


def free_place(found: Sequence[Accelerator], runs_dir: Path, chat: Status) -> Launch:
    """The first of several devices that nobody uses, else the first; no word of it where there is no choice."""
    if len(found) < 2:
        return Launch()
    held = holders(found, runs_dir, chat)
    index = next((one.index for one in found if usable(one, held[one.index])), found[0].index)
    return Launch(devices=(index,), kind=found[0].kind)
