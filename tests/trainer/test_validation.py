"""Which evaluation is the best, and when a run ends early."""

import math
import re
from typing import Any

import pytest

from trainer.prepare import validation_count
from trainer.problems import LANGUAGES, Problem, Problems
from trainer.settings import TrainSettings, parse, shown
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
        assert shown("val_size").label(language) in words
    assert getattr(parse({key: value, "val_size": 0.1}), key) == value


@pytest.mark.parametrize(
    ("total", "share"), [(2, 0.01), (2, 0.99), (7, 0.001), (172, 0.999), (99_999, 1e-9), (10**6, 0.9999999)]
)
def test_a_share_that_leaves_a_part_empty_is_answered_by_one_that_does_not(total: int, share: float) -> None:
    with pytest.raises(Problem) as caught:
        validation_count(TrainSettings(val_size=share), total)
    for language in LANGUAGES:
        said = caught.value.values["remedy"][language]
        assert said in caught.value.sentence(language)
        advised = re.findall(r"\d\.\d+", said)[0]
        assert 0 < validation_count(TrainSettings(val_size=float(advised)), total) < total, said
    with pytest.raises(Problem, match="add samples"):
        validation_count(TrainSettings(val_size=share), 1)
