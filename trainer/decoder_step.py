"""One token through all layers on a processor, in fp32: what a small model needs there is few operations.

A layer is some twelve calls of torch. Measured on the demo model: 1.7 ms a token, of which 1.3 are spent on reading weights.
"""

import threading

import torch
from torch import Tensor
from torch.nn import functional

from trainer.decoder import Cache, Decoder, Layer, LowRank, leave_if, product


class ProcessorStep:
    """Call it with a token for the last layer's output (1, hidden); its keys and values are in the cache then."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        size = decoder.head_dim
        # x @ swap is (-second half, first half)
        half = torch.eye(size // 2)
        self._swap = torch.zeros(size, size)
        self._swap[: size // 2, size // 2 :], self._swap[size // 2 :, : size // 2] = half, -half
        self._head_norms = [_head_norms(layer, decoder) for layer in decoder.layers]

    def __call__(self, token_id: int, cache: Cache, adapter: LowRank | None, cancel: threading.Event | None) -> Tensor:
        d = self._decoder
        heads, rotated, position = d.heads, d.heads + d.kv_heads, len(cache.ids)
        cos, sin = (table[position] for table in d.rotary(cache.capacity))
        turn = torch.diag(cos).addcmul_(self._swap, sin)
        places = cache.states[:, :, :, position].unbind(0)
        seen = cache.states[:, :, None, :, : position + 1].unbind(0)
        x = d.embedding[token_id : token_id + 1]
        for number, layer in enumerate(d.layers):
            leave_if(cancel)
            low = (adapter.a[number], adapter.b[number]) if adapter else None
            qkv = product("qkv", self._norm(x, layer.norm_1), layer, low).view(-1, d.head_dim)
            turned = torch.mm(self._normed_heads(qkv[:rotated], number), turn)
            places[number][0].copy_(turned[heads:])
            places[number][1].copy_(qkv[rotated:])
            # A kv head's queries are the rows of one small product over all keys: no key is copied, nothing masked.
            q = turned[:heads].view(1, d.kv_heads, -1, d.head_dim)
            mixed = functional.scaled_dot_product_attention(q, *seen[number])
            x = product("out", mixed.reshape(1, -1), layer, low, add_to=x)
            gate, up = product("gate_up", self._norm(x, layer.norm_2), layer, low).chunk(2, dim=1)
            x = product("down", functional.silu(gate, inplace=True).mul_(up), layer, low, add_to=x)
        return x

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """torch's own rms_norm is six operations."""
        flat = x.view(-1)
        return (x * weight).mul_((float(flat.dot(flat)) / len(flat) + self._decoder.eps) ** -0.5)

    def _normed_heads(self, heads: Tensor, number: int) -> Tensor:
        weights = self._head_norms[number]
        if weights is None:
            return heads
        return functional.rms_norm(heads, (heads.shape[1],), None, self._decoder.eps).mul_(weights)


def _head_norms(layer: Layer, decoder: Decoder) -> Tensor | None:
    """The norms of queries and keys, a row a head."""
    if layer.q_norm is None or layer.k_norm is None:
        return None
    return torch.stack([layer.q_norm] * decoder.heads + [layer.k_norm] * decoder.kv_heads)
