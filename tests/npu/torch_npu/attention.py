"""npu_fusion_attention, as far as transformers uses it, by torch's own attention."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

COMPRESSED_MASK = (2048, 2048)
PLAIN, DOWN_RIGHT = 0, 3
calls: Counter[str] = Counter()  # of each layout


def npu_fusion_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    input_layout: str,
    pse: Tensor | None = None,
    padding_mask: Tensor | None = None,
    atten_mask: Tensor | None = None,
    scale: float = 1.0,
    keep_prob: float = 1.0,
    *,
    actual_seq_qlen: Sequence[int] | None = None,
    actual_seq_kvlen: Sequence[int] | None = None,
    sparse_mode: int = PLAIN,
) -> tuple[Any, ...]:
    """query, key, value: (tokens, heads, head_dim) for "TND", where the lengths are the ends of the samples, the last
    one that of all; (samples, tokens, heads, head_dim) for "BSND". The output comes first of seven."""
    assert {query.device.type, key.device.type, value.device.type} == {"npu"}
    assert query.dtype == key.dtype == value.dtype
    assert query.dtype in (torch.float16, torch.bfloat16, torch.float32), query.dtype
    assert pse is None
    assert padding_mask is None
    assert sparse_mode in (PLAIN, DOWN_RIGHT), sparse_mode
    causal = sparse_mode == DOWN_RIGHT
    if causal:
        assert atten_mask is not None
        assert atten_mask.dtype == torch.bool
        assert atten_mask.shape == COMPRESSED_MASK
    calls[input_layout] += 1
    if input_layout == "TND":
        assert actual_seq_qlen is not None
        assert actual_seq_kvlen is not None
        assert (actual_seq_qlen[-1], actual_seq_kvlen[-1]) == (len(query), len(key)), "the ends of all samples"
        parts = [_ranges(query, actual_seq_qlen), _ranges(key, actual_seq_kvlen), _ranges(value, actual_seq_kvlen)]
        output = torch.cat([_attention(q, k, v, causal, scale, keep_prob) for q, k, v in zip(*parts, strict=True)])
    else:
        assert input_layout == "BSND", input_layout
        assert query.shape[2] == head_num
        output = _attention(query, key, value, causal, scale, keep_prob)
    nothing = query.new_empty(0)
    return output, nothing, nothing, nothing, 0, 0, 0


def _ranges(states: Tensor, ends: Sequence[int]) -> list[Tensor]:
    return [states[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _attention(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float, keep_prob: float) -> Tensor:
    """(…, tokens, heads, head_dim) each; the last query sees the last key."""
    seen = None
    if causal:
        tokens, before = query.shape[-3], key.shape[-3]
        seen = torch.ones(tokens, before, dtype=torch.bool, device=query.device).tril(before - tokens)
    states = (part.transpose(-2, -3) for part in (query, key, value))
    output = functional.scaled_dot_product_attention(
        *states, attn_mask=seen, dropout_p=1 - keep_prob, scale=scale, enable_gqa=True
    )
    return output.transpose(-2, -3)


def refuse_masks_of_numbers() -> None:
    """The device's own attention takes masks of truth values only."""
    plain = functional.scaled_dot_product_attention

    def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *more: Any, **how: Any) -> Tensor:
        if query.device.type == "npu" and attn_mask is not None and attn_mask.dtype != torch.bool:
            raise RuntimeError(f"attn_mask must be bool on NPU, got {attn_mask.dtype}")
        return plain(query, key, value, attn_mask, *more, **how)

    functional.scaled_dot_product_attention = attention
