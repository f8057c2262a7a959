"""The accelerators of this machine, read from the vendors' own tools. Light: no torch.

What the environment hides (CUDA_VISIBLE_DEVICES, ASCEND_RT_VISIBLE_DEVICES) is left out here as well.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "npu": "ASCEND_RT_VISIBLE_DEVICES"}
QUERY_TIMEOUT_S = 5
_SMI = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits"]


@dataclass(frozen=True)
class Accelerator:
    """`kind`: cuda or npu. `index`: what the visibility variable calls it. Memory is that of the whole device."""

    kind: str
    index: str
    name: str
    total_gib: float
    free_gib: float
    uuid: str = ""


def accelerators(environment: Mapping[str, str] = os.environ) -> list[Accelerator]:
    """Those that a program started with `environment` sees, in its order; none on a machine that has none."""
    found = nvidia(_lines(_SMI)) or ascend(_lines(["npu-smi", "info"]))
    return visible(found, environment)


def visible(found: list[Accelerator], environment: Mapping[str, str]) -> list[Accelerator]:
    """Of `found` what the visibility variable names, up to the first name that is unknown, as the drivers do."""
    named = environment.get(VISIBLE[found[0].kind]) if found else None
    if named is None:
        return found
    kept: list[Accelerator] = []
    for word in (word.strip() for word in named.split(",")):
        match = [one for one in found if word == one.index or (word.startswith("GPU-") and one.uuid.startswith(word))]
        if not match:
            break
        kept.append(match[0])
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
        files = [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("davinci[0-9]*")]
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


def nvidia(lines: list[str]) -> list[Accelerator]:
    """Lines of nvidia-smi's CSV: index, uuid, name, total MiB, free MiB."""
    rows = [[cell.strip() for cell in line.split(",")] for line in lines]
    return [
        Accelerator("cuda", index, name, _gib(total), _gib(free), uuid)
        for index, uuid, name, total, free in (row for row in rows if len(row) == 5)
    ]


def ascend(lines: list[str]) -> list[Accelerator]:
    """The table of `npu-smi info`: two rows a chip, the first with its name, the second with its memory."""
    found: list[Accelerator] = []
    name = ""
    for line in lines:
        if first := re.match(r"\|\s*\d+\s+(\S*[A-Za-z]\S*)\s*\|", line):
            name = first[1]
        elif name and (second := re.match(r"\|.*\|.*[0-9A-Fa-f]{2}:.*\|.*?(\d+)\s*/\s*(\d+)\s*\|$", line)):
            used, total = int(second[1]), int(second[2])
            found.append(Accelerator("npu", str(len(found)), name, total / 1024, (total - used) / 1024))
            name = ""
    return found


def _gib(mib: str) -> float:
    """0 where the tool says [N/A], as for devices that share the host's memory."""
    return int(mib) / 1024 if mib.isdigit() else 0.0


def _lines(argv: list[str]) -> list[str]:
    """The output lines of a vendor's tool; none when it is absent, fails or hangs."""
    if shutil.which(argv[0]) is None:
        return []
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
