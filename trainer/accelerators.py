"""The accelerators of this machine, read from the vendors' own tools. Light: no torch.

What the environment hides (CUDA_VISIBLE_DEVICES, ASCEND_RT_VISIBLE_DEVICES) is left out here as well.
"""

import importlib.util
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from trainer import smi_ascend, smi_nvidia
from trainer.device_kinds import KINDS, VISIBLE, Kind
from trainer.smi import Accelerator, Reader, Trouble, ask, lines_of
from trainer.smi_ascend import devices as ascend
from trainer.smi_nvidia import devices as nvidia

__all__ = ["READERS", "VISIBLE", "Accelerator", "Reading", "accelerators", "ascend", "chosen", "count", "nvidia",
           "processor_name", "reading", "visible"]  # fmt: skip

READERS: dict[str, Reader] = {smi_nvidia.KIND: smi_nvidia, smi_ascend.KIND: smi_ascend}
DEVICE_FILES = Path("/dev")


@dataclass(frozen=True)
class Reading:
    """What the vendors' tools say at one moment. `trouble`: why it is nothing, or may not be all. `hidden`: all that
    there are, where the environment hides every one."""

    devices: tuple[Accelerator, ...] = ()
    trouble: Trouble | None = None
    hidden: tuple[Accelerator, ...] = ()


def accelerators(environment: Mapping[str, str] = os.environ) -> list[Accelerator]:
    """Those that a program started with `environment` sees, in its order; none on a machine that has none."""
    return visible(_found()[0], environment)


def reading(environment: Mapping[str, str] = os.environ) -> Reading:
    """As `accelerators`, with the processes on each and with what went wrong."""
    found, trouble = _found()
    if found and found[0].kind == smi_nvidia.KIND:  # the other's tool tells all at once
        answer = ask(smi_nvidia.QUERY_PROCESSES)
        trouble = trouble or answer.trouble
        found = smi_nvidia.with_processes(found, lines_of(answer.text))
    seen = tuple(visible(found, environment))
    return Reading(seen, trouble, () if seen else tuple(found))


def _found() -> tuple[list[Accelerator], Trouble | None]:
    """All of this machine's, of the first vendor whose tool finds some; a tool may fail over one of them only."""
    troubles: list[Trouble | None] = []
    for kind in sorted(READERS, key=lambda name: not _has_package(KINDS[name])):
        answer = ask(READERS[kind].QUERY)
        if found := READERS[kind].devices(lines_of(answer.text)):
            return found, answer.trouble
        troubles.append(answer.without_devices())
    return [], next(filter(None, troubles), None)


def _has_package(kind: Kind) -> bool:
    """Whether torch has been given such devices by a package of their own: then they are what it computes on."""
    return bool(kind.package) and importlib.util.find_spec(kind.package) is not None


def visible(found: list[Accelerator], environment: Mapping[str, str]) -> list[Accelerator]:
    """Of `found` what a program sees that has `environment`, in its order."""
    named = environment.get(VISIBLE[found[0].kind]) if found else None
    return found if named is None else READERS[found[0].kind].named(found, named)


def chosen(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The devices that a run started with `environment` takes, by index; () for all that this machine has.

    NPROC_PER_NODE takes the first so many. ("cpu",): the accelerators are hidden from it.
    """
    named = next((environment[kind.visible] for kind in _at_hand() if kind.visible in environment), None)
    words = [word.strip() for word in (named or "").split(",")]
    if named is not None and (not words[0] or words[0].startswith("-")):
        return ("cpu",)
    indices = [] if named is None else words
    if indices and not _is_plain((named or "").split(",")) and (found := accelerators({})):
        indices = [one.index for one in visible(found, environment)]
        if not indices:
            return ("cpu",)
    processes = environment.get("NPROC_PER_NODE", "")
    if processes.isdecimal():
        return tuple(indices[: int(processes)] or map(str, range(int(processes))))
    return tuple(indices)


def _is_plain(words: list[str]) -> bool:
    """Whether they are numbers that ascend, which mean what they say on whatever device."""
    numbers = [int(word) for word in words if word.isdecimal() and len(word) < 10]
    return len(numbers) == len(words) and all(first < second for first, second in pairwise(numbers))


def _at_hand() -> list[Kind]:
    """The kinds whose device files are here, those that torch was given a package for first; all where there are none."""
    kinds = sorted((kind for kind in KINDS.values() if kind.visible), key=lambda kind: not _has_package(kind))
    return [kind for kind in kinds if any(DEVICE_FILES.glob(kind.files))] or kinds


def count(environment: Mapping[str, str] = os.environ) -> int:
    """How many accelerators there are to train on. Asks no tool where the device files show at most one."""
    if not any(environment.get(name) for name in VISIBLE.values()):
        files = [path for kind in KINDS.values() if kind.files for path in DEVICE_FILES.glob(kind.files)]
        if len(files) <= 1:
            return len(files)
    return len(accelerators(environment))


def processor_name() -> str:
    """This machine's processor, as its maker calls it where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    )
    return " ".join(names[0].split(":", 1)[1].split()) if names else platform.machine()
