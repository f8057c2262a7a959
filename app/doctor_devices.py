"""The part of `tunedesk doctor` that looks at accelerators, their drivers, CANN and torch-npu."""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.arguments import PROJECT
from app.doctor_finding import Checked, broken, ok, warning
from app.doctor_packages import installed
from trainer import cann, deadline, torch_import, unused_reason
from trainer.accelerators import READERS, VISIBLE, Accelerator, processor_name, visible
from trainer.device_kinds import KINDS
from trainer.problems import LANGUAGES
from trainer.smi import ask, lines_of

TOOL_TIMEOUT_S = 5.0
TOOLS = {kind.tool: kind for kind in KINDS.values() if kind.tool}
DRIVER = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
# What says more of a chip that is not well; {number}: of its card.
MORE = {"nvidia-smi": "nvidia-smi -q -i {number}", "npu-smi": "npu-smi info -t health -i {number}"}

# Run by a process of its own: importing torch takes seconds, and where CANN is missing it fails.
LOOK = """
import json
from trainer import device_kinds, torch_import
broken = torch_import.prepare()
import torch
from trainer.device import is_built_for
kind = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
count = torch.accelerator.device_count() if kind != "cpu" else 0
built = [one.name for one in device_kinds.KINDS.values() if is_built_for(one)]
print("\\n" + json.dumps({"torch": torch.__version__, "built": built, "kind": kind, "count": count,
                         "broken": broken and broken.values}), flush=True)
"""


# ---- the vendors' tools ----


def devices(environment: Mapping[str, str] = os.environ) -> list[Checked]:
    found = [one for tool in TOOLS for one in _tool(tool, environment)]
    return found or [warning("devices", "devices_none", name=processor_name())]


def _tool(tool: str, environment: Mapping[str, str]) -> list[Checked]:
    files = sorted(path.name for path in Path("/dev").glob(TOOLS[tool].files))
    if shutil.which(tool) is None:
        return [broken("devices", "tool_missing", tool=tool, files=", ".join(files))] if files else []
    reader = READERS[TOOLS[tool].name]
    answer = ask(reader.QUERY, TOOL_TIMEOUT_S)
    lines = lines_of(answer.text)
    chips = reader.devices(lines)
    if not chips:
        trouble = answer.without_devices()
        return [broken("devices", trouble.code, **trouble.values) if trouble else
                warning("devices", "tool_empty", tool=tool)]  # fmt: skip
    ill = _unwell(tool, chips)
    if answer.trouble and not ill:
        ill = [broken("devices", answer.trouble.code, **answer.trouble.values)]
    return [_listed(tool, lines, chips, environment), *ill]


def _listed(tool: str, lines: list[str], chips: list[Accelerator], environment: Mapping[str, str]) -> Checked:
    variable = VISIBLE[chips[0].kind]
    seen = visible(chips, environment)
    known = [one for one in chips if one.total_gib]
    values = {
        "tool": tool, "count": len(chips), "name": chips[0].name, "driver": _driver(tool, lines),
        "memory": f"{min(one.free_gib for one in known):.0f} / {known[0].total_gib:.0f} GiB" if known else "–",
    }  # fmt: skip
    named = [word.strip() for word in environment.get(variable, "").split(",") if word.strip().isdecimal()]
    if KINDS[chips[0].kind].ascending and named != (ascending := sorted(set(named), key=int)):
        return broken("devices", "devices_unordered", variable=variable, value=environment[variable],
                      ascending=",".join(ascending))  # fmt: skip
    if not seen:
        return broken("devices", "devices_hidden", **values, variable=variable, value=environment.get(variable, ""))
    return ok("devices", "devices_well", **values, seen=len(seen))


def _driver(tool: str, lines: list[str]) -> str:
    """The driver's version; in a container without the driver's files that of npu-smi, which comes with it."""
    if tool == DRIVER[0]:
        return next(iter(lines_of(ask(DRIVER, TOOL_TIMEOUT_S).text)), "?")
    said = re.search(r"npu-smi\s+(\d\S*)", "\n".join(lines))
    return cann.version_in(Path("/usr/local/Ascend/driver/version.info")) or (said[1] if said else "?")


def _unwell(tool: str, chips: list[Accelerator]) -> list[Checked]:
    """Those whose health the tool calls otherwise than well."""
    ill = [one for one in chips if one.health]
    if not ill:
        return []
    names = ", ".join(f"{one.index}{f' [{one.place}]' if one.place else ''} ({one.health})" for one in ill)
    more = MORE[tool].format(number=ill[0].place.partition("-")[0] or ill[0].index)
    return [broken("devices", "chips_ill", tool=tool, chips=names, variable=VISIBLE[ill[0].kind], more=more)]


# ---- what torch makes of them ----


def torch_devices(timeout_s: float, environment: Mapping[str, str] = os.environ) -> list[Checked]:
    """Asks torch in a process of its own."""
    # A crash here is a trial in itself.
    environ = {**os.environ, torch_import.TRIED: json.dumps("")}
    done = deadline.run([sys.executable, "-c", LOOK], timeout_s, cwd=PROJECT, env=environ)
    if done is None:
        return [warning("torch", "torch_slow", seconds=round(timeout_s, 1))]
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        crashed = "torch_without_npu" if installed("torch-npu") else "torch_fails"
        return [broken("torch", crashed, version=installed("torch"), detail=name)]
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        return [broken("torch", "torch_fails", detail=words[-1][:300])]
    said = _answer(done.stdout)
    if said["broken"]:
        detail = said["broken"].get("detail") or f"torch-npu {said['broken']['npu']} ≠ torch {said['torch']}"
        return [broken("torch", "torch_without_npu", version=said["torch"], detail=detail)]
    if said["kind"] != "cpu":
        return [ok("torch", "torch_well", version=said["torch"], kind=said["kind"], count=said["count"])]
    problem = unused_reason.reason(said["torch"], lambda kind: kind.name in said["built"], environment)
    if problem is None:
        return [ok("torch", "torch_cpu", version=said["torch"])]
    why = {language: problem.sentence(language) for language in LANGUAGES}
    return [broken("torch", "torch_blind", version=said["torch"], devices=problem.values["devices"], why=why)]


def _answer(printed: str) -> dict[str, Any]:
    """LOOK's line among what libraries print."""
    found: dict[str, Any] = next(
        json.loads(line) for line in reversed(printed.splitlines()) if line.startswith('{"torch"')
    )
    return found


# ---- Ascend ----


def toolkit(environment: Mapping[str, str] = os.environ) -> list[Checked]:
    """CANN, torch-npu and torch against COMPATIBLE; nothing to say where there is neither."""
    npu, torch, here = installed("torch-npu"), installed("torch"), cann.installed(environment)
    chips = shutil.which("npu-smi") is not None
    if npu is None and not chips and here is None:
        return []
    judged = judge(npu, torch, here.version if here else None)
    if here is None or here.script is None:
        return [judged]
    return [judged, broken("ascend", "cann_unset", cann=here.version, script=str(here.script))]


def judge(npu: str | None, torch: str | None, here: str | None) -> Checked:
    """Of the installed versions of torch-npu, torch and CANN, None where there is none."""
    take = cann.to_take(here, npu)
    values = {"npu": npu or "–", "torch": torch or "–", "cann": here or "–", "wanted_cann": take.cann,
              "wanted": take.packages}  # fmt: skip
    if npu is None:
        return broken("ascend", "npu_missing", **values)
    if torch is None or not cann.is_built_for(npu, torch):
        return broken("ascend", "npu_other_torch", **values)
    if not cann.runs_with(cann.public(torch)):
        return broken("ascend", "torch_refused", **values, needed=str(cann.torch_wanted()))
    needed = cann.cann_for(npu)
    if here is None:
        return broken("ascend", "cann_missing", **values)
    if needed is None:
        return warning("ascend", "npu_unknown", **values)
    if cann.belongs(npu, here):
        return ok("ascend", "ascend_well", **values)
    if cann.numbers(here) < cann.numbers(needed):
        return broken("ascend", "cann_old", **values)
    take = cann.to_take(here)
    wanted = {"wanted_cann": take.cann, "wanted": take.packages}
    return broken("ascend", "cann_new", **values | wanted)
