"""torch.npu: devices, memory, random numbers, streams."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch_npu import notes

Stream, Event = torch.Stream, torch.Event
current_stream, set_stream = torch.accelerator.current_stream, torch.accelerator.set_stream
synchronize = torch.accelerator.synchronize


class device(torch.accelerator.device_index):
    """For a `with`: a number, a name, or a torch.device."""

    def __init__(self, index: Any) -> None:
        super().__init__(_number(index))


@contextmanager
def stream(_: Any) -> Iterator[None]:
    """There is one, and work is done when it is asked for."""
    yield


def is_available() -> bool:
    return device_count() > 0


def device_count() -> int:
    return torch.ops.fake_npu.device_count()


def current_device() -> int:
    return torch.accelerator.current_device_index()


def set_device(index: Any) -> None:
    torch.accelerator.set_device_index(index)
    notes.add("set_device", index=current_device())


def get_device_name(index: Any = None) -> str:
    return "Ascend910B3 (fake)"


def get_device_properties(index: Any = None) -> Any:
    class Properties:
        name, total_memory = get_device_name(), mem_get_info(index)[1]

    return Properties()


def set_compile_mode(jit_compile: bool = False) -> None:
    notes.add("set_compile_mode", jit_compile=jit_compile)


def is_bf16_supported() -> bool:
    return True


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16, torch.float32]


def is_initialized() -> bool:
    return not _is_in_bad_fork()


def init() -> None:
    if _is_in_bad_fork():
        raise RuntimeError("Cannot re-initialize NPU in forked subprocess. Use the 'spawn' start method")


_lazy_init = init


def _is_in_bad_fork() -> bool:
    return torch.ops.fake_npu.is_in_bad_fork()


# ---- memory, of which torch.accelerator knows nothing ----


def mem_get_info(index: Any = "npu") -> tuple[int, int]:
    held, _, capacity = _memory(index)
    return capacity - held, capacity


def memory_allocated(index: Any = "npu") -> int:
    return _memory(index)[0]


def max_memory_allocated(index: Any = "npu") -> int:
    return _memory(index)[1]


# Nothing is kept for later.
memory_reserved, max_memory_reserved = memory_allocated, max_memory_allocated


def reset_peak_memory_stats(index: Any = "npu") -> None:
    torch.ops.fake_npu.reset_peak(_number(index))


def empty_cache() -> None:
    notes.add("empty_cache")


def _memory(index: Any) -> list[int]:
    return torch.ops.fake_npu.memory(_number(index))


# ---- random numbers ----


def get_rng_state(index: Any = "npu") -> torch.Tensor:
    return torch.ops.fake_npu.rng_state(_number(index))


def set_rng_state(state: torch.Tensor, index: Any = "npu") -> None:
    torch.ops.fake_npu.set_rng_state(_number(index), state)


def manual_seed(seed: int) -> None:
    torch.ops.fake_npu.seed(current_device(), seed)


def manual_seed_all(seed: int) -> None:
    for index in range(device_count()):
        torch.ops.fake_npu.seed(index, seed)


def get_rng_state_all() -> list[torch.Tensor]:
    return [get_rng_state(index) for index in range(device_count())]


def _number(index: Any) -> int:
    number = index if isinstance(index, int) else torch.device(index).index
    return current_device() if number is None else number
