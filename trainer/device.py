"""The device that this process computes on. Together with trainer/device_kinds.py, the one place that knows its vendor.

What is true of a whole kind is in that table; here is what takes torch: names, memory, dtypes, seeds, graphs, processes.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import psutil
import torch
from torch import distributed

from trainer import device_kinds
from trainer.accelerators import processor_name
from trainer.declared import ComputeType
from trainer.device_kinds import Kind
from trainer.problems import Problem
from trainer.settings import label

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "pure_bf16": torch.bfloat16}


_SETTING_UP = threading.Lock()


@dataclass(frozen=True)
class Device:
    """A device as the trainer and the chat process see it. `count`: devices visible to this process."""

    type: str
    name: str
    count: int

    @property
    def kind(self) -> Kind:
        return device_kinds.of(self.type)

    @property
    def is_processor(self) -> bool:
        return self.kind.is_processor

    @property
    def torch_device(self) -> torch.device:
        if self.is_processor:
            return torch.device("cpu")
        return torch.device(self.type, torch.accelerator.current_device_index())  # one process a device

    # ---- dtypes ----

    def compute_types(self) -> list[ComputeType]:
        """What works here, best first."""
        has_bf16 = getattr(_module(self.type), "is_bf16_supported", lambda: True)
        if self.is_processor or has_bf16():
            return list(self.kind.compute_types)
        return [name for name in self.kind.compute_types if DTYPES[name] is not torch.bfloat16]

    def compute_type(self, wanted: ComputeType) -> ComputeType:
        """`wanted`, or the best when "auto". Raises Problem when the device cannot."""
        possible = self.compute_types()
        if wanted == "auto":
            return possible[0]
        if wanted not in possible:
            raise Problem(
                "compute_unsupported",
                label=label("compute_type"),
                value=wanted,
                device=self.name,
                choices=", ".join(possible),
            )
        return wanted

    def dtype(self, wanted: ComputeType = "auto") -> torch.dtype:
        """The dtype that a model is loaded and run in for chat."""
        return DTYPES[self.compute_type(wanted)]

    @property
    def widest(self) -> torch.dtype:
        """The dtype of sums over many numbers: not every device adds doubles."""
        return torch.float64 if self.kind.float64 else torch.float32

    # ---- memory ----

    def memory_gib(self) -> float:
        """Memory in use: the device's own for an accelerator (peak of this process), else this process's RSS."""
        return (psutil.Process().memory_info().rss if self.is_processor else self.peak_memory()) / 2**30

    def free_memory(self) -> int:
        """Bytes of an accelerator that this process could still get."""
        free, _ = _memory(self.type)
        return free + int(_ask(self.type, "memory_reserved")) - self.allocated_memory()

    def total_memory(self) -> int:
        """Bytes of the device, or of this machine for a processor."""
        return psutil.virtual_memory().total if self.is_processor else _memory(self.type)[1]

    def allocated_memory(self) -> int:
        return int(_ask(self.type, "memory_allocated"))

    def peak_memory(self) -> int:
        """Most bytes allocated at a time since the statistics were reset."""
        return int(_ask(self.type, "max_memory_allocated"))

    def reset_peak_memory(self) -> None:
        _ask(self.type, "reset_peak_memory_stats")

    def release_cached(self) -> None:
        """Gives back what the allocator keeps for later, so that other block sizes can be had."""
        if not self.is_processor:
            _ask(self.type, "empty_cache")

    def synchronize(self) -> None:
        if not self.is_processor:
            _ask(self.type, "synchronize")

    # ---- chance ----

    def rng_state(self) -> torch.Tensor | None:
        """The state of the device's own generator, uint8; None for a processor, whose generator is torch's."""
        return None if self.is_processor else _module(self.type).get_rng_state().cpu()

    def set_rng_state(self, state: torch.Tensor | None) -> None:
        """As it was on a device of this make; another's state, or none, leaves this one's as it is."""
        if state is not None and not self.is_processor:
            _module(self.type).set_rng_state(state)


CPU = Device("cpu", processor_name(), 1)


def current() -> Device:
    """The accelerator that torch sees, else the CPU."""
    if not torch.accelerator.is_available():
        return CPU
    found = _type()
    with _SETTING_UP:  # a chat's threads ask at the same time, and `cache` alone would let both in
        _set_up(found)
    return Device(found, _name(found), torch.accelerator.device_count())


def seed(value: int) -> None:
    """The generators of torch, of the processor and of every device."""
    torch.manual_seed(value)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that the device, or the host through torch's allocator, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)


def is_built_for(kind: Kind) -> bool:
    """Whether this torch can have such devices of itself, without another package."""
    built = {"cuda": torch.version.cuda or torch.version.hip}
    return bool(built.get(kind.name)) or kind.is_processor


def _type() -> str:
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None
    return accelerator.type


def _module(name: str) -> Any:
    """torch's module for a device type, such as torch.cuda."""
    return torch.get_device_module(name)


@cache  # once a process: it wakes the device, which must be the process's own by then
def _set_up(name: str) -> None:
    if not device_kinds.of(name).compiles:
        _module(name).set_compile_mode(jit_compile=False)


def _name(kind: str) -> str:
    """As the device calls itself; not every back end of torch can ask it."""
    ask = getattr(_module(kind), "get_device_name", None)
    return str(ask()) if ask else f"{processor_name()} ({kind})"


def _ask(kind: str, what: str) -> Any:
    """What a device's own module in torch answers, such as torch.cuda, else torch.accelerator, which of memory knows
    only allocators that are derived from torch's: torch-npu's is not (vllm-project/vllm-ascend#14188)."""
    function = getattr(_module(kind), what, None) or getattr(torch.accelerator, what)
    return function()


def _memory(kind: str) -> tuple[int, int]:
    """Free and total bytes; the host's for a device that shares them and cannot be asked."""
    ask = getattr(_module(kind), "mem_get_info", torch.accelerator.get_memory_info)
    try:
        free, total = ask()
    except (RuntimeError, NotImplementedError):
        if device_kinds.of(kind).tool:  # it can be asked, and fails
            raise
        host = psutil.virtual_memory()
        return host.available, host.total
    return free, total


# ---- one process of several ----


def take_place() -> Device:
    """Makes the device of this process's place on its machine, torchrun's LOCAL_RANK, the current one.

    Raises Problem when there are more processes than devices.
    """
    if torch.accelerator.is_available():
        here, devices = int(os.environ["LOCAL_WORLD_SIZE"]), torch.accelerator.device_count()
        if here > devices:
            raise Problem("more_processes_than_devices", processes=here, devices=devices)
        torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
    return current()


def collective_backend(device: Device) -> str:
    """What torch.distributed calls the library that moves numbers between such devices."""
    return device.kind.backend or distributed.get_default_backend_for_device(device.type)


def collective_device() -> Device:
    """Where this process's collectives take place."""
    return CPU if distributed.get_backend() == device_kinds.KINDS["cpu"].backend else current()


def is_collective_error(words: str) -> bool:
    """Whether an error's text is by a library of collectives, whose errors mean that another process is gone."""
    return any(kind.backend.lower() in words.lower() for kind in device_kinds.KINDS.values())


# ---- recorded passes, where `captures_graphs` ----


class Graph(Protocol):
    """What was launched while it was captured, to be launched again in one call."""

    def replay(self) -> None: ...


class Event(Protocol):
    def record(self) -> None: ...
    def synchronize(self) -> None: ...


def graph_pool(device: torch.device) -> Any:
    """Memory that several graphs may share."""
    return _module(device.type).graph_pool_handle()


@contextmanager
def captured(device: torch.device, pool: Any = None) -> Iterator[Graph]:
    """Records what the body launches, which does not run yet, from this thread alone."""
    module = _module(device.type)
    graph = module.CUDAGraph()
    module.synchronize()
    with module.graph(graph, pool=pool, capture_error_mode="thread_local"):
        yield graph


def event(device: torch.device) -> Event:
    """A mark among what is launched, to be waited for."""
    made: Event = _module(device.type).Event()
    return made
