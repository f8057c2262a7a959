"""The devices of this machine, read from the vendors' own tools: the page never asks torch."""

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from app.text import Text
from trainer.accelerators import accelerators


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
    if found := accelerators():
        return Devices(found[0].kind, tuple(one.name for one in found))
    return Devices("cpu", (_processor(),))


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1] for line in lines if line.startswith("model name")]
    return " ".join(names[0].split()) if names else platform.machine()
