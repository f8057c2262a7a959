"""How much is broken: everything with FAULTS=all (`make faults`), else a sample, the same each time."""

import os
import random
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import pytest

from tests.trainer.forks import Forks, forks

ALL = os.environ.get("FAULTS") == "all"
# Of each kind of process, at so many moments it is killed.
MOMENTS = 25 if ALL else 2
# Where each takes a process that starts for seconds.
SLOW_MOMENTS = 25 if ALL else 1
EXAMPLES = 500 if ALL else 40


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name == "test_hostile.py" and not ALL:
            item.add_marker(pytest.mark.skip("NOT TESTED: hostile inputs, which `make faults` tries"))


def sample(count: int, *choices: Iterable[Any]) -> list[Any]:
    """Of all combinations of `choices` so many, or all of them."""
    found = list(product(*choices))
    return found if ALL else random.Random(0).sample(found, min(count, len(found)))


@pytest.fixture(scope="session")
def fork() -> Iterator[Forks]:
    with forks() as found:
        yield found
