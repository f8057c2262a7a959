"""Whether a model fits the memory that is free now, said before it is loaded, and who holds what is missing."""

from dataclasses import dataclass
from pathlib import Path

from app import runs
from app.chat import ANY_DEVICE, Status
from app.devices import devices
from app.text import Text
from trainer.accelerators import accelerators
from trainer.estimate import GIB, PROGRAM_GIB, RESERVED_GIB, Hardware
from trainer.launch import Launch
from trainer.model_folder import check_model_folder
from trainer.model_size import tensors, weight_bytes

ELEMENT = {"fp32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class Shortage:
    """GiB needed, and free of the device's. `run`, `run_gib`: the training that holds memory of it now, and how much.
    `index`: which of several devices it is."""

    needed_gib: float
    free_gib: float
    total_gib: float
    device: str
    run: str = ""
    run_gib: float | None = None
    index: str = ""

    def words(self, text: Text) -> str:
        """The figures, and what can be done."""
        device = text("device.named", index=self.index, name=self.device) if self.index else self.device
        said = text("memory.short", needed=_gib(self.needed_gib), free=_gib(self.free_gib), total=_gib(self.total_gib),
                    device=device)  # fmt: skip
        if self.run:
            holds = text("memory.holds", gib=_gib(self.run_gib)) if self.run_gib else ""
            said += text("memory.run", run=self.run, holds=holds)
        return said + text("memory.else")


def shortage(
    model: str | Path,
    adapter: str | Path | None,
    dtype: str,
    status: Status,
    runs_dir: Path,
    place: Launch = ANY_DEVICE,
) -> Shortage | None:
    """None when the model fits, or is loaded already. Raises Problem or OSError for a folder that is no model.

    What the chat process holds of the device of `place` counts as free: it ends before another model is loaded.
    """
    folder = check_model_folder(model)
    kind = devices().compute_types[0] if dtype == "auto" else dtype
    index = ",".join(place.devices)
    here = status.index == index
    loaded = status.state in ("ready", "generating") and status.model == folder.absolute() and status.dtype == kind
    if loaded and here:
        return None
    # Where it was given none, the chat process takes the first device that it sees.
    machine = Hardware.of(Launch(devices=place.devices or tuple(one.index for one in accelerators()[:1])))
    kept = "cpu" if machine.kind == "cpu" else "other"
    needed = weight_bytes(tensors(folder), ELEMENT[kind]) / GIB + PROGRAM_GIB[kept] + RESERVED_GIB[kept]
    if adapter and (Path(adapter) / "adapter_model.safetensors").is_file():
        needed += (Path(adapter) / "adapter_model.safetensors").stat().st_size / GIB
    free = machine.memory_gib + ((status.memory_gib or 0.0) if here else 0.0)
    if needed <= free:
        return None
    run = next(iter(runs.training_on(runs_dir, place.devices)), None)
    step = run.last("step") if run else None
    return Shortage(needed, free, machine.whole_gib, machine.name, run.name if run else "",
                    step.get("memory_gib") if step else None, index)  # fmt: skip


def _gib(value: float) -> str:
    return f"{value:.1f} GiB" if value >= 10 else f"{value:.2f} GiB"
