"""What `npu-smi info` prints: a table of two rows a chip, and one of processes. Light: no torch.

Its widths, headings and spaces differ between versions and cards: a second column named Phy-ID (cards of two dies),
Device (310P) or nothing; one pair of used and total memory (310P) or two, of which the last is the HBM; NA or - for
what a chip does not tell; since 26.0 the processes have a fifth column, their number inside the container. So cells
are told by the bars, and figures by their order.

A chip's index is its place in the list. The vendor says that ASCEND_RT_VISIBLE_DEVICES takes logical numbers, 0 to
N-1 of the N devices of this machine or container, in ascending order (CANN 9.1, environment variables). In a container
that has devices 3 to 7 of its host those are 0 to 4 (vllm-project/vllm-ascend#16256, by running), while the table keeps
the host's numbers. Unproven here: that a chip which is too ill to start keeps its logical number.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainer.smi import Accelerator, DeviceProcess, number, whole

KIND = "npu"
QUERY = ["npu-smi", "info"]
# What the vendor documents beside OK: Warning, Alarm, Critical, UNKNOWN; NA and - are seen.
WELL = ("ok", "")
_PAIR = re.compile(r"(\d{1,9}|NA|-)\s*/\s*(\d{1,9}|NA|-)", re.ASCII)


@dataclass
class _Chip:
    """A chip while its rows are read. `npu`, `chip`: its numbers in the table."""

    npu: str
    name: str
    health: str
    figures: str
    chip: str = "0"
    memory: str = ""


def devices(lines: Iterable[str]) -> list[Accelerator]:
    """Of the printed lines, with their processes; none where the tool printed something else."""
    chips: list[_Chip] = []
    processes: list[tuple[str, str, DeviceProcess]] = []
    open_chip, in_processes = False, False
    for line in lines:
        if "process id" in line.lower():
            in_processes = True
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) < 3 or not re.match(r"\d", cells[0], re.ASCII):
            continue
        if in_processes:
            processes += _process(cells)
        elif open_chip and not _begins_chip(cells):
            _second_row(chips[-1], cells)
            open_chip = False
        elif ":" not in cells[1]:
            chips.append(_first_row(cells))
            open_chip = True
    return [_device(index, one, processes) for index, one in enumerate(chips)]


def named(found: Sequence[Accelerator], value: str) -> list[Accelerator]:
    """Of `found` those that a program sees with `value` in ASCEND_RT_VISIBLE_DEVICES, as torch-npu and the runtime read
    it: numbers and commas, up to anything else or to a number that there is not; none where they do not ascend."""
    words = re.match(r"[0-9,]*", value)[0].split(",")  # type: ignore[index]
    kept: list[int] = []
    for word in words:
        if not word:
            break
        number = int(word[-9:])
        if kept and number <= kept[-1]:
            return []
        if number >= len(found):
            break
        kept.append(number)
    return [found[number] for number in kept]


def _begins_chip(cells: list[str]) -> bool:
    """Whether this row has a name and a health where the second one has numbers and a bus address."""
    return bool(re.match(r"\d+\s+\S*[A-Za-z]", cells[0], re.ASCII)) and ":" not in cells[1]


def _first_row(cells: list[str]) -> _Chip:
    npu, name = [*cells[0].split(maxsplit=1), ""][:2]
    return _Chip(npu, name, cells[1], cells[2])


def _second_row(one: _Chip, cells: list[str]) -> None:
    one.chip, one.memory = cells[0].split()[0], cells[2]


def _device(index: int, one: _Chip, processes: list[tuple[str, str, DeviceProcess]]) -> Accelerator:
    power, heat = [*_PAIR.sub(" ", one.figures).split(), "", ""][:2]
    pairs = [(used, total) for used, total in _PAIR.findall(one.memory) if total.strip("0").isdigit()]
    used_mib, total_mib = (number(words) or 0.0 for words in pairs[-1]) if pairs else (0.0, 0.0)
    before = _PAIR.split(one.memory)[0].split()
    usual = one.npu == str(index) and one.chip == "0"
    return Accelerator(
        KIND, str(index), one.name, total_mib / 1024, max(0.0, total_mib - used_mib) / 1024,
        used_gib=used_mib / 1024,
        utilization=whole(before[0]) if before else None,
        temperature_c=whole(heat),
        power_w=number(power),
        health="" if one.health.lower() in WELL else one.health,
        place="" if usual else f"{one.npu}-{one.chip}",
        processes=tuple(process for npu, chip, process in processes if (npu, chip) == (one.npu, one.chip)),
    )  # fmt: skip


def _process(cells: list[str]) -> list[tuple[str, str, DeviceProcess]]:
    """Of a row: numbers of card and chip, pid, name, MiB, and since 26.0 the pid inside the container."""
    npu, chip = [*cells[0].split(), "0"][:2]
    pid, inner = whole(cells[1]), whole(cells[4]) if len(cells) > 4 else None
    memory = number(cells[3]) if len(cells) > 3 else None
    if pid is None and inner is None:
        return []
    held = DeviceProcess(pid or 0, cells[2], None if memory is None else memory / 1024, inner)
    return [(npu, chip, held)]
