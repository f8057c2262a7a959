"""Which samples make an optimizer step, and how a step is cut into forward passes.

The user's batch size, accumulation and process count define the step and nothing else; the cut is
free, because the loss is a token mean over the whole step.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from trainer.chat_template import Sample

# A pass costs about as much as this many tokens before it computes anything (launches, Python).
PASS_OVERHEAD_TOKENS = 64
IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """One forward pass: `input_ids` and `labels`, int64 (samples, longest), padded on the right.

    Padding needs no attention mask: under causal attention no token sees what stands after it.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor


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


def cut(lengths: list[int], token_budget: int) -> list[list[int]]:
    """Positions in `lengths`, grouped by length so that padding and passes together cost least.

    A group's samples times its longest is at most `token_budget`, except that a sample longer than
    that has a group of its own. Exact, by dynamic programming over the sorted lengths: O(n²).
    """
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


def collate(samples: list[Sample], pad_id: int) -> Batch:
    """`samples` as one right-padded batch on the CPU."""
    longest = max(len(sample.input_ids) for sample in samples)
    input_ids = torch.full((len(samples), longest), pad_id)
    labels = torch.full((len(samples), longest), IGNORED)
    for row, sample in enumerate(samples):
        input_ids[row, : len(sample.input_ids)] = torch.tensor(sample.input_ids)
        labels[row, : len(sample.labels)] = torch.tensor(sample.labels)
    return Batch(input_ids, labels)


def label_count(samples: list[Sample]) -> int:
    """Tokens that are predicted: a label at position 0 has nothing before it to predict it from."""
    return sum(sum(label != IGNORED for label in sample.labels[1:]) for sample in samples)
