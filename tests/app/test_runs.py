"""Runs: status is derived from the folder, whatever state its files are in."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app import monitor, runs
from app.text import Text
from trainer import run_folder
from trainer.events import EventLog
from trainer.problems import Problem
from trainer.run_folder import Identity

ZH, EN = Text("zh"), Text("en")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def events(folder: Path, *found: dict[str, Any]) -> None:
    log = EventLog(folder / run_folder.EVENTS)
    for event in found:
        log.append(event.pop("event"), **event)


def training(step: int = 0, total: int = 60) -> list[dict[str, Any]]:
    return [
        {"event": "stage", "stage": "starting"},
        {"event": "stage", "stage": "training", "step": step, "total_steps": total},
    ]


def owned_by(folder: Path, pid: int) -> None:
    run_folder.write_identity(folder, Identity.of(pid))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_whose_process_lives_is_running(folder: Path) -> None:
    owned_by(folder, os.getpid())
    assert runs.read(folder).status == "starting"
    events(folder, *training())
    assert runs.read(folder).status == "running"


def test_a_run_that_died_without_a_word_is_never_called_finished(folder: Path) -> None:
    (folder / "run.json").write_text(json.dumps({"pid": dead_pid(), "started": 1.0, "boot_id": run_folder.boot_id(), "host": os.uname().nodename}))  # fmt: skip
    events(folder, *training(), {"event": "step", "step": 5, "total_steps": 60, "loss": 1.0})
    run = runs.read(folder)
    assert run.status == "died"
    assert "训练完毕" not in monitor.status(run, ZH)
    assert "突然消失" in monitor.status(run, ZH)


def test_a_pid_given_to_another_process_is_not_the_run(folder: Path) -> None:
    identity = Identity.of(os.getpid())
    run_folder.write_identity(folder, Identity(identity.pid, identity.started - 1000, identity.boot_id, identity.host))
    events(folder, *training())
    assert runs.read(folder).status == "died"


def test_a_restart_of_the_machine_is_told_apart(folder: Path) -> None:
    run_folder.write_identity(folder, Identity(os.getpid(), time.time(), "another boot", os.uname().nodename))
    events(folder, *training())
    problem = runs.read(folder).problem
    assert isinstance(problem, Problem)
    assert problem.code == "machine_restarted"


def test_a_traceback_at_the_end_of_the_log_is_the_cause(folder: Path) -> None:
    (folder / "train.log").write_text("Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'torch'\n")  # fmt: skip
    assert "ModuleNotFoundError" in monitor.status(runs.read(folder), EN)


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe\x00", b"{", b"null", b'{"pid": "x"}', b"[]"])
@pytest.mark.parametrize("name", ["run.json", "events.jsonl", "config.yaml", "train.log"])
def test_a_corrupt_file_never_breaks_the_list(folder: Path, name: str, junk: bytes) -> None:
    owned_by(folder, os.getpid())
    (folder / name).write_bytes(junk)
    for run in runs.find(folder.parent):
        monitor.status(runs.read(run), ZH)
    runs.latest(folder.parent)
    runs.alive(folder.parent)


def test_events_with_missing_fields_never_break_the_monitor(folder: Path) -> None:
    owned_by(folder, os.getpid())
    for name in ("stage", "step", "progress", "evaluated", "saved", "warning", "finished", "unheard_of"):
        events(folder, {"event": name})
        run = runs.read(folder)
        monitor.status(run, ZH), monitor.metrics(run, ZH), monitor.warnings(run, ZH)


def test_progress_is_told_as_in_the_tutorials(folder: Path) -> None:
    owned_by(folder, os.getpid())
    events(folder, *training(), {"event": "step", "step": 5, "total_steps": 60, "loss": 1.0})
    run = runs.read(folder)
    began, latest = run.events[1], run.events[2]
    began["time"], latest["time"] = 100.0, 104.0
    assert "Running 5/60: 0:00:04 &lt; 0:00:44" in monitor.status(run, EN, now=104.0)


def test_stop_reaches_the_trainer_and_only_it(folder: Path) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print(1, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    owned_by(folder, process.pid)
    assert runs.stop(folder)
    assert process.wait(10) == 7
    process.stdout.close()
    assert not runs.stop(folder), "nothing is left to stop"


def test_the_newest_run_is_the_one_that_every_page_shows(tmp_path: Path) -> None:
    for number, name in enumerate(["old", "new", "middle"]):
        (tmp_path / name).mkdir()
        owned_by(tmp_path / name, os.getpid())
        os.utime(tmp_path / name / "run.json", (number, {"old": 1, "new": 3, "middle": 2}[name]))
    latest = runs.latest(tmp_path)
    assert latest is not None
    assert latest.name == "new"


def test_the_log_shown_is_its_end_in_whole_lines(folder: Path) -> None:
    (folder / "train.log").write_text("".join(f"line {number}\n" for number in range(10_000)))
    tail = runs.log_tail(folder)
    assert tail.endswith("line 9999")
    assert len(tail) <= runs.LOG_TAIL_BYTES
    assert tail.splitlines()[0].startswith("line ")


def test_the_previewed_command_is_quoted_for_a_shell(tmp_path: Path) -> None:
    import shlex

    from trainer.settings import parse, to_shell

    argv = runs.command(parse({"model_name_or_path": "/a b/$(touch x)'", "dataset": "d", "output_dir": "/r/训练 ;x"}))
    assert shlex.split(to_shell(argv).replace("\\\n", "")) == argv
