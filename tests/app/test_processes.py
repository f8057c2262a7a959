"""Which devices and machines a run takes: what the environment, the vendors' tools and the page say about it."""

import subprocess
from typing import Any

import pytest

from app import processes, runs
from app.devices import Devices
from trainer import accelerators
from trainer.accelerators import Accelerator
from trainer.launch import Launch
from trainer.problems import Problem
from trainer.settings import TrainSettings, parse

pytestmark = pytest.mark.slow

NVIDIA = [
    "0, GPU-aa11, NVIDIA H200, 143771, 143000",
    "1, GPU-bb22, NVIDIA H200, 143771, 71886",
    "2, GPU-cc33, NVIDIA GB10, [N/A], [N/A]",
]
ASCEND = """
| npu-smi 24.1.rc3                 Version: 24.1.rc3                                       |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 101.8       43                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3318 / 65536         |
+===========================+===============+====================================================+
| 1     910B3               | OK            | 98.0        41                0    / 0             |
| 0                         | 0000:01:00.0  | 0           0    / 0          59356/ 65536         |
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
| No running processes found in NPU 0                                                            |
""".strip().splitlines()


@pytest.fixture
def settings() -> TrainSettings:
    return parse({"model_name_or_path": "/m", "dataset": "d", "output_dir": "/r/a"})


def test_the_vendors_tables_are_read() -> None:
    found = accelerators.nvidia(NVIDIA)
    assert [(one.index, one.name) for one in found] == [
        ("0", "NVIDIA H200"),
        ("1", "NVIDIA H200"),
        ("2", "NVIDIA GB10"),
    ]
    assert [round(one.free_gib) for one in found] == [140, 70, 0]
    chips = accelerators.ascend(ASCEND)
    assert [(one.kind, one.index, one.name) for one in chips] == [("npu", "0", "910B3"), ("npu", "1", "910B3")]
    assert [round(one.free_gib) for one in chips] == [61, 6]


@pytest.mark.parametrize(
    ("value", "seen"),
    [(None, "012"), ("", ""), ("-1", ""), ("2", "2"), ("1,0", "10"), ("GPU-bb,0", "1"), ("0,7,1", "0")],
)
def test_what_the_environment_hides_is_not_offered(value: str | None, seen: str) -> None:
    environment = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    assert "".join(one.index for one in accelerators.visible(accelerators.nvidia(NVIDIA), environment)) == seen


def test_all_devices_of_one_machine_need_no_words(settings: TrainSettings) -> None:
    assert runs.command(settings) == runs.command(settings, Launch())
    assert runs.command(settings)[0] != "env"


def test_chosen_devices_lead_the_command_in_ascending_order(settings: TrainSettings) -> None:
    argv = runs.command(settings, Launch(devices=("10", "2"), kind="npu"))
    assert argv[:2] == ["env", "ASCEND_RT_VISIBLE_DEVICES=2,10"]
    assert argv[2:] == runs.command(settings)
    argv = runs.command(settings, Launch(devices=("1",)))
    assert argv[:3] == ["env", "CUDA_VISIBLE_DEVICES=1", "CUDA_DEVICE_ORDER=PCI_BUS_ID"]


def test_each_machine_has_a_command_of_its_own(settings: TrainSettings) -> None:
    launch = Launch(nodes=2, master_addr="10.0.0.1", master_port=29511)
    first, second = (runs.command(settings, launch, rank) for rank in range(2))
    assert first == runs.command(settings, launch), "Start runs the first machine's"
    assert [word for word in first if word not in second] == ["NODE_RANK=0"]
    # A shell that runs the words gives the trainer what it reads them from.
    done = subprocess.run([*second[: second.index("MASTER_PORT=29511") + 1], "env"], capture_output=True, text=True,
                          check=True)  # fmt: skip
    seen = Launch.of(dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line))
    assert (seen.nodes, seen.node_rank, seen.master_addr, seen.master_port) == (2, 1, "10.0.0.1", 29511)
    assert seen.several


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"NPROC_PER_NODE": "two"}, "NPROC_PER_NODE"),
        ({"NNODES": "0"}, "NNODES"),
        ({"NNODES": "2"}, "MASTER_ADDR"),
        ({"NNODES": "2", "MASTER_ADDR": "a", "NODE_RANK": "2"}, "0 to 1"),
        ({"MASTER_PORT": "99999"}, "65535"),
        ({"MEET_TIMEOUT_S": "soon"}, "MEET_TIMEOUT_S"),
    ],
)
def test_a_bad_value_in_the_environment_is_refused_by_name(environment: dict[str, str], words: str) -> None:
    with pytest.raises(Problem, match=words):
        Launch.of(environment)


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({"NPROC_PER_NODE": "1"}, False),
        ({"NPROC_PER_NODE": "2"}, True),
        ({"NPROC_PER_NODE": "1", "FORCE_TORCHRUN": "1"}, True),
        ({"NPROC_PER_NODE": "1", "FORCE_TORCHRUN": "false"}, False),
        ({"NPROC_PER_NODE": "1", "NNODES": "2", "MASTER_ADDR": "a"}, True),
    ],
)
def test_torchrun_is_used_where_it_is_needed(environment: dict[str, str], several: bool) -> None:
    assert Launch.of(environment).several is several


@pytest.fixture
def three_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Accelerator("cuda", str(index), "NVIDIA H200", 140.0, 100.0) for index in range(3)]
    monkeypatch.setattr(processes, "known", lambda: found)
    monkeypatch.setattr(processes, "devices", lambda: Devices("cuda", ("NVIDIA H200",) * 3))


@pytest.mark.usefixtures("three_devices")
def test_the_pages_controls_mean_a_launch() -> None:
    assert processes.launch_of([["0", "1", "2"], "1", "", "29500"]) == Launch()
    assert processes.launch_of([[], "1", "ignored", "29500"]) == Launch()
    chosen = processes.launch_of([["2", "0"], "２", " host ", "29501"])  # full-width digits of a Chinese keyboard
    assert (chosen.devices, chosen.nodes, chosen.master_addr, chosen.master_port) == (("2", "0"), 2, "host", 29501)


@pytest.mark.usefixtures("three_devices")
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([[], "x", "", "1"], "Machines"),
        ([[], "0", "", "1"], "Machines"),
        ([[], "2", " ", "29500"], "MASTER_ADDR"),
        ([[], "2", "host", "70000"], "Port"),
        ([[], "2", "host", ""], "such as 29500"),
        ([[], "9" * 5000, "host", "29500"], "Machines.*at most 4096"),
        ([[], "2", "two hosts", "29500"], "First machine's address"),
        ([[], "2", "http://host:29500", "29500"], "First machine's address"),
    ],
)
def test_a_bad_machine_is_refused_by_its_label(values: list[Any], words: str) -> None:
    with pytest.raises(Problem, match=words):
        processes.launch_of(values)
