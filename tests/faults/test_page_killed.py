"""kill -9 of the page: its runs go on, the next page finds them with their whole curve, and can stop them."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import runs
from tests.conftest import Server
from tests.faults.conftest import ALL, SLOW_MOMENTS
from tests.faults.tab import Tab
from tests.faults.test_killed import Watcher
from tests.trainer.test_train import ONE_THREAD, data, model
from trainer import run_folder
from trainer.events import read_events

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
__all__ = ["data", "model"]  # fixtures

# So many times the page is killed within one run.
KILLS_OF_A_RUN = 5
# So long after it has begun, or after the last kill, at most.
LATEST_S = 6 if ALL else 2
SETTINGS = {"num_train_epochs": "100000", "logging_steps": "5", "save_steps": "200", "learning_rate": "1e-4"}


def until(condition: Callable[[], Any], what: str, timeout_s: float = 60) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def shown(tab: Tab) -> str:
    tab.tick()
    return tab.text("status")


def steps(folder: Path) -> list[int]:
    return [event["step"] for event in read_events(folder / run_folder.EVENTS)[0] if event["event"] == "step"]


def test_a_page_killed_at_random_moments_leaves_its_runs_alone_and_the_next_one_finds_them(
    serve: Callable[..., Server],
    model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figure: Callable[[str], None],
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", ONE_THREAD["OMP_NUM_THREADS"])
    draw, runs_dir = random.Random(23), tmp_path / "runs"
    killed, number = 0, 0

    def new_page() -> tuple[Server, Tab]:
        server = serve("--model", str(model), "--data-dir", str(data), runs_dir=runs_dir)
        return server, Tab(server.address, draw.choice(("zh", "en")))

    page = new_page()
    while killed < SLOW_MOMENTS:
        name = f"run {number} ;$(touch here) '引号' 😀"
        kills = min(KILLS_OF_A_RUN, SLOW_MOMENTS - killed)
        page = survives(runs_dir / name, page, new_page, [draw.uniform(0, LATEST_S) for _ in range(kills)])
        number, killed = number + 1, killed + kills
    assert {path.name for path in runs.find(runs_dir)} == {
        f"run {one} ;$(touch here) '引号' 😀" for one in range(number)
    }
    assert not list(tmp_path.rglob("here"))
    figure(f"page: {killed} times kill -9 in {number} runs: 0 lost, 0 wrong states, each curve whole")


Page = tuple[Server, Tab]


def survives(folder: Path, page: Page, new_page: Callable[[], Page], moments: list[float]) -> Page:
    """A run, started by `page`, which is killed and followed by another after each of `moments` seconds; the last page,
    which has stopped the run."""
    server, tab = page
    for key, value in {**SETTINGS, "output_dir": folder.name, "dataset": ["who"]}.items():
        tab.put(key, value)
    tab.click("start")
    assert tab.text("messages") == ""
    with Watcher(folder) as watcher:
        for moment in moments:
            time.sleep(moment)
            server.process.kill()
            server.process.wait()
            server, tab = new_page()
            assert folder.name in shown(tab) or "/" in shown(tab), tab.text("status")
            assert runs.read(folder).alive, "the run goes on"
        until(lambda: len(steps(folder)) > 3, "the run to train")
        shown(tab)
        chart = tab["loss-chart"]["step"]
        assert chart[:3] == steps(folder)[:3] == [5, 10, 15], "the curve begins at the first step"
        assert chart[-1] >= steps(folder)[3]
    assert not watcher.errors
    assert set(watcher.states) <= {"starting", "running"}
    tab.click("abort")
    until(lambda: not runs.read(folder).alive, "the run to stop")
    run = runs.read(folder)
    assert run.status == "stopped"
    assert run.resumable
    until(lambda: folder.name in shown(tab), "the page to say so")
    assert not run.last("warning"), "stopped by the page, not from outside"
    return server, tab
