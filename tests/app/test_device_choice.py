"""What the environment of the page means for its devices, and for the runs that it starts."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app import devices, processes
from app.text import Text
from tests.app.test_smi import CAPTURED
from trainer import accelerators, estimate, smi
from trainer.accelerators import Accelerator, chosen
from trainer.device_kinds import KINDS
from trainer.estimate import Hardware
from trainer.launch import Launch

pytestmark = pytest.mark.slow  # imports Gradio
Tool = Callable[[str, str], None]
EIGHT, GPUS = "npu_910b3_24.1.rc3.txt", "nvidia_h200_580.txt"


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tool]:
    """Puts a tool on the PATH that prints a captured file; there is no other, and no variable is set."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "cat").symlink_to("/bin/cat")
    monkeypatch.setenv("PATH", str(folder))
    for name in (*accelerators.VISIBLE.values(), "NPROC_PER_NODE"):
        monkeypatch.delenv(name, raising=False)

    def put(name: str, printed: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\ncat {CAPTURED / printed}\n")
        (folder / name).chmod(0o755)

    for cached in (devices.devices, devices.watch):
        cached.cache_clear()
    yield put
    for cached in (devices.devices, devices.watch):
        cached.cache_clear()


def device_files(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    monkeypatch.setattr(accelerators, "DEVICE_FILES", folder)
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize(
    ("printed", "name", "environment", "expected"),
    [
        (EIGHT, "npu-smi", {}, ()),
        (EIGHT, "npu-smi", {"ASCEND_RT_VISIBLE_DEVICES": "1,2"}, ("1", "2")),
        (EIGHT, "npu-smi", {"ASCEND_RT_VISIBLE_DEVICES": "1,9"}, ("1", "9")),
        (EIGHT, "npu-smi", {"ASCEND_RT_VISIBLE_DEVICES": "2,1"}, ("cpu",)),  # torch-npu sees none then
        (EIGHT, "npu-smi", {"ASCEND_RT_VISIBLE_DEVICES": "1, 2"}, ("1",)),
        (EIGHT, "npu-smi", {"ASCEND_RT_VISIBLE_DEVICES": "0-3"}, ("0",)),
        (EIGHT, "npu-smi", {"ASCEND_RT_VISIBLE_DEVICES": ""}, ("cpu",)),
        # Another vendor's variable, as people set it everywhere, hides nothing here.
        (EIGHT, "npu-smi", {"CUDA_VISIBLE_DEVICES": "-1"}, ()),
        (EIGHT, "npu-smi", {"CUDA_VISIBLE_DEVICES": "", "ASCEND_RT_VISIBLE_DEVICES": "3"}, ("3",)),
        (EIGHT, "npu-smi", {"ASCEND_RT_VISIBLE_DEVICES": "3,4,5", "NPROC_PER_NODE": "2"}, ("3", "4")),
        (GPUS, "nvidia-smi", {"CUDA_VISIBLE_DEVICES": "3,1"}, ("3", "1")),
        (GPUS, "nvidia-smi", {"CUDA_VISIBLE_DEVICES": "1,1"}, ("cpu",)),
        (GPUS, "nvidia-smi", {"CUDA_VISIBLE_DEVICES": "-1"}, ("cpu",)),
        (GPUS, "nvidia-smi", {"ASCEND_RT_VISIBLE_DEVICES": "1"}, ()),
    ],
)
def test_a_run_is_known_by_the_devices_that_it_really_gets(
    tool: Tool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    printed: str,
    name: str,
    environment: dict[str, str],
    expected: tuple[str, ...],
) -> None:
    tool(name, printed)
    device_files(monkeypatch, tmp_path, "davinci0" if name == "npu-smi" else "nvidia0")
    assert chosen(environment) == expected


def test_a_run_is_known_by_the_uuids_that_it_was_given(tool: Tool) -> None:
    tool("nvidia-smi", GPUS)
    uuids = [one.uuid for one in accelerators.accelerators({})]
    assert chosen({"CUDA_VISIBLE_DEVICES": f"{uuids[3]},{uuids[0]}"}) == ("3", "0")
    assert chosen({"CUDA_VISIBLE_DEVICES": "GPU-nobody"}) == ("cpu",)


def test_where_torch_was_given_npus_they_are_asked_for_before_a_display_card(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool("nvidia-smi", GPUS)
    tool("npu-smi", EIGHT)
    assert accelerators.accelerators({})[0].kind == "cuda"
    monkeypatch.setattr(accelerators.importlib.util, "find_spec", lambda name: name == KINDS["npu"].package or None)
    assert accelerators.accelerators({})[0].kind == "npu"


@pytest.mark.parametrize("language", ["zh", "en"])
def test_devices_that_the_environment_hides_are_named_with_what_hides_them(
    tool: Tool, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    tool("npu-smi", EIGHT)
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "3,1")
    found = devices.devices()
    assert (found.kind, found.count) == ("cpu", 1)
    words = found.words(Text(language))  # type: ignore[arg-type]
    assert all(part in words for part in ("ASCEND_RT_VISIBLE_DEVICES", "`3,1`", "8 × 910B3"))


def test_some_devices_chosen_get_one_process_each_whatever_number_the_page_was_given(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool("npu-smi", EIGHT)
    devices.watch().soon()
    monkeypatch.setenv("NPROC_PER_NODE", "8")
    assert processes.launch_of([["1", "2"], "1", "", "29500"]).environment(0) == {
        "ASCEND_RT_VISIBLE_DEVICES": "1,2",
        "NPROC_PER_NODE": "2",
    }
    assert processes.launch_of([list("01234567"), "1", "", "29500"]).environment(0) == {"NPROC_PER_NODE": "8"}
    monkeypatch.delenv("NPROC_PER_NODE")
    assert "NPROC_PER_NODE" not in processes.launch_of([["1"], "1", "", "29500"]).environment(0)


def test_a_chip_that_is_too_ill_to_tell_is_not_taken_for_one_with_the_hosts_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [
        Accelerator("npu", "0", "910B4", 32.0, 29.0),
        Accelerator("npu", "1", "910B4", 0.0, 0.0, health="Critical"),
    ]
    monkeypatch.setattr(estimate, "accelerators", lambda: found)
    machine = Hardware.of(Launch())
    assert (machine.memory_gib, machine.whole_gib, machine.count) == (29.0, 32.0, 2)


def test_several_who_ask_a_tool_that_hangs_wait_no_longer_than_one(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    import time

    tool("npu-smi", EIGHT)
    path = Path(str(smi.shutil.which("npu-smi")))
    path.write_text(f"#!/bin/sh\necho begun >> {path}.begun\nexec /bin/sleep 30\n")
    monkeypatch.setattr(smi, "_hung", {})
    began = time.monotonic()
    threads = [threading.Thread(target=smi.ask, args=(["npu-smi", "info"], 1.0)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 4
    assert Path(f"{path}.begun").read_text().count("begun") == 1, "nor do processes pile up"
