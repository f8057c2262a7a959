"""Captured graphs of whole passes: on short samples a pass is some 5,000 launches, which take longer than the kernels.

A pass is padded to a few shapes (tokens, labels, samples); one that comes a second time is captured,
forward and backward together, and replayed from then on. Gradients are added to the same tensors each time.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from trainer import device
from trainer.batching import Batch
from trainer.device import is_out_of_memory

log = logging.getLogger("trainer")

# Beyond so many tokens the kernels take longer than their launches.
MOST_TOKENS = 2048
MOST_GRAPHS = 24

Shape = tuple[int, int, int, int]


@dataclass
class _Graph:
    graph: device.Graph
    inputs: Batch
    loss: Tensor


class PassGraphs:
    """Call it with a batch to run it: by replay, by capture or as `run` does. Returns the loss."""

    def __init__(self, run: Callable[[Batch], Tensor], place: torch.device) -> None:
        self._run, self._place = run, place
        self._graphs: dict[Shape, _Graph] = {}
        self._seen: set[Shape] = set()
        self._pool = device.graph_pool(place)
        self._failed = False

    def __call__(self, batch: Batch) -> Tensor:
        shape = _shape(batch)
        if shape not in self._graphs and not self._captured(shape, batch):
            self._seen.add(shape)
            return self._run(batch)
        found = self._graphs[shape]
        _pad_into(found.inputs, batch)
        found.graph.replay()
        return found.loss.clone()

    def _captured(self, shape: Shape, batch: Batch) -> bool:
        """Captures `shape` if that is worth while."""
        if self._failed or shape not in self._seen or shape[0] > MOST_TOKENS or len(self._graphs) >= MOST_GRAPHS:
            return False
        inputs = _blank(shape, batch)
        _pad_into(inputs, batch)
        try:
            with device.captured(self._place, self._pool) as graph:
                loss = self._run(inputs)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            log.warning("passes are not captured: %s", error)
            self._failed = True
            return False
        self._graphs[shape] = _Graph(graph, inputs, loss)
        return True


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _shape(batch: Batch) -> Shape:
    """Tokens, labels, samples and longest, rounded up; the tokens that are added make a sample of their own."""
    assert batch.starts is not None
    tokens = _up(batch.input_ids.shape[1], 128)
    longest = 1 << (max(batch.longest, 128) - 1).bit_length()
    return tokens, _up(len(batch.targets), 256), _up(len(batch.starts) - 1, 8), longest


def _blank(shape: Shape, like: Batch) -> Batch:
    tokens, labels, samples, longest = shape
    place = like.input_ids.device

    def zeros(*size: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.zeros(size, dtype=dtype, device=place)

    return Batch(
        input_ids=zeros(1, tokens),
        predicting=zeros(labels),
        targets=zeros(labels),
        weights=zeros(labels, dtype=torch.float32),
        position_ids=zeros(1, tokens),
        starts=zeros(samples + 2, dtype=torch.int32),
        longest=longest,
    )


def _pad_into(inputs: Batch, batch: Batch) -> None:
    """Copies `batch` to the front of `inputs`; labels beyond it count nothing."""
    for field in fields(Batch):
        whole, part = getattr(inputs, field.name), getattr(batch, field.name)
        if isinstance(whole, Tensor):
            whole[..., : part.shape[-1]].copy_(part)
    tokens, all_tokens = batch.input_ids.shape[1], inputs.input_ids.shape[1]
    assert inputs.position_ids is not None
    inputs.position_ids[0, tokens:].copy_(torch.arange(all_tokens - tokens, device=inputs.input_ids.device))
    inputs.weights[len(batch.weights) :].zero_()
    assert inputs.starts is not None
    assert batch.starts is not None
    inputs.starts[len(batch.starts) :].fill_(all_tokens)
