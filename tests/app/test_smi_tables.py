"""What the vendors' tools print, made up in every width and with every fault, is read back as what it was made of."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import accelerators, smi_ascend, smi_nvidia
from trainer.smi import Accelerator, Answer, lines_of

GIB = 1024
NAMES = ("910A", "910B", "910B1", "910B2C", "910B3", "910B4-1", "910_9392", "Ascend910", "Ascend910_9362", "310P3",
         "310P3vir04", "310B4", "Ascend950PR", "NA", "-")  # fmt: skip


@dataclass(frozen=True)
class Process:
    pid: int
    name: str
    mib: int
    inner: int | None = None


@dataclass(frozen=True)
class Chip:
    npu: int
    chip: int
    name: str
    health: str
    power: str
    heat: str
    use: str
    memory: tuple[str, str]
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True)
class Look:
    """How a release prints. `numbers`: what stands beside a chip's number; `older`: two memories, of which HBM is last."""

    widths: tuple[int, int, int] = (27, 15, 52)
    numbers: bool = False
    older: bool = False
    tight: bool = False
    colours: bool = False
    inner: bool = False
    end: str = "\n"
    before: tuple[str, ...] = field(default=())


FIGURE = st.one_of(st.integers(0, 120).map(str), st.sampled_from(["NA", "-", "0"]))
POWER = st.one_of(st.decimals(0, 999, places=1).map(str), st.sampled_from(["NA", "-", "0.0"]))
PROCESS = st.builds(Process, st.integers(1, 4_194_304), st.sampled_from(["python3", "", "python3.1", "mindie_llm_backe", "VLLM::Worker"]),
                    st.integers(0, 65536), st.one_of(st.none(), st.integers(1, 9999)))  # fmt: skip


@st.composite
def chips(draw: st.DrawFn) -> list[Chip]:
    """Of cards that need not begin with number 0, nor follow each other, with one or two dies each."""
    cards = draw(st.lists(st.integers(0, 63), min_size=1, max_size=8, unique=True).map(sorted))
    dies = draw(st.integers(1, 2))
    found = []
    for card in cards:
        for die in range(dies):
            total = draw(st.sampled_from([7759, 15609, 32768, 43693, 44280, 65536]))
            memory = draw(st.sampled_from([(str(draw(st.integers(0, total))), str(total)), ("NA", "NA"), ("0", "0")]))
            health = draw(st.sampled_from(["OK", "OK", "OK", "Warning", "Alarm", "Critical", "UNKNOWN", "NA", "-"]))
            found.append(
                Chip(card, die, draw(st.sampled_from(NAMES)), health, draw(POWER), draw(FIGURE), draw(FIGURE), memory,
                     tuple(draw(st.lists(PROCESS, max_size=3))))
            )  # fmt: skip
    return found


LOOKS = st.builds(
    Look,
    widths=st.tuples(st.integers(20, 34), st.integers(12, 20), st.integers(50, 72)),
    numbers=st.booleans(),
    older=st.booleans(),
    tight=st.booleans(),
    colours=st.booleans(),
    inner=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    before=st.lists(
        st.sampled_from(["DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)", "", "Warning: 1 device is offline",
                         "ha_vfs_open: a message | of 2 | others"]), max_size=2,
    ).map(tuple),
)  # fmt: skip


def table(found: list[Chip], look: Look) -> str:
    def row(*cells: str) -> str:
        return "| " + " | ".join(cell.ljust(width - 2) for cell, width in zip(cells, look.widths, strict=True)) + " |"

    def pair(used: str, total: str) -> str:
        return f"{used}/ {total}" if look.tight else f"{used:<5}/ {total}"

    line = "+" + "+".join("-" * width for width in look.widths) + "+"
    lines = [*look.before, line, "| npu-smi 25.2.0          Version: 25.2.0 |", line,
             row("NPU   Name", "Health", "Power(W)    Temp(C)           Hugepages-Usage(page)"),
             row("Chip  Phy-ID", "Bus-Id", "AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)"), line.replace("-", "=")]  # fmt: skip
    for number, one in enumerate(found):
        shown = f"\x1b[32m{one.health}\x1b[0m" if look.colours else one.health
        older = [pair("1197", "15665")] if look.older else []
        beside = f"     {number}" if look.numbers else ""
        lines += [
            row(f"{one.npu}     {one.name}", shown, f"{one.power:<11} {one.heat:<16}  {pair('0', '0')}"),
            row(f"{one.chip}{beside}", "0000:C1:00.0", "   ".join([f"{one.use:<9}", *older, pair(*one.memory)])),
            line,
        ]
    heads = ["NPU     Chip", "Process id", "Process name", "Process memory(MB)"] + [
        "Process id in container"
    ] * look.inner
    lines.append("| " + " | ".join(heads) + " |")
    for one in found:
        lines += [f"| {one.npu}       {one.chip} | {process.pid} | {process.name} | {process.mib} |"
                  + (f" {process.inner or 'NA'} |" if look.inner else "") for process in one.processes]  # fmt: skip
        if not one.processes:
            lines.append(f"| No running processes found in NPU {one.npu}          |")
    return look.end.join([*lines, line])


def figure(word: str) -> float | None:
    return None if word in ("NA", "-") else float(word)


@given(chips(), LOOKS)
@settings(max_examples=50, deadline=None)
def test_every_table_is_read_back(made: list[Chip], look: Look) -> None:
    found = smi_ascend.devices(lines_of(table(made, look)))
    assert [one.index for one in found] == [str(number) for number in range(len(made))]
    for one, chip in zip(found, made, strict=True):
        assert (one.name, one.health) == (chip.name, "" if chip.health == "OK" else chip.health)
        assert (one.power_w, one.temperature_c, one.utilization) == tuple(
            map(figure, (chip.power, chip.heat, chip.use))
        )
        used, total = (0.0, 0.0) if chip.memory[1] in ("0", "NA") else map(float, chip.memory)
        known = look.older and not total  # the other memory is taken for want of this one
        if not known:
            assert (one.used_gib * GIB, one.total_gib * GIB) == pytest.approx((used, total))
            assert one.free_gib * GIB == pytest.approx(total - used)
        assert [(process.pid, process.name, process.memory_gib) for process in one.processes] == [
            (process.pid, process.name, process.mib / GIB) for process in chip.processes
        ]
        assert [process.inner for process in one.processes] == [
            process.inner if look.inner else None for process in chip.processes
        ]
        assert one.place == ("" if (chip.npu, chip.chip) == (int(one.index), 0) else f"{chip.npu}-{chip.chip}")


# ---- CSV ----

CELL = st.one_of(
    st.integers(0, 200_000).map(str), st.sampled_from(["[N/A]", "[Not Supported]", "[Insufficient Permissions]"])
)
NVIDIA = st.tuples(
    st.sampled_from(["NVIDIA H200", "NVIDIA GB10", "GRID A100-10C", "Tesla V100-SXM2-32GB", "NVIDIA A100, 80GB PCIe"]),
    CELL, CELL, CELL, CELL, CELL, st.sampled_from(["75.91", "[N/A]", "650.00 W"]),
)  # fmt: skip


@given(st.lists(NVIDIA, min_size=1, max_size=16), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", " MiB"]))
@settings(max_examples=40, deadline=None)
def test_every_csv_is_read_back(rows: list[tuple[str, ...]], end: str, unit: str) -> None:
    lines = [
        ", ".join([str(number), f"GPU-{number:08x}", name, *(f"{cell}{unit}" for cell in memory), use, heat, power])
        for number, (name, *memory, use, heat, power) in enumerate(rows)
    ]
    found = smi_nvidia.devices(lines_of(end.join(lines)))
    assert [(one.index, one.name) for one in found] == [(str(number), row[0]) for number, row in enumerate(rows)]
    for one, (_, total, free, *_rest) in zip(found, rows, strict=True):
        known = total.isdecimal() and free.isdecimal()
        assert (one.total_gib * GIB, one.free_gib * GIB) == pytest.approx(
            (float(total), float(free)) if known else (0, 0)
        )
        assert one.health == ""


@pytest.mark.parametrize(
    ("said", "quoted"),
    [
        ("No devices were found", None),
        ("", None),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "couldn't communicate"),
        ("Failed to initialize NVML: Unknown Error", "Unknown Error"),
        ("dcmi module initialize failed. ret is -8005", "-8005"),
        ("Error: The driver is not loaded", "not loaded"),
        ("bash: /usr/local/bin/npu-smi: Permission denied", "Permission denied"),
        ("DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)\ndcmi model initialized failed, because the device is used.",
         "the device is used"),
    ],
)  # fmt: skip
def test_what_a_tool_says_instead_of_devices_is_told(said: str, quoted: str | None) -> None:
    assert smi_ascend.devices(lines_of(said)) == smi_nvidia.devices(lines_of(said)) == []
    trouble = Answer(said, tool="npu-smi").without_devices()
    assert (trouble is None) if quoted is None else (trouble is not None and quoted in trouble.values["detail"])


# ---- what the variables mean ----

CARDS = [
    Accelerator("cuda", str(number), "H200", 1, 1, uuid=f"GPU-{name}{number}") for number, name in enumerate("aabc")
]
NPUS = [Accelerator("npu", str(number), "910B3", 1, 1) for number in range(4)]


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("0,1,3", "013"), ("1", "1"), ("3,2", ""), ("1,1", ""), ("0,2,1", ""),  # it must ascend
        ("0,1,9", "01"), ("9", ""), ("0,9,1", "0"),  # up to what there is not
        ("", ""), ("-1", ""), ("1,-1,2", "1"), ("1, 2", "1"), ("0-3", "0"), ("0,1x", "01"), ("1,", "1"), ("1,,2", "1"),
        (" 1", ""), ("01", "1"), ("0,1,GPU-a", "01"),
    ],
)  # fmt: skip
def test_the_list_of_npus_is_read_as_torch_npu_reads_it(value: str, seen: str) -> None:
    found = accelerators.visible(NPUS, {"ASCEND_RT_VISIBLE_DEVICES": value, "CUDA_VISIBLE_DEVICES": ""})
    assert "".join(one.index for one in found) == seen


WORD = st.sampled_from(["0", "1", "2", "3", "4", "-1", "", "GPU-a", "GPU-a0", "GPU-b2", "GPU-", "GPU-z", "1x", " 2", "+3",
                        "02", "0x1", " "])  # fmt: skip


@pytest.mark.slow
@given(st.lists(WORD, max_size=5).map(",".join))
@settings(max_examples=300, deadline=None)
def test_the_list_of_gpus_is_read_as_torch_reads_it(value: str) -> None:
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", value)
        expected = torch.cuda._parse_visible_devices()
    if expected and isinstance(expected[0], str):
        expected = torch.cuda._transform_uuid_to_ordinals(expected, [one.uuid for one in CARDS])  # type: ignore[arg-type]
    missing = next((place for place, number in enumerate(expected) if int(number) >= len(CARDS)), len(expected))
    found = accelerators.visible(CARDS, {"CUDA_VISIBLE_DEVICES": value})
    assert [int(one.index) for one in found] == expected[:missing]
