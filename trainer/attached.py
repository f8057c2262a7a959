"""A model with an adapter that peft puts on, and takes off without a trace.

peft's own `unload` leaves biases and whole modules that came with the adapter in the base, and adapters that start
from the base's weights (PiSSA and its like) change those.
"""

from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.low_rank import adapter_config, begins_at_base
from trainer.model import attach_adapter


class Attached:
    """`model`: `base` with the adapter of `folder`. Raises Problem, `base` as it was, when it does not fit."""

    def __init__(self, base: PreTrainedModel, folder: Path) -> None:
        self._base = base
        self._modules = [(module, dict(module._modules)) for module in base.modules()]
        self._weights: list[tuple[nn.Parameter, Tensor]] = []
        self._copies: list[tuple[Tensor, Tensor]] = []  # of what peft writes into
        everything, brought = not begins_at_base(adapter_config(folder)), _base_weights(folder)
        for name, weight in base.named_parameters(remove_duplicate=False):
            self._weights.append((weight, weight.data))
            if everything or name.endswith("bias") or name in brought:
                self._copies.append((weight.data, weight.data.to("cpu", copy=True)))
        try:
            self.model: Any = attach_adapter(base, folder).eval()
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """The base is what it was."""
        for module, parts in self._modules:
            module._modules.clear()
            module._modules.update(parts)
        for weight, data in self._weights:
            weight.data = data
        for data, values in self._copies:
            data.copy_(values)
        # A mark that peft leaves on the base; it warns of several adapters when it finds one.
        if hasattr(self._base, "peft_config"):
            del self._base.peft_config


def _base_weights(folder: Path) -> set[str]:
    """Names of the weights of the base that the adapter brings along, as peft saves embeddings beside an adapter on them."""
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        names = [name.removeprefix("base_model.model.") for name in file.keys()]  # noqa: SIM118
    return {name.replace(".base_layer.", ".") for name in names if ".lora_" not in name}
