"""Several processes (gloo, on the processor): the same losses as one, one word to stop all, no process left over."""

import shutil
import signal
import socket
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
from tests.conftest import ROOT
from tests.trainer.test_train import ONE_THREAD, command, data, finished, model, steps
from trainer import run_folder
from trainer.events import EventLog, read_events
from trainer.validation import holding

pytestmark = pytest.mark.slow
__all__ = ["data", "model"]  # fixtures

# Adam divides by the root of the second moment: where that is near zero, the order of a sum decides the sign.
SETTINGS: dict[str, Any] = {"max_steps": 12, "save_steps": 5, "val_size": 0.2, "adam_epsilon": 1e-3, "logging_steps": 1,
                            "learning_rate": 3e-3, "per_device_train_batch_size": 2}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"finetuning_type": "lora"},
    "full": {"finetuning_type": "full", "weight_decay": 0.01},
    "sharded-lora": {"finetuning_type": "lora", "fsdp": "true"},
    "sharded-dora": {
        "finetuning_type": "lora",
        "fsdp": "true",
        "use_dora": "true",
        "pissa_init": "true",
        "additional_target": "norm",
    },
}
TWO = {**ONE_THREAD, "NPROC_PER_NODE": "2"}


def in_one_process(argv: list[str]) -> None:
    """The same as the command, in this process, which has torch already."""
    from trainer import train as loop
    from trainer.distributed import Ranks
    from trainer.events import EventLog
    from trainer.settings import parse

    settings = parse(dict(word.split("=", 1) for word in argv[3:]))
    Path(settings.output_dir).mkdir(exist_ok=True)
    loop.train(settings, EventLog(Path(settings.output_dir) / run_folder.EVENTS), threading.Event(), Ranks())


def in_16_bits(model: Path, folder: Path) -> Path:
    """A copy of `model`, as most models are stored: where weights are sharded, it is read so and widened."""
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(model, folder / "model"))
    tensors = load_file(copy / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, copy / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    return copy


@pytest.fixture(scope="module")
def trained(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind by one process (one-…), by two (two-…), and by two from a checkpoint of one (mixed-…)."""
    folder = tmp_path_factory.mktemp("runs")
    files = []
    for kind, settings in (
        {**KINDS, "full": KINDS["full"] | {"model_name_or_path": in_16_bits(model, folder)}}
    ).items():
        one = folder / f"one-{kind}"
        in_one_process(command(model, data, one, **SETTINGS, **settings, gradient_accumulation_steps=4))
        resumed = {"resume_from_checkpoint": one / "checkpoint-5", "gradient_accumulation_steps": 2}
        for name, more in {"two": {"gradient_accumulation_steps": 2}, "mixed": resumed}.items():
            words = command(model, data, folder / f"{name}-{kind}", **SETTINGS, **settings, **more)[3:]
            file = folder / f"{name}-{kind}.yaml"
            file.write_text("\n".join(word.replace("=", ": ", 1) for word in words))
            files.append(str(file))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*torchrun, "-m", "tests.trainer.two_processes", *files], cwd=ROOT, env=ONE_THREAD,
                          capture_output=True, text=True, timeout=200, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["two", "mixed"])
def test_two_processes_take_the_steps_of_one(trained: Path, name: str, kind: str) -> None:
    one, two = steps(trained / f"one-{kind}"), steps(trained / f"{name}-{kind}")
    assert list(two) == list(range(1 if name == "two" else 6, 13))
    for step, (loss, grad_norm) in two.items():
        assert loss == pytest.approx(one[step][0], rel=1e-5)
        assert grad_norm == pytest.approx(one[step][1], rel=1e-5)
    assert finished(trained / f"{name}-{kind}")["eval_loss"] == pytest.approx(
        finished(trained / f"one-{kind}")["eval_loss"], rel=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_two_processes_save_is_what_one_saves(trained: Path, kind: str) -> None:
    import torch
    from safetensors.torch import load_file

    [name] = [name for name in run_folder.WEIGHT_FILES if (trained / f"one-{kind}" / name).exists()]
    one, two = load_file(trained / f"one-{kind}" / name), load_file(trained / f"two-{kind}" / name)
    assert one.keys() == two.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-5)
    assert run_folder.is_resumable(run_folder.checkpoints(trained / f"two-{kind}")[-1])


def test_one_process_goes_on_from_what_two_with_shards_have_saved(trained: Path, model: Path, data: Path) -> None:
    saved, back = trained / "two-sharded-lora" / "checkpoint-5", trained / "back"
    in_one_process(command(model, data, back, **SETTINGS, gradient_accumulation_steps=4, resume_from_checkpoint=saved))
    assert max(steps(back)) == SETTINGS["max_steps"]
    for step, (loss, grad_norm) in steps(back).items():
        assert (loss, grad_norm) == pytest.approx(steps(trained / "one-lora")[step], rel=1e-5)


def test_a_stop_does_not_stumble_over_a_process_that_has_just_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer import torchrun

    ended, waits = (subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2))
    children = [psutil.Process(process.pid) for process in (ended, waits)]
    ended.communicate(b"\n")
    monkeypatch.setattr(psutil.Process, "children", lambda _: children)
    torchrun.relay_stop(EventLog(tmp_path / "events.jsonl"))
    assert waits.wait(10) == -torchrun.STOP


@pytest.fixture
def no_process_stays() -> Iterator[None]:
    yield
    left = [process for process in psutil.process_iter(["environ"])
            if (process.info["environ"] or {}).get("TUNEDESK_LAUNCHER") and "TWO_TEST" in process.info["environ"]]  # fmt: skip
    for process in left:
        process.kill()
    assert not left


def after_step(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while max(steps(folder), default=0) < step:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.usefixtures("no_process_stays")
def test_a_stop_saves_and_a_killed_process_ends_the_others_by_name(
    model: Path, data: Path, tmp_path: Path, trained: Path
) -> None:
    run = tmp_path / "run"
    argv = command(model, data, run, gradient_accumulation_steps=2, max_steps=3000, save_steps=9999, lora_dropout=0.1)
    environment = {**TWO, "TWO_TEST": "1"}
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(argv, env=environment, stderr=log)
        after_step(run, 3)
        assert runs.read(run).status == "running"
        assert runs.stop(run)
        assert first.wait(30) == 0
    stopped = finished(run)
    assert stopped["outcome"] == "stopped"
    assert run_folder.checkpoints(run)[-1].name == f"checkpoint-{stopped['step']}"
    assert "Traceback" not in (tmp_path / "log").read_text()

    second = subprocess.Popen([*argv, "resume_from_checkpoint=latest"], env=environment, stderr=subprocess.DEVNULL)
    after_step(run, stopped["step"] + 3)
    assert sorted(steps(run)) == list(range(1, max(steps(run)) + 1))
    ranks = psutil.Process(second.pid).children()
    assert len(ranks) == 2
    [victim] = [process for process in ranks if process.environ()["RANK"] == "1"]
    began = time.monotonic()
    victim.kill()
    assert second.wait(20) == 1
    assert time.monotonic() - began < 8
    after = runs.read(run)
    assert after.status == "failed"
    assert isinstance(after.problem, tuple)
    assert after.problem[0] == "process_died"
    assert after.problem[1]["rank"] == 1


def test_a_process_ends_with_its_launcher_even_when_that_is_killed() -> None:
    child = (
        "import os, time; from trainer import torchrun; torchrun.end_with_the_parent(); print(os.getpid(), flush=True); "
        "time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys; os.environ['TUNEDESK_LAUNCHER'] = str(os.getpid()); "
        f"subprocess.run([sys.executable, '-c', {child!r}])"
    )
    launcher = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert launcher.stdout is not None
    follower = psutil.Process(int(launcher.stdout.readline()))
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    launcher.stdout.close()
    psutil.wait_procs([follower], timeout=5)
    assert not follower.is_running() or follower.status() == psutil.STATUS_ZOMBIE


def test_settings_that_are_wrong_everywhere_are_told_once(model: Path, data: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(model, data, tmp_path / "run", dataset="nothing"), env=TWO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("nothing") == 1
    assert not (tmp_path / "run").exists()


def test_an_address_that_cannot_be_used_is_refused_before_anything_starts(
    model: Path, data: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            command(model, data, tmp_path / "run"), capture_output=True, text=True, timeout=60, check=False,
            env=machine(0, taken.getsockname()[1]),
        )  # fmt: skip
    assert done.returncode == 2
    assert "MASTER_PORT" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_stop_is_answered_while_another_machine_is_waited_for(model: Path, data: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(model, data, tmp_path / "run"), env=machine(0, free_port()))
    waiting = waits_for_machines(tmp_path / "run")
    assert (waiting["here"], waiting["machines"]) == (1, 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert finished(tmp_path / "run")["outcome"] == "stopped"


@pytest.mark.parametrize(("node", "code"), [(0, "machines_missing"), (1, "first_machine_silent")])
def test_machines_that_do_not_come_end_the_run_with_what_was_waited_for(
    model: Path, data: Path, tmp_path: Path, node: int, code: str
) -> None:
    port = free_port()
    done = subprocess.run(
        command(model, data, tmp_path / "run"), capture_output=True, text=True, timeout=60, check=False,
        env={**machine(node, port), "MEET_TIMEOUT_S": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr.splitlines()[0], "said at once"
    assert "within 1 s" in done.stderr
    assert "Traceback" not in done.stderr
    if node:  # the folder may be a shared one, which the first machine has not taken yet
        assert not (tmp_path / "run" / run_folder.EVENTS).exists()
        return
    end = finished(tmp_path / "run")
    assert (end["outcome"], end["code"], end["address"]) == ("failed", code, f"127.0.0.1:{port}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def machine(rank: int, port: int) -> dict[str, str]:
    """The environment of one of two machines."""
    return {**ONE_THREAD, "NPROC_PER_NODE": "1", "NNODES": "2", "NODE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "TWO_TEST": "1"}  # fmt: skip


def waits_for_machines(folder: Path) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        events, _ = read_events(folder / run_folder.EVENTS)
        if found := [event for event in events if event.get("stage") == "waiting_for_machines"]:
            return found[-1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.usefixtures("no_process_stays")
@pytest.mark.parametrize(
    ("victim", "number", "code"),
    [
        ("0", signal.SIGKILL, "process_died"),
        pytest.param("launcher", signal.SIGKILL, "killed_unseen", marks=pytest.mark.thorough),
        pytest.param("launcher", signal.SIGHUP, "killed", marks=pytest.mark.thorough),
    ],
)
def test_whatever_is_killed_no_process_stays_and_the_cause_is_told(
    model: Path, data: Path, tmp_path: Path, victim: str, number: signal.Signals, code: str
) -> None:
    run = tmp_path / "run"
    launcher = subprocess.Popen(command(model, data, run, max_steps=3000, save_steps=9999), stderr=subprocess.DEVNULL,
                                env={**TWO, "TWO_TEST": "1"})  # fmt: skip
    after_step(run, 2)
    ranks = psutil.Process(launcher.pid).children()
    [process] = [one for one in ranks if one.environ()["RANK"] == victim] or [psutil.Process(launcher.pid)]
    process.send_signal(number)
    launcher.wait(10)
    assert psutil.wait_procs(ranks, timeout=5)[1] == []
    after = runs.read(run)
    assert not after.alive
    problem = after.problem if isinstance(after.problem, tuple) else (after.problem.code if after.problem else "",)
    assert problem[0] == code


@pytest.mark.thorough
@pytest.mark.usefixtures("no_process_stays")
def test_the_first_machine_tells_who_was_killed_on_another(model: Path, data: Path, tmp_path: Path) -> None:
    port = free_port()
    launchers = [subprocess.Popen(command(model, data, tmp_path / f"run{rank}", max_steps=3000, save_steps=9999),
                                  stderr=subprocess.DEVNULL, env=machine(rank, port)) for rank in range(2)]  # fmt: skip
    after_step(tmp_path / "run0", 2)
    [victim] = psutil.Process(launchers[1].pid).children()
    victim.kill()
    assert [launcher.wait(20) for launcher in launchers] == [1, 1]
    for rank in range(2):
        end = finished(tmp_path / f"run{rank}")
        assert (end["code"], end["rank"], end["detail"]) == ("process_died", 1, "SIGKILL")


# ---- short of memory ----


def short_of_memory(argv: list[str], room: int, free: str, budget: int) -> tuple[list[str], dict[str, str]]:
    """The command and environment of a run whose second process has no memory for passes of more than `room` tokens."""
    words = [*argv[:2], "tests.trainer.short_of_memory", *argv[3:]]
    return words, {"PYTHONPATH": str(ROOT), "ROOM": str(room), "FREE": free, "BUDGET": str(budget)}


def warned(folder: Path) -> list[tuple[Any, ...]]:
    """The codes of a run's warnings, each with its one value."""
    events, _ = read_events(folder / run_folder.EVENTS)
    return [tuple(event.values())[2:] for event in events if event["event"] == "warning"]


@pytest.mark.thorough
@pytest.mark.usefixtures("no_process_stays")
def test_a_process_of_shards_that_is_short_of_memory_ends_no_run(
    trained: Path, model: Path, data: Path, tmp_path: Path
) -> None:
    run, undisturbed = tmp_path / "run", trained / "two-sharded-lora"
    settings = {**SETTINGS, **KINDS["sharded-lora"], "gradient_accumulation_steps": 2}
    argv, environment = short_of_memory(command(model, data, run, **settings), room=64, free="6,0", budget=128)
    done = subprocess.run(argv, env={**TWO, **environment, "TWO_TEST": "1"}, capture_output=True, text=True,
                          timeout=250, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert warned(run) == [("token_budget_halved", 64), ("started_again", 5)]
    events, _ = read_events(run / run_folder.EVENTS)
    told = [event for event in events if event["event"] == "step"]
    assert [event["step"] for event in told] != sorted({event["step"] for event in told}), "steps were repeated"
    for event in told:
        expected = steps(undisturbed)[event["step"]]
        assert (event["loss"], event["grad_norm"]) == pytest.approx(expected, rel=1e-5)
    assert [event["step"] for event in holding(events)[0]] == list(range(1, 13)), "each is shown once"
    end = finished(run)
    assert end["outcome"] == "completed"
    assert end["eval_loss"] == pytest.approx(finished(undisturbed)["eval_loss"], rel=1e-5)
    assert "go on after step 5" in monitor.warnings(runs.read(run), Text("en"))


@pytest.mark.thorough
@pytest.mark.usefixtures("no_process_stays")
def test_a_shortage_on_another_machine_starts_both_again(
    trained: Path, model: Path, data: Path, tmp_path: Path
) -> None:
    port = free_port()
    settings = {**SETTINGS, **KINDS["sharded-lora"], "gradient_accumulation_steps": 2}
    launchers = []
    for rank in range(2):
        output = tmp_path / f"run{rank}"
        argv, environment = short_of_memory(command(model, data, output, **settings), room=64, free="2,0", budget=128)
        launchers.append(subprocess.Popen(argv, env={**machine(rank, port), **environment}, stderr=subprocess.DEVNULL))
    assert [launcher.wait(250) for launcher in launchers] == [0, 0]
    first = tmp_path / "run0"
    assert warned(first) == [("token_budget_halved", 64), ("started_again", 0)], "nothing was saved yet"
    assert warned(tmp_path / "run1") == [], "the first one speaks for all"
    assert finished(first)["outcome"] == "completed"
    for step, found in steps(first).items():
        assert found == pytest.approx(steps(trained / "two-sharded-lora")[step], rel=1e-5)
