"""A torch-npu that cannot be loaded, and accelerators that torch does not see: real processes go on, on the processor,
and say so. torch-npu is a package of a few lines that is installed, to all appearance, as the real one is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app import doctor_devices, monitor, runs
from app.text import Text
from tests.conftest import ROOT
from tests.tiny import build_tiny_adapter, build_tiny_model
from trainer import run_folder, torch_import, unused_accelerators, unused_reason
from trainer.device_kinds import KINDS
from trainer.events import read_events
from trainer.problems import LANGUAGES, Problem

NO_HCCL = "libhccl.so: cannot open shared object file: No such file or directory"
NPU_TABLE = """\
| npu-smi 25.2.0                   Version: 25.2.0                                               |
| 0     910B3               | OK            | 101.8       43                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3318 / 65536         |
| 1     910B3               | OK            | 97.0        41                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          59356/ 65536         |
"""
NPU_SMI = f"cat <<'END'\n{NPU_TABLE}END"
NVIDIA_SMI = 'printf "0, GPU-aa, NVIDIA H200, 143771, 143000\\n1, GPU-bb, NVIDIA H200, 143771, 100000\\n"'


def torch_release() -> str:
    from importlib.metadata import version

    return version("torch").partition("+")[0]


def installed(site: Path, version: str, body: str) -> Path:
    """A folder for PYTHONPATH with a distribution torch-npu, which torch loads by its entry point."""
    package, about = site / "torch_npu", site / f"torch_npu-{version}.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    (package / "__init__.py").write_text(body)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch-npu\nVersion: {version}\n")
    (about / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    return site


@pytest.fixture
def without_cann(tmp_path: Path) -> Path:
    """torch-npu as it fails where CANN is missing: halfway, with some of its modules imported."""
    site = installed(tmp_path / "site", torch_release(), f"import torch_npu.part\nraise ImportError({NO_HCCL!r})\n")
    (site / "torch_npu" / "part.py").write_text("")
    return site


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of vendors' tools, first on PATH; no visibility variables."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for kind in KINDS.values():
        if kind.visible:
            monkeypatch.delenv(kind.visible, raising=False)
    return folder


def tool(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def python(code: str, site: Path | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
    paths = {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, *([site] if site else [])]))}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                          env=os.environ | paths | environment)  # fmt: skip


def said(code: str, site: Path | None = None, **environment: str) -> Any:
    done = python(code, site, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


PREPARED = """
import json, os, sys
from trainer import torch_import
problem = torch_import.prepare()
import torch
assert torch_import.prepare() is problem, "a second call says the same"
left = [name for name, module in sys.modules.items() if name.startswith("torch_npu") and module is not None]
print(json.dumps({"code": problem and problem.code, "values": problem and problem.values, "left": left,
                  "autoload": os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD"),
                  "allocator": os.environ.get("PYTORCH_NPU_ALLOC_CONF"), "sum": float(torch.ones(2).sum())}))
"""


# ---- the import ----


@pytest.mark.slow
def test_torch_is_imported_where_torch_npu_cannot_be(without_cann: Path) -> None:
    alone = python("import torch", without_cann)
    assert alone.returncode == 1, "the stand-in breaks torch as the real one does"
    assert NO_HCCL in alone.stderr
    found = said(PREPARED, without_cann, ASCEND_TOOLKIT_HOME="/nonexistent")
    assert (found["code"], found["sum"]) == ("npu_not_loaded", 2.0)
    assert found["values"]["detail"] == NO_HCCL
    assert found["values"]["npu"] == torch_release()
    assert found["left"] == []
    assert found["autoload"] == "0", "programs that it starts can import torch too"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.8.0", "9.1.0"])
def test_a_torch_npu_for_another_torch_is_not_even_tried(tmp_path: Path, version: str) -> None:
    site = installed(tmp_path / "site", version, "import os\nos.abort()\n")
    found = said(PREPARED, site)
    assert (found["code"], found["left"], found["sum"]) == ("npu_other_torch", [], 2.0)
    assert (found["values"]["wanted_torch"], found["values"]["npu"]) == (version, version)
    # What is advised is what Tunedesk runs with, unlike torch 2.8.
    assert found["values"]["install"] == "torch==2.12.0 torch-npu==2.12.0"
    assert found["values"]["wanted_cann"] == "CANN 9.1.0"


@pytest.mark.thorough
@pytest.mark.slow
def test_a_torch_npu_that_loads_is_loaded_once_with_its_allocator_set(tmp_path: Path) -> None:
    body = "import os\nASKED = os.environ['PYTORCH_NPU_ALLOC_CONF']\ndef _autoload(): pass\n"
    site = installed(tmp_path / "site", torch_release(), body)
    code = """
import json, os, sys
from trainer import torch_import
assert torch_import.prepare() is None
import torch
print(json.dumps([sys.modules["torch_npu"].ASKED, os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD")]))
"""
    assert said(code, site) == ["expandable_segments:True", None]
    assert said(code, site, PYTORCH_NPU_ALLOC_CONF="garbage_collection_threshold:0.9")[0].startswith("garbage")
    found = said("""
import json, os
from trainer import torch_import
problem = torch_import.prepare()
print(json.dumps([problem.code, problem.values["detail"], os.environ.get("PYTORCH_NPU_ALLOC_CONF")]))
""", site, PYTORCH_ALLOC_CONF="expandable_segments:True")  # fmt: skip
    assert found == ["npu_not_loaded", "'PYTORCH_NPU_ALLOC_CONF'", None], "never both variables"


def test_without_torch_npu_nothing_is_imported_and_devices_are_numbered_as_the_tool_numbers_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    code = """
import json, os, sys
from trainer import torch_import, unused_accelerators
before = dict(os.environ)
assert torch_import.prepare() is None
print(json.dumps(["torch" in sys.modules, dict(os.environ.items() - before.items())]))
"""
    assert said(code) == [False, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}]
    assert said(code, CUDA_DEVICE_ORDER="FASTEST_FIRST") == [False, {}]


def test_the_cann_that_is_needed_comes_from_the_table_or_is_said_to_be_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "version.cfg").write_text("toolkit_running_version=[8.5.0:8.5.0]\n")
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(tmp_path))
    known = torch_import._not_loaded("2.12.0", "2.12.0", "undefined symbol")
    unknown = torch_import._not_loaded("2.13.0", "2.13.0", "undefined symbol")
    for language in LANGUAGES:
        words = known.sentence(language)
        assert all(word in words for word in ("torch-npu 2.12.0", "CANN 9.1.0", "8.5.0", "undefined symbol", "doctor"))
        assert "{" not in unknown.sentence(language)
    assert "CANN of its release notes" in unknown.sentence("en")


# ---- training, chatting, exporting without it ----


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = [{"instruction": f"你好{number}", "output": "我是助手！"} for number in range(8)]
    (folder / "who.json").write_text(json.dumps(rows))
    return folder


def trained(model: Path, data: Path, output: Path, **environment: str) -> tuple[Any, str]:
    """The warnings of a run that has completed, and what its terminal showed."""
    values = {"model_name_or_path": model, "dataset_dir": data, "dataset": "who", "output_dir": output, "max_steps": 2,
              "gradient_accumulation_steps": 1}  # fmt: skip
    argv = [sys.executable, "-m", "app", "train", *(f"{key}={value}" for key, value in values.items())]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, cwd=ROOT,
                          env=os.environ | {"OMP_NUM_THREADS": "1"} | environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    events, _ = read_events(output / run_folder.EVENTS)
    assert events[-1]["outcome"] == "completed"
    return [event for event in events if event["event"] == "warning"], done.stderr


@pytest.mark.slow
def test_a_run_without_torch_npu_completes_on_the_processor_and_says_why(
    model: Path, data: Path, without_cann: Path, tmp_path: Path
) -> None:
    path = f"{ROOT}:{without_cann}"
    told, shown = trained(model, data, tmp_path / "run", PYTHONPATH=path, NPROC_PER_NODE="2", LC_ALL="zh_CN.UTF-8")
    [warning] = [event for event in told if event["code"] == "npu_not_loaded"]
    assert warning["detail"] == NO_HCCL
    problem = Problem(warning["code"], **{key: warning[key] for key in ("npu", "detail", "wanted_cann", "cann")})
    assert problem.sentence("zh") in shown, "the terminal, in its language"
    run = runs.read(tmp_path / "run")
    for language in LANGUAGES:
        assert "libhccl.so" in monitor.warnings(run, Text(language))
        assert "tunedesk doctor" in monitor.warnings(run, Text(language))


def chatted(model: Path, **environment: str) -> dict[str, Any]:
    """The loaded event of a chat that has answered."""
    requests = [
        {"op": "load", "model": str(model), "adapter": None},
        {"op": "generate", "id": 1, "messages": [{"role": "user", "content": "你好"}], "max_new_tokens": 2},
    ]
    process = subprocess.Popen([sys.executable, "-m", "trainer.chat"], cwd=ROOT, env=os.environ | environment, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    events = {}
    with process, process.stdin:
        process.stdin.writelines(json.dumps(one) + "\n" for one in requests)
        process.stdin.flush()
        for event in map(json.loads, process.stdout):
            events[event["event"]] = event
            if event["event"] in ("done", "problem"):
                break
    assert "done" in events, events
    return events["loaded"]


@pytest.mark.thorough
@pytest.mark.slow
def test_a_chat_without_torch_npu_answers_and_says_why(model: Path, without_cann: Path) -> None:
    [warning] = chatted(model, PYTHONPATH=f"{ROOT}:{without_cann}")["warnings"]
    assert (warning["code"], warning["values"]["detail"]) == ("npu_not_loaded", NO_HCCL)


@pytest.mark.slow
@pytest.mark.thorough
def test_the_other_commands_without_torch_npu_do_their_work_and_say_why(
    model: Path, without_cann: Path, tmp_path: Path
) -> None:
    adapter, target = build_tiny_adapter(tmp_path / "adapter", model), tmp_path / "whole"
    export = [f"adapter_name_or_path={adapter}", f"model_name_or_path={model}", f"export_dir={target}"]
    for words in (
        ["chat", "--model", str(model), "--prompt", "你好", "--max-new-tokens", "2"],
        ["export", *export, "export_device=auto"],
    ):
        done = subprocess.run([sys.executable, "-m", "app", *words], capture_output=True, text=True, timeout=240, cwd=ROOT,
                              env=os.environ | {"PYTHONPATH": f"{ROOT}:{without_cann}", "LC_ALL": "C"})  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert NO_HCCL in done.stderr
        assert NO_HCCL not in done.stdout
    assert (target / "model.safetensors").is_file()


@pytest.mark.slow
def test_doctor_imports_torch_as_a_run_does(without_cann: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(without_cann))
    [found] = doctor_devices.torch_devices(100)
    assert (found.code, found.values["detail"]) == ("torch_without_npu", NO_HCCL)
    (without_cann / "torch_npu" / "__init__.py").write_text("import os\nos.abort()\n")
    monkeypatch.setattr(doctor_devices, "installed", lambda name: torch_release())
    [found] = doctor_devices.torch_devices(100)
    assert (found.code, found.values["detail"]) == ("torch_without_npu", "SIGABRT")


# ---- accelerators that torch does not see ----


@pytest.mark.thorough
@pytest.mark.slow
def test_a_run_and_a_chat_on_the_processor_of_a_machine_with_npus_say_so(
    model: Path, data: Path, tools: Path, tmp_path: Path
) -> None:
    tool(tools, "npu-smi", NPU_SMI)
    [warning], shown = trained(model, data, tmp_path / "run", LC_ALL="C")
    assert (warning["code"], warning["devices"]) == ("accelerators_need_package", "2 × 910B3")
    assert "torch-npu is not installed" in shown
    assert "2 × 910B3" in monitor.warnings(runs.read(tmp_path / "run"), Text("zh"))
    [told] = chatted(model)["warnings"]
    assert told["code"] == "accelerators_need_package"
    assert chatted(model, ASCEND_RT_VISIBLE_DEVICES="-1")["warnings"] == [], "hidden on purpose"


@pytest.mark.slow
def test_devices_that_torch_does_not_see_get_no_processes_unless_asked_for(tools: Path, tmp_path: Path) -> None:
    tool(tools, "npu-smi", NPU_SMI)
    for name in ("davinci0", "davinci1"):
        (tmp_path / name).touch()
    code = f"""
import json, os
from pathlib import Path
from trainer import accelerators
accelerators.DEVICE_FILES = Path({str(tmp_path)!r})
from trainer.launch import Launch
from trainer.torchrun import of_torch
print(json.dumps([Launch().processes_here, of_torch(Launch()).processes_here, of_torch(Launch.of(os.environ)).several]))
"""
    assert said(code) == [2, 1, False]
    assert said(code, NPROC_PER_NODE="2") == [2, 1, True]


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch of this process that sees no accelerator, on whatever machine."""
    import torch

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch_import, "prepare", lambda: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "built", "code"),
    [
        ({}, None, "accelerators_need_torch"),
        ({"CUDA_VISIBLE_DEVICES": "7"}, None, "accelerators_need_torch"),
        ({"CUDA_VISIBLE_DEVICES": "7"}, "13.0", "accelerators_hidden"),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "13.0", "accelerators_unseen"),
        ({}, "13.0", "accelerators_unseen"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "13.0", None),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, None, None),
    ],
)
def test_why_gpus_are_not_used(
    tools: Path, blind: None, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], built: Any, code: str | None
) -> None:
    import torch

    tool(tools, "nvidia-smi", NVIDIA_SMI)
    monkeypatch.setattr(torch.version, "cuda", built)
    problem = unused_accelerators.problem(variables)
    assert (problem and problem.code) == code
    for language in LANGUAGES if problem else ():
        assert "2 × NVIDIA H200" in problem.sentence(language)
        assert "?" not in problem.sentence(language).replace("？", "?")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("named", "code"), [("1,0", "accelerators_hidden"), ("0,1", "accelerators_unseen"), ("", None)]
)
def test_a_list_of_npus_that_does_not_ascend_is_why_they_are_not_used(
    tools: Path, blind: None, monkeypatch: pytest.MonkeyPatch, named: str, code: str | None
) -> None:
    tool(tools, "npu-smi", NPU_SMI)
    monkeypatch.setattr(unused_reason.importlib.util, "find_spec", lambda name: object())
    problem = unused_accelerators.problem({"ASCEND_RT_VISIBLE_DEVICES": named})
    assert (problem and problem.code) == code
    if code == "accelerators_hidden":
        assert "in ascending order" in str(problem)


@pytest.mark.slow
def test_device_files_are_enough_where_the_tool_is_missing(
    tools: Path, blind: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(unused_reason, "DEVICE_FILES", tmp_path)
    assert unused_accelerators.problem({}) is None
    for name in ("davinci0", "davinci1", "davinci_manager"):
        (tmp_path / name).touch()
    problem = unused_accelerators.problem({})
    assert problem is not None
    assert problem.code == "accelerators_need_package"
    assert problem.values["devices"] == f"{tmp_path}/davinci0, {tmp_path}/davinci1"
