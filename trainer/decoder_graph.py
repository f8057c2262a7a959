"""One-token steps as captured graphs: the processor says once what to do, and the device goes from token to token.

A step takes the token and the position from memory on the device, and leaves the next ones there.
"""

import logging
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import device, device_kinds
from trainer.decoder import Cache, Decoder, LowRank, product, same_logits, trial_ids
from trainer.draw import Draw

# Up to so many tokens take as long to read as one does: the weights' way from memory.
SHORT = 64

log = logging.getLogger("trainer")


class Graphs:
    """Captured steps of one decoder. Made where Triton can compile for this device; `of` says whether."""

    def __init__(self, decoder: Decoder) -> None:
        from trainer import decoder_kernels

        self._decoder, self._kernels = decoder, decoder_kernels
        weight = decoder.layers[0].weight
        self._x, self._qkv, self._inner, self._logits = (
            torch.zeros(count, dtype=decoder.dtype, device=decoder.device)
            for count in (len(decoder.final_norm), len(weight["qkv"]), len(weight["gate_up"]) // 2, len(decoder.output))
        )
        self._pool = device.graph_pool(decoder.device)

    @classmethod
    def of(cls, decoder: Decoder) -> "Graphs | None":
        """None where kernels cannot be compiled, or give other numbers than the plain pass."""
        captures = device_kinds.of(decoder.device.type).captures_graphs
        if not captures or decoder.dtype not in (torch.bfloat16, torch.float16):
            return None
        try:
            graphs = cls(decoder)
            return graphs if graphs._agrees() else None
        except Exception as error:  # Triton's, a missing C compiler's, the driver's: the plain pass works without
            log.warning("decoding without kernels of its own: %s: %s", type(error).__name__, error)
            return None

    def steps(self, cache: Cache, adapter: LowRank | None, draw: Draw, token: Tensor, position: int) -> "Steps":
        """Steps from `token`, which comes at `position` and is not in the cache yet."""
        place = torch.tensor([position], device=token.device)
        with torch.inference_mode(), device.captured(token.device, self._pool) as graph:
            token.copy_(draw(self.logits(token, place, cache, adapter)))
            place += 1
        return Steps(graph, token, (place, cache, adapter, draw, self._decoder.rotary(cache.capacity)))

    @torch.inference_mode()
    def prepared(self, adapter: LowRank) -> LowRank:
        """`adapter` as the kernels take it; they are compiled where they have not been."""
        padded = LowRank([{name: _padded(a, 0) for name, a in layer.items()} for layer in adapter.a],
                         [{name: _padded(b, 1) for name, b in layer.items()} for layer in adapter.b])  # fmt: skip
        place = torch.zeros(1, dtype=torch.int64, device=self._decoder.device)
        self.logits(place, place, Cache(self._decoder, 64), padded)
        return padded

    @torch.inference_mode()
    def logits(self, token: Tensor, position: Tensor, cache: Cache, adapter: LowRank | None) -> Tensor:
        """The logits (vocabulary) after `token` at `position`, int64 of shape (1,) both."""
        d, kernels = self._decoder, self._kernels
        tables = d.rotary(cache.capacity)
        torch.index_select(d.embedding, 0, token.clamp(min=0), out=self._x.view(1, -1))  # NOT_FINITE is none
        for number, layer in enumerate(d.layers):
            low = (adapter.a[number], adapter.b[number]) if adapter else ({}, {})
            keys, values = cache.keys[number], cache.values[number]
            norms = None if layer.q_norm is None or layer.k_norm is None else (layer.q_norm, layer.k_norm)
            self._product("qkv", layer, low, self._x, self._qkv, norm=layer.norm_1)
            qkv = self._qkv.view(1, -1)
            kernels.rotate_and_keep(qkv, tables, norms, keys, values, position, d.heads, d.eps)
            mixed = kernels.attend(qkv, keys, values, position, d.heads)[0]
            self._product("out", layer, low, mixed, self._x, add=True)
            self._product("gate_up", layer, low, self._x, self._inner, norm=layer.norm_2, gated=True)
            self._product("down", layer, low, self._inner, self._x, add=True)
        kernels.matvec(self._x, d.output, self._logits, norm=d.final_norm, eps=d.eps)
        return self._logits

    @torch.inference_mode()
    def read(self, ids: list[int], cache: Cache, adapter: LowRank | None) -> Tensor:
        """As Decoder.read, for `ids` that `takes` allows: a turn's few new tokens, replayed or in half as many calls.

        They are read as SHORT tokens, replayed or not: in 16 bits another number of rows gives other roundings.
        """
        start = len(cache.ids)
        given = torch.tensor([*ids, *[0] * (SHORT - len(ids)), start, len(ids) - 1])
        cache.add(ids)
        short = cache.short
        if isinstance(short, _ShortRead) and short.adapter is adapter:
            return short(given)
        return self._short(given.to(self._decoder.device), cache, adapter)

    def takes(self, ids: list[int], cache: Cache) -> bool:
        """Whether `read` can read `ids` next."""
        return len(ids) <= SHORT and len(cache.ids) + SHORT <= cache.capacity

    def get_ready(self, cache: Cache, adapter: LowRank | None) -> None:
        """Captures what `read` does with this cache: the next turn's first token then comes sooner."""
        if cache.short is None or getattr(cache.short, "adapter", adapter) is not adapter:
            given = torch.zeros(SHORT + 2, dtype=torch.int64, device=self._decoder.device)
            with torch.inference_mode(), device.captured(given.device) as graph:
                logits = self._short(given, cache, adapter)
            cache.short = _ShortRead(graph, given, logits, adapter, (self._decoder.rotary(cache.capacity),))

    def _short(self, given: Tensor, cache: Cache, adapter: LowRank | None) -> Tensor:
        """given: int64, SHORT tokens, the position of the first, and which of them is the last. Returns its logits."""
        d, kernels = self._decoder, self._kernels
        tables, position = d.rotary(cache.capacity), given[SHORT : SHORT + 1]
        x = torch.nn.functional.embedding(given[:SHORT], d.embedding)
        for number, layer in enumerate(d.layers):
            low = (adapter.a[number], adapter.b[number]) if adapter else None
            keys, values = cache.keys[number], cache.values[number]
            norms = None if layer.q_norm is None or layer.k_norm is None else (layer.q_norm, layer.k_norm)
            qkv = product("qkv", d.norm(x, layer.norm_1), layer, low)
            kernels.rotate_and_keep(qkv, tables, norms, keys, values, position, d.heads, d.eps)
            x = product("out", kernels.attend(qkv, keys, values, position, d.heads), layer, low, add_to=x)
            inner = kernels.gated(product("gate_up", d.norm(x, layer.norm_2), layer, low))
            x = product("down", inner, layer, low, add_to=x)
        last = x.index_select(0, given[SHORT + 1 :])
        return torch.nn.functional.linear(d.norm(last, d.final_norm), d.output)[0]

    def _product(self, name, layer, low, x, out, *, norm=None, add=False, gated=False):  # type: ignore[no-untyped-def]
        both = (low[0][name], low[1][name]) if name in low[0] else None
        self._kernels.matvec(
            x, layer.weight[name], out, norm=norm, eps=self._decoder.eps, bias=layer.bias[name], low=both, add=add,
            gated=gated,
        )  # fmt: skip

    @torch.inference_mode()
    def _agrees(self) -> bool:
        """Also compiles every kernel, before the first answer needs it."""
        d = self._decoder
        cache = Cache(d, 256)
        ids = trial_ids(len(d.embedding), 70)
        expected = torch.stack([d.read(part, cache) for part in (ids[:40], ids[40:-1], ids[-1:])])[1:]
        cache.keep_prefix(ids[:41])
        token, position = (torch.tensor([number], device=d.device) for number in (ids[-1], len(ids) - 1))
        found = [self.read(ids[40:-1], cache, None), self.logits(token, position, cache, None)]
        return same_logits(torch.stack(found), expected)


@dataclass(frozen=True)
class _ShortRead:
    """A captured read of SHORT tokens. `used`: what it reads besides, kept alive."""

    graph: device.Graph
    given: Tensor
    logits: Tensor
    adapter: LowRank | None
    used: tuple[object, ...]

    def __call__(self, given: Tensor) -> Tensor:
        self.given.copy_(given)
        self.graph.replay()
        return self.logits


class Steps:
    """A captured step, and the ids that its replays leave, read one after the other."""

    def __init__(self, graph: device.Graph, token: Tensor, used: tuple[object, ...]) -> None:
        """`used`: what the graph reads and writes. It knows addresses alone, and freed memory becomes another's."""
        self._graph, self._token, self._used = graph, token, used
        self._ahead: deque[tuple[Tensor, device.Event]] = deque()
        self._free = [
            (torch.zeros(1, dtype=torch.int64, pin_memory=True), device.event(token.device)) for _ in range(2)
        ]

    def launch(self) -> None:
        """Starts one step; at most two may be unread."""
        host, event = self._free.pop()
        self._graph.replay()
        host.copy_(self._token, non_blocking=True)
        event.record()
        self._ahead.append((host, event))

    def next(self) -> int:
        """The id of the step that was started first, waited for."""
        host, event = self._ahead.popleft()
        event.synchronize()
        self._free.append((host, event))
        return int(host)


def _padded(matrix: Tensor, dimension: int) -> Tensor:
    """With zeros up to a multiple of 8, as kernels want a rank."""
    missing = -matrix.shape[dimension] % 8
    return torch.nn.functional.pad(matrix, (0, 0, 0, missing) if dimension == 0 else (0, missing)).contiguous()
