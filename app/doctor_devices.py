"""The part of `tunedesk doctor` that looks at accelerators, their drivers, CANN and torch-npu."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from app.doctor_finding import Checked, broken, ok, warning
from app.doctor_packages import installed
from trainer.accelerators import VISIBLE, Accelerator, nvidia, processor_name, visible
from trainer.accelerators import ascend as ascend_chips

TOOL_TIMEOUT_S = 5
TOOLS = {
    "nvidia-smi": [
        "nvidia-smi",
        "--query-gpu=index,uuid,name,memory.total,memory.free",
        "--format=csv,noheader,nounits",
    ],
    "npu-smi": ["npu-smi", "info"],
}
DEVICE_FILES = {"nvidia-smi": "nvidia[0-9]*", "npu-smi": "davinci[0-9]*"}

# CANN -> the torch-npu releases made for it, as Ascend/pytorch publishes them; the first one is the one to take.
COMPATIBLE = {
    "9.1.0": ("2.12.0", "2.11.0", "2.10.0.post4"),
    "9.0.0": ("2.10.0",),
    "8.5.0": ("2.9.0",),
    "8.3": ("2.8.0",),
}
CANN_HOMES = (
    "/usr/local/Ascend/ascend-toolkit/latest",
    "/usr/local/Ascend/cann",
    "/usr/local/Ascend/latest",
    "~/Ascend/ascend-toolkit/latest",
)

# Run by a process of its own: importing torch takes seconds, and where CANN is missing it fails.
LOOK = """
import json, torch
kind = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
count = torch.accelerator.device_count() if kind != "cpu" else 0
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "kind": kind, "count": count}))
"""


# ---- the vendors' tools ----


def devices(environment: Mapping[str, str] = os.environ) -> list[Checked]:
    found = [one for tool in TOOLS for one in _tool(tool, environment)]
    return found or [warning("devices", "devices_none", name=processor_name())]


def _tool(tool: str, environment: Mapping[str, str]) -> list[Checked]:
    files = sorted(path.name for path in Path("/dev").glob(DEVICE_FILES[tool]))
    if shutil.which(tool) is None:
        return [broken("devices", "tool_missing", tool=tool, files=", ".join(files))] if files else []
    try:
        done = subprocess.run(TOOLS[tool], capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, errors="replace")
    except subprocess.TimeoutExpired:
        return [broken("devices", "tool_hangs", tool=tool, seconds=TOOL_TIMEOUT_S)]
    except OSError as error:
        return [broken("devices", "tool_fails", tool=tool, detail=error.strerror or str(error))]
    if done.returncode:
        words = " ".join((done.stderr.strip() or done.stdout.strip()).split())[:200] or f"exit {done.returncode}"
        return [broken("devices", "tool_fails", tool=tool, detail=words)]
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    chips = nvidia(lines) if tool == "nvidia-smi" else ascend_chips(lines)
    if not chips:
        return [warning("devices", "tool_empty", tool=tool)]
    return [_listed(tool, lines, chips, environment), *_unwell(lines)]


def _listed(tool: str, lines: list[str], chips: list[Accelerator], environment: Mapping[str, str]) -> Checked:
    variable = VISIBLE[chips[0].kind]
    seen = visible(chips, environment)
    driver = _driver(tool, lines)
    values = {
        "tool": tool, "count": len(chips), "name": chips[0].name, "driver": driver,
        "memory": f"{min(one.free_gib for one in chips):.0f} / {chips[0].total_gib:.0f} GiB",
    }  # fmt: skip
    if not seen:
        return broken("devices", "devices_hidden", **values, variable=variable, value=environment.get(variable, ""))
    named = [word.strip() for word in environment.get(variable, "").split(",") if word.strip().isdigit()]
    if chips[0].kind == "npu" and named != sorted(named, key=int):
        return broken("devices", "devices_unordered", variable=variable, value=environment[variable],
                      ascending=",".join(sorted(named, key=int)))  # fmt: skip
    return ok("devices", "devices_well", **values, seen=len(seen))


def _driver(tool: str, lines: list[str]) -> str:
    """The driver's version; in a container without the driver's files that of npu-smi, which comes with it."""
    if tool == "nvidia-smi":
        argv = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=True)
        except (OSError, subprocess.SubprocessError):
            return "?"
        return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "?"
    said = re.search(r"npu-smi\s+(\d\S*)", "\n".join(lines))
    return _version_in(Path("/usr/local/Ascend/driver/version.info")) or (said[1] if said else "?")


def _unwell(lines: list[str]) -> list[Checked]:
    """Chips that `npu-smi info` calls otherwise than OK."""
    rows = [re.match(r"\|\s*(\d+)\s+\S*[A-Za-z]\S*\s*\|\s*(\S+)\s*\|", line) for line in lines]
    ill = [f"{row[1]} ({row[2]})" for row in rows if row and row[2].upper() != "OK"]
    return [broken("devices", "chips_ill", chips=", ".join(ill))] if ill else []


# ---- what torch makes of them ----


def torch_devices(timeout_s: float) -> list[Checked]:
    """Asks torch in a process of its own."""
    try:
        done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return [warning("torch", "torch_slow", seconds=round(timeout_s, 1))]
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        return [broken("torch", "torch_fails", detail=words[-1][:300])]
    said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    there = [tool for tool in TOOLS if shutil.which(tool) or any(Path("/dev").glob(DEVICE_FILES[tool]))]
    if said["kind"] == "cpu" and there:
        wanted = "torch-npu" if "npu-smi" in there else "CUDA"
        return [broken("torch", "torch_blind", version=said["torch"], tool=", ".join(there), wanted=wanted)]
    if said["kind"] == "cpu":
        return [ok("torch", "torch_cpu", version=said["torch"])]
    return [ok("torch", "torch_well", version=said["torch"], kind=said["kind"], count=said["count"])]


# ---- Ascend ----


def ascend(environment: Mapping[str, str] = os.environ) -> list[Checked]:
    """CANN, torch-npu and torch against COMPATIBLE; nothing to say where there is neither."""
    npu, torch, cann = installed("torch-npu"), installed("torch"), cann_version(environment)
    chips = shutil.which("npu-smi") is not None
    if npu is None and not chips and cann is None:
        return []
    return [judge(npu, torch, cann)]


def judge(npu: str | None, torch: str | None, cann: str | None) -> Checked:
    """Of three installed versions, None where there is none."""
    recommended = COMPATIBLE[next(iter(COMPATIBLE))][0]
    values = {"npu": npu or "–", "torch": torch or "–", "cann": cann or "–", "wanted_cann": next(iter(COMPATIBLE)),
              "wanted_npu": recommended}  # fmt: skip
    if npu is None:
        if cann and (row := _row(cann)):
            values["wanted_npu"] = COMPATIBLE[row][0]
        return broken("ascend", "npu_missing", **values)
    needed = next((row for row, releases in COMPATIBLE.items() if _public(npu) in releases), None)
    if needed:
        values["wanted_cann"] = needed
    if torch is None or _release(torch) != _release(npu):
        return broken("ascend", "npu_other_torch", **values, wanted_torch=_release_text(npu))
    if cann is None:
        return broken("ascend", "cann_missing", **values)
    if needed is None:
        return warning("ascend", "npu_unknown", **values)
    row = _row(cann)
    if row is not None and _public(npu) in COMPATIBLE[row]:
        return ok("ascend", "ascend_well", **values)
    if row is not None:
        values["wanted_npu"] = COMPATIBLE[row][0]
    older = _numbers(cann) < _numbers(needed)
    return broken("ascend", "cann_old" if older else "cann_new", **values)


def cann_version(environment: Mapping[str, str] = os.environ) -> str | None:
    """That of the toolkit whose environment is set, else of the one in the usual places."""
    given = [environment[name] for name in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH") if environment.get(name)]
    for home in (Path(word).expanduser() for word in (*given, *CANN_HOMES)):
        for file in (home / "version.cfg", *sorted(home.glob("*-linux/ascend_toolkit_install.info")), home / "version.info",
                     home / "compiler" / "version.info"):  # fmt: skip
            if version := _version_in(file):
                return version
    return None


def _version_in(file: Path) -> str | None:
    """`Version=9.1.0`, or `toolkit_running_version=[9.1.0:…]`, of the files that CANN and the driver leave."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"(?im)^\s*(?:version|\w*toolkit\w*_version)\s*=\s*\[?[^\d\n]*(\d[\w.]*)", text)
    return found[1] if found else None


def _row(cann: str) -> str | None:
    """The row of COMPATIBLE that a CANN release belongs to: 8.3.RC1 to 8.3, 9.1.0 to itself."""
    return next((row for row in COMPATIBLE if _numbers(cann)[: len(_numbers(row))] == _numbers(row)), None)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part)  # type: ignore[index]


def _public(version: str) -> str:
    try:
        return Version(version).public
    except InvalidVersion:
        return version


def _release(version: str) -> tuple[int, ...]:
    return _numbers(version)[:2]


def _release_text(npu: str) -> str:
    """The torch that a torch-npu was built for: the same release."""
    return ".".join(map(str, _numbers(npu)[:3]))
