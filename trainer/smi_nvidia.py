"""What nvidia-smi prints, as CSV, which it promises to keep; its table it does not. Light: no torch.

Seen in public reports: units although `nounits` was asked for, [N/A] (devices that share the host's memory; all of use
and power in MIG mode), [Not Supported], [Insufficient Permissions] (memory of a MIG device in a container), and of a
device that is gone [Unknown Error] or [GPU is lost], in its cells or as a sentence instead of them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import takewhile

from trainer.smi import Accelerator, DeviceProcess, number, whole

KIND = "cuda"
QUERY = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total,memory.free,memory.used,utilization.gpu,"
         "temperature.gpu,power.draw", "--format=csv,noheader,nounits"]  # fmt: skip
QUERY_PROCESSES = ["nvidia-smi", "--query-compute-apps=gpu_uuid,pid,used_memory,process_name",
                   "--format=csv,noheader,nounits"]  # fmt: skip
UNWELL = ("unknown error", "gpu is lost", "gpu requires reset", "gpu requires reboot", "err!")
FEWEST, CELLS = 5, 9  # a name may have commas
# How the uuids begin of devices, and of the parts that MIG makes of them.
WHOLE, PART = "GPU-", "MIG-"


def devices(lines: Iterable[str]) -> list[Accelerator]:
    """Of lines of QUERY's CSV. The first five cells are enough; lines that are none are passed over."""
    rows = [[cell.strip() for cell in line.split(",")] for line in lines]
    rows = [[*row[:2], ", ".join(row[2 : len(row) - 6]), *row[-6:]] if len(row) > CELLS else row for row in rows]
    return [_device(row) for row in rows if len(row) >= FEWEST and row[0].isdecimal() and row[0].isascii()]


def _device(row: list[str]) -> Accelerator:
    index, uuid, name, total, free, used, use, heat, power = [*row, "", "", "", ""][:CELLS]
    unwell = [cell.strip("[]") for cell in row if cell.strip("[]").lower() in UNWELL]
    total_gib, free_gib, used_gib = _gib(total), _gib(free), _gib(used)
    if total_gib is None or free_gib is None:
        total_gib, free_gib = 0.0, 0.0
    # The driver keeps some memory for itself, which is neither free nor, in newer drivers' counting, used.
    used_gib = total_gib - free_gib if used_gib is None else used_gib
    return Accelerator(KIND, index, name, total_gib, free_gib, uuid, used_gib, whole(use), whole(heat),
                       number(power), unwell[0] if unwell else "")  # fmt: skip


def named(found: Sequence[Accelerator], value: str) -> list[Accelerator]:
    """Of `found` those that a program sees with `value` in CUDA_VISIBLE_DEVICES, as torch.cuda reads it: numbers, or
    beginnings of uuids, up to the first that names nothing; none where one is named twice."""
    begins = next((begins for begins in (WHOLE, PART) if value.startswith(begins)), None)
    words = value.split(",")
    if begins is None:
        words = list(takewhile(bool, map(_leading_number, words)))
    else:
        words = list(takewhile(lambda word: word.startswith(begins), words))
    if len(set(words)) < len(words):
        return []
    kept: list[Accelerator] = []
    for word in words:
        match = [one for one in found if _is_named(one, word, begins, alone=len(found) == 1)]
        if len(match) != 1:
            break
        if begins == WHOLE and match[0] in kept:
            return []
        kept += [one for one in match if one not in kept]  # two parts of a device are that device
    return kept


def _is_named(one: Accelerator, word: str, begins: str | None, alone: bool) -> bool:
    """Older drivers name the device in its parts, newer ones do not, so that it is known only of one `alone`."""
    if begins is None:
        return one.index == word
    return one.uuid.startswith(word) if begins == WHOLE else alone or bool(one.uuid and one.uuid in word)


def _leading_number(word: str) -> str:
    """As C reads it: 1 of "1", " 1" and "1gpu"; "" where there is none, as for -1."""
    found = re.match(r"\s*\+?0*(\d{1,9})", word, re.ASCII)
    return found[1] if found else ""


def with_processes(found: Iterable[Accelerator], lines: Iterable[str]) -> list[Accelerator]:
    """`found`, each with its processes of QUERY_PROCESSES' CSV: device's uuid, pid, MiB, name."""
    held: dict[str, list[DeviceProcess]] = defaultdict(list)
    for line in lines:
        cells = [cell.strip() for cell in line.split(",", 3)]
        if len(cells) == 4 and (pid := whole(cells[1])):
            held[cells[0]].append(DeviceProcess(pid, cells[3].strip("[]"), _gib(cells[2])))
    # A part of a device, as older drivers name it, holds the device's own uuid: MIG-GPU-…/1/0.
    return [
        replace(one, processes=tuple(process for uuid, those in held.items() if one.uuid and one.uuid in uuid
                                     for process in those))
        for one in found
    ]  # fmt: skip


def _gib(mib: str) -> float | None:
    found = number(mib)
    return None if found is None else found / 1024
