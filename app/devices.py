"""The devices of this machine, read from the vendors' own tools: the page never asks torch."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from app.text import Text
from trainer import device_kinds
from trainer.accelerators import Accelerator, Reading, processor_name, reading
from trainer.problems import quoted

# A tool takes a tenth of a second to some seconds, and holds a lock of its driver meanwhile.
EVERY_S = 3.0
# A click that needs what is free waits so long for a tool; then it takes what the tool said last.
PATIENCE_S = 6.0


@dataclass(frozen=True)
class Devices:
    """`kind`: cuda, npu or cpu. `names`: one an accelerator, or the processor's. `hidden`: the accelerators of a
    machine whose environment hides them all."""

    kind: str
    names: tuple[str, ...]
    hidden: tuple[Accelerator, ...] = ()

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def compute_types(self) -> list[str]:
        """What works here, best first; the trainer checks again with torch at hand."""
        return list(device_kinds.of(self.kind).compute_types)

    def words(self, text: Text) -> str:
        if self.hidden:
            variable = device_kinds.VISIBLE[self.hidden[0].kind]
            return text("device.hidden", name=self.names[0], count=len(self.hidden), device=self.hidden[0].name,
                        variable=variable, value=quoted(os.environ.get(variable, "")))  # fmt: skip
        if self.kind == "cpu":
            return text("device.cpu", name=self.names[0])
        return text("device.accelerators", count=self.count, name=self.names[0])


@cache
def devices() -> Devices:
    """Asked once; accelerators do not come and go."""
    latest = watch().soon()
    if found := latest.devices:
        return Devices(found[0].kind, tuple(one.name for one in found))
    return Devices("cpu", (processor_name(),), latest.hidden)


class Watch:
    """What the tools said last. They are asked in a thread of their own, one at a time and not more often than every
    EVERY_S, by whoever looks; while nobody looks they are not asked."""

    def __init__(self, read: Callable[[], Reading] = reading, every_s: float = EVERY_S) -> None:
        self._read, self._every_s = read, every_s
        self._changed = threading.Condition()
        self._reading = Reading()
        self._taken: float | None = None  # when the last reading ended
        self._asking = False

    def now(self) -> Reading:
        """At once, what is known; if that is old, what comes next will be newer."""
        with self._changed:
            if not self._asking and not self._fresh:
                self._asking = True
                threading.Thread(target=self._ask, name="devices", daemon=True).start()
            return self._reading

    def soon(self, patience_s: float = PATIENCE_S) -> Reading:
        """Waits for a reading that is not old, but not longer than `patience_s`."""
        with self._changed:
            self.now()
            self._changed.wait_for(lambda: self._fresh, patience_s)
            return self._reading

    @property
    def _fresh(self) -> bool:
        return self._taken is not None and time.monotonic() - self._taken < self._every_s

    def _ask(self) -> None:
        found = Reading()
        try:
            found = self._read()
        finally:
            with self._changed:
                if not found.devices and found.trouble:  # the figures before it, and why they are old
                    found = replace(found, devices=self._reading.devices)
                self._reading, self._taken, self._asking = found, time.monotonic(), False
                self._changed.notify_all()


@cache
def watch() -> Watch:
    """The one of this process: its pages share it."""
    return Watch()


def seen() -> list[Accelerator]:
    """The accelerators that this process sees, with what is free now; none on a machine that has none."""
    return list(watch().soon().devices)


def known() -> list[Accelerator]:
    """As `seen`, without waiting: which there are is right, what is free on them may be old."""
    return list(watch().now().devices)
