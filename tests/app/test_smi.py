"""The vendors' tools: what they print in several versions is read, and no text makes the page fail or wait."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import gradio as gr
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app import chat_memory, device_holders, devices
from app.chat import ChatProcess, Status
from app.chat_device import AUTO, ChatDevice
from app.device_holders import Holder, holders, usable
from app.device_panel import choices, table_html
from app.devices import Watch
from app.export_tab import ExportTab
from app.look import Look
from app.page import Page
from app.processes import ProcessControls
from app.roots import Roots
from app.text import Text
from tests.tiny import build_hollow_model
from trainer import accelerators, run_folder, smi, smi_ascend, smi_nvidia
from trainer.accelerators import Accelerator, Reading
from trainer.export_settings import ExportSettings
from trainer.launch import Launch
from trainer.run_folder import Identity
from trainer.smi import DeviceProcess, Trouble, lines_of

pytestmark = pytest.mark.slow

# Layouts as public reports show them; the figures are ours.
CAPTURED = Path(__file__).parent / "smi"
EN, ZH = Text("en"), Text("zh")
GIB = 1024


def npu(name: str) -> list[Accelerator]:
    return smi_ascend.devices(lines_of((CAPTURED / f"{name}.txt").read_bytes().decode()))


def gpu(name: str) -> list[Accelerator]:
    return smi_nvidia.devices(lines_of((CAPTURED / f"{name}.txt").read_text()))


# ---- what the tools print ----


def test_eight_chips_are_read_with_their_figures_and_processes() -> None:
    found = npu("npu_910b3_24.1.rc3")
    assert [one.index for one in found] == list("01234567")
    assert {(one.kind, one.name, one.health, one.place) for one in found} == {("npu", "910B3", "", "")}
    busy = found[1]
    assert (busy.utilization, busy.temperature_c, busy.power_w) == (97, 41, 97.1)
    assert (round(busy.used_gib * GIB), round(busy.total_gib * GIB)) == (59356, 65536)
    assert busy.processes == (DeviceProcess(50122, "python3", pytest.approx(56056 / GIB)),)
    assert [len(one.processes) for one in found] == [0, 1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("name", "chips", "total_mib", "used_mib"),
    [
        ("npu_910a_22.0.4", ["910B"] * 2, 32768, 1365),  # two memories: the HBM is the last
        ("npu_910b4_ill_23.0.6", ["910B4"] * 5 + ["NA", "910B4"], 32768, 2858),
        ("npu_910_9392_25.2.3", ["Ascend910"] * 4, 65536, 53444),
        ("npu_910_26.1.0_container", ["Ascend910"] * 4, 65536, 15516),
        ("npu_310p_24.1.rc2", ["310P3"] * 3, 44280, 1397),  # one memory
        ("npu_310_23.0.0_colours", ["310"], 7759, 577),
        ("npu_910b3_cut", ["910B3"] * 4, 65536, 3318),
        ("npu_dcmi_8005", [], 0, 0),
        ("npu_dcmi_8020", [], 0, 0),
    ],
)
def test_every_version_and_width_is_read(name: str, chips: list[str], total_mib: int, used_mib: int) -> None:
    found = npu(name)
    assert [one.name for one in found] == chips
    assert [one.index for one in found] == [str(number) for number in range(len(chips))]
    if found:
        assert (round(found[0].total_gib * GIB), round(found[0].used_gib * GIB)) == (total_mib, used_mib)


def test_chips_that_are_not_well_are_told_and_keep_their_place_in_the_list() -> None:
    found = npu("npu_910b4_ill_23.0.6")
    assert [one.health for one in found] == ["", "Warning", "Alarm", "Critical", "UNKNOWN", "NA", ""]
    critical = found[3]
    assert (critical.total_gib, critical.utilization, critical.temperature_c, critical.power_w) == (0, None, None, None)
    assert [one.processes[0].pid for one in found if one.processes] == [4711]
    assert [one.index for one in found if usable(one, [])] == ["0", "6"], "of the others one is in use and five are ill"


def test_two_dies_of_a_card_are_two_devices_that_share_its_processes_rightly() -> None:
    found = npu("npu_910_9392_25.2.3")
    assert [one.place for one in found] == ["", "0-1", "1-0", "1-1"]
    assert [one.power_w for one in found] == [232.5, None, 232.5, None]
    assert [[process.pid for process in one.processes] for one in found] == [[3325989, 3328327], [3328327], [], []]


def test_in_a_container_devices_count_from_nought_and_processes_have_its_own_numbers() -> None:
    found = npu("npu_910_26.1.0_container")
    assert [(one.index, one.place) for one in found] == [("0", "4-0"), ("1", "4-1"), ("2", "5-0"), ("3", "5-1")]
    assert [(process.pid, process.inner) for one in found for process in one.processes] == [
        (692318, 87),
        (692319, None),
    ]


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("nvidia_h200_580", [(0, 28, 75.91), (0, 29, 76.91), (98, 30, 77.91), (0, 31, 78.91)]),
        ("nvidia_units_470", [(35, 44, 57.2), (0, 38, None)]),
        ("nvidia_mig_535", [(None, 33, 87.41), (None, 47, 101.03)]),
        ("nvidia_gb10_580", [(3, 41, 9.18)]),
        ("nvidia_lost_550", [(0, 41, 21.05), (None, None, None), (None, None, None)]),
        ("nvidia_unknown_error", []),
        ("nvidia_none", []),
        ("nvidia_driver", []),
    ],
)
def test_nvidias_figures_are_read_whatever_stands_for_those_that_are_missing(
    name: str, figures: list[tuple[int | None, int | None, float | None]]
) -> None:
    assert [(one.utilization, one.temperature_c, one.power_w) for one in gpu(name)] == figures


def test_nvidias_memory_is_whole_free_and_used() -> None:
    whole, lost, unknown = (gpu(f"nvidia_{name}") for name in ("h200_580", "lost_550", "mig_535"))
    assert [round(value * GIB) for value in (whole[2].total_gib, whole[2].free_gib, whole[2].used_gib)] == [
        143771,
        21003,
        122001,
    ]
    assert [one.health for one in lost] == ["", "GPU is lost", "Unknown Error"]
    assert [one.total_gib for one in (*lost[1:], unknown[1])] == [0, 0, 0], "unknown, not empty"


def test_nvidias_processes_belong_to_the_device_that_they_are_on() -> None:
    lines = lines_of((CAPTURED / "nvidia_h200_580_processes.txt").read_text())
    found = smi_nvidia.with_processes(gpu("nvidia_h200_580"), lines)
    assert [[(process.pid, process.name) for process in one.processes] for one in found] == [
        [], [], [(88123, "/opt/conda/bin/python3.11")], [(90001, "Not Found")],
    ]  # fmt: skip
    parts = lines_of((CAPTURED / "nvidia_mig_535_processes.txt").read_text())
    found = smi_nvidia.with_processes(gpu("nvidia_mig_535"), parts)
    assert [[process.pid for process in one.processes] for one in found] == [[15111], []]


ROWS = st.sampled_from(
    [line for path in sorted(CAPTURED.glob("*.txt")) for line in path.read_bytes().decode().splitlines()]
)


def test_a_part_of_a_device_that_the_environment_names_is_that_device() -> None:
    found = gpu("nvidia_mig_535")
    named = {"CUDA_VISIBLE_DEVICES": f"MIG-{found[1].uuid}/3/0,MIG-{found[1].uuid}/4/0"}
    assert accelerators.visible(found, named) == [found[1]]
    newer = {"CUDA_VISIBLE_DEVICES": "MIG-41b3f4a1-0d3e-5c7f-9f35-2d1f6a3f1a11"}
    assert accelerators.visible(found, newer) == []
    assert accelerators.visible(found[:1], newer) == found[:1]


@given(
    st.lists(st.one_of(ROWS, st.text(), st.text(alphabet="|0123456789 -/.,:NAok%\x1b[m", max_size=80))).map("\n".join)
)
@example("| 1 9 | a | 9/9 |\n| ² | 0000:01:00.0 | ² ²/² |\n" + "9" * 5000)
@example("| 0 x | OK | 1 |\n| 0 | : | " + "9" * 400 + " / " + "9" * 400 + " |\n| Process id |\n| 0 0 | 9 | | |")
@settings(max_examples=80, deadline=None)
def test_no_text_is_too_strange_to_read(text: str) -> None:
    lines = lines_of(text)
    found = [*smi_ascend.devices(lines), *smi_nvidia.with_processes(smi_nvidia.devices(lines), lines)]
    assert all(one.index.isdecimal() and one.total_gib >= 0 and one.free_gib >= 0 for one in found)
    for language in (EN, ZH):
        assert table_html(Reading(tuple(found)), {one.index: [Holder("process", text)] for one in found}, language)
        assert len(choices(found, {}, language)) == len(found)


# ---- how they are asked ----


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts tools on the PATH: `tool("npu-smi", "cat table")`; there is no other tool."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "cat").symlink_to("/bin/cat")
    monkeypatch.setenv("PATH", str(folder))
    for name in accelerators.VISIBLE.values():
        monkeypatch.delenv(name, raising=False)

    def put(name: str, body: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)

    return put


def shows(name: str) -> str:
    return f"cat {CAPTURED / name}.txt"


def test_a_tool_is_asked_and_what_the_environment_hides_stays_hidden(
    tool: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tool("npu-smi", shows("npu_910b3_24.1.rc3"))
    tool("nvidia-smi", "echo 'No devices were found'; exit 6")
    assert [one.index for one in accelerators.accelerators()] == list("01234567")
    assert accelerators.reading().trouble is None
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1,2,5")
    assert [one.index for one in accelerators.reading().devices] == ["1", "2", "5"]
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1, 2")
    assert [one.index for one in accelerators.accelerators()] == ["1"], "as its runtime reads it, to the blank"


def test_processes_are_asked_for_where_the_devices_are_nvidias(tool: Callable[[str, str], None]) -> None:
    tool(
        "nvidia-smi",
        f'case "$1" in *apps*) {shows("nvidia_h200_580_processes")};; *) {shows("nvidia_h200_580")};; esac',
    )
    assert [len(one.processes) for one in accelerators.reading().devices] == [0, 0, 1, 1]


def test_one_lost_device_does_not_hide_the_others(tool: Callable[[str, str], None]) -> None:
    tool("nvidia-smi", f"{shows('nvidia_lost_550')}; {shows('nvidia_unknown_error')}; exit 255")
    found = accelerators.reading()
    assert [one.health for one in found.devices] == ["", "GPU is lost", "Unknown Error"]
    assert found.trouble
    assert "0000:A1:00.0" in EN(f"device.{found.trouble.code}", **found.trouble.values)


@pytest.mark.parametrize("status", [0, 255])
def test_a_tool_that_cannot_reach_its_driver_is_quoted(tool: Callable[[str, str], None], status: int) -> None:
    tool("npu-smi", f"{shows('npu_dcmi_8005')}; exit {status}")
    found = accelerators.reading()
    assert found.devices == ()
    assert found.trouble
    assert "-8005" in table_html(found, {}, ZH)


def test_a_tool_that_hangs_is_left_alone_in_time_even_with_a_child_that_holds_its_pipe(
    tool: Callable[[str, str], None],
) -> None:
    tool("npu-smi", "/bin/sleep 60 & /bin/sleep 60")
    began = time.monotonic()
    answer = smi.ask(["npu-smi", "info"], timeout_s=0.3)
    assert time.monotonic() - began < 5
    assert answer.trouble == Trouble("tool_hangs", {"tool": "npu-smi", "seconds": 0})
    began = time.monotonic()
    assert smi.ask(["npu-smi", "info"], timeout_s=5).trouble, "it is left alone for a while"
    assert time.monotonic() - began < 1
    tool("nvidia-smi", "echo x")
    (Path(os.environ["PATH"]) / "nvidia-smi").write_bytes(b"\x7fELF no program")
    broken = smi.ask(["nvidia-smi"]).trouble
    assert broken
    assert broken.code == "tool_fails"


# ---- when they are asked ----


def test_whoever_looks_waits_for_no_tool_and_only_one_is_asked_at_a_time() -> None:
    began: list[float] = []

    def read() -> Reading:
        began.append(time.monotonic())
        time.sleep(0.2)
        return Reading((Accelerator("npu", str(len(began)), "910B3", 64.0, 60.0),))

    watch = Watch(read, every_s=0.5)
    at = time.monotonic()
    assert watch.now() == Reading()
    assert time.monotonic() - at < 0.15
    assert watch.soon().devices[0].index == "1", "waited for"
    for _ in range(20):
        watch.now()
    assert len(began) == 1, "it is not old yet"
    time.sleep(0.6)
    assert watch.now().devices[0].index == "1", "the last one, until the next is there"
    assert watch.soon().devices[0].index == "2"
    assert len(began) == 2


def test_what_a_tool_said_last_is_kept_when_it_fails() -> None:
    known = Reading((Accelerator("npu", "0", "910B3", 64.0, 60.0),))
    answers = [known, Reading(trouble=Trouble("tool_hangs", {"tool": "npu-smi", "seconds": 5}))]
    watch = Watch(lambda: answers.pop(0), every_s=0.0)
    watch.now()
    while len(answers) == 2 or watch._asking:
        time.sleep(0.01)
    watch.now()
    while watch._asking:
        time.sleep(0.01)
    found = watch._reading
    assert found.devices == known.devices
    words = table_html(found, {}, EN)
    assert "npu-smi has not answered within 5 s" in words
    assert "may be older" in words


# ---- who holds a device ----


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    """A process with a child; both end with the test."""
    process = subprocess.Popen([sys.executable, "-c", "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()']).wait()"],
                               stdin=subprocess.PIPE)  # fmt: skip
    yield process
    process.communicate(b"\n")


def child_of(pid: int) -> int:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    deadline = time.monotonic() + 10
    while not (words := path.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(words[0])


def run_of(runs_dir: Path, name: str, pid: int, devices: tuple[str, ...]) -> None:
    folder = runs_dir / name
    folder.mkdir(parents=True)
    run_folder.write_identity(folder, Identity.of(pid, devices))


def with_processes(*processes: DeviceProcess) -> list[Accelerator]:
    """Devices 0, 1 and so on, the last of them with `processes`."""
    found = [Accelerator("npu", str(index), "910B3", 64.0, 60.0, used_gib=4.0) for index in range(2)]
    return [*found, Accelerator("npu", "2", "910B3", 64.0, 10.0, used_gib=54.0, processes=processes)]


def test_a_run_is_known_by_its_rank_and_others_by_their_number(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_holders, "contained", lambda: False)
    run_of(tmp_path, "mine", sleeper.pid, ("1",))
    rank = DeviceProcess(child_of(sleeper.pid), "python3")
    foreign = DeviceProcess(os.getppid(), "/usr/bin/python3.11")
    found = holders(with_processes(rank, foreign), tmp_path, Status())
    assert found["0"] == []
    assert found["1"] == [Holder("run", "mine")], "it was started there, though it holds nothing yet"
    assert [one.words(ZH) for one in found["2"]] == ["mine", f"{os.getppid()} (python3.11)"]


def test_the_chat_is_known_by_its_process_and_its_device(tmp_path: Path, sleeper: "subprocess.Popen[bytes]") -> None:
    status = Status("ready", pid=sleeper.pid, index="1")
    assert holders(with_processes(), tmp_path, status) == {"0": [], "1": [Holder("chat")], "2": []}
    assert holders(with_processes(), tmp_path, replace(status, index=""))["0"] == [Holder("chat")], "the first it sees"
    assert [Holder("chat").words(text) for text in (ZH, EN)] == ["对话", "Chat"]


def test_in_a_container_a_run_is_told_by_what_it_was_started_on(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_holders, "contained", lambda: True)
    run_of(tmp_path, "mine", sleeper.pid, ("2",))
    hosts = DeviceProcess(4_000_001, "python3")
    assert holders(with_processes(hosts), tmp_path, Status())["2"] == [Holder("run", "mine")]
    told = DeviceProcess(4_000_001, "python3", inner=4_000_002)
    assert holders(with_processes(told), tmp_path, Status())["2"][1:] == [Holder("process", "python3", 4_000_002)]
    inside = DeviceProcess(4_000_001, "python3", inner=child_of(sleeper.pid))
    assert holders(with_processes(inside), tmp_path, Status())["2"] == [Holder("run", "mine")]
    # A number of the host's that is one of ours here by chance: the run was not started on that device.
    (tmp_path / "mine" / run_folder.IDENTITY).unlink()
    run_of(tmp_path, "other", sleeper.pid, ("0",))
    chance = DeviceProcess(sleeper.pid, "java")
    assert holders(with_processes(chance), tmp_path, Status())["2"] == [Holder("process", "java", sleeper.pid)]
    assert Holder("process").words(EN) == "a process without a name"


def test_a_run_that_is_over_and_one_on_the_processor_hold_nothing(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    run_of(tmp_path, "on_cpu", sleeper.pid, ("cpu",))
    run_of(tmp_path, "over", os.getpid(), ())
    path = tmp_path / "over" / run_folder.IDENTITY
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ticks": 1, "host": socket.gethostname()}))
    assert holders(with_processes(), tmp_path, Status()) == {"0": [], "1": [], "2": []}


# ---- what the page says ----


@pytest.mark.parametrize("text", [EN, ZH])
def test_the_table_has_all_that_is_known_and_a_dash_for_the_rest(text: Text) -> None:
    found = npu("npu_910b4_ill_23.0.6")
    words = table_html(Reading(tuple(found)), {"1": [Holder("run", "<b>run</b>")]}, text)
    for part in ("12 %", "8.9 / 32.0 GiB", "71 °C · 91 W", "Critical", "&lt;b&gt;run&lt;/b&gt;", text("device.free")):
        assert part in words
    assert words.count("<tr data-ill>") == 5
    assert "None" not in words


def test_a_choice_says_what_is_free_and_who_holds_the_device() -> None:
    offered = choices(npu("npu_910b4_ill_23.0.6"), {"1": [Holder("run", "mine")]}, EN)
    assert offered[1] == ("1: 910B4 (23 GiB free) · health: Warning · mine", "1")
    assert offered[3][0] == "device 3: 910B4 · health: Critical"


# ---- the chat's own device ----


def environment_of(pid: int | None) -> dict[str, str]:
    words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_the_chat_process_starts_on_its_device_and_anew_when_that_changes(tmp_path: Path) -> None:
    model = build_hollow_model(tmp_path / "model")
    chat = ChatProcess(tmp_path / "chat.log", (sys.executable, str(Path(__file__).parent / "echo_chat.py")))
    try:
        third = chat.load(model, place=Launch(devices=("3",), kind="npu"))
        assert third.index == "3"
        assert environment_of(third.pid)["ASCEND_RT_VISIBLE_DEVICES"] == "3"
        assert chat.load(model, place=Launch(devices=("3",), kind="npu")).pid == third.pid
        first = chat.load(model, place=Launch(devices=("1",)))
        assert first.pid != third.pid
        named = environment_of(first.pid)
        assert (named["CUDA_VISIBLE_DEVICES"], named["CUDA_DEVICE_ORDER"]) == ("1", "PCI_BUS_ID")
        assert chat.load(model).index == ""
    finally:
        chat.unload()


@pytest.fixture
def page(tmp_path: Path, tool: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page on a machine with eight chips, of which 1 and 2 are in use."""
    tool("npu-smi", shows("npu_910b3_24.1.rc3"))
    for cached in (devices.devices, devices.watch):
        cached.cache_clear()
    yield Page(EN, "", tmp_path, "", tmp_path / "runs", cast(ChatProcess, SimpleNamespace(status=Status())),
               cast(Roots, None), cast(Look, None))  # fmt: skip
    for cached in (devices.devices, devices.watch):
        cached.cache_clear()


def test_auto_is_a_free_device_and_stays_where_the_model_is(
    page: Page, sleeper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of(page.runs_dir, "mine", sleeper.pid, ("0",))
    choice = ChatDevice(page)
    assert choice.field.visible
    assert choice.place(AUTO) == Launch(devices=("3",), kind="npu"), "0 is a run's, 1 and 2 are others'"
    assert choice.place("5") == Launch(devices=("5",), kind="npu")
    tab = ExportTab.__new__(ExportTab)
    tab._page = page
    settings = ExportSettings(model_name_or_path="m", adapter_name_or_path="a", export_dir="e", export_device="auto")
    assert tab._place(settings) == Launch(devices=("3",), kind="npu"), "an export takes a free one as well"
    assert tab._place(settings.model_copy(update={"export_device": "cpu"})) == Launch()
    assert [choice.trained_on_by(choice.place(index)) for index in "05"] == ["mine", ""]
    monkeypatch.setattr(page.chat, "status", Status("ready", pid=sleeper.pid, index="6"))
    assert choice.place(AUTO).devices == ("6",)


def test_a_new_form_begins_with_the_free_devices(page: Page, sleeper: "subprocess.Popen[bytes]") -> None:
    run_of(page.runs_dir, "mine", sleeper.pid, ("0", "7"))
    with gr.Blocks():
        controls = ProcessControls(page)
    assert controls.proposed() == ["3", "4", "5", "6"]
    run_of(page.runs_dir, "rest", sleeper.pid, tuple("3456"))
    assert controls.proposed() == list("01234567"), "where none is free a run has to wait for its turn"


def test_the_shortage_speaks_of_the_chosen_device(
    page: Page, tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    model = build_hollow_model(tmp_path / "model")
    header = b'{"w":{"dtype":"BF16","shape":[6000000000],"data_offsets":[0,12000000000]}}'
    with (model / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 12_000_000_000)  # sparse
    run_of(page.runs_dir, "elsewhere", sleeper.pid, ("4",))
    place = Launch(devices=("1",), kind="npu")
    found = chat_memory.shortage(model, None, "bf16", Status(), page.runs_dir, place)
    assert found
    words = found.words(EN)
    assert "device 1: 910B3 has 6.04 GiB of 64.0 GiB free" in words
    assert "elsewhere" not in words, "that run holds another device"
    there = Status("ready", model=tmp_path / "other", dtype="bf16", memory_gib=20.0, index="1")
    assert chat_memory.shortage(model, None, "bf16", there, page.runs_dir, place) is None
    assert chat_memory.shortage(model, None, "bf16", replace(there, index="2"), page.runs_dir, place) is not None
