"""Compiles the decoding kernels while a model's weights and the libraries are still being read.

Triton compiles each kernel for the types and a few sizes of its arguments, and keeps the result on disk: the first
load on a machine would wait three seconds for it, later ones not.
"""

import json
import logging
import threading
from pathlib import Path
from typing import Any

import torch

from trainer.declared import ComputeType
from trainer.device import current
from trainer.model_folder import resolve

log = logging.getLogger("trainer")


def compile_ahead(folder: Path, compute_type: ComputeType) -> None:
    """Begins in a thread, where the kernels are used. What fails here fails again, and is told, when the model is prepared."""

    def begin() -> None:
        try:
            device = current()
            if device.kind.captures_graphs:
                config = json.loads((resolve(folder) / "config.json").read_text(encoding="utf-8"))
                _run_once(config, device.dtype(compute_type), device.torch_device)
        except Exception as error:
            log.info("kernels were not compiled ahead: %s: %s", type(error).__name__, error)

    threading.Thread(target=begin, name="kernels", daemon=True).start()


@torch.inference_mode()
def _run_once(config: dict[str, Any], dtype: torch.dtype, device: torch.device) -> None:
    """Every kernel on memory of its own, in the sizes that a model of `config` will bring."""
    from trainer import decoder_kernels as kernels

    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim") or hidden // heads
    normed = config.get("model_type") == "qwen3"
    biased = config.get("model_type") == "qwen2" or config.get("attention_bias")

    def some(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    x, norm, wide = some(hidden), some(hidden), some((heads + 2 * kv_heads) * size)
    bias = some(len(wide)) if biased else None
    kernels.matvec(x, some(len(wide), hidden), wide, norm=norm, eps=1e-6, bias=bias)
    kernels.matvec(wide[: heads * size], some(hidden, heads * size), x, add=True)
    kernels.matvec(x, some(2 * inner, hidden), some(inner), norm=norm, eps=1e-6, gated=True)
    kernels.matvec(some(inner), some(hidden, inner), x, add=True)
    kernels.matvec(x, some(vocabulary, hidden), some(vocabulary), norm=norm, eps=1e-6)
    keys, values, tables = some(kv_heads, 128, size), some(kv_heads, 128, size), (some(128, size), some(128, size))
    position = torch.zeros(1, dtype=torch.int64, device=device)
    norms = (some(size), some(size)) if normed else None
    for tokens in (1, 64):
        qkv = wide.expand(tokens, -1).contiguous()
        kernels.rotate_and_keep(qkv, tables, norms, keys, values, position, heads, 1e-6)
        kernels.attend(qkv, keys, values, position, heads)
    kernels.gated(some(2, 2 * inner))
    # With an adapter: its first answer need not wait either.
    for outputs, inputs, how in (
        (len(wide), hidden, {"norm": norm, "eps": 1e-6, "bias": bias}),
        (hidden, heads * size, {"add": True}),
        (2 * inner, hidden, {"norm": norm, "eps": 1e-6, "gated": True}),
        (hidden, inner, {"add": True}),
    ):
        out, low = some(inner if how.get("gated") else outputs), (some(8, inputs), some(outputs, 8))
        kernels.matvec(some(inputs), some(outputs, inputs), out, low=low, **how)
