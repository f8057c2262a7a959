"""Clocks that are set, pids that come again, folders that are copied or moved, names of any kind."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import monitor, runs
from app.text import Text
from tests.faults import shown
from tests.faults.conftest import EXAMPLES
from tests.faults.live_run import live_run
from tests.faults.test_corrupt import build_run
from trainer import run_folder
from trainer.events import EventLog
from trainer.problems import Problem
from trainer.run_folder import Identity

ZH, EN = Text("zh"), Text("en")
DAY_S = 86_400.0


def rewrite(folder: Path, **values: object) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# ---- clocks ----


@pytest.mark.parametrize("days", [-400, -1, 1, 400])
def test_a_clock_that_is_set_while_a_run_trains_changes_no_state(tmp_path: Path, days: int) -> None:
    """The start of a process, as seconds since the epoch, moves with the clock; the kernel's ticks do not."""
    folder = tmp_path / "run"
    with live_run(folder):
        rewrite(folder, started=time.time() + days * DAY_S)
        assert runs.read(folder).status == "running"
    assert runs.read(folder).status == "died"


@pytest.mark.parametrize("days", [-400, 400])
def test_events_that_go_back_in_time_are_shown(tmp_path: Path, days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build_run(tmp_path / "runs" / "run")
    later = time.time() + days * DAY_S
    monkeypatch.setattr("trainer.events.time.time", lambda: later)
    log = EventLog(folder / "events.jsonl")
    log.append("step", step=8, total_steps=60, loss=0.3)
    monkeypatch.undo()
    run_folder.write_identity(folder, Identity.of(os.getpid()))
    run = runs.read(folder)
    assert run.status == "running"
    assert "8/60" in monitor.status(run, EN)
    log.append("finished", outcome="completed", step=60, loss=0.1, seconds=9.0, path=str(folder))
    assert runs.read(folder).status == "completed"
    shown.of(folder.parent)


@pytest.mark.parametrize("outcome", ["completed", "stopped", "failed"])
@pytest.mark.parametrize("days", [-400, 400])
def test_a_run_that_goes_on_is_starting_whatever_the_clock_said_when_it_ended(
    tmp_path: Path, outcome: str, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_run(tmp_path / "run")
    ended = time.time() + days * DAY_S
    monkeypatch.setattr("trainer.events.time.time", lambda: ended)
    EventLog(folder / "events.jsonl").append("finished", outcome=outcome, step=7, code="disk_full")
    monkeypatch.undo()
    assert runs.read(folder).status == outcome
    run_folder.write_identity(folder, Identity.of(os.getpid()))
    assert runs.read(folder).status == "starting"
    EventLog(folder / "events.jsonl").stage("starting")
    assert runs.read(folder).status == "running"
    EventLog(folder / "events.jsonl").append("finished", outcome=outcome, step=9, code="disk_full")
    assert runs.read(folder).status == outcome, "its process is only ending"


# ---- pids ----


def test_a_pid_that_came_again_within_the_same_second_is_another_process(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run")
    run_folder.write_identity(folder, Identity.of(os.getpid()))
    assert runs.read(folder).alive
    rewrite(folder, ticks=json.loads((folder / "run.json").read_text())["ticks"] - 1)
    assert runs.read(folder).status == "died"
    assert not runs.stop(folder), "nor is it sent a signal"


def test_a_dead_child_says_nothing_of_another_run_with_its_pid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.faults.test_deaths import DEATHS, code_of, start

    run = start(tmp_path / "runs" / "run", DEATHS["hung up"][0], monkeypatch)
    assert code_of(run) == "killed"
    rewrite(run.folder, ticks=1)
    assert code_of(runs.read(run.folder)) == "killed_unseen"


# ---- folders ----


def test_the_copy_of_a_run_that_trains_does_not_train_and_cannot_stop_it(tmp_path: Path) -> None:
    with live_run(tmp_path / "runs" / "run") as process:
        copy = Path(shutil.copytree(tmp_path / "runs", tmp_path / "copy")) / "run"
        run = runs.read(copy)
        assert run.status == "died"
        assert str(tmp_path / "runs" / "run") in monitor.why(run, EN)
        assert not runs.alive(tmp_path / "copy")
        assert not runs.stop(copy)
        assert process.poll() is None
        assert runs.read(tmp_path / "runs" / "run").status == "running"
        shown.of(tmp_path / "copy")


def test_a_run_that_trains_is_found_where_its_folder_is_moved_or_mounted(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(tmp_path / "runs")
    with live_run(tmp_path / "runs" / "run"):
        assert runs.read(tmp_path / "elsewhere" / "run").status == "running"
        (tmp_path / "runs").rename(tmp_path / "moved")
        assert runs.read(tmp_path / "moved" / "run").folder == tmp_path / "moved" / "run"
    assert runs.read(tmp_path / "moved" / "run").status == "died"


@pytest.mark.parametrize("outcome", ["completed", "stopped", "failed", None])
def test_runs_that_have_ended_are_the_same_wherever_they_are_copied_or_moved(
    tmp_path: Path, outcome: str | None
) -> None:
    folder = build_run(tmp_path / "runs" / "run")
    if outcome:
        EventLog(folder / "events.jsonl").append("finished", outcome=outcome, step=7, code="disk_full", path="/x")
    run = runs.read(folder)
    before = (run.status, run.resumable, run.events)
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    (tmp_path / "runs").rename(tmp_path / "moved")
    for place in ("copy", "moved"):
        after = runs.read(tmp_path / place / "run")
        assert (after.status, after.resumable, after.events) == before
        shown.of(tmp_path / place)


# ---- names ----

ODD = ["a b", "引号", "'quoted'", "😀", ";$(touch here)", "`touch here`", "$HOME", "<img src=x onerror=alert(1)>", "a\nb",
       "%s{0}{name}", "[a]*?", "a\tb", "&amp;", "a'b\"c", "名字 with ; and $(x) 😀", "checkpoint-5", "con", "x" * 200]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_runs_of_any_name_on_the_disk_are_shown(tmp_path: Path, name: str) -> None:
    build_run(tmp_path / name)
    assert shown.of(tmp_path)[name][0] == "died"
    for text in (ZH, EN):
        assert "<img" not in monitor.status(runs.read(tmp_path / name), text)


def test_a_name_that_is_no_text_breaks_nothing(tmp_path: Path) -> None:
    build_run(tmp_path / "good")
    os.rename(build_run(tmp_path / "bad"), os.fsencode(tmp_path) + b"/\xff\xfe")
    assert list(shown.of(tmp_path)) == ["good"]


@settings(max_examples=EXAMPLES * 2, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(name=st.one_of(st.text(max_size=30), st.text(max_size=300), st.text("./\\~$-_ 中😀", max_size=8)))
def test_any_name_is_a_folder_of_that_name_below_the_runs_or_refused_in_words(tmp_path: Path, name: str) -> None:
    try:
        folder = runs.folder_for(tmp_path, name)
    except Problem:  # which has its sentences; whatever else is raised has none
        return
    assert folder.parent == tmp_path
    assert folder.name == name.strip()
    folder.mkdir()
    folder.rmdir()
