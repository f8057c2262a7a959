"""A lean forward pass for the decoders that Llama began: the same numbers as transformers', with a fraction of the calls.

At one token a pass a model's weights are read once and little is computed, so what remains is overhead: here a layer
is some twenty operations on plain tensors, with q, k, v in one product, gate and up in another, and a cache that
is written in place. Whether a model of a known family computes just this is found out by trying.
"""

import logging
import threading
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional

from trainer.attention import continuing_attention
from trainer.device import is_out_of_memory

log = logging.getLogger("trainer")

# Whose frequencies do not depend on how long the text is.
ROTARY_TYPES = {"default", "linear", "llama3", "yarn"}
# transformers' names of models that compute just this when their config switches nothing else on; each was read.
# A trial on a few tokens would not show what another does with long texts, or with large numbers.
FAMILIES = {"llama", "mistral", "qwen2", "qwen3", "seed_oss"}
# Prompts are read in stretches: attention's scores take memory. On a processor a stop is to be heard soon: no product
# and no attention of a stretch takes more operations, some 50 ms of one core.
STRETCH, LEAST_STRETCH, STRETCH_WORK = 1024, 32, 2e9

Q, K, V, OUT, GATE, UP, DOWN = "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
# The products of a layer, and the linear layers whose rows each holds.
PRODUCTS = {"qkv": (Q, K, V), "out": (OUT,), "gate_up": (GATE, UP), "down": (DOWN,)}


@dataclass(frozen=True)
class Layer:
    """A layer's tensors; the products' weights (out, in) are the model's own memory. `bias`: by product."""

    norm_1: Tensor
    norm_2: Tensor
    q_norm: Tensor | None
    k_norm: Tensor | None
    weight: dict[str, Tensor]
    bias: dict[str, Tensor | None]


@dataclass(frozen=True)
class LowRank:
    """A LoRA adapter (https://arxiv.org/abs/2106.09685) as the products see it: y = W x + B (A x), scaled already.

    By layer and product: a (rank, in) · b (out, rank); the ranks of the linear layers in a product are added up.
    """

    a: list[dict[str, Tensor]]
    b: list[dict[str, Tensor]]


# One layer's part of it.
Low = tuple[dict[str, Tensor], dict[str, Tensor]]


class Cancelled(Exception):
    """Raised inside a forward pass to leave it early."""


def leave_if(cancel: threading.Event | None) -> None:
    if cancel and cancel.is_set():
        raise Cancelled


class Cache:
    """Keys and values of `ids`, the tokens seen so far. keys, values: (layers, kv_heads, capacity, head_dim)."""

    def __init__(self, decoder: "Decoder", capacity: int) -> None:
        shape = (len(decoder.layers), 2, decoder.kv_heads, capacity, decoder.head_dim)
        # Not filled with zeros: on a processor, memory that is never written is never taken.
        self.states = torch.empty(shape, dtype=decoder.dtype, device=decoder.device)
        self.keys, self.values = self.states.unbind(1)
        self.ids: list[int] = []
        self.short: object = None  # a captured read into this memory
        self._reads: list[tuple[int, int]] = []  # from where to where several tokens were read at once

    def add(self, ids: list[int]) -> None:
        """`ids` have been read in one pass."""
        if len(ids) > 1:
            self._reads.append((len(self.ids), len(self.ids) + len(ids)))
        self.ids.extend(ids)

    @property
    def capacity(self) -> int:
        return self.keys.shape[2]

    def keep_prefix(self, prompt: list[int]) -> int:
        """Forgets what differs from `prompt`; how many of its tokens need no computing. At least one always does.

        What was read at once is kept whole or not at all: in 16 bits another cut would give other roundings, and the
        same question with the same seed another answer.
        """
        same = 0
        for old, new in zip(self.ids, prompt[:-1], strict=False):
            if old != new:
                break
            same += 1
        while self._reads and self._reads[-1][1] > same:
            same = min(same, self._reads.pop()[0])
        del self.ids[same:]
        return same

    def grown(self, decoder: "Decoder", capacity: int) -> "Cache":
        """This one with more room."""
        larger = Cache(decoder, capacity)
        used = len(self.ids)
        larger.states[:, :, :, :used] = self.states[:, :, :, :used]
        larger.ids, larger._reads = self.ids, self._reads
        return larger


class Decoder:
    """The model's tensors and what its config says of them."""

    def __init__(self, model: Any) -> None:
        """Raises AttributeError or KeyError for a model of another make; `of` finds out whether the rest is alike."""
        from trainer.decoder_step import ProcessorStep

        config, inner = model.config, model.model
        self.model = model
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.embedding: Tensor = inner.embed_tokens.weight
        self.final_norm: Tensor = inner.norm.weight
        self.output: Tensor = model.lm_head.weight
        self.dtype, self.device = self.embedding.dtype, self.embedding.device
        on_processor = self.device.type == "cpu" and self.dtype == torch.float32
        if on_processor:
            laid_out([model.lm_head.weight])
        self.layers = [_layer(layer, on_processor) for layer in inner.layers]
        self._rotary = inner.rotary_emb
        self._kernel = continuing_attention(self.device.type, self.dtype)
        self._tables: tuple[Tensor, Tensor] | None = None
        self._step = ProcessorStep(self) if on_processor else None
        self._product_work = max(2 * weight.numel() for weight in self.layers[0].weight.values())  # a token's

    @classmethod
    def of(cls, model: Any) -> "Decoder | None":
        """The lean pass of `model`, None when that is not what the model computes."""
        if not _is_alike(model):
            return None
        try:
            decoder = cls(model)
            return decoder if decoder._agrees() else None
        except (AttributeError, KeyError):
            return None
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            log.warning("decoding as transformers does: %s", error)  # an operator that this device has not
            return None

    def rotary(self, length: int) -> tuple[Tensor, Tensor]:
        """cos and sin of the positions below `length` at least, (positions, head_dim) in the model's dtype."""
        if self._tables is None or len(self._tables[0]) < length:
            positions = torch.arange(max(1024, 1 << (length - 1).bit_length()), device=self.device)
            cos, sin = self._rotary(self.embedding[:1], positions[None])
            self._tables = cos[0].contiguous(), sin[0].contiguous()
        return self._tables

    @torch.inference_mode()
    def read(
        self, ids: list[int], cache: Cache, adapter: LowRank | None = None, cancel: threading.Event | None = None
    ) -> Tensor:
        """The logits (vocabulary) after `ids`, which follow what the cache holds and are in it afterwards.

        Raises Cancelled soon after `cancel` is set; the cache then holds whole stretches.
        """
        assert len(cache.ids) + len(ids) <= cache.capacity
        done = 0
        while done < len(ids):
            stretch = ids[done : done + self._stretch(len(cache.ids))]
            done += len(stretch)
            if self._step and len(stretch) == 1:
                x = self._step(stretch[0], cache, adapter, cancel)
            else:
                x = self._hidden(torch.tensor(stretch, device=self.device), cache, len(cache.ids), adapter, cancel)
            cache.add(stretch)
        return functional.linear(self.norm(x[-1:], self.final_norm), self.output)[0]

    def _stretch(self, start: int) -> int:
        """How many tokens to read at once from the position `start` on."""
        if self.device.type != "cpu":
            return STRETCH
        attention = 4 * self.heads * self.head_dim * start
        return int(min(STRETCH, max(LEAST_STRETCH, STRETCH_WORK / max(attention, self._product_work))))

    def rows(self, name: str) -> list[int]:
        """Rows of each linear layer in the product `name`."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        total = len(self.layers[0].weight[name])
        return {"qkv": [q, kv, kv], "gate_up": [total // 2, total // 2]}.get(name, [total])

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), weight, self.eps)

    def _hidden(
        self, ids: Tensor, cache: Cache, start: int, adapter: LowRank | None, cancel: threading.Event | None
    ) -> Tensor:
        """The last layer's output (tokens, hidden) for `ids` at the positions from `start`."""
        end = start + len(ids)
        cos, sin = (table[start:end, None] for table in self.rotary(cache.capacity))
        mask = None
        if len(ids) > 1 and start and self._kernel is None:  # the tokens before, and of these the ones up to one's own
            mask = torch.ones(len(ids), end, dtype=torch.bool, device=self.device).tril(start)
        x = functional.embedding(ids, self.embedding)
        for number, layer in enumerate(self.layers):
            leave_if(cancel)
            low = (adapter.a[number], adapter.b[number]) if adapter else None
            qkv = product("qkv", self.norm(x, layer.norm_1), layer, low)
            q, k, v = qkv.view(len(ids), -1, self.head_dim).split([self.heads, self.kv_heads, self.kv_heads], dim=1)
            if layer.q_norm is not None and layer.k_norm is not None:
                q, k = self.norm(q, layer.q_norm), self.norm(k, layer.k_norm)
            q, k = rotated(q, cos, sin), rotated(k, cos, sin)
            keys, values = cache.keys[number], cache.values[number]
            keys[:, start:end] = k.transpose(0, 1)
            values[:, start:end] = v.transpose(0, 1)
            leave_if(cancel)
            mixed = self._attention(q, keys[:, :end], values[:, :end], mask)
            leave_if(cancel)
            x = product("out", mixed, layer, low, add_to=x)
            gate, up = product("gate_up", self.norm(x, layer.norm_2), layer, low).chunk(2, dim=-1)
            leave_if(cancel)
            x = product("down", functional.silu(gate) * up, layer, low, add_to=x)
        return x

    def _attention(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """q: (tokens, heads, head_dim) · keys, values: (kv_heads, length, head_dim). Returns (tokens, heads · head_dim)."""
        if len(q) > 1 and self._kernel is not None:
            return self._kernel(q, keys.transpose(0, 1), values.transpose(0, 1)).reshape(len(q), -1)
        if len(q) > 1:
            mixed = functional.scaled_dot_product_attention(
                q.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, is_causal=mask is None,
                enable_gqa=self.heads != self.kv_heads,
            )  # fmt: skip
            return mixed[0].transpose(0, 1).reshape(len(q), -1)
        # One token: a kv head's queries are the rows of one small product, and no key is copied.
        grouped = q.view(self.kv_heads, -1, self.head_dim) * self.head_dim**-0.5
        weights = torch.bmm(grouped, keys.transpose(1, 2)).softmax(dim=-1, dtype=torch.float32)
        return torch.bmm(weights.to(values.dtype), values).view(1, -1)

    @torch.inference_mode()
    def _agrees(self) -> bool:
        """Tries a prompt in two stretches, and one token after it, against the model itself."""
        if self.rotary(1)[0].shape[1] != self.head_dim:
            return False
        ids = trial_ids(len(self.embedding), 12)
        cache = Cache(self, 16)
        self.read(ids[:5], cache)
        found = torch.stack([self.read(ids[5:-1], cache), self.read(ids[-1:], cache)])
        logits = self.model(input_ids=torch.tensor([ids], device=self.device), use_cache=False).logits[0, -2:]
        return same_logits(found, logits)


def trial_ids(vocabulary: int, count: int) -> list[int]:
    """Token ids from all over the vocabulary."""
    return [(number * 7919 + 11) % vocabulary for number in range(count)]


def same_logits(found: Tensor, expected: Tensor) -> bool:
    """Whether two computations of the same logits differ by rounding alone: in 16 bits that is some percent."""
    most = 1e-3 if expected.dtype == torch.float32 else 0.15
    return bool((found.float() - expected.float()).norm() <= most * expected.float().norm())


def product(
    name: str,
    x: Tensor,
    layer: Layer,
    low: Low | None,
    add_to: Tensor | None = None,
) -> Tensor:
    """x: (tokens, in) through the linear layers of one product: (tokens, out), plus `add_to`."""
    bias = layer.bias[name]
    if add_to is None or bias is not None:
        y = functional.linear(x, layer.weight[name], bias)
        y = y if add_to is None else y.add_(add_to)
    else:
        y = torch.addmm(add_to, x, layer.weight[name].T)
    if low and name in low[0]:
        y.addmm_(x @ low[0][name].T, low[1][name].T)
    return y


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding (https://arxiv.org/abs/2104.09864). x: (tokens, heads, head_dim) · cos, sin: (tokens, 1, head_dim)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _is_alike(model: Any) -> bool:
    """What a trial on a few tokens would not show."""
    config = model.config
    rotary = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in FAMILIES
        and isinstance(rotary, dict)
        and rotary.get("rope_type", "default") in ROTARY_TYPES
        and not getattr(config, "use_sliding_window", False)
        and not (getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True))
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and not getattr(config, "quantization_config", None)
        and not any(isinstance(part, PeftModel) or hasattr(part, "lora_A") for part in model.modules())
    )


def _layer(layer: nn.Module, on_processor: bool) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    linear = {
        name: getattr(attention if name in (Q, K, V, OUT) else mlp, name) for name in (Q, K, V, OUT, GATE, UP, DOWN)
    }
    if any(type(part) is not nn.Linear for part in linear.values()):
        raise AttributeError("a linear layer of another kind")
    q_norm, k_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    return Layer(
        norm_1=layer.input_layernorm.weight,
        norm_2=layer.post_attention_layernorm.weight,
        q_norm=None if q_norm is None else q_norm.weight,
        k_norm=None if k_norm is None else k_norm.weight,
        weight={name: _joined([linear[part] for part in parts], on_processor) for name, parts in PRODUCTS.items()},
        bias={name: _joined_bias([linear[part] for part in parts]) for name, parts in PRODUCTS.items()},
    )


def _joined(parts: list[nn.Linear], on_processor: bool) -> Tensor:
    """The rows of all `parts` in one tensor, which becomes their memory: nothing is kept twice."""
    weights = [part.weight for part in parts]
    if on_processor:
        return laid_out(weights)
    return weights[0].data if len(weights) == 1 else _shared(weights, torch.cat([weight.data for weight in weights]))


def laid_out(weights: list[nn.Parameter]) -> Tensor:
    """As _joined, for a processor: one with many more rows than columns is kept column by column.

    Read so, it takes a product with one token half the time or less: MKL, one core, 1536 × 256: 67 and 133 µs,
    7680 × 256: 213 and 717, 9728 × 896: 1.1 and 2.2 ms.
    """
    rows, columns = sum(len(weight) for weight in weights), weights[0].shape[1]
    if rows >= 2 * columns:
        return _shared(weights, torch.cat([weight.data.T for weight in weights], dim=1).T)
    return weights[0].data if len(weights) == 1 else _shared(weights, torch.cat([weight.data for weight in weights]))


def _shared(weights: list[nn.Parameter], together: Tensor) -> Tensor:
    for weight, own in zip(weights, together.split([len(weight) for weight in weights]), strict=True):
        weight.data = own
    return together


def _joined_bias(parts: list[nn.Linear]) -> Tensor | None:
    biases = [part.bias for part in parts]
    if all(bias is None for bias in biases):
        return None
    return torch.cat([torch.zeros_like(part.weight[:, 0]) if part.bias is None else part.bias.data for part in parts])
