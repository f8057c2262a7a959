"""Training through the real command on a tiny model: what a run leaves behind, stop, resume, exactness."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import build_tiny_model
from tests.trainer.forks import Ended, forks
from trainer import run_folder
from trainer.events import read_events

pytestmark = pytest.mark.slow

# A tiny model computes fastest on one core, and the tests share two.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {
            "instruction": f"你好，你是谁？{'请说。' * (number % 5)}",
            "output": f"我是北大人工智能助手{'！' * (number % 7)}",
        }
        for number in range(40)
    ]
    (folder / "who.json").write_text(json.dumps(rows))
    return folder


Train = Callable[[list[str]], Ended]


def command(model: Path, data: Path, output: Path, **settings: Any) -> list[str]:
    values = {
        "model_name_or_path": model,
        "dataset_dir": data,
        "dataset": "who",
        "output_dir": output,
        "logging_steps": 1,
        "learning_rate": 1e-3,
    } | settings
    return [sys.executable, "-m", "trainer", *(f"{key}={value}" for key, value in values.items())]


@pytest.fixture(scope="module")
def train() -> Iterator[Callable[[list[str]], Ended]]:
    """Runs a command's training to its end, without the seconds of importing torch for each."""
    with forks() as forked:
        yield lambda argv: forked.train(
            argv[3:], Path(next(word[11:] for word in argv if word.startswith("output_dir=")))
        )


def steps(folder: Path) -> dict[int, tuple[float, float]]:
    events, _ = read_events(folder / run_folder.EVENTS)
    return {event["step"]: (event["loss"], event["grad_norm"]) for event in events if event["event"] == "step"}


def finished(folder: Path) -> dict[str, Any]:
    events, _ = read_events(folder / run_folder.EVENTS)
    assert events[-1]["event"] == "finished", events[-1]
    return events[-1]


def test_a_run_leaves_everything_that_it_promises(model: Path, data: Path, tmp_path: Path) -> None:
    argv = command(model, data, tmp_path / "run", num_train_epochs=4, save_steps=5, val_size=0.2, template="qwen")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    for name in (
        "config.yaml",
        "run.json",
        "train.log",
        "training_loss.png",
        "adapter_model.safetensors",
        "tokenizer.json",
    ):
        assert (run / name).is_file(), name
    assert [path.name for path in run_folder.checkpoints(run)] == ["checkpoint-5", "checkpoint-8"]
    assert "You are Qwen" in (run / "chat_template.jinja").read_text(), "the result chats with the template it learnt"
    events, _ = read_events(run / "events.jsonl")
    stages = [event["stage"] for event in events if event["event"] == "stage"]
    assert stages[:4] == ["starting", "preparing_data", "loading_model", "training"]
    assert [event["step"] for event in events if event["event"] == "evaluated"] == [5, 8]
    assert [event["memory_gib"] > 0 for event in events if event["event"] == "estimate"] == [True]
    losses = [loss for loss, _ in steps(run).values()]
    assert losses[-1] < losses[0]
    assert finished(run)["outcome"] == "completed"
    mask = os.umask(0)
    os.umask(mask)
    assert (run / "adapter_model.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask
    assert not list(run.glob("**/*.saving"))


def test_the_same_seed_gives_the_same_run_and_a_finished_run_is_never_overwritten(
    model: Path, data: Path, tmp_path: Path, train: Train
) -> None:
    settings = {"num_train_epochs": 1, "lora_dropout": 0.1}
    for name in ("a", "b"):
        assert train(command(model, data, tmp_path / name, **settings)).status == 0
    assert steps(tmp_path / "a") == steps(tmp_path / "b")
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    again = train(command(model, data, tmp_path / "a", **settings))
    assert again.status == 2
    assert "already holds a run" in again.errors
    assert {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()} == before


def stop_after(argv: list[str], folder: Path, step: int, number: signal.Signals) -> None:
    """Runs until `step` is logged, then sends the signal."""
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, env=ONE_THREAD)
    deadline = time.monotonic() + 60
    while max(steps(folder), default=0) < step:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    process.wait(60)


def test_a_run_that_was_stopped_goes_on_as_the_uninterrupted_one_to_the_bit(
    model: Path, data: Path, tmp_path: Path, train: Train
) -> None:
    """For runs that were killed see test_resume.py."""
    settings = {
        "num_train_epochs": 10,
        "logging_steps": 3,
        "save_steps": 4,
        "lora_dropout": 0.2,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 7,
        "weight_decay": 0.01,
    }
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(command(model, data, whole, **settings)).status == 0
    argv = command(model, data, stopped, **settings)
    stop_after(argv, stopped, 9, signal.SIGTERM)
    assert finished(stopped)["outcome"] == "stopped"
    assert run_folder.checkpoints(stopped)[-1].name == f"checkpoint-{finished(stopped)['step']}"
    assert train([*argv, "resume_from_checkpoint=latest"]).status == 0
    assert steps(stopped) == steps(whole)
    assert finished(stopped)["outcome"] == "completed"


def test_full_tuning_leaves_a_model_that_loads_by_itself(model: Path, data: Path, tmp_path: Path, train: Train) -> None:
    argv = command(model, data, tmp_path / "run", finetuning_type="full", max_steps=2, compute_type="bf16")
    assert train(argv).status == 0
    from trainer.model_folder import check_model_folder

    check_model_folder(tmp_path / "run")
    check_model_folder(tmp_path / "run" / "checkpoint-2")
    chained = command(tmp_path / "run", data, tmp_path / "second", max_steps=1)
    assert train(chained).status == 0


def test_an_adapter_can_be_trained_further(model: Path, data: Path, tmp_path: Path, train: Train) -> None:
    assert train(command(model, data, tmp_path / "first", num_train_epochs=4)).status == 0
    argv = command(model, data, tmp_path / "second", max_steps=2, adapter_name_or_path=tmp_path / "first")
    assert train(argv).status == 0
    assert steps(tmp_path / "second")[1][0] < steps(tmp_path / "first")[1][0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cutoff_len": 4}, "Cutoff length"),
        ({"learning_rate": 1e30, "max_grad_norm": 0}, "Learning rate|loss became"),
        ({"learning_rate": 1e30, "max_steps": 1, "val_size": 0.2}, "loss became nan at step 1"),
    ],
)
def test_a_failure_while_training_is_one_sentence_in_the_events(
    model: Path, data: Path, tmp_path: Path, settings: dict[str, Any], words: str, train: Train
) -> None:
    import re

    from app import monitor, runs
    from app.text import Text

    done = train(command(model, data, tmp_path / "run", **settings))
    assert done.status == 1
    assert finished(tmp_path / "run")["outcome"] == "failed"
    shown = monitor.status(runs.read(tmp_path / "run"), Text("en"))
    assert re.search(words, shown), shown
    assert "Traceback" not in shown + done.errors
    assert "Traceback" in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_name_or_path": "/nowhere"}, "/nowhere"),
        ({"dataset": "nothing"}, "nothing"),
        ({"dataset": ""}, "Dataset"),
        ({"dataset_dir": "/nowhere"}, "/nowhere"),
        ({"learning_rate": "abc"}, "abc"),
        ({"val_size": 0.001}, "Val size"),
        ({"lora_target": "no_such_layer"}, "no_such_layer"),
        ({"no_such_key": 1}, "no_such_key"),
        ({"output_dir": "/proc/run"}, "/proc"),
        ({"resume_from_checkpoint": "latest"}, "no complete checkpoint"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_starts(
    model: Path, data: Path, tmp_path: Path, settings: dict[str, Any], words: str, train: Train
) -> None:
    done = train(command(model, data, tmp_path / "run", **settings))
    assert done.status == 2
    assert words in done.errors
    assert "Traceback" not in done.errors
    assert not (tmp_path / "run").exists()


def test_an_argument_that_is_not_understood_never_hides_another(
    model: Path, data: Path, tmp_path: Path, train: Train
) -> None:
    argv = command(model, data, tmp_path / "run")
    for words, named in (
        (["-v", "max_steps=2"], "-v"),
        (["--no_such_flag", "max_steps=2"], "no_such_flag"),
        (["--bf16", "maybe"], "bf16"),
        (["--model_name_or_pth", "/x"], "/x"),
        (["--max_steps", "-7"], "-7"),
    ):
        done = train([*argv, *words])
        assert done.status == 2
        assert named in done.errors
        assert "Traceback" not in done.errors


def test_a_finished_run_is_not_resumed_over(model: Path, data: Path, tmp_path: Path, train: Train) -> None:
    argv = command(model, data, tmp_path / "run", max_steps=1, do_train="true", overwrite_output_dir="false")
    assert train(argv).status == 0
    again = train([*argv, "resume_from_checkpoint=latest"])
    assert again.status == 2
    assert "finished" in again.errors


def test_no_checkpoint_holds_what_is_not_a_number(model: Path, data: Path, tmp_path: Path, train: Train) -> None:
    settings = {"learning_rate": 1e30, "max_grad_norm": 0, "logging_steps": 50, "save_steps": 1, "max_steps": 9}
    assert train(command(model, data, tmp_path / "run", **settings)).status == 1
    assert finished(tmp_path / "run")["code"] == "loss_not_finite"
    from safetensors.torch import load_file

    saved = run_folder.checkpoints(tmp_path / "run")
    assert len(saved) < 9
    for path in saved[:1]:
        assert all(tensor.isfinite().all() for tensor in load_file(path / "adapter_model.safetensors").values())


def test_a_model_or_adapter_that_lacks_layers_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    import shutil

    import torch

    from tests.tiny import build_tiny_adapter
    from trainer.model import attach_adapter, load_model
    from trainer.problems import Problem

    deep = tmp_path / "deep"
    shutil.copytree(model, deep)
    config = json.loads((deep / "config.json").read_text())
    config["num_hidden_layers"] = 4
    config.pop("layer_types", None)
    (deep / "config.json").write_text(json.dumps(config))
    with pytest.raises(Problem, match="lacks"):
        load_model(deep, torch.float32, torch.device("cpu"))
    other = build_tiny_model(tmp_path / "four", layers=4)
    adapter = build_tiny_adapter(tmp_path / "adapter", other)
    with pytest.raises(Problem, match="does not fit"):
        attach_adapter(load_model(model, torch.float32, torch.device("cpu")), adapter)


def test_two_trainers_never_share_a_folder(model: Path, data: Path, tmp_path: Path, train: Train) -> None:
    argv = command(model, data, tmp_path / "run", num_train_epochs=100)
    first = subprocess.Popen(argv, stderr=subprocess.DEVNULL, env=ONE_THREAD)
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "run" / "config.yaml").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        second = train(argv)
        assert second.status == 2
        assert "run" in second.errors
    finally:
        first.kill()
        first.wait()
