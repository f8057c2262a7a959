"""Which samples make an optimizer step, and how a step is cut into forward passes.

The user's batch size, accumulation and process count define the step and nothing else; the cut is
free, because the loss is a token mean over the whole step.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate

import torch
from torch import Tensor, nn

from trainer.chat_template import Sample

# A pass costs about as much as this many tokens before it computes anything (launches, Python).
PASS_OVERHEAD_TOKENS = 64
IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """One forward pass. Only the positions before a label, `predicting`, get logits.

    `input_ids`: int64 (samples, longest), padded on the right, or (1, tokens), samples end to end; then
    `position_ids` (1, tokens) and `starts`, int32 (samples + 1), tell the samples apart and `longest` bounds them.
    `predicting`, `targets`: int64 (labels), positions in the flattened input_ids and the tokens that follow.
    `weights`: fp32 (labels), what each label's cross entropy counts in the loss.
    `lengths`: tokens of each sample.

    Padding needs no attention mask: under causal attention no token sees what stands after it.
    """

    input_ids: Tensor
    predicting: Tensor
    targets: Tensor
    weights: Tensor
    position_ids: Tensor | None = None
    starts: Tensor | None = None
    longest: int = 0
    lengths: tuple[int, ...] = ()

    def to(self, device: torch.device) -> "Batch":
        moved = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of `count` samples in `epoch`: a function of seed and epoch, so that a resumed run repeats it."""
    generator = torch.Generator().manual_seed(seed + epoch)
    return torch.randperm(count, generator=generator).tolist()


def steps_per_epoch(count: int, step_size: int) -> int:
    return math.ceil(count / step_size)


def steps(count: int, step_size: int, seed: int, first_step: int, total_steps: int) -> Iterator[list[int]]:
    """Sample indices of the steps `first_step` … `total_steps` - 1; an epoch's last step may be short."""
    per_epoch = steps_per_epoch(count, step_size)
    epoch, order = -1, []
    for step in range(first_step, total_steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = epoch_order(count, seed, epoch)
        start = (step % per_epoch) * step_size
        yield order[start : start + step_size]


def cut(lengths: list[int], token_budget: int, padded: bool = True) -> list[list[int]]:
    """Positions in `lengths`, grouped by length so that padding and passes together cost least.

    A group's samples times its longest is at most `token_budget`, except that a sample longer than
    that has a group of its own. Exact, by dynamic programming over the sorted lengths: O(n²).
    Unpadded groups only have to be few: the longest first, each into the first group with room.
    """
    if not padded:
        return _filled(lengths, token_budget)
    order = sorted(range(len(lengths)), key=lambda position: lengths[position])
    best, group_start = [0.0], [0]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        costs = [
            (best[start] + PASS_OVERHEAD_TOKENS + (end - start) * longest, start)
            for start in range(end)
            if start == end - 1 or (end - start) * longest <= token_budget
        ]
        cost, start = min(costs)
        best.append(cost)
        group_start.append(start)
    groups, end = [], len(order)
    while end:
        groups.append(order[group_start[end] : end])
        end = group_start[end]
    return groups


def _filled(lengths: list[int], token_budget: int) -> list[list[int]]:
    groups: list[list[int]] = []
    room: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        group = next((index for index, left in enumerate(room) if left >= lengths[position]), None)
        if group is None:
            groups.append([])
            room.append(token_budget)
            group = -1
        groups[group].append(position)
        room[group] -= lengths[position]
    return groups


def share(lengths: list[int], count: int) -> list[list[int]]:
    """Positions in `lengths` dealt to at most `count` shares of about as many tokens; within one, similar lengths."""
    order = sorted(range(len(lengths)), key=lambda position: lengths[position])
    total, before = sum(lengths), 0
    shares: list[list[int]] = [[] for _ in range(count)]
    for position in order:
        middle = before + lengths[position] / 2
        shares[min(count - 1, int(middle * count / total))].append(position)
        before += lengths[position]
    return [positions for positions in shares if positions]


def collate(samples: list[Sample], pad_id: int, weight: float = 1.0, multiple: int = 1) -> Batch:
    """`samples` as one right-padded batch on the CPU; `weight`: what each label counts.

    The padded length is a multiple of `multiple`, and so is the number of labels: those added count nothing.
    """
    longest = max(len(sample.input_ids) for sample in samples)
    longest += -longest % multiple
    input_ids = torch.full((len(samples), longest), pad_id)
    for row, sample in enumerate(samples):
        input_ids[row, : len(sample.input_ids)] = torch.tensor(sample.input_ids)
    predicting, targets, weights = _labels(samples, range(0, len(samples) * longest, longest), weight)
    missing = -len(predicting) % multiple
    predicting, targets, weights = (nn.functional.pad(part, (0, missing)) for part in (predicting, targets, weights))
    return Batch(input_ids, predicting, targets, weights, lengths=tuple(len(sample.input_ids) for sample in samples))


def flatten(samples: list[Sample], weight: float = 1.0) -> Batch:
    """`samples` end to end, for attention that keeps them apart; `weight`: what each label counts."""
    lengths = [len(sample.input_ids) for sample in samples]
    ends = list(accumulate(lengths))
    starts = [0, *ends]
    return Batch(
        torch.tensor([[token for sample in samples for token in sample.input_ids]]),
        *_labels(samples, starts[:-1], weight),
        position_ids=torch.tensor([[position for length in lengths for position in range(length)]]),
        starts=torch.tensor(starts, dtype=torch.int32),
        longest=max(lengths),
        lengths=tuple(lengths),
    )


def _labels(samples: list[Sample], starts: Iterable[int], weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """`predicting`, `targets` and `weights` of samples that begin at `starts` in the flattened input."""
    pairs = [
        (start + position, label)
        for sample, start in zip(samples, starts, strict=True)
        for position, label in enumerate(sample.labels[1:])
        if label != IGNORED
    ]
    predicting, targets = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return predicting.contiguous(), targets.contiguous(), torch.full((len(pairs),), weight)


def label_count(samples: Sequence[Sample]) -> int:
    """Tokens that are predicted: a label at position 0 has nothing before it to predict it from."""
    return sum(sum(label != IGNORED for label in sample.labels[1:]) for sample in samples)
