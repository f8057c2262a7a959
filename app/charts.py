"""A run's events as the data of the loss chart.

Light: no torch, numpy or matplotlib. It decides which points are shown and how they are smoothed,
not how they look.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from trainer.validation import best, holding

MAX_POINTS = 1000
SIGNIFICANT_DIGITS = 6

Event = dict[str, Any]
Chart = dict[str, list[Any] | None]


def chart(events: Iterable[Event]) -> Chart:
    """The loss curves, safe for JSON: NaN and infinities become None.

    `step`, `loss`, `smoothed` and `learning_rate` have one entry a point; `eval` is a list of `[step, loss]`,
    `best` the lowest of them or None.
    """
    logged, evaluated = holding(events)
    lowest = best(evaluated)
    losses = [_finite(event.get("loss")) for event in logged]
    smoothed = smooth(losses)
    kept = thinned(losses)
    eval_losses = [_finite(event.get("eval_loss")) for event in evaluated]
    return {
        "step": [logged[i]["step"] for i in kept],
        "loss": [_rounded(losses[i]) for i in kept],
        "smoothed": [_rounded(smoothed[i]) for i in kept],
        "eval": [[evaluated[i]["step"], _rounded(eval_losses[i])] for i in thinned(eval_losses)],
        "best": [lowest["step"], _rounded(lowest["eval_loss"])] if lowest else None,
        "learning_rate": [_rounded(_finite(logged[i].get("learning_rate"))) for i in kept],
    }


def smooth(losses: Sequence[float | None]) -> list[float | None]:
    """Exponential moving average; the more points, the heavier: 0 for none, towards 0.9 for many.

    A missing loss stays missing and leaves the average as it was.
    """
    weight = 1.8 * (1 / (1 + math.exp(-0.05 * len(losses))) - 0.5)
    average: float | None = None
    smoothed: list[float | None] = []
    for loss in losses:
        if loss is not None:
            average = loss if average is None else weight * average + (1 - weight) * loss
        smoothed.append(None if loss is None else average)
    return smoothed


def thinned(losses: Sequence[float | None], limit: int = MAX_POINTS) -> list[int]:
    """The indices of at most `limit` points, in order, that keep the shape.

    Kept are the first and the last point and, of each bucket between them, the highest and the lowest; a bucket
    with a missing loss keeps that instead of its lowest, because a NaN is what a person looks for first.
    """
    count = len(losses)
    if count <= limit:
        return list(range(count))
    buckets = (limit - 2) // 2
    kept = {0, count - 1}
    for bucket in range(buckets):
        start = 1 + bucket * (count - 2) // buckets
        end = 1 + (bucket + 1) * (count - 2) // buckets
        here = losses[start:end]
        finite = [loss for loss in here if loss is not None]
        kept.add(start + here.index(min(finite) if len(finite) == len(here) else None))
        if finite:
            kept.add(start + here.index(max(finite)))
    return sorted(kept)


class LastChart:
    """`chart`, which remembers its last answer: a page asks every second, and mostly nothing has happened since.

    `events` that have grown are another list (app/runs.py).
    """

    def __init__(self) -> None:
        self._last: tuple[list[Event], Chart] | None = None

    def __call__(self, events: list[Event]) -> Chart:
        last = self._last
        if last is None or last[0] is not events:
            last = self._last = (events, chart(events))
        return last[1]


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _rounded(value: float | None) -> float | None:
    """Six digits are more than a chart shows and halve what travels to the page."""
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}")
