"""kill -9 at any moment, then resume: the run goes on as if nothing had been, with all that a run can have switched on."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import runs
from tests.trainer.forks import Forks, forks
from tests.trainer.test_train import command, data, finished, model  # noqa: F401
from trainer import run_folder
from trainer.events import read_events

pytestmark = pytest.mark.slow

SETTINGS = {
    "max_steps": 24,
    "logging_steps": 3,
    "save_steps": 4,
    "eval_steps": 2,
    "val_size": 0.2,
    "learning_rate": 0.06,  # so high that the eval loss rises again
    "lora_dropout": 0.2,
    "weight_decay": 0.01,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "early_stopping_steps": 2,
    "load_best_model_at_end": "true",
    "save_total_limit": 1,
}
KILLED = -9


@pytest.fixture(scope="module")
def fork() -> Iterator[Forks]:
    with forks() as found:
        yield found


@pytest.fixture(scope="module")
def whole(fork: Forks, model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert fork.train(arguments(model, data, folder), folder).status == 0
    return folder


def arguments(model: Path, data: Path, folder: Path) -> list[str]:  # noqa: F811
    return command(model, data, folder, **SETTINGS)[3:]


def told(folder: Path) -> dict[tuple[str, int], set[tuple[float, ...]]]:
    """What was logged of each step and evaluation; more than one value where a step that was repeated differs."""
    found: dict[tuple[str, int], set[tuple[float, ...]]] = {}
    for event in read_events(folder / run_folder.EVENTS)[0]:
        if event["event"] in ("step", "evaluated"):
            values = [event[key] for key in ("loss", "grad_norm", "learning_rate", "eval_loss") if key in event]
            found.setdefault((event["event"], event["step"]), set()).add(tuple(values))
    return found


def ending(folder: Path) -> dict[str, Any]:
    return {key: value for key, value in finished(folder).items() if key not in ("time", "seconds", "path")}


@pytest.mark.thorough
def test_a_run_without_better_evaluations_is_completed_early_with_its_best_weights(whole: Path) -> None:
    losses = {step: loss for (kind, step), [(loss, *_)] in told(whole).items() if kind == "evaluated"}
    best = min(losses, key=lambda step: losses[step])
    end = finished(whole)
    assert (end["outcome"], end["code"], end["evaluations"]) == ("completed", "stopped_early", 2)
    assert end["step"] == best + 2 * SETTINGS["eval_steps"] < SETTINGS["max_steps"]
    assert end["result_step"] == best
    saved = {event["step"] for event in read_events(whole / run_folder.EVENTS)[0] if event["event"] == "saved"}
    lowest = [step for step in losses if losses[step] == min(loss for other, loss in losses.items() if other <= step)]
    assert saved.issuperset(lowest)
    assert any(step % SETTINGS["save_steps"] for step in lowest), "saved for nothing but being the best so far"
    assert [run_folder.step_of(path) for path in run_folder.checkpoints(whole)] == [best, end["step"]]
    adapter = (whole / "adapter_model.safetensors").read_bytes()
    assert adapter == (whole / f"checkpoint-{best}/adapter_model.safetensors").read_bytes()
    assert adapter != (whole / f"checkpoint-{end['step']}/adapter_model.safetensors").read_bytes()
    assert not [name for name in run_folder.RESUME_FILES if (whole / name).exists()]
    assert not runs.read(whole).resumable


@pytest.mark.parametrize("seed", [0])
def test_a_run_killed_again_and_again_ends_as_the_one_that_was_not(
    fork: Forks,
    whole: Path,
    model: Path,  # noqa: F811
    data: Path,  # noqa: F811
    tmp_path: Path,
    seed: int,
) -> None:
    draw, folder = random.Random(seed), tmp_path / "run"
    argv = arguments(model, data, folder)
    moments = [
        (r"saving \S+ /\.checkpoint-", draw.randint(1, 50)),  # in the middle of its first checkpoint
        (r"rename /\.checkpoint", 1),  # it is complete but for its name
        (r"training open", draw.randint(3, 6)),
        (r"evaluating open", draw.randint(1, 2)),  # evaluated, and not yet told
        (r"saving \S+ /\.checkpoint-\d+\.saving", draw.randint(2, 50)),
        (r"\.removing", draw.randint(1, 3)),
        (r"/\.final\.saving", draw.randint(1, 20)),
        (r"rmdir /\.final\.saving", 1),  # its result is there, and not yet told
    ]
    for kill in moments:
        assert fork.train(argv, folder, kill).status == KILLED, kill
        run = runs.read(folder)
        assert run.status == "died"
        if run.resumable:
            argv = [*arguments(model, data, folder), "resume_from_checkpoint=latest"]
        else:
            shutil.rmtree(folder)
    assert fork.train(argv, folder).status == 0
    assert told(folder) == told(whole)
    assert ending(folder) == ending(whole)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    states = [
        json.loads((run_folder.checkpoints(path)[-1] / "trainer_state.json").read_text()) for path in (folder, whole)
    ]
    assert states[0] | {"seconds": 0} == states[1] | {"seconds": 0}
    assert not [path for path in folder.iterdir() if path.suffix in (".saving", ".removing", ".tmp")]
