"""A run's events as the data of the loss chart.

Light: no torch, numpy or matplotlib. It decides which points are shown and how they are smoothed,
not how they look.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

MAX_POINTS = 1000
SIGNIFICANT_DIGITS = 6

Event = dict[str, Any]
Chart = dict[str, list[Any]]


def chart(events: Iterable[Event]) -> Chart:
    """The loss curves, safe for JSON: NaN and infinities become None.

    `step`, `loss`, `smoothed` and `learning_rate` have one entry a point; `eval` is a list of `[step, loss]`.
    """
    logged, evaluated = _current(events)
    losses = [_finite(event.get("loss")) for event in logged]
    smoothed = smooth(losses)
    kept = thinned(losses)
    eval_losses = [_finite(event.get("eval_loss")) for event in evaluated]
    return {
        "step": [logged[i]["step"] for i in kept],
        "loss": [_rounded(losses[i]) for i in kept],
        "smoothed": [_rounded(smoothed[i]) for i in kept],
        "eval": [[evaluated[i]["step"], _rounded(eval_losses[i])] for i in thinned(eval_losses)],
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
        finite = sorted((loss, i) for i in range(start, end) if (loss := losses[i]) is not None)
        missing = [i for i in range(start, end) if losses[i] is None]
        kept.update(missing[:1] or [finite[0][1]])
        kept.update(i for _, i in finite[-1:])
    return sorted(kept)


def _current(events: Iterable[Event]) -> tuple[list[Event], list[Event]]:
    """The step and evaluation events that still hold: a resumed run goes back and overwrites what came later."""
    logged: list[Event] = []
    evaluated: list[Event] = []
    for event in events:
        if event.get("event") not in ("step", "evaluated") or not isinstance(event.get("step"), int):
            continue
        step, same, other = event["step"], logged, evaluated
        if event["event"] == "evaluated":
            same, other = evaluated, logged
        while same and same[-1]["step"] >= step:
            same.pop()
        while other and other[-1]["step"] > step:
            other.pop()
        same.append(event)
    return logged, evaluated


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _rounded(value: float | None) -> float | None:
    """Six digits are more than a chart shows and halve what travels to the page."""
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}")
