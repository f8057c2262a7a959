"""kill -9 at any moment of a run: no run is lost, none is ever shown as what it is not, and resumed losses are the same."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from app import monitor, runs
from app.chat import ChatProcess, Done
from app.text import Text
from tests.app.test_chat_client import answer
from tests.faults.conftest import ALL, MOMENTS
from tests.tiny import build_tiny_model
from tests.trainer.forks import Forks
from tests.trainer.test_resume import SETTINGS, ending, told
from tests.trainer.test_train import ONE_THREAD, command, data, model
from trainer import run_folder
from trainer.events import read_events
from trainer.problems import Problem

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
__all__ = ["data", "model"]  # fixtures
ZH = Text("zh")


class Watcher:
    """A page that looks all the time, and notes what it has shown."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._over = folder, threading.Event()
        self.states: list[str] = []
        self.errors: list[Exception] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            try:
                if runs.find(self._folder.parent):
                    run = runs.read(self._folder)
                    monitor.status(run, ZH)
                    self.states.append(run.status)
            except Exception as error:
                self.errors.append(error)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@contextmanager
def watched(folder: Path, ends: bool) -> Iterator[None]:
    """Nobody may see the run end in another way than it does. `ends`: whether it may be seen completed or failed."""
    with Watcher(folder) as watcher:
        yield
    assert not watcher.errors
    assert set(watcher.states) <= {"died", "starting", "running"} | ({"completed", "failed"} if ends else set())


@pytest.fixture(scope="module")
def whole(fork: Forks, model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The run that nothing interrupted, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert fork.train(command(model, data, folder, **SETTINGS)[3:], folder).status == 0
    events, _ = read_events(folder / run_folder.EVENTS)
    return folder, events[-1]["time"] - events[0]["time"]


def again(argv: list[str], folder: Path) -> list[str]:
    """The command that goes on with what a killed run has left, or begins anew where that is nothing."""
    run = runs.read(folder)
    if run.resumable:
        return [*argv, "resume_from_checkpoint=latest"]
    shutil.rmtree(folder, ignore_errors=True)
    return argv


@pytest.mark.thorough
def test_a_trainer_killed_at_random_moments_loses_nothing(
    fork: Forks,
    whole: tuple[Path, float],
    model: Path,
    data: Path,
    tmp_path: Path,
    figure: Callable[[str], None],
) -> None:
    draw, (undisturbed, seconds) = random.Random(20), whole
    killed, number = 0, 0
    while killed < MOMENTS or number == 0:
        folder = tmp_path / "runs" / f"run{number}"
        argv, status = command(model, data, folder, **SETTINGS)[3:], -9
        while status:
            moment = draw.uniform(0.01, seconds) if killed < MOMENTS else None
            with watched(folder, ends=True):
                status = fork.train(again(argv, folder), folder, moment).status
            assert status in (0, -9)
            killed += status == -9
            if folder.exists() and status:
                run = runs.read(folder)
                begun = (folder / run_folder.IDENTITY).exists()
                # It may have been killed in its last breath, after it had told that it was finished.
                told_its_end = any(event["event"] == "finished" for event in read_events(folder / run_folder.EVENTS)[0])
                assert run.status == ("completed" if told_its_end else "died"), moment
                assert not begun or folder in runs.find(folder.parent), "no run is lost"
                if told_its_end:
                    break
        assert told(folder) == told(undisturbed)
        assert ending(folder) == ending(undisturbed)
        name = "adapter_model.safetensors"
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
        number += 1
    figure(
        f"trainer: {killed} times kill -9 in {number} runs: 0 lost, 0 wrong states, losses and weights as undisturbed"
    )


# ---- one of several processes ----

TWO = {**ONE_THREAD, "NPROC_PER_NODE": "2"}
TWO_SETTINGS: dict[str, Any] = {"max_steps": 160, "save_steps": 20, "logging_steps": 4, "lora_dropout": 0.1,
                                "gradient_accumulation_steps": 2, "save_total_limit": 2}  # fmt: skip


@pytest.mark.skipif(
    not ALL, reason="make faults: a minute each; tests/trainer/test_distributed.py kills one of each kind"
)
def test_a_rank_killed_at_random_moments_ends_the_run_by_name_and_loses_nothing(
    model: Path,
    data: Path,
    tmp_path: Path,
    figure: Callable[[str], None],
) -> None:
    draw, undisturbed = random.Random(21), tmp_path / "whole" / "run"
    began = time.monotonic()
    subprocess.run(command(model, data, undisturbed, **TWO_SETTINGS), env=TWO, stderr=subprocess.DEVNULL, check=True)
    seconds, folder = time.monotonic() - began, tmp_path / "runs" / "run"
    argv, killed = command(model, data, folder, **TWO_SETTINGS), 0
    while killed < MOMENTS:
        process = subprocess.Popen(again(argv, folder), env=TWO, stderr=subprocess.DEVNULL)
        with watched(folder, ends=True):
            ranks = ranks_of(process)
            time.sleep(draw.uniform(0, seconds / 2))
            victim = draw.choice(ranks)
            with contextlib.suppress(psutil.NoSuchProcess):  # the run was over before
                victim.kill()
            status = process.wait(60)
        assert psutil.wait_procs(ranks, timeout=10)[1] == [], "no process stays"
        run = runs.read(folder)
        if status == 0 or run.status == "completed":  # or killed in its last breath, its result whole and told
            assert ending(folder) == ending(undisturbed)
            assert told(folder) == told(undisturbed)
            shutil.rmtree(folder)
            continue
        killed += 1
        assert (run.status, run.problem and run.problem[0]) == ("failed", "process_died")  # type: ignore[index]
        assert "SIGKILL" in monitor.why(run, ZH)
        assert folder in runs.find(folder.parent)
    last = again(argv, folder)
    assert subprocess.run(last, env=TWO, stderr=subprocess.DEVNULL, check=False).returncode == 0
    assert told(folder) == told(undisturbed)
    name = "adapter_model.safetensors"
    assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
    figure(f"rank: one of two, {killed} times kill -9: 0 runs lost, 0 wrong states, losses and weights as undisturbed")


def ranks_of(launcher: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert launcher.poll() is None
        try:
            ranks = [one for one in psutil.Process(launcher.pid).children() if "RANK" in one.environ()]
        except psutil.Error:
            continue
        if len(ranks) == 2:
            return ranks
        time.sleep(0.05)
    raise AssertionError("the processes did not start")


# ---- the chat process ----


@pytest.mark.skipif(
    not ALL, reason="make faults: half a minute; tests/app/test_chat_client.py kills the real process once"
)
def test_a_chat_process_killed_at_random_moments_is_told_and_loads_again(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    draw, folder = random.Random(22), build_tiny_model(tmp_path / "model", layers=8, max_positions=4096)
    chat = ChatProcess(tmp_path / "chat.log")
    how: dict[str, Any] = {"temperature": 0, "max_new_tokens": 200}
    try:
        began = time.monotonic()
        chat.load(folder)
        right = answer(chat, "你好", **how)[0]
        seconds = time.monotonic() - began
        chat.unload()
        for _ in range(MOMENTS):
            loading = chat.begin_load(folder)
            pid = chat.status.pid
            assert pid is not None
            timer = threading.Timer(draw.uniform(0, 1.2 * seconds), os.kill, (pid, signal.SIGKILL))
            timer.start()
            seen: list[str] = []
            try:
                loading.result(60)
                while True:
                    *texts, done = chat.generate([{"role": "user", "content": "你好"}], **how)
                    assert isinstance(done, Done)
                    seen.append("".join(map(str, texts)))
            except Problem as problem:
                # Between two answers it is found dead, and the status has the reason.
                why = problem if problem.code == "chat_killed" else chat.status.problem
                assert why is not None
                assert why.code == "chat_killed"
                assert "SIGKILL" in str(why)
            assert set(seen) <= {right}
            assert chat.status.state == "dead"
            assert not psutil.pid_exists(pid)
        chat.load(folder)
        assert answer(chat, "你好", **how)[0] == right
        figure(f"chat: {MOMENTS} times kill -9: told each time, then the same answer")
    finally:
        chat.unload()
