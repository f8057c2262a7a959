"""Validation: which evaluation is the best one, and when so many were no better that a run ends early.

Light: no torch. The trainer decides by `Standing`, which its checkpoints hold; whoever shows a run asks its events.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]


@dataclass
class Standing:
    """The lowest eval loss so far, the step that had it, and how many evaluations since then were no lower."""

    best_eval_loss: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0

    def take(self, step: int, eval_loss: float) -> bool:
        """Counts an evaluation in; whether it is the best so far. One that is no number is none."""
        better = math.isfinite(eval_loss) and (self.best_eval_loss is None or eval_loss < self.best_eval_loss)
        if better:
            self.best_eval_loss, self.best_step, self.evaluations_since_best = eval_loss, step, 0
        else:
            self.evaluations_since_best += 1
        return better

    def out_of_patience(self, patience: int | None) -> bool:
        """Whether a run should end early. `patience`: evaluations without improvement, as Hugging Face's
        EarlyStoppingCallback counts them; None has no end."""
        return patience is not None and self.evaluations_since_best >= patience


def holding(events: Iterable[Event]) -> tuple[list[Event], list[Event]]:
    """The step and evaluation events that still hold: a resumed run goes back and overwrites what came later."""
    logged: list[Event] = []
    evaluated: list[Event] = []
    kept = {"step": logged, "evaluated": evaluated}
    for event in events:
        kind, step = event.get("event"), event.get("step")
        if not isinstance(step, int) or (kind not in kept and event.get("stage") != "training"):
            continue
        for name, found in kept.items():
            while found and found[-1]["step"] >= step + (name != kind):
                found.pop()
        if kind in kept:
            kept[kind].append(event)
    return logged, evaluated


def best(evaluated: Iterable[Event]) -> Event | None:
    """The event of the lowest eval loss, the first of equals; None when no evaluation gave a number."""
    finite = [event for event in evaluated if math.isfinite(event.get("eval_loss", math.nan))]
    return min(finite, key=lambda event: event["eval_loss"], default=None)
