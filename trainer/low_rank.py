"""Reading a LoRA adapter as a few matrices beside the base, where that is all it is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from trainer.decoder import OUT, PRODUCTS, Decoder, K, Layer, Low, LowRank, Q, V

_LAYERS = "base_model.model.model.layers."


def adapter_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return config


def begins_at_base(config: dict[str, Any]) -> bool:
    """Whether the adapter adds to the base as it is; PiSSA and its like take their start out of the base's weights."""
    return config.get("init_lora_weights", True) in (True, False, None, "gaussian", "orthogonal", "eva")


def read_adapter(folder: Path, decoder: Decoder) -> LowRank | None:
    """The LoRA adapter in `folder`; None when it is more than low-rank updates of the layers' linear layers,
    or does not fit the model: then peft has to say what it is."""
    config = adapter_config(folder)
    plain = config.get("peft_type") == "LORA" and not any(
        config.get(name)
        for name in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "lora_bias",
                     "trainable_token_indices", "layer_replication", "alora_invocation_tokens", "target_parameters",
                     "use_qalora", "use_bdlora", "arrow_config")
    )  # fmt: skip
    if not plain or not begins_at_base(config) or config.get("bias", "none") != "none":
        return None
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        return None
    scale = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
    with safe_open(folder / "adapter_model.safetensors", framework="pt", device=str(decoder.device)) as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if not _is_whole(stored, rank, len(decoder.layers)):
        return None
    layers = [_low_rank(stored, number, layer, scale, decoder) for number, layer in enumerate(decoder.layers)]
    if stored or any(layer is None for layer in layers):
        return None
    found = [layer for layer in layers if layer is not None]
    return LowRank([a for a, _ in found], [b for _, b in found])


def _is_whole(stored: dict[str, Tensor], rank: int, layers: int) -> bool:
    """Whether each of so many layers has the same parts, of this rank: one of a model with fewer layers has not."""
    parts: dict[str, set[str]] = {}
    for name in stored:
        number, _, part = name.removeprefix(_LAYERS).partition(".")
        parts.setdefault(number, set()).add(part)
    of_rank = all(len(tensor) == rank for name, tensor in stored.items() if ".lora_A." in name)
    return of_rank and len(parts) == layers and len({frozenset(part) for part in parts.values()}) == 1


def _low_rank(stored: dict[str, Tensor], number: int, layer: Layer, scale: float, decoder: Decoder) -> Low | None:
    """One layer's products' a and b, taken out of `stored`; None when a shape does not fit."""
    a_of, b_of = dict[str, Tensor](), dict[str, Tensor]()
    for name, parts in PRODUCTS.items():
        pieces = list(_pieces(stored, number, parts))
        if not pieces:
            continue
        outputs, inputs = layer.weight[name].shape
        rows = decoder.rows(name)
        rank = sum(len(a) for _, a, _ in pieces)
        a_all = torch.cat([a for _, a, _ in pieces]).to(decoder.dtype)
        b_all = torch.zeros(outputs, rank, dtype=decoder.dtype, device=decoder.device)
        column = 0
        for part, a, b in pieces:
            first = sum(rows[: parts.index(part)])
            if a.shape[1] != inputs or b.shape != (rows[parts.index(part)], len(a)):
                return None
            b_all[first : first + len(b), column : column + len(a)] = (b.float() * scale).to(decoder.dtype)
            column += len(a)
        a_of[name], b_of[name] = a_all, b_all
    return a_of, b_of


def _pieces(stored: dict[str, Tensor], number: int, parts: tuple[str, ...]) -> Iterator[tuple[str, Tensor, Tensor]]:
    for part in parts:
        where = "self_attn" if part in (Q, K, V, OUT) else "mlp"
        name = f"{_LAYERS}{number}.{where}.{part}"
        a, b = stored.pop(f"{name}.lora_A.weight", None), stored.pop(f"{name}.lora_B.weight", None)
        if a is not None and b is not None:
            yield part, a, b
