"""`tunedesk doctor`: each finding in both languages, with fake vendor tools on PATH and made-up versions."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app import doctor, doctor_devices, doctor_machine, doctor_packages
from app.doctor_finding import BROKEN, OK, WARNING, Checked, Finding
from app.text import Text
from tests.conftest import ROOT
from trainer import cann as cann_versions
from trainer import smi
from trainer.problems import LANGUAGES

NPU_TABLE = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 25.2.0                   Version: 25.2.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 101.8       43                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3318 / 65536         |
+===========================+===============+====================================================+
| 1     910B3               | {health} | 97.0        41                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          59356/ 65536         |
+===========================+===============+====================================================+
"""
NEWEST = "torch==2.12.0 torch-npu==2.12.0"
CSV = "0, GPU-aa, NVIDIA H200, 143771, 143000\\n1, GPU-bb, NVIDIA H200, 143771, 100000"


def fake(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of vendor tools, first on PATH; no visibility variables."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for name in ("CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return folder


def npu_smi(tools: Path, health: str = "OK           ") -> None:
    (tools / "table").write_text(NPU_TABLE.format(health=health))
    fake(tools, "npu-smi", f"cat {tools / 'table'}")


def codes(found: list[Checked]) -> list[tuple[str, str]]:
    return [(one.state, one.code) for one in found]


def test_every_finding_that_the_code_names_has_words_and_a_remedy_in_both_languages() -> None:
    import re

    for source in (ROOT / "app").glob("doctor_*.py"):
        text = source.read_text()
        for kind, check, code in re.findall(r'\b(ok|warning|broken)\(\s*"(\w+)",\s*"(\w+)"', text):
            for language in LANGUAGES:
                words = Text(language).group("doctor")
                assert check in words
                assert code in words
                assert kind == OK or f"{code}.remedy" in words, code


def test_what_needs_doing_is_said_with_its_remedy() -> None:
    finding = Finding.of(Checked("port", WARNING, "port_taken", {"host": "::1", "port": 7, "detail": "in use"}))
    words = doctor.as_words([finding], Text("zh"))
    assert "::1 的 7 端口不可用" in words
    assert "→ " in words
    assert doctor.as_json([finding])["ok"]
    assert Finding.of(Checked("port", OK, "port_free", {"host": "::1", "port": 7})).remedy == {}


# ---- devices ----


def test_gpus_are_named_with_driver_and_free_memory(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tools, "nvidia-smi", f'case "$1" in *driver*) echo 580.65; echo 580.65;; *) printf "{CSV}\\n";; esac')
    [found] = doctor_devices.devices()
    assert (found.state, found.values["count"], found.values["driver"]) == (OK, 2, "580.65")
    assert found.values["memory"] == "98 / 140 GiB"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert codes(doctor_devices.devices()) == [(BROKEN, "devices_hidden")]


def test_npus_are_named_and_the_ill_ones_told(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npu_smi(tools)
    [found] = doctor_devices.devices()
    assert (found.code, found.values["count"], found.values["name"]) == ("devices_well", 2, "910B3")
    assert found.values["driver"][:1].isdigit(), "in a container npu-smi's own version"
    npu_smi(tools, "Alarm        ")
    assert doctor_devices.devices()[1].values["chips"] == "1 (Alarm)"
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1,0")
    unordered = doctor_devices.devices()[0]
    assert (unordered.code, unordered.values["ascending"]) == ("devices_unordered", "0,1")


def test_a_tool_that_fails_hangs_or_says_nothing_is_told(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tools, "nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    [found] = doctor_devices.devices()
    assert (found.code, "version mismatch" in found.values["detail"]) == ("tool_fails", True)
    fake(tools, "nvidia-smi", "sleep 60 & exec sleep 60")
    monkeypatch.setattr(doctor_devices, "TOOL_TIMEOUT_S", 0.3)
    monkeypatch.setattr(smi, "_hung", {})
    assert codes(doctor_devices.devices()) == [(BROKEN, "tool_hangs")]
    smi._hung.clear()
    fake(tools, "nvidia-smi", "exit 0")
    assert codes(doctor_devices.devices()) == [(WARNING, "tool_empty")]


def test_without_any_tool_the_processor_is_named(tools: Path) -> None:
    assert codes(doctor_devices.devices()) == [(WARNING, "devices_none")]


@pytest.mark.slow
def test_a_torch_that_sees_no_accelerator_where_there_is_one_is_told(tools: Path) -> None:
    import torch

    if torch.accelerator.is_available():
        pytest.skip("NOT TESTED HERE: torch sees an accelerator")
    assert codes(doctor_devices.torch_devices(60)) == [(OK, "torch_cpu")]
    npu_smi(tools)
    [found] = doctor_devices.torch_devices(60)
    assert (found.state, found.code, found.values["devices"]) == (BROKEN, "torch_blind", "2 × 910B3")
    finding = Finding.of(found)
    assert "torch==2.12.0 torch-npu==2.12.0" in finding.remedy["en"]
    assert "没有安装 torch-npu" in finding.remedy["zh"]
    hidden = doctor_devices.torch_devices(60, {"ASCEND_RT_VISIBLE_DEVICES": ""})
    assert codes(hidden) == [(OK, "torch_cpu")], "as it was asked for"


@pytest.mark.parametrize(
    ("npu", "torch", "cann", "code", "remedy"),
    [
        ("2.12.0", "2.12.0+cpu", "9.1.0", "ascend_well", ""),
        ("2.12.0.post2", "2.12.0", "9.1.0", "ascend_well", ""),
        ("2.12.0.post2", "2.12.0", "9.1.1", "ascend_well", ""),
        ("2.11.0.post2+gitabc", "2.11.0", "9.1.3", "ascend_well", ""),
        ("2.9.0.post2", "2.9.0", "9.0.0", "torch_refused", f"{NEWEST}|CANN 9.1.0"),
        ("2.6.0.post3", "2.6.0", "8.3.RC1", "torch_refused", f"{NEWEST}|CANN 9.1.0"),
        ("2.8.0", "2.8.0", "8.3.RC1", "torch_refused", f"{NEWEST}|CANN 9.1.0"),
        ("2.12.0", "2.12.0", None, "cann_missing", f"CANN 9.1.0|{NEWEST}"),
        ("2.12.0.post2", "2.12.0", None, "cann_missing", "CANN 9.1|torch==2.12.0 torch-npu==2.12.0.post2"),
        ("2.11.0", "2.13.0", "9.1.0", "npu_other_torch", "torch==2.11.0 torch-npu==2.11.0|CANN 9.1.0"),
        ("2.12.0", "2.13.0", None, "npu_other_torch", f"{NEWEST}|CANN 9.1.0"),
        # A torch that Tunedesk does not run with is not advised.
        ("2.8.0", "2.13.0", "8.3.RC1", "npu_other_torch", f"{NEWEST}|CANN 9.1.0"),
        ("2.12.0", "2.12.0", "8.5.0", "cann_old", f"CANN 9.1.0|{NEWEST}"),
        ("2.12.0", "2.12.0", "7.0.0", "cann_old", "CANN 9.1.0"),
        ("2.11.0.post2", "2.11.0", "9.0.0", "cann_old", "CANN 9.1|torch==2.11.0 torch-npu==2.11.0.post2"),
        ("2.12.0", "2.12.0", "9.1.1", "cann_new", "torch==2.12.0 torch-npu==2.12.0.post2|CANN 9.1"),
        ("2.12.0", "2.12.0", "9.2.0", "cann_new", f"{NEWEST}|CANN 9.1.0"),
        ("2.11.0", "2.11.0", "9.1.2", "cann_new", "torch==2.12.0 torch-npu==2.12.0.post2|CANN 9.1"),
        ("2.13.0", "2.13.0", "9.1.0", "npu_unknown", f"{NEWEST}|CANN 9.1.0"),
        ("2.12.0.post3", "2.12.0", "9.1.1", "npu_unknown", "torch-npu==2.12.0.post2|CANN 9.1"),
        ("2.7.1rc1", "2.7.1", "8.2.RC1", "torch_refused", NEWEST),
        (None, "2.9.0", "8.5.0", "npu_missing", f"{NEWEST}|CANN 9.1.0"),
        (None, "2.12.0", None, "npu_missing", NEWEST),
    ],
)
def test_cann_torch_npu_and_torch_are_judged_together(
    npu: str | None, torch: str | None, cann: str | None, code: str, remedy: str
) -> None:
    checked = doctor_devices.judge(npu, torch, cann)
    assert checked.code == code
    finding = Finding.of(checked)
    for language in LANGUAGES:
        for part in remedy.split("|"):
            assert part in finding.remedy.get(language, "")


@pytest.mark.parametrize(
    ("file", "text", "version"),
    [
        ("aarch64-linux/ascend_toolkit_install.info",
         "package_name=Ascend-cann-toolkit\nversion=8.3.RC1\ninnerversion=V100R001C23B090\narch=aarch64\n", "8.3.RC1"),
        ("x86_64-linux/ascend_toolkit_install.info", "version=9.1.0-beta.1\r\n", "9.1.0-beta.1"),
        ("share/info/ascend_toolkit_install.info", "version=9.1.0\n", "9.1.0"),
        ("version.cfg", "# version: 1.0\nruntime_running_version=[7.6.0.1.220:8.0.0]\n"
                        "toolkit_running_version=[7.6.0.1.220:8.0.0]\ntoolkit_upgrade_version=[1.1.1:2.0.0]\n", "8.0.0"),
        ("version.cfg", "toolkit_running_version=[7.2.T11.0.B218:8.0.RC2.alpha001]\n", "8.0.RC2.alpha001"),
        ("version.cfg", "toolkit_running_version=[1.83.T8.0.B128:CANN-1.83]\n", "1.83"),
        ("version.cfg", "toolkit_running_version=[8.3.RC2]\n", "8.3.RC2"),
        ("toolkit/version.info", "Version=8.2.0.0.201\nversion_dir=8.2.RC1\ntimestamp=20250724_194044950\n", "8.2.RC1"),
        ("compiler/version.info", "Version=9.2.0-beta.2\n", "9.2.0-beta.2"),
        ("version.info", "Version=7.6.0.1.220\n", None),  # a component's own
        ("version.info", "", None),
    ],
)  # fmt: skip
def test_canns_version_is_read_from_what_its_releases_leave(
    tmp_path: Path, file: str, text: str, version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cann_versions, "HOMES", ())
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert cann_versions.installed_cann({"ASCEND_TOOLKIT_HOME": str(tmp_path)}) == version


def test_a_cann_whose_environment_is_not_set_is_told_with_its_script(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("8.5.0", "9.1.0"):
        (tmp_path / version / "aarch64-linux").mkdir(parents=True)
        (tmp_path / version / "aarch64-linux" / "ascend_toolkit_install.info").write_text(f"version={version}\n")
    latest, script = tmp_path / "latest", tmp_path / "set_env.sh"
    latest.symlink_to(tmp_path / "9.1.0")
    script.touch()
    monkeypatch.setattr(cann_versions, "HOMES", ("/nonexistent", str(latest)))
    versions = {"torch-npu": "2.12.0", "torch": "2.12.0"}
    monkeypatch.setattr(doctor_devices, "installed", versions.get)
    found = doctor_devices.toolkit({})
    assert codes(found) == [(OK, "ascend_well"), (BROKEN, "cann_unset")]
    assert f"source {script}" in Finding.of(found[1]).remedy["zh"]
    assert codes(doctor_devices.toolkit({"ASCEND_HOME_PATH": str(latest)})) == [(OK, "ascend_well")]
    older = doctor_devices.toolkit({"ASCEND_TOOLKIT_HOME": str(tmp_path / "8.5.0")})
    assert codes(older) == [(BROKEN, "cann_old")], "the one whose environment is set counts, not the newest"


# ---- packages ----


def test_packages_are_held_against_requirements_and_what_was_tested(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    versions: dict[str, str | None] = {"gradio": "7.1", "torch": None}
    real = doctor_packages.installed
    monkeypatch.setattr(doctor_packages, "installed", lambda name: versions.get(name, real(name)))
    found = {one.values["name"]: one for one in doctor_packages.packages(ROOT / "constraints.txt")}
    assert (found["gradio"].code, found["torch"].code) == ("package_version", "package_missing")
    assert "<7" in found["gradio"].values["wanted"]
    versions.clear()
    (tmp_path / "constraints.txt").write_text("httpx==0.1\ntorch==2.13.0\n")
    [untested] = doctor_packages.packages(tmp_path / "constraints.txt")
    assert untested.code == "package_untested"
    assert "httpx" in untested.values["differing"]
    assert "torch" not in untested.values["differing"], "a build's name is no other version"
    # Beside torch-npu, which has a torch of its own, no other one is advised.
    versions.update({"torch": "2.12.0", "torch-npu": "2.12.0"})
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    assert codes(doctor_packages.packages(tmp_path / "constraints.txt")) == [(OK, "packages_well")]
    versions.update({"torch": "2.9.0", "torch-npu": "2.9.0"})
    assert codes(doctor_packages.packages(tmp_path / "constraints.txt")) == [(OK, "packages_well")]


def test_extras_are_told(monkeypatch: pytest.MonkeyPatch, tools: Path) -> None:
    versions: dict[str, str | None] = {"bitsandbytes": "0.43.1", "deepspeed": None}
    monkeypatch.setattr(doctor_packages, "installed", versions.get)
    assert codes(doctor_packages.extras()) == [(WARNING, "bitsandbytes_old"), (OK, "deepspeed_absent")]
    versions.update(bitsandbytes="0.50.2", deepspeed="0.19.8")
    assert codes(doctor_packages.extras()) == [(OK, "extra_well"), (OK, "extra_well")]
    npu_smi(tools)
    assert codes(doctor_packages.extras())[0] == (WARNING, "bitsandbytes_idle")


def test_a_missing_compiler_is_told_where_kernels_are_compiled(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(doctor_packages.importlib.util, "find_spec", lambda name: object())
    assert codes(doctor_packages.compiler()) == [(OK, "compiler_unneeded")]
    fake(tools, "nvidia-smi", f'printf "{CSV}\\n"')
    [found] = doctor_packages.compiler()
    assert (found.code, "gcc" in found.values["missing"]) == ("compiler_missing", True)


# ---- the machine ----


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ["proxies_none"]),
        ({"http_proxy": "http://10.0.0.1:3128"}, ["no_proxy_missing"]),
        ({"http_proxy": "http://10.0.0.1:3128", "no_proxy": "localhost,127.0.0.1"}, ["proxies_well"]),
        ({"ALL_PROXY": "socks9://x:1", "NO_PROXY": "*"}, ["proxy_unusable"]),
        ({"ALL_PROXY": "socks5://x:1", "NO_PROXY": "*"}, ["proxy_socks"]),
    ],
)
def test_proxies_are_judged(environment: dict[str, str], expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine.importlib.util, "find_spec", lambda name: None)
    assert [one.code for one in doctor_machine.proxies(environment)] == expected


def test_a_proxys_password_is_not_shown() -> None:
    [found] = doctor_machine.proxies({"https_proxy": "http://me:secret@10.0.0.1:3128"})
    assert "secret" not in str(found.values)
    assert "10.0.0.1:3128" in found.values["given"]


def test_a_folder_that_cannot_be_written_to_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = doctor_machine.folders(tmp_path / "file" / "runs")
    assert (found[0].state, found[0].code) == (BROKEN, "folder_read_only")
    assert doctor_machine.folders(tmp_path / "new" / "runs")[0].state != BROKEN
    assert not (tmp_path / "new").exists(), "looking makes no folders"


def test_a_taken_port_is_told() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert codes(doctor_machine.port("127.0.0.1", taken.getsockname()[1])) == [(WARNING, "port_taken")]
    assert codes(doctor_machine.port("127.0.0.1", 0)) == [(OK, "port_free")]
    assert codes(doctor_machine.port("127.0.0.1", 99999)) == [(WARNING, "port_taken")]


def test_a_hub_that_never_answers_costs_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(doctor_machine, "HUB_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", f"http://{address}")
        monkeypatch.setenv("MODELSCOPE_DOMAIN", address)
        began = time.monotonic()
        found = doctor_machine.hubs()
        assert time.monotonic() - began < 3
    assert codes(found) == [(WARNING, "hub_silent")] * 2


# ---- the command ----


def tunedesk_doctor(*flags: str, **environment: str) -> "tuple[int, Any, float]":
    argv = [sys.executable, "-m", "app", "doctor", "--json", *flags]
    began = time.monotonic()
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout), time.monotonic() - began


@pytest.mark.slow
def test_the_command_ends_in_time_and_its_exit_code_says_whether_something_is_broken(
    tools: Path, tmp_path: Path
) -> None:
    fake(tools, "nvidia-smi", "exec sleep 60")
    status, said, seconds = tunedesk_doctor("--runs-dir", str(tmp_path / "runs"), "--port", "0")
    assert seconds < 10
    assert (status, said["ok"]) == (1, False)
    hanging = next(one for one in said["findings"] if one["code"] == "tool_hangs")
    assert set(hanging["said"]) == set(hanging["remedy"]) == set(LANGUAGES)
    (tools / "nvidia-smi").unlink()
    proxy = dict.fromkeys(("http_proxy", "https_proxy", "ALL_PROXY"), "socks5://127.0.0.1:9")
    status, said, seconds = tunedesk_doctor("--runs-dir", str(tmp_path / "runs"), "--port", "0", **proxy)
    assert (status, said["ok"]) == (0, True), [one for one in said["findings"] if one["state"] == BROKEN]
    assert seconds < 10
