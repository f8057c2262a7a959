"""Attention over samples laid end to end without padding, where a kernel for it exists.

device_kinds.py says by what: torch's own varlen flash attention, registered in transformers' attention interface, or
one of transformers' own. Elsewhere samples are padded: a dense mask over all of them costs more than padding does.
"""

import inspect
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from trainer import device_kinds
from trainer.device import Device

log = logging.getLogger("trainer")

NAME = device_kinds.TORCH_VARLEN


def varlen_implementation(device: Device, dtype: torch.dtype) -> str | None:
    """The attention implementation for unpadded passes on `device`, None where there is none."""
    if dtype not in (torch.bfloat16, torch.float16):
        return None
    found = device.kind.unpadded_attention
    if found == NAME:
        AttentionInterface.register(NAME, varlen_attention)
    return found


def use_varlen(model: PreTrainedModel, implementation: str) -> bool:
    """Switches `model` over; False, and nothing changed, when its attention is its own affair."""
    config = model.config.get_text_config()
    capped = getattr(config, "attn_logit_softcapping", None)
    if not model._supports_attention_backend or capped or "sdpa" not in str(config._attn_implementation):
        return False
    if implementation != NAME and any(getattr(module, "sliding_window", None) for module in model.modules()):
        return False  # transformers leaves the window out where npu_fusion_attention computes, and says nothing
    try:
        model.set_attn_implementation(implementation)
    except ImportError as error:  # transformers does not find what the kernel comes with
        log.warning("samples are padded: %s", error)
        return False
    return True


def varlen_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query: (1, heads, tokens, head_dim) · key, value: (1, kv_heads, tokens, head_dim), samples end to end.

    `cu_seq_lens_q` (int32, samples + 1) and `max_length_q` say where each begins; transformers' own names.
    Returns (1, tokens, heads, head_dim).
    """
    from torch.nn.attention.varlen import varlen_attn

    assert attention_mask is None
    assert "cu_seq_lens_q" in kwargs, "unpadded passes only"
    starts, longest = kwargs["cu_seq_lens_q"], kwargs["max_length_q"]
    options = {"scale": scaling} | _causal(query.shape[1] != key.shape[1], sliding_window)
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    output = varlen_attn(q, k, v, starts, starts, longest, longest, **options)
    return output.unsqueeze(0), None


def _causal(grouped: bool, sliding_window: int | None) -> dict[str, Any]:
    """Names for it in the torch at hand."""
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {}
    if "window_size" in known:  # torch 2.11
        options["window_size"] = (-1 if sliding_window is None else sliding_window - 1, 0)
    else:
        options["is_causal"] = True
    if "enable_gqa" in known:
        options["enable_gqa"] = grouped
    return options


@lru_cache(maxsize=4)  # a pass asks once a layer, and each new tensor waits for the device
def _whole(length: int, device: torch.device) -> Tensor:
    return torch.tensor([0, length], dtype=torch.int32, device=device)


def continuing_attention(device_type: str, dtype: torch.dtype) -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """Causal attention of a text's last tokens over all of it, by torch's varlen kernel; None where there is none.

    q: (tokens, heads, head_dim) · k, v: (length, kv_heads, head_dim), the last `tokens` of them q's own. Returns as q.
    The plain SDPA would write a mask and all scores, or have cuDNN plan half a second for every new length.
    """
    if device_kinds.of(device_type).unpadded_attention != NAME or dtype not in (torch.bfloat16, torch.float16):
        return None
    from torch.nn.attention.varlen import varlen_attn

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        starts_q, starts_k = (_whole(len(part), q.device) for part in (q, k))
        options = _causal(q.shape[1] != k.shape[1], None)
        return varlen_attn(q, k, v, starts_q, starts_k, len(q), len(k), **options)

    return attend
