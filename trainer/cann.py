"""Which CANN a torch-npu was made for, and which is installed. Light: no torch.

CANN is what Ascend's devices are driven with: compilers, kernels, and HCCL for collectives.
"""

import importlib.metadata
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

# CANN -> the torch-npu releases made for it, as Ascend/pytorch publishes them in COMPATIBILITY.md; the first one is the
# one to take. 9.1 is any 9.1.X. A torch older than those does not run Tunedesk.
COMPATIBLE = {
    "9.1.0": ("2.12.0", "2.11.0", "2.10.0.post4", "2.9.0.post6", "2.7.1.post8"),
    "9.1": ("2.12.0.post2", "2.11.0.post2", "2.10.0.post6", "2.9.0.post8", "2.7.1.post10"),
    "9.0.0": ("2.10.0", "2.9.0.post2", "2.8.0.post4", "2.7.1.post4"),
    "8.5.0": ("2.9.0", "2.8.0.post2", "2.7.1.post2", "2.6.0.post5"),
    "8.3.RC1": ("2.8.0", "2.7.1", "2.6.0.post3"),
    "8.2.RC1": ("2.6.0",),
}
# Where its installers put it, and where they keep the link to the newest.
HOMES = (
    "/usr/local/Ascend/ascend-toolkit/latest",
    "/usr/local/Ascend/cann",
    "/usr/local/Ascend/latest",
    "~/Ascend/ascend-toolkit/latest",
    "~/Ascend/cann",
)
VARIABLES = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")
PROJECT_NAME = "tunedesk"  # in the index


@dataclass(frozen=True)
class Stack:
    """Releases that belong together."""

    torch: str
    npu: str
    cann: str

    @property
    def packages(self) -> str:
        """As pip takes them."""
        return f"torch=={self.torch} torch-npu=={self.npu}"


@dataclass(frozen=True)
class Installed:
    """A CANN that is here. `script`: what sets its environment, where that is not set."""

    version: str
    script: Path | None = None


def installed(environment: Mapping[str, str] = os.environ) -> Installed | None:
    """The toolkit whose environment is set, else the one in the usual places."""
    for home in (Path(environment[name]) for name in VARIABLES if environment.get(name)):
        if version := _version_of(home):
            return Installed(version)
    for home in (Path(word).expanduser() for word in HOMES):
        if version := _version_of(home):
            scripts = [path for path in (home / "set_env.sh", home.parent / "set_env.sh") if path.is_file()]
            return Installed(version, next(iter(scripts), home / "set_env.sh"))
    return None


def installed_cann(environment: Mapping[str, str] = os.environ) -> str | None:
    """Its version alone."""
    found = installed(environment)
    return found.version if found else None


def _version_of(home: Path) -> str | None:
    """The vendor says to look into ascend_toolkit_install.info."""
    files = [*sorted(home.glob("*-linux/ascend_toolkit_install.info")), home / "share/info/ascend_toolkit_install.info",
             *(home / name for name in ("version.cfg", "toolkit/version.info", "compiler/version.info", "version.info"))]  # fmt: skip
    return next(filter(None, map(version_in, files)), None)


def version_in(file: Path) -> str | None:
    """Of the files that CANN and the driver leave: `version=9.1.0`; `toolkit_running_version=[7.6.0.1.220:8.0.0]`, where
    the first is the component's own; `version_dir=8.2.RC1` beside such a `Version=8.2.0.0.201`."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for pattern in (r"version_dir\s*=", r"\w*toolkit\w*_version\s*=\s*\[(?:[^\]\n]*:)?", r"version\s*="):
        if found := re.search(rf"(?im)^\s*{pattern}[^\d\n]*(\d[\w.-]*)", text):
            return None if len(numbers(found[1])) > 4 else found[1]  # a component's own tells nothing
    return None


def cann_for(npu: str) -> str | None:
    """The CANN that this release of torch-npu was made for; None for one that is not in the table."""
    return next((row for row, releases in COMPATIBLE.items() if public(npu) in releases), None)


def belongs(npu: str, cann: str) -> bool:
    """Whether the table has this torch-npu with this CANN."""
    return any(public(npu) in releases for row, releases in COMPATIBLE.items() if _is_of(cann, row))


def to_take(cann: str | None, npu: str | None = None) -> Stack:
    """What to install: the torch-npu that is here, else the first one for the CANN that is here, else the newest; of
    those that Tunedesk runs with."""
    if npu is not None and (row := cann_for(npu)) and runs_with(torch_for(npu)):
        return Stack(torch_for(npu), public(npu), row)
    rows = [row for row in COMPATIBLE if cann is not None and _is_of(cann, row)] + list(COMPATIBLE)
    found = next((one, row) for row in rows for one in COMPATIBLE[row] if runs_with(torch_for(one)))
    return Stack(torch_for(found[0]), *found)


def _is_of(cann: str, row: str) -> bool:
    """8.3.RC1 is of the row 8.3.RC1, 9.1.1 of 9.1, 9.1.0 of 9.1.0 and of 9.1."""
    return numbers(cann)[: len(numbers(row))] == numbers(row)


def runs_with(torch: str) -> bool:
    """Whether Tunedesk runs with this release of torch."""
    return torch_wanted().contains(torch, prereleases=True)


@cache
def torch_wanted() -> SpecifierSet:
    """As Tunedesk's own metadata has it; any where it is not installed."""
    try:
        wanted = [Requirement(line) for line in importlib.metadata.requires(PROJECT_NAME) or []]
    except importlib.metadata.PackageNotFoundError:
        wanted = []
    return next((one.specifier for one in wanted if one.name == "torch" and one.marker is None), SpecifierSet())


def torch_for(npu: str) -> str:
    """The torch that a torch-npu was built for: the same release."""
    return ".".join(map(str, numbers(npu)[:3]))


def is_built_for(npu: str, torch: str) -> bool:
    """Whether this torch-npu was built for this torch: another minor release has other symbols."""
    return numbers(npu)[:2] == numbers(torch)[:2]


def public(version: str) -> str:
    """Without the build's name, such as +cpu."""
    try:
        return Version(version).public
    except InvalidVersion:
        return version


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part)  # type: ignore[index]
