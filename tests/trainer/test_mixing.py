"""Several datasets as one: the same draws as the `datasets` library makes."""

from collections import Counter
from typing import Any

import pytest

from trainer.mixing import mix, order
from trainer.problems import Problems
from trainer.settings import parse

PARTS = [["a0", "a1", "a2"], ["b0", "b1", "b2", "b3", "b4"], ["c0", "c1", "c2", "c3"]]


@pytest.mark.slow
@pytest.mark.parametrize("weights", [(), (0.6, 0.3, 0.1), (0.1, 0.1, 0.8)])
@pytest.mark.parametrize(
    ("strategy", "stopping"), [("interleave_under", "first_exhausted"), ("interleave_over", "all_exhausted")]
)
@pytest.mark.parametrize("seed", [0, 42])
def test_the_order_is_that_of_the_datasets_library(
    strategy: Any, stopping: Any, weights: tuple[float, ...], seed: int
) -> None:
    import datasets

    parts = [part * 30 for part in PARTS]
    theirs = datasets.interleave_datasets([datasets.Dataset.from_dict({"x": part}) for part in parts],
                                          probabilities=list(weights) or None, seed=seed, stopping_strategy=stopping)  # fmt: skip
    assert mix(parts, strategy, weights, seed) == theirs["x"][:]


def test_concat_puts_one_behind_the_other() -> None:
    assert mix(PARTS, "concat", (), 0) == [item for part in PARTS for item in part]


def test_every_sample_is_there_when_the_longest_decides() -> None:
    assert set(mix(PARTS, "interleave_over", (0.2, 0.5, 0.3), 1)) == {item for part in PARTS for item in part}


def test_a_dataset_is_drawn_from_as_often_as_it_weighs() -> None:
    drawn = Counter(part for part, _ in order([100_000, 100_000], "interleave_under", (0.9, 0.1), 0))
    assert 0.09 < drawn[1] / drawn.total() < 0.11


@pytest.mark.parametrize("values", [
    {"interleave_probs": "0.5,0.5"},
    {"mix_strategy": "interleave_under", "interleave_probs": "0.5,0.5", "dataset": "a"},
    {"mix_strategy": "interleave_under", "interleave_probs": "0.5,0.6", "dataset": "a,b"},
    {"mix_strategy": "interleave_under", "interleave_probs": "1.5,-0.5", "dataset": "a,b"},
    {"mix_strategy": "interleave_under", "interleave_probs": "x,y", "dataset": "a,b"},
    {"mix_strategy": "interleave"},
])  # fmt: skip
def test_weights_that_are_none_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(Problems) as caught:
        parse(values)
    assert all(
        "Mix" in problem.sentence("en") and "混合" in problem.sentence("zh") for problem in caught.value.problems
    )


def test_weights_are_read_as_llama_factory_writes_them() -> None:
    assert parse({"mix_strategy": "interleave_over", "interleave_probs": "0.7, 0.3"}).interleave_probs == (0.7, 0.3)
    assert parse({"mix_strategy": "interleave_over", "interleave_probs": [0.7, 0.3]}).interleave_probs == (0.7, 0.3)
