"""The part of `tunedesk doctor` that looks at installed packages and at the compiler that kernels need."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sysconfig
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from app.doctor_finding import Checked, broken, ok, warning
from trainer import device_kinds
from trainer.accelerators import accelerators
from trainer.quantization import OLDEST

# What the distribution is called in the index, where people install from a checkout as well.
PROJECT_NAME = "tunedesk"


def installed(name: str) -> str | None:
    """The version of a distribution; None where there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def requirements() -> list[Requirement]:
    """What Tunedesk needs in any case, as its own metadata has it."""
    wanted = [Requirement(line) for line in importlib.metadata.requires(PROJECT_NAME) or []]
    return [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]


def packages(constraints: Path) -> list[Checked]:
    """Against the requirements, which must hold, and against `constraints`, which is what was tested."""
    try:
        wanted = requirements()
    except importlib.metadata.PackageNotFoundError:
        return [broken("packages", "not_installed")]
    if has_its_own_torch():
        wanted = [one for one in wanted if one.name != "torch"]
    found: list[Checked] = []
    for one in wanted:
        have = installed(one.name)
        if have is None:
            found.append(broken("packages", "package_missing", name=one.name, wanted=str(one)))
        elif not one.specifier.contains(have, prereleases=True):
            found.append(broken("packages", "package_version", name=one.name, version=have, wanted=str(one.specifier)))
    if found:
        return found
    names = {one.name.lower().replace("_", "-") for one in wanted}
    untested = _untested(constraints, names)
    if untested:
        return [warning("packages", "package_untested", differing=", ".join(untested))]
    return [ok("packages", "packages_well", count=len(wanted))]


def has_its_own_torch() -> bool:
    """Whether a package is installed that brings devices to one release of torch: then doctor_devices judges both."""
    return any(installed(kind.distribution) for kind in device_kinds.KINDS.values() if kind.distribution)


def _untested(constraints: Path, names: set[str]) -> list[str]:
    """Of `names` those whose version is another than in `constraints`, as "name 1.0 (2.0)"."""
    if not constraints.is_file():
        return []  # an installed copy brings none
    found = []
    for line in constraints.read_text(encoding="utf-8").splitlines():
        if pinned := re.fullmatch(r"([A-Za-z0-9_.-]+)==(\S+)", line.strip()):
            have = installed(pinned[1])
            if have and pinned[1].lower().replace("_", "-") in names and _public(have) != _public(pinned[2]):
                found.append(f"{pinned[1]} {have} ({pinned[2]})")
    return found


def _public(version: str) -> str:
    """Without the build's name, such as +cpu."""
    try:
        return Version(version).public
    except InvalidVersion:
        return version


def extras() -> list[Checked]:
    """What some settings need: quantization and DeepSpeed. Their absence breaks nothing else."""
    found: list[Checked] = []
    have = installed("bitsandbytes")
    if have is None:
        found.append(ok("extras", "bitsandbytes_absent"))
    elif tuple(map(int, re.findall(r"\d+", have)[:2])) < OLDEST:
        found.append(warning("extras", "bitsandbytes_old", version=have, oldest=".".join(map(str, OLDEST))))
    elif not all(device_kinds.of(device.kind).quantizes for device in accelerators()):
        found.append(warning("extras", "bitsandbytes_idle", version=have))
    else:
        found.append(ok("extras", "extra_well", name="bitsandbytes", version=have))
    have = installed("deepspeed")
    found.append(
        ok("extras", "extra_well", name="deepspeed", version=have) if have else ok("extras", "deepspeed_absent")
    )
    return found


def compiler() -> list[Checked]:
    """Triton compiles a small C program at its first kernel: it needs a C compiler and Python's headers."""
    command = os.environ.get("CC") or next((name for name in ("gcc", "clang", "cc") if shutil.which(name)), "")
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    missing = [
        name for name, there in (("gcc", bool(shutil.which(command))), (str(headers), headers.is_file())) if not there
    ]
    wanted = any(device_kinds.of(device.kind).captures_graphs for device in accelerators())
    if importlib.util.find_spec("triton") is None or not wanted:
        return [ok("compiler", "compiler_unneeded", path=shutil.which(command) or "–")]
    if missing:
        return [warning("compiler", "compiler_missing", missing=", ".join(missing))]
    return [ok("compiler", "compiler_well", path=shutil.which(command))]
