"""The loss chart's data."""

import json
import math

import pytest

from app.charts import MAX_POINTS, LastChart, chart, smooth, thinned


def step(number: int, loss: float, learning_rate: float = 5e-5) -> dict[str, object]:
    return {"event": "step", "time": 0.0, "step": number, "loss": loss, "learning_rate": learning_rate}


def evaluated(number: int, loss: float) -> dict[str, object]:
    return {"event": "evaluated", "time": 0.0, "step": number, "eval_loss": loss}


def test_no_events_give_empty_curves() -> None:
    assert chart([]) == {"step": [], "loss": [], "smoothed": [], "eval": [], "best": None, "learning_rate": []}


def test_other_events_are_passed_over() -> None:
    events = [{"event": "stage", "stage": "training"}, step(5, 1.5), {"event": "finished", "outcome": "completed"}]
    assert chart(events)["step"] == [5]


def test_a_single_point_is_its_own_average() -> None:
    assert chart([step(5, 1.25)])["smoothed"] == [1.25]


def test_evaluations_are_pairs_of_step_and_loss() -> None:
    assert chart([step(5, 1.5), evaluated(5, 1.75), step(10, 1.0)])["eval"] == [[5, 1.75]]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_becomes_null_in_valid_json(broken: float) -> None:
    data = chart([step(5, 2.0), step(10, broken, broken), step(15, 2.0), evaluated(15, broken)])
    assert data["loss"] == data["smoothed"] == [2.0, None, 2.0]
    assert data["eval"] == [[15, None]]
    json.dumps(data, allow_nan=False)


def test_smoothing_follows_the_formula_for_its_number_of_points() -> None:
    weight = 1.8 * (1 / (1 + math.exp(-0.05 * 2)) - 0.5)
    assert smooth([2.0, 1.0]) == [2.0, pytest.approx(weight * 2.0 + (1 - weight) * 1.0)]


def test_equal_losses_stay_equal_when_smoothed() -> None:
    assert smooth([1.5] * 50) == pytest.approx([1.5] * 50)


def test_a_resumed_run_replaces_the_points_it_overwrites() -> None:
    first = [step(5, 4.0), evaluated(5, 4.1), step(10, 3.0), evaluated(10, 3.1), step(15, 2.0), evaluated(15, 2.1)]
    data = chart([*first, step(10, 2.9), evaluated(10, 3.05)])
    assert data["step"] == [5, 10]
    assert data["loss"] == [4.0, 2.9]
    assert data["eval"] == [[5, 4.1], [10, 3.05]]


def test_a_resumed_run_shows_nothing_from_after_the_step_that_it_goes_on_from() -> None:
    resumed = {"event": "stage", "stage": "training", "step": 5, "total_steps": 20}
    data = chart([step(5, 4.0), evaluated(5, 4.1), step(10, 3.0), evaluated(10, 3.1), resumed])
    assert (data["step"], data["eval"], data["best"]) == ([5], [[5, 4.1]], [5, 4.1])


def test_the_lowest_evaluation_that_still_holds_is_the_best() -> None:
    events = [evaluated(5, 2.0), evaluated(10, 1.5), evaluated(15, math.nan), evaluated(20, 1.7)]
    assert chart(events)["best"] == [10, 1.5]
    assert chart([*events, step(10, 1.0), evaluated(10, 2.5)])["best"] == [5, 2.0]
    assert chart([evaluated(5, math.nan)])["best"] is None


def test_the_last_chart_follows_the_events() -> None:
    last, events = LastChart(), [step(5, 2.0)]
    assert last(events) is last(events)
    assert last([*events, step(10, 1.0)])["step"] == [5, 10]


def test_the_evaluation_of_the_step_just_logged_is_kept() -> None:
    assert chart([evaluated(5, 4.1), step(5, 4.0), step(10, 3.0)])["eval"] == [[5, 4.1]]


def test_long_runs_keep_first_last_and_spikes_within_the_limit() -> None:
    losses = [2.0 + 0.1 * math.sin(i) for i in range(25_000)]
    losses[7_777], losses[18_001], losses[20_002] = 50.0, 0.01, math.nan
    data = chart(step(i + 1, loss) for i, loss in enumerate(losses))
    assert len(data["step"]) <= MAX_POINTS
    assert data["step"] == sorted(set(data["step"]))
    assert {1, 7_778, 18_002, 20_003, 25_000} <= set(data["step"])


def test_a_run_within_the_limit_keeps_every_point() -> None:
    assert thinned([1.0] * MAX_POINTS) == list(range(MAX_POINTS))


def test_a_long_run_without_a_single_number_is_still_drawn_empty() -> None:
    assert len(thinned([None] * 5_000)) <= MAX_POINTS
