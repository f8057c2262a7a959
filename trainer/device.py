"""The one place that knows which accelerator this is: name, dtypes, memory, seeding."""

from dataclasses import dataclass

import psutil
import torch

from trainer.accelerators import processor_name
from trainer.problems import Problem
from trainer.settings import ComputeType, label

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "pure_bf16": torch.bfloat16}


@dataclass(frozen=True)
class Device:
    """A device as the trainer and the chat process see it. `count`: devices visible to this process."""

    type: str
    name: str
    count: int

    @property
    def torch_device(self) -> torch.device:
        if self.type == "cpu":
            return torch.device("cpu")
        return torch.device(self.type, torch.accelerator.current_device_index())  # one process a device

    def compute_types(self) -> list[ComputeType]:
        """What works here, best first."""
        if self.type == "cpu":
            return ["fp32", "bf16", "pure_bf16"]
        if self.type == "cuda" and not torch.cuda.is_bf16_supported():
            return ["fp16", "fp32"]
        return ["bf16", "pure_bf16", "fp32", "fp16"]

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

    def memory_gib(self) -> float:
        """Memory in use: the device's own for an accelerator (peak of this process), else this process's RSS."""
        if self.type == "cpu":
            return psutil.Process().memory_info().rss / 2**30
        return torch.accelerator.max_memory_allocated() / 2**30

    def free_memory(self) -> int:
        """Bytes of an accelerator that this process could still get."""
        free, _ = torch.accelerator.get_memory_info()
        return free + torch.accelerator.memory_reserved() - torch.accelerator.memory_allocated()

    def total_memory(self) -> int:
        """Bytes of the device, or of this machine for a processor."""
        return psutil.virtual_memory().total if self.type == "cpu" else torch.accelerator.get_memory_info()[1]

    def allocated_memory(self) -> int:
        return torch.accelerator.memory_allocated()

    def peak_memory(self) -> int:
        """Most bytes allocated at a time since the statistics were reset."""
        return torch.accelerator.max_memory_allocated()

    def reset_peak_memory(self) -> None:
        torch.accelerator.reset_peak_memory_stats()

    def release_cached(self) -> None:
        """Gives back what the allocator keeps for later, so that other block sizes can be had."""
        if self.type != "cpu":
            torch.accelerator.empty_cache()

    def synchronize(self) -> None:
        if self.type != "cpu":
            torch.accelerator.synchronize()


def current() -> Device:
    """The accelerator that torch sees, else the CPU."""
    if torch.accelerator.is_available():
        accelerator = torch.accelerator.current_accelerator()
        assert accelerator is not None
        module = getattr(torch, accelerator.type)
        return Device(accelerator.type, module.get_device_name(), torch.accelerator.device_count())
    return Device("cpu", processor_name(), 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that the device, or the host through torch's allocator, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)
