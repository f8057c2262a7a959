"""Two machines with a cable between them train one run, through the commands that the page shows for each of them."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app import monitor, runs
from app.text import Text
from tests.nodes import manifests
from tests.nodes.machines import ADDRESSES, Machines, ask_to_stop, lacking, two_machines
from tests.trainer.test_train import data, finished, model, steps
from trainer import run_folder
from trainer.events import EventLog
from trainer.launch import Launch
from trainer.settings import TrainSettings, parse

REASON = lacking()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(REASON), reason=f"NOT TESTED: {REASON}"),
]
__all__ = ["data", "model"]  # fixtures

TWO = Launch(nodes=2, processes=1, master_addr=ADDRESSES[0])
STEPS, SAVE_STEPS = 80, 10
# A sign of life comes every 1.6 s then.
SILENCE_S = 8
QUICK = {"HEARTBEAT_TIMEOUT_S": str(SILENCE_S)}
# On a machine that has other things to do.
STARTED_S, ENDED_S = 120, 240


@pytest.fixture
def machines() -> Iterator[Machines]:
    with two_machines() as found:
        yield found


def settings(model: Path, data: Path, output: Path, **changed: Any) -> TrainSettings:
    values = {"model_name_or_path": str(model), "dataset_dir": str(data), "dataset": "who", "output_dir": str(output),
              "max_steps": STEPS, "save_steps": SAVE_STEPS, "logging_steps": 1, "learning_rate": 1e-3,
              "adam_epsilon": 1e-3, "lora_dropout": 0.0, "gradient_accumulation_steps": 2}  # fmt: skip
    return parse(values | changed)


def start(machines: Machines, wanted: TrainSettings, **environment: str) -> list["subprocess.Popen[str]"]:
    """The command of each machine, on each."""
    folder = Path(wanted.output_dir).parent
    return [machines.start(rank, runs.command(wanted, TWO, rank), folder / f"terminal{rank}", **environment)
            for rank in range(2)]  # fmt: skip


def as_a_job(machines: Machines, folder: Path, **changed: str) -> list["subprocess.Popen[str]"]:
    """The pods of the Kubernetes manifest's Indexed Job for the run in `folder`, one on each machine."""
    mine = {"SETTINGS": str(folder / run_folder.CONFIG), "RUN": str(folder), "MASTER_ADDR": ADDRESSES[0],
            "NPROC_PER_NODE": "1", **changed}  # fmt: skip
    launchers = []
    for index in range(2):
        words, environment = manifests.job_pod(index, **mine)
        # The image's entry point hands such words on to `tunedesk`.
        program = [sys.executable, "-m", "app", *words]
        launchers.append(machines.start(index, program, folder.parent / f"terminal{index}", **environment))
    return launchers


def resumed(wanted: TrainSettings) -> TrainSettings:
    return wanted.model_copy(update={"resume_from_checkpoint": "latest"})


def after_step(folder: Path, step: int, launchers: list["subprocess.Popen[str]"]) -> None:
    deadline = time.monotonic() + STARTED_S
    while max(steps(folder), default=0) < step:
        assert all(launcher.poll() is None for launcher in launchers), (folder.parent / "terminal0").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(launchers: list["subprocess.Popen[str]"]) -> list[int]:
    return [launcher.wait(ENDED_S) for launcher in launchers]


def by_one_process(wanted: TrainSettings, output: Path) -> dict[int, tuple[float, float]]:
    """The steps of the same training where there is one process with both machines' samples."""
    from trainer import train
    from trainer.distributed import Ranks

    alone = wanted.model_copy(update={"output_dir": str(output), "gradient_accumulation_steps": 4})
    output.mkdir()
    train.train(alone, EventLog(output / run_folder.EVENTS), threading.Event(), Ranks())
    return steps(output)


def told(folder: Path, resumable: bool = True) -> tuple[str, dict[str, Any]]:
    """Code and values of why a run failed, as the page reads them."""
    run = runs.read(folder)
    assert run.status == "failed"
    assert run.resumable is resumable
    assert isinstance(run.problem, tuple)
    return run.problem


@pytest.mark.thorough
def test_a_cut_cable_ends_the_run_on_both_machines_and_what_follows_is_as_if_it_had_held(
    model: Path, data: Path, tmp_path: Path, machines: Machines
) -> None:
    folder, wanted = tmp_path / "run", settings(model, data, tmp_path / "run")
    launchers = start(machines, wanted, **QUICK)
    after_step(folder, SAVE_STEPS + 2, launchers)
    shown = runs.read(folder)
    machines.cut()
    began = time.monotonic()
    assert (shown.status, shown.host) == ("elsewhere", "node0"), "a page that shares only the folder follows it"
    assert f"/{STEPS}" in monitor.status(shown, Text("en"))
    assert ended(launchers) == [1, 1]
    assert time.monotonic() - began < SILENCE_S + 15
    last = max(steps(folder))
    assert last < STEPS, "it was cut in the middle"

    code, values = told(folder)
    assert (code, values["machine"], values["seconds"]) == ("machine_silent", 2, SILENCE_S)
    assert "Machine 2 has given no sign of life for 8 s" in monitor.why(runs.read(folder), Text("en"))
    assert "第 2 台机器" in monitor.why(runs.read(folder), Text("zh"))
    assert "Machine 1 has given no sign of life for 8 s" in (tmp_path / "terminal1").read_text()

    machines.plug()
    assert ended(as_a_job(machines, folder, RESUME="latest")) == [0, 0], (tmp_path / "terminal0").read_text()
    assert finished(folder)["outcome"] == "completed"
    alone = by_one_process(wanted, tmp_path / "alone")
    assert list(steps(folder)) == list(alone) == list(range(1, STEPS + 1))
    for step, (loss, grad_norm) in steps(folder).items():
        assert (loss, grad_norm) == pytest.approx(alone[step], rel=1e-5), step


@pytest.mark.thorough
def test_a_cable_that_is_cut_just_after_the_meeting_leaves_no_machine_waiting(
    model: Path, data: Path, tmp_path: Path, machines: Machines
) -> None:
    """The second one waited on a connection that nobody hung up, without end."""
    launchers = start(machines, settings(model, data, tmp_path / "run"), **QUICK)
    deadline = time.monotonic() + STARTED_S
    while "2 of 2" not in (tmp_path / "terminal0").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    machines.cut()
    assert ended(launchers) == [1, 1]
    code, values = told(tmp_path / "run", resumable=False)
    assert (code, values["seconds"]) == ("machine_silent", SILENCE_S), "whichever of them could write it first"
    assert "Machine 2 has given no sign of life" in (tmp_path / "terminal0").read_text()
    assert "Machine 1 has given no sign of life" in (tmp_path / "terminal1").read_text()


@pytest.fixture(scope="module")
def uninterrupted(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[float, float]]:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    with two_machines() as machines:
        assert ended(start(machines, settings(model, data, folder, lora_dropout=0.1))) == [0, 0]
    return steps(folder)


@pytest.mark.thorough
@pytest.mark.parametrize("victim", [0, 1])
def test_a_machine_without_power_ends_the_run_and_what_follows_is_the_same_to_the_last_bit(
    model: Path, data: Path, tmp_path: Path, machines: Machines, uninterrupted: dict[int, Any], victim: int
) -> None:
    folder, wanted = tmp_path / "run", settings(model, data, tmp_path / "run", lora_dropout=0.1)
    launchers = start(machines, wanted, **QUICK)
    after_step(folder, SAVE_STEPS + 2, launchers)
    machines.lose_power(launchers[victim])
    assert launchers[1 - victim].wait(SILENCE_S + 15) == 1
    assert told(folder) == ("machine_silent", {"machine": victim + 1, "seconds": SILENCE_S})
    assert steps(folder).keys() < uninterrupted.keys()

    machines.plug()
    assert ended(start(machines, resumed(wanted), **QUICK)) == [0, 0]
    assert steps(folder) == uninterrupted


@pytest.mark.thorough
def test_a_machine_whose_processes_are_killed_is_noticed_at_once(
    model: Path, data: Path, tmp_path: Path, machines: Machines
) -> None:
    folder = tmp_path / "run"
    launchers = start(machines, settings(model, data, folder))
    after_step(folder, SAVE_STEPS + 2, launchers)
    launchers[1].kill()
    assert launchers[0].wait(15) == 1
    code, values = told(folder)
    assert code == "connection_lost"
    assert ADDRESSES[1] in values["detail"]
    assert "/" not in values["detail"], "no line of C++"


@pytest.mark.thorough
def test_a_second_machine_that_never_comes_leaves_the_folder_to_whoever_starts_next(
    model: Path, data: Path, tmp_path: Path, machines: Machines
) -> None:
    wanted = settings(model, data, tmp_path / "run", max_steps=4)
    second = machines.start(1, runs.command(wanted, TWO, 1), tmp_path / "terminal1", MEET_TIMEOUT_S="2")
    assert second.wait(STARTED_S) == 1, "the first one never came"
    assert "did not answer at 10.231.77.1:29500 within 2 s" in (tmp_path / "terminal1").read_text()
    assert not (tmp_path / "run" / run_folder.EVENTS).exists()
    first = machines.start(0, runs.command(wanted, TWO, 0), tmp_path / "terminal0", MEET_TIMEOUT_S="2")
    assert first.wait(STARTED_S) == 1
    assert finished(tmp_path / "run")["code"] == "machines_missing"
    assert ended(start(machines, wanted.model_copy(update={"output_dir": str(tmp_path / "another")}))) == [0, 0]


@pytest.mark.thorough
@pytest.mark.parametrize("by", ["the cluster", "a page elsewhere"])
def test_a_stop_saves_and_ends_both(model: Path, data: Path, tmp_path: Path, machines: Machines, by: str) -> None:
    folder = tmp_path / "run"
    launchers = start(machines, settings(model, data, folder, max_steps=3000))
    after_step(folder, 3, launchers)
    if by == "a page elsewhere":
        assert runs.read(folder).status == "elsewhere"
        assert runs.stop(folder)
    else:  # as when the Job is deleted
        for launcher in launchers:
            ask_to_stop(launcher)
    assert ended(launchers) == [0, 0]
    assert finished(folder)["outcome"] == "stopped"
    assert run_folder.step_of(run_folder.checkpoints(folder)[-1]) == finished(folder)["step"]


@pytest.mark.thorough
def test_a_long_save_is_no_silence_and_an_endless_one_ends_with_ddp_timeout(
    model: Path, data: Path, tmp_path: Path, machines: Machines
) -> None:
    folder = tmp_path / "run"
    launchers = start(machines, settings(model, data, folder, max_steps=3000, ddp_timeout=3 * SILENCE_S), **QUICK)
    after_step(folder, SAVE_STEPS + 2, launchers)
    [process] = [one for one in psutil.Process(launchers[0].pid).children(recursive=True)
                 if one.environ().get("RANK") == "0"]  # fmt: skip
    process.send_signal(signal.SIGSTOP)
    time.sleep(2 * SILENCE_S)
    process.send_signal(signal.SIGCONT)
    after_step(folder, max(steps(folder)) + 5, launchers)

    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert ended(launchers) == [1, 1]  # torchrun gives a stopped process half a minute to end
    assert time.monotonic() - began > 3 * SILENCE_S - 2
    code, values = told(folder)
    assert (code, "Timed out" in values["detail"]) == ("connection_lost", True)
