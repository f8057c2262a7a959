"""What nvidia-smi prints, as CSV, which it promises to keep; its table it does not. Light: no torch.

Seen in public reports: units although `nounits` was asked for, [N/A] (devices that share the host's memory; all of use
and power in MIG mode), [Not Supported], [Insufficient Permissions] (memory of a MIG device in a container), and of a
device that is gone [Unknown Error] or [GPU is lost], in its cells or as a sentence instead of them.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from trainer.smi import Accelerator, DeviceProcess, number, whole

KIND = "cuda"
QUERY = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total,memory.free,memory.used,utilization.gpu,"
         "temperature.gpu,power.draw", "--format=csv,noheader,nounits"]  # fmt: skip
QUERY_PROCESSES = ["nvidia-smi", "--query-compute-apps=gpu_uuid,pid,used_memory,process_name",
                   "--format=csv,noheader,nounits"]  # fmt: skip
UNWELL = ("unknown error", "gpu is lost", "gpu requires reset", "gpu requires reboot", "err!")
FEWEST = 5


def devices(lines: Iterable[str]) -> list[Accelerator]:
    """Of lines of QUERY's CSV. The first five cells are enough; lines that are none are passed over."""
    rows = [[cell.strip() for cell in line.split(",")] for line in lines]
    return [_device(row) for row in rows if len(row) >= FEWEST and row[0].isdecimal() and row[0].isascii()]


def _device(row: list[str]) -> Accelerator:
    index, uuid, name, total, free, used, use, heat, power = [*row, "", "", "", ""][:9]
    unwell = [cell.strip("[]") for cell in row if cell.strip("[]").lower() in UNWELL]
    total_gib, free_gib, used_gib = _gib(total), _gib(free), _gib(used)
    if total_gib is None or free_gib is None:
        total_gib, free_gib = 0.0, 0.0
    # The driver keeps some memory for itself, which is neither free nor, in newer drivers' counting, used.
    used_gib = total_gib - free_gib if used_gib is None else used_gib
    return Accelerator(KIND, index, name, total_gib, free_gib, uuid, used_gib, whole(use), whole(heat),
                       number(power), unwell[0] if unwell else "")  # fmt: skip


def is_named(word: str, device: Accelerator, alone: bool) -> bool:
    """Whether `word` of CUDA_VISIBLE_DEVICES is `device`'s uuid, or the beginning of it, or a MIG part of the device:
    older drivers name the device in it, newer ones do not, so that it is known only of a device that is `alone`."""
    if word.startswith("MIG-"):
        return alone or bool(device.uuid and device.uuid in word)
    return word.startswith("GPU-") and device.uuid.startswith(word)


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
