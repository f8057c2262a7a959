"""Several datasets as one: one after the other, or drawn from in turn or by weight. Light: no torch.

The draws are those of `datasets.interleave_datasets`, which LLaMA-Factory calls: the same seed, the same order.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar

T = TypeVar("T")
Strategy = Literal["concat", "interleave_under", "interleave_over"]


def mix(parts: Sequence[Sequence[T]], strategy: Strategy, weights: Sequence[float], seed: int) -> list[T]:
    """The items of `parts` in the order of `order`."""
    return [parts[part][item] for part, item in order([len(part) for part in parts], strategy, weights, seed)]


def order(lengths: Sequence[int], strategy: Strategy, weights: Sequence[float], seed: int) -> Iterator[tuple[int, int]]:
    """(dataset, item) of each sample, for datasets of `lengths`, none of them empty.

    concat: all of the first, then of the second. interleave_under: until one dataset has run out; interleave_over: until
    each has, those that have before beginning again. `weights`: how likely each is drawn; none: in whole rounds.
    """
    if strategy == "concat" or len(lengths) == 1:
        for part, length in enumerate(lengths):
            yield from ((part, item) for item in range(length))
    elif weights:
        yield from _weighted(lengths, strategy == "interleave_under", weights, seed)
    else:
        for item in range((min if strategy == "interleave_under" else max)(lengths)):
            yield from ((part, item % length) for part, length in enumerate(lengths))


def _weighted(lengths: Sequence[int], under: bool, weights: Sequence[float], seed: int) -> Iterator[tuple[int, int]]:
    exhausted = [False] * len(lengths)
    next_items = [0] * len(lengths)
    for part in _drawn(len(lengths), weights, seed):
        if any(exhausted) if under else all(exhausted):
            return
        yield part, next_items[part]
        next_items[part] += 1
        if next_items[part] == lengths[part]:
            exhausted[part] = True
            next_items[part] = 0


def _drawn(count: int, weights: Sequence[float], seed: int) -> Iterator[int]:
    import numpy as np

    generator = np.random.default_rng(seed)
    while True:
        yield from (int(part) for part in generator.choice(count, size=1000, p=list(weights)))
