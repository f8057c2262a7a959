"""Which CANN a torch-npu was made for, and which is installed. Light: no torch.

CANN is what Ascend's devices are driven with: compilers, kernels, and HCCL for collectives.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from packaging.version import InvalidVersion, Version

# CANN -> the torch-npu releases made for it, as Ascend/pytorch publishes them; the first one is the one to take.
COMPATIBLE = {
    "9.1.0": ("2.12.0", "2.11.0", "2.10.0.post4"),
    "9.0.0": ("2.10.0",),
    "8.5.0": ("2.9.0",),
    "8.3": ("2.8.0",),
}
HOMES = (
    "/usr/local/Ascend/ascend-toolkit/latest",
    "/usr/local/Ascend/cann",
    "/usr/local/Ascend/latest",
    "~/Ascend/ascend-toolkit/latest",
)


def installed_cann(environment: Mapping[str, str] = os.environ) -> str | None:
    """The version of the toolkit whose environment is set, else of the one in the usual places."""
    given = [environment[name] for name in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH") if environment.get(name)]
    for home in (Path(word).expanduser() for word in (*given, *HOMES)):
        for file in (home / "version.cfg", *sorted(home.glob("*-linux/ascend_toolkit_install.info")), home / "version.info",
                     home / "compiler" / "version.info"):  # fmt: skip
            if version := version_in(file):
                return version
    return None


def version_in(file: Path) -> str | None:
    """`Version=9.1.0`, or `toolkit_running_version=[9.1.0:…]`, of the files that CANN and the driver leave."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"(?im)^\s*(?:version|\w*toolkit\w*_version)\s*=\s*\[?[^\d\n]*(\d[\w.]*)", text)
    return found[1] if found else None


def cann_for(npu: str) -> str | None:
    """The CANN that this release of torch-npu was made for; None for one that is in no table."""
    return next((row for row, releases in COMPATIBLE.items() if public(npu) in releases), None)


def row_of(cann: str) -> str | None:
    """The row of COMPATIBLE that a CANN release belongs to: 8.3.RC1 to 8.3, 9.1.0 to itself."""
    return next((row for row in COMPATIBLE if numbers(cann)[: len(numbers(row))] == numbers(row)), None)


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
