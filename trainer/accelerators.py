"""The accelerators of this machine, read from the vendors' own tools. Light: no torch.

What the environment hides (CUDA_VISIBLE_DEVICES, ASCEND_RT_VISIBLE_DEVICES) is left out here as well.
"""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer import smi_ascend, smi_nvidia
from trainer.device_kinds import KINDS, VISIBLE
from trainer.smi import Accelerator, Trouble, ask, lines_of
from trainer.smi_ascend import devices as ascend
from trainer.smi_nvidia import devices as nvidia

__all__ = ["VISIBLE", "Accelerator", "Reading", "accelerators", "ascend", "chosen", "count", "nvidia",
           "processor_name", "reading", "visible"]  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What the vendors' tools say at one moment. `trouble`: why it is nothing, or may not be all."""

    devices: tuple[Accelerator, ...] = ()
    trouble: Trouble | None = None


def accelerators(environment: Mapping[str, str] = os.environ) -> list[Accelerator]:
    """Those that a program started with `environment` sees, in its order; none on a machine that has none."""
    return visible(_found()[0], environment)


def reading(environment: Mapping[str, str] = os.environ) -> Reading:
    """As `accelerators`, with the processes on each and with what went wrong."""
    found, trouble = _found()
    if found and found[0].kind == smi_nvidia.KIND:
        answer = ask(smi_nvidia.QUERY_PROCESSES)
        trouble = trouble or answer.trouble
        found = smi_nvidia.with_processes(found, lines_of(answer.text))
    return Reading(tuple(visible(found, environment)), trouble)


def _found() -> tuple[list[Accelerator], Trouble | None]:
    """All of this machine's, of the first vendor whose tool finds some; a tool may fail over one of them only."""
    troubles: list[Trouble | None] = []
    for query, devices in ((smi_nvidia.QUERY, nvidia), (smi_ascend.QUERY, ascend)):
        answer = ask(query)
        if found := devices(lines_of(answer.text)):
            return found, answer.trouble
        troubles.append(answer.without_devices())
    return [], next(filter(None, troubles), None)


def visible(found: list[Accelerator], environment: Mapping[str, str]) -> list[Accelerator]:
    """Of `found` what the visibility variable names, up to the first name that is unknown, as the drivers do."""
    named = environment.get(VISIBLE[found[0].kind]) if found else None
    if named is None:
        return found
    kept: list[Accelerator] = []
    for word in named.split(","):
        # Ascend's runtime reads on only as far as there is nothing but numbers and commas.
        word = word if found[0].kind == smi_ascend.KIND else word.strip()
        match = [one for one in found if word == one.index or smi_nvidia.is_named(word, one, alone=len(found) == 1)]
        if not match:
            break
        kept += match[:1] if match[0] not in kept else []
    return kept


def chosen(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The devices that a run started with `environment` takes, by index; () for all that this machine has.

    NPROC_PER_NODE takes the first so many. ("cpu",): the accelerators are hidden from it.
    """
    named = next((environment[name] for name in VISIBLE.values() if name in environment), None)
    words = [word.strip() for word in (named or "").split(",") if word.strip()]
    if named is not None and (not words or words[0].startswith("-")):
        return ("cpu",)
    if any(word.startswith("GPU-") for word in words):
        words = [one.index for one in accelerators(environment)]
    processes = environment.get("NPROC_PER_NODE", "")
    if processes.isdecimal():
        return tuple(words[: int(processes)] or map(str, range(int(processes))))
    return tuple(words)


def count(environment: Mapping[str, str] = os.environ) -> int:
    """How many accelerators there are to train on. Asks no tool where the device files show at most one."""
    if not any(environment.get(name) for name in VISIBLE.values()):
        files = [path for kind in KINDS.values() if kind.files for path in Path("/dev").glob(kind.files)]
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
