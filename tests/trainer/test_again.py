"""Where processes that start again go on from: what the run folder says of this launch, and of no other."""

from pathlib import Path

import pytest

from trainer import again, run_folder
from trainer.again import Start
from trainer.events import EventLog, FollowerLog
from trainer.problems import Problem
from trainer.settings import parse


@pytest.fixture
def events(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / run_folder.EVENTS)


def saved(events: EventLog, step: int, resumable: bool = True) -> Path:
    folder = events.path.parent / f"checkpoint-{step}"
    folder.mkdir()
    for name in ("adapter_model.safetensors", *(run_folder.RESUME_FILES if resumable else ())):
        (folder / name).touch()
    events.append("saved", path=folder.name, step=step)
    return folder


def start(events: EventLog, **settings: str) -> Start:
    return again.starting_point(parse({"output_dir": str(events.path.parent), **settings}))


def test_a_run_that_has_saved_nothing_starts_from_its_beginning_with_half_the_budget(events: EventLog) -> None:
    events.stage("starting")
    events.append("warning", code="token_budget_halved", budget=4096)
    assert start(events) == Start(None, 4096, False)


def test_every_attempt_of_a_launch_counts_and_the_last_checkpoint_that_can_be_resumed(events: EventLog) -> None:
    events.stage("starting")
    five = saved(events, 5)
    events.append("warning", code="token_budget_halved", budget=4096)
    events.stage("starting", attempt=1)
    saved(events, 10, resumable=False)
    events.append("warning", code="token_budget_halved", budget=2048)
    events.append("warning", code="checkpointing_switched_on", tokens=2000)
    events.append("warning", code="samples_cut", count=1, cutoff_len=9)
    found = start(events)
    assert found == Start(five, 2048, True)
    assert found.step == 5
    assert again.saved_step(events) == 10


def test_another_launch_has_its_own_memory_and_its_own_checkpoints(events: EventLog) -> None:
    events.stage("starting")
    five = saved(events, 5)
    saved(events, 10)
    events.append("warning", code="token_budget_halved", budget=64)
    events.append("finished", outcome="failed", code="loss_not_finite")
    events.stage("starting")  # somebody goes back to the earlier one
    assert start(events, resume_from_checkpoint=str(five)) == Start(five, None, False)
    assert again.saved_step(events) == 0
    six = saved(events, 6)
    assert start(events, resume_from_checkpoint=str(five)).checkpoint == six


def test_a_checkpoint_to_resume_from_that_is_gone_is_named(events: EventLog) -> None:
    events.stage("starting")
    with pytest.raises(Problem, match="no complete checkpoint"):
        start(events, resume_from_checkpoint=str(events.path.parent / "checkpoint-3"))


def test_of_several_processes_only_the_first_says_that_all_have_started_again(events: EventLog) -> None:
    FollowerLog(events.path).append("warning", code="started_again", step=0)
    assert not events.path.exists()
    FollowerLog(events.path).append("warning", code="token_budget_halved", budget=1)
    assert events.path.exists()
