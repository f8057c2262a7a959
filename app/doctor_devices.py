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

from app.arguments import PROJECT
from app.doctor_finding import Checked, broken, ok, warning
from app.doctor_packages import installed
from trainer import cann, smi_ascend, smi_nvidia
from trainer.accelerators import VISIBLE, Accelerator, nvidia, processor_name, visible
from trainer.accelerators import ascend as ascend_chips
from trainer.device_kinds import KINDS

TOOL_TIMEOUT_S = 5
TOOLS = {"nvidia-smi": smi_nvidia.QUERY, "npu-smi": smi_ascend.QUERY}
DEVICE_FILES = {kind.tool: kind.files for kind in KINDS.values() if kind.tool}

# Run by a process of its own: importing torch takes seconds, and where CANN is missing it fails.
LOOK = """
import json
from trainer import torch_import
broken = torch_import.prepare()
import torch
kind = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
count = torch.accelerator.device_count() if kind != "cpu" else 0
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "kind": kind, "count": count,
                  "broken": broken and broken.values}))
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
    if KINDS[chips[0].kind].ascending and named != sorted(named, key=int):
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
    return cann.version_in(Path("/usr/local/Ascend/driver/version.info")) or (said[1] if said else "?")


def _unwell(lines: list[str]) -> list[Checked]:
    """Chips that `npu-smi info` calls otherwise than OK."""
    rows = [re.match(r"\|\s*(\d+)\s+\S*[A-Za-z]\S*\s*\|\s*(\S+)\s*\|", line) for line in lines]
    ill = [f"{row[1]} ({row[2]})" for row in rows if row and row[2].upper() != "OK"]
    return [broken("devices", "chips_ill", chips=", ".join(ill))] if ill else []


# ---- what torch makes of them ----


def torch_devices(timeout_s: float) -> list[Checked]:
    """Asks torch in a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=timeout_s, cwd=PROJECT
        )
    except subprocess.TimeoutExpired:
        return [warning("torch", "torch_slow", seconds=round(timeout_s, 1))]
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        return [broken("torch", "torch_fails", detail=words[-1][:300])]
    said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if said["broken"]:
        detail = said["broken"].get("detail") or f"torch-npu {said['broken']['npu']} ≠ torch {said['torch']}"
        return [broken("torch", "torch_without_npu", version=said["torch"], detail=detail)]
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
    npu, torch, here = installed("torch-npu"), installed("torch"), cann.installed_cann(environment)
    chips = shutil.which("npu-smi") is not None
    if npu is None and not chips and here is None:
        return []
    return [judge(npu, torch, here)]


def judge(npu: str | None, torch: str | None, here: str | None) -> Checked:
    """Of the installed versions of torch-npu, torch and CANN, None where there is none."""
    row = cann.row_of(here) if here else None
    newest = next(iter(cann.COMPATIBLE))
    values = {"npu": npu or "–", "torch": torch or "–", "cann": here or "–", "wanted_cann": newest,
              "wanted_npu": cann.COMPATIBLE[newest][0]}  # fmt: skip
    if npu is None:
        return broken("ascend", "npu_missing", **values | {"wanted_npu": cann.COMPATIBLE[row or newest][0]})
    needed = cann.cann_for(npu)
    values["wanted_cann"] = needed or newest
    if torch is None or not cann.is_built_for(npu, torch):
        return broken("ascend", "npu_other_torch", **values, wanted_torch=cann.torch_for(npu))
    if here is None:
        return broken("ascend", "cann_missing", **values)
    if needed is None:
        return warning("ascend", "npu_unknown", **values)
    if row is not None and cann.public(npu) in cann.COMPATIBLE[row]:
        return ok("ascend", "ascend_well", **values)
    if row is not None:
        values["wanted_npu"] = cann.COMPATIBLE[row][0]
    older = cann.numbers(here) < cann.numbers(needed)
    return broken("ascend", "cann_old" if older else "cann_new", **values)
