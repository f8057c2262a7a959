"""The devices of this machine, read from the vendors' own tools: the page never asks torch."""

import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from app.text import Text

QUERY_TIMEOUT_S = 5


@dataclass(frozen=True)
class Devices:
    """`kind`: cuda, npu or cpu. `names`: one an accelerator, or the processor's."""

    kind: str
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def compute_types(self) -> list[str]:
        """What works here, best first; the trainer checks again with torch at hand."""
        return ["fp32", "bf16", "pure_bf16"] if self.kind == "cpu" else ["bf16", "fp16", "fp32", "pure_bf16"]

    def words(self, text: Text) -> str:
        if self.kind == "cpu":
            return text("device.cpu", name=self.names[0])
        return text("device.accelerators", count=self.count, name=self.names[0])


@cache
def devices() -> Devices:
    """Asked once; accelerators do not come and go."""
    if names := _lines(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]):
        return Devices("cuda", tuple(names))
    if found := [line for line in _lines(["npu-smi", "info", "-l"]) if line.replace(" ", "").startswith("NPUID")]:
        return Devices("npu", ("Ascend NPU",) * len(found))
    return Devices("cpu", (_processor(),))


def _lines(argv: list[str]) -> list[str]:
    """The output lines of a vendor's tool; none when it is absent, fails or hangs."""
    if shutil.which(argv[0]) is None:
        return []
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1] for line in lines if line.startswith("model name")]
    return " ".join(names[0].split()) if names else platform.machine()
