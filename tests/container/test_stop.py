"""What app/container.py does when its container is to stop: runs are asked once, waited for, and never asked twice."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app import container
from app.text import Text
from tests.faults.live_run import live_run
from trainer import run_folder
from trainer.events import EventLog

EN = Text("en")
# Answers SIGTERM with a file, and lives on. Like a trainer it can answer once it holds its run's lock.
STUBBORN = """
import os, signal, sys, time
from pathlib import Path
from trainer import run_folder
folder = Path(sys.argv[1])
asked = []
def ask(*_):
    asked.append(1)
    (folder / "asked").write_text(str(len(asked)))
run_folder.write_identity(folder, run_folder.Identity.of(os.getpid()))
time.sleep(float(sys.argv[2]))
signal.signal(signal.SIGTERM, ask)
held = run_folder.lock(folder)
time.sleep(60)
"""


def stubborn(folder: Path, deaf_s: float = 0.0) -> "subprocess.Popen[bytes]":
    """`deaf_s`: how long it takes until it answers."""
    words = [sys.executable, "-c", STUBBORN, str(folder), str(deaf_s)]
    return subprocess.Popen(words, cwd=container.__file__.rsplit("/", 2)[0])


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_every_run_is_asked_and_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with live_run(tmp_path / "a") as first, live_run(tmp_path / "b") as second:
        held = [run_folder.lock(tmp_path / name) for name in "ab"]  # as their trainers would
        assert all(held)
        reaped = [threading.Thread(target=process.wait) for process in (first, second)]
        for thread in reaped:
            thread.start()
        assert container.stop(tmp_path, 20, EN) == 0
        assert (first.wait(5), second.wait(5)) == (-signal.SIGTERM, -signal.SIGTERM)
    said = capsys.readouterr().out
    assert "a finishes its step and saves" in said
    assert "b finishes its step and saves" in said
    assert not container.living(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stopping", [False, True])
def test_a_run_is_asked_once_and_not_if_it_is_stopping_already(
    tmp_path: Path, stopping: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second request would end it before it has saved."""
    folder = tmp_path / "run"
    folder.mkdir()
    log = EventLog(folder / run_folder.EVENTS)
    log.stage("starting")
    if stopping:
        log.stage("stopping")
    process = stubborn(folder)
    try:
        _until(lambda: container.living(tmp_path) and run_folder.is_locked(folder))
        assert container.stop(tmp_path, 0.5, EN) == 1
        assert process.poll() is None
        assert (folder / "asked").exists() is not stopping
        if not stopping:
            assert (folder / "asked").read_text() == "1"
        assert "Still saving" in capsys.readouterr().out
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_run_that_is_only_just_starting_is_asked_once_it_can_answer(tmp_path: Path) -> None:
    """Python's own answer to SIGTERM is to end at once: the next container would wait for a run that says nothing."""
    folder = tmp_path / "run"
    folder.mkdir()
    process = stubborn(folder, deaf_s=1.5)
    try:
        _until(lambda: container.living(tmp_path))
        assert not run_folder.is_locked(folder)
        assert container.stop(tmp_path, 4, EN) == 1
        assert process.poll() is None
        assert (folder / "asked").read_text() == "1"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("given", "found"), [({}, 600.0), ({"X": ""}, 600.0), ({"X": " 2.5"}, 2.5), ({"X": "0"}, 0.0), ({"X": "-1"}, None),
                         ({"X": "nan"}, None), ({"X": "inf"}, None), ({"X": "ten"}, None)]
)  # fmt: skip
def test_the_grace_is_a_time(given: dict[str, str], found: float | None) -> None:
    assert container.seconds(given, "X", 600.0) == found


def test_a_grace_that_is_no_time_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(container.GRACE, "ten")
    assert container.main([]) == 2
    assert "TUNEDESK_GRACE_S: ten is no time" in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_but_a_container_stops_runs() -> None:
    """Outside, a page that ends leaves its runs alone: only this module's own main process asks them to stop."""
    imported = subprocess.run(
        [sys.executable, "-c", "import sys; import app.server; print('app.container' in sys.modules)"],
        capture_output=True, text=True, check=True, cwd=Path(container.__file__).parent.parent, env=os.environ,
    )  # fmt: skip
    assert imported.stdout.strip() == "False"
