"""Which evaluation is the best, and when a run ends early."""

import math
from typing import Any

import pytest

from trainer.problems import LANGUAGES, Problems
from trainer.settings import parse, shown
from trainer.validation import Standing


def standing(*losses: float) -> Standing:
    found = Standing()
    for number, loss in enumerate(losses, 1):
        found.take(number, loss)
    return found


@pytest.mark.parametrize(
    ("losses", "best", "since"),
    [
        ([2.0], 1, 0),
        ([2.0, 1.0, 1.5], 2, 1),
        ([2.0, 2.0, 2.0], 1, 2),
        ([2.0, math.nan, 1.0, math.inf], 3, 1),
        ([math.nan, math.nan], None, 2),
    ],
)
def test_the_best_evaluation_is_the_first_of_the_lowest(losses: list[float], best: int | None, since: int) -> None:
    found = standing(*losses)
    assert (found.best_step, found.evaluations_since_best) == (best, since)
    assert found.best_eval_loss == (min(loss for loss in losses if math.isfinite(loss)) if best else None)


def test_patience_is_counted_as_hugging_face_counts_it() -> None:
    """EarlyStoppingCallback with early_stopping_patience=2 stops at the second evaluation that is no better."""
    losses = [3.0, 2.0, 2.5, 1.9, 1.95, 2.1, 1.0]
    ends = [number for number in range(1, 8) if standing(*losses[:number]).out_of_patience(2)]
    assert ends[0] == 6
    assert not standing(1.0, *[2.0] * 50).out_of_patience(None)


@pytest.mark.parametrize(
    ("key", "value"), [("early_stopping_steps", 3), ("eval_steps", 10), ("load_best_model_at_end", True)]
)
def test_what_needs_validation_is_refused_without_it(key: str, value: Any) -> None:
    with pytest.raises(Problems) as caught:
        parse({key: value})
    [problem] = caught.value.problems
    for language in LANGUAGES:
        words = problem.sentence(language)
        assert shown(key).label(language) in words
        assert "val_size" in words
    assert getattr(parse({key: value, "val_size": 0.1}), key) == value
