"""How much is broken: everything with FAULTS=all (`make faults`), else a sample, the same each time."""

import os
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.forks import Forks, forks

ALL = os.environ.get("FAULTS") == "all"
# Of each kind of process, at so many moments it is killed.
MOMENTS = 25 if ALL else 2
# Where each takes a process that starts for seconds.
SLOW_MOMENTS = 25 if ALL else 1
EXAMPLES = 500 if ALL else 25


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.slow)


FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes what a test has counted, which is shown when all tests are over."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section("what was broken")
        for line in figures:
            terminalreporter.write_line(line)


def sample(count: int, *choices: Iterable[Any]) -> list[Any]:
    """Of all combinations of `choices` so many, or all of them."""
    found = list(product(*choices))
    return found if ALL else random.Random(0).sample(found, min(count, len(found)))


@pytest.fixture(scope="session")
def fork() -> Iterator[Forks]:
    with forks() as found:
        yield found
