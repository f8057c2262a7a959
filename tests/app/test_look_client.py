"""The client of the process that reads datasets: asked again and again, it starts, follows, stops and replaces it."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from app import look as module
from app.look import Answer, Look

pytestmark = pytest.mark.slow

STAND_IN = [sys.executable, str(Path(__file__).parent / "look_stand_in.py")]


@pytest.fixture
def look(tmp_path: Path) -> Iterator[Look]:
    before = psutil.Process().children()  # servers of other tests
    client = Look(tmp_path / "look.log", STAND_IN)
    yield client
    client.close()
    assert set(psutil.Process().children()) <= set(before)


def until(ask: Callable[[], Answer], state: str, timeout_s: float = 20) -> Answer:
    deadline = time.monotonic() + timeout_s
    while (answer := ask()).state != state:
        assert time.monotonic() < deadline, answer
        assert not answer.ended, answer
        time.sleep(0.02)
    return answer


def test_a_check_is_followed_to_its_end_and_known_afterwards(look: Look) -> None:
    assert look.pid is None
    until(lambda: look.check({}, "slow 5"), "running")
    pid = look.pid
    while not (seen := look.check({}, "slow 5")).values.get("rows"):
        assert not seen.ended
    assert seen.values["of_bytes"] == 100
    done = until(lambda: look.check({}, "slow 5"), "done")
    assert (done.values["samples"], done.values["bad"], look.pid) == (2, 1, pid)
    began = time.monotonic()
    assert look.check({}, "slow 5") == done, "two tabs ask once"
    assert time.monotonic() - began < 0.05


def test_other_settings_and_other_files_are_checked_anew(look: Look) -> None:
    until(lambda: look.check({"cutoff_len": 4}, "x"), "done")
    assert look.check({"cutoff_len": 5}, "x").state != "done"
    assert look.check({"cutoff_len": 4}, "x", "changed").state != "done"
    assert look.check({"cutoff_len": 4}, "x").state == "done"


def test_pages_come_while_a_check_is_running(look: Look) -> None:
    until(lambda: look.check({}, "slow 50"), "running")
    page = until(lambda: look.page({}, "x", 2, 4), "done")
    assert page.values["samples"][0]["row"] == 2
    assert look.check({}, "slow 50").state == "running"


def test_a_check_can_be_stopped_and_begun_again(look: Look) -> None:
    until(lambda: look.check({}, "slow 600"), "running")
    look.stop({}, "slow 600")
    until(lambda: look.check({}, "slow 600"), "stopped", 3)
    assert look.check({}, "slow 600").state == "stopped", "until it is asked for again"
    look.again({}, "slow 600")
    until(lambda: look.check({}, "slow 600"), "running")


def test_a_check_that_nobody_looks_at_gives_way(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GIVES_WAY_S", 0.1)
    until(lambda: look.check({}, "slow 600"), "running")
    assert look.check({}, "x").state == "waiting", "one after the other"
    until(lambda: look.check({}, "x"), "done", 5)


def test_what_nobody_asks_for_any_more_is_stopped(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGOTTEN_S", 0.3)
    until(lambda: look.check({}, "slow 600"), "running")
    time.sleep(1.5)
    assert look.check({}, "slow 600").state == "stopped"


def test_a_process_that_is_killed_is_replaced_and_nobody_notices(look: Look) -> None:
    until(lambda: look.check({}, "slow 10"), "running")
    assert look.pid is not None
    os.kill(look.pid, signal.SIGKILL)
    assert until(lambda: look.check({}, "slow 10"), "done").values["samples"] == 2


def test_a_process_that_dies_of_a_request_is_given_it_twice(look: Look, tmp_path: Path) -> None:
    until(lambda: look.check({}, f"die once {tmp_path}/died"), "done")
    answer = until(lambda: look.check({}, "die"), "failed")
    assert answer.problem is not None
    assert answer.problem.code == "look_died"
    assert "3" in answer.problem.sentence("zh")
    assert "look.log" in answer.problem.sentence("en")
    until(lambda: look.check({}, "x"), "done")


def test_a_problem_is_said_in_both_languages(look: Look) -> None:
    answer = until(lambda: look.check({}, "problem"), "failed")
    assert answer.problem is not None
    assert answer.problem.code == "dataset_empty"


def test_a_process_that_does_not_hear_is_killed(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOPPING_S", 0.3)
    until(lambda: look.check({}, "hang"), "running")
    look.stop({}, "hang")
    until(lambda: look.check({}, "hang"), "stopped", 5)


def test_a_silent_process_is_killed(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.5)
    answer = until(lambda: look.check({}, "hang"), "failed", 10)
    assert answer.problem is not None
    assert answer.problem.code == "look_died"


def test_an_idle_process_ends_and_is_started_again(tmp_path: Path) -> None:
    look = Look(tmp_path / "look.log", STAND_IN, idle_s=0.2)
    until(lambda: look.check({}, "x"), "done")
    deadline = time.monotonic() + 5
    while look.pid is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert look.pid is None
    assert look.check({}, "x").state == "done", "what was found is still known"
    until(lambda: look.check({}, "y"), "done")
    look.close()


def test_answers_are_kept_in_bounded_number(look: Look) -> None:
    for page in range(module.MOST_KEPT + 20):
        until(lambda page=page: look.page({}, "x", page, 4), "done")  # type: ignore[misc]
    assert len(look._tasks) <= module.MOST_KEPT


def test_a_command_that_cannot_be_started_is_said(tmp_path: Path) -> None:
    look = Look(tmp_path / "look.log", ["/nowhere/python"])
    answer = look.check({}, "x")
    assert answer.problem is not None
    assert "nowhere" in answer.problem.sentence("en")
