"""What the vendors' tools tell of accelerators, and how such a tool is asked. Light: no torch.

What they print is read by smi_nvidia.py and smi_ascend.py.
"""

import re
import shutil
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from trainer import deadline

TIMEOUT_S = 5.0
MOST_DETAIL = 200
COMPLAINTS = "fail|error|denied|unable|cannot|could not|couldn't"
# A tool that hung is not asked again so soon: whoever asks would wait as long each time.
RESTS_S = 20.0


@dataclass(frozen=True)
class DeviceProcess:
    """A process that holds memory of a device. `pid`: as the tool counts, in a container often the host's; `inner`: as
    the container itself counts, where the tool says so. `memory_gib`: None where it does not say."""

    pid: int
    name: str = ""
    memory_gib: float | None = None
    inner: int | None = None


@dataclass(frozen=True)
class Accelerator:
    """`kind`: cuda or npu. `index`: what the visibility variable calls it. Memory is that of the whole device, 0 where
    the tool does not say. `health`: the tool's word for a device that is not well. `place`: its number on the board,
    where that is another one. `utilization`: per cent; None, as the other figures, where the tool does not say."""

    kind: str
    index: str
    name: str
    total_gib: float
    free_gib: float
    uuid: str = ""
    used_gib: float = 0.0
    utilization: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    health: str = ""
    place: str = ""
    processes: tuple[DeviceProcess, ...] = ()


@dataclass(frozen=True)
class Trouble:
    """Why a tool could not be read: `code` is tool_hangs or tool_fails, `values` are those of its sentence."""

    code: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a tool printed, and why that may not be all. Empty where this machine has no such tool."""

    text: str = ""
    trouble: Trouble | None = None
    tool: str = ""

    def without_devices(self) -> Trouble | None:
        """The trouble of an answer that names no device. Some releases of npu-smi say that they fail, and exit with 0."""
        said = " ".join(lines_of(self.text))
        if "no devices were found" in said.lower():
            return None
        if self.trouble is None and re.search(COMPLAINTS, said, re.IGNORECASE):
            return Trouble("tool_fails", {"tool": self.tool, "detail": said[-MOST_DETAIL:]})
        return self.trouble


class Reader(Protocol):
    """A vendor's module: what its tool is asked, and what that and the visibility variable mean."""

    KIND: str
    QUERY: list[str]

    def devices(self, lines: Iterable[str]) -> list[Accelerator]: ...

    def named(self, found: Sequence[Accelerator], value: str) -> list[Accelerator]: ...


# When each tool hung last, by its path.
_hung: dict[str, float] = {}
# One at a time: they hold a lock of their driver, and who waits for one that hangs need not try it again.
_ASKING = threading.Lock()


def ask(argv: list[str], timeout_s: float = TIMEOUT_S) -> Answer:
    """Runs a tool. One that does not end is killed and not waited for: what hangs in a driver cannot be killed."""
    path = shutil.which(argv[0])
    if path is None:
        return Answer()
    with _ASKING:
        if time.monotonic() - _hung.get(path, -RESTS_S) < RESTS_S:
            return _hangs(argv[0], timeout_s)
        try:
            done = deadline.run(argv, timeout_s)
        except OSError as error:
            return Answer(trouble=Trouble("tool_fails", {"tool": argv[0], "detail": error.strerror or str(error)}))
        if done is None:
            _hung[path] = time.monotonic()
            return _hangs(argv[0], timeout_s)
    if done.returncode == 0:
        return Answer(done.stdout, tool=argv[0])
    said = " ".join((done.stderr.strip() or done.stdout.strip()).split())
    detail = said[-MOST_DETAIL:] or f"exit {done.returncode}"
    return Answer(done.stdout, Trouble("tool_fails", {"tool": argv[0], "detail": detail}))


def _hangs(tool: str, timeout_s: float) -> Answer:
    return Answer(trouble=Trouble("tool_hangs", {"tool": tool, "seconds": round(timeout_s)}))


def lines_of(text: str) -> list[str]:
    """The lines that say something, without colours and other orders to a terminal."""
    plain = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text)
    return [line.strip() for line in plain.splitlines() if line.strip()]


def number(words: str) -> float | None:
    """The figure that `words` begin with, whatever its unit; None for [N/A], [Not Supported], NA, - and the like."""
    found = re.match(r"\s*(\d{1,12}(?:\.\d{1,6})?)(?![\d.])", words, re.ASCII)
    return float(found[1]) if found else None


def whole(words: str) -> int | None:
    found = number(words)
    return None if found is None else round(found)
