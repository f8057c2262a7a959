"""A checkpoint that was damaged after it was saved: going on from it is refused by its name, and the one before it works."""

import random
import shutil
from pathlib import Path

import pytest

from app import monitor, runs
from app.text import Text
from tests.faults import shown
from tests.faults.conftest import sample
from tests.faults.test_corrupt import REPLACEMENTS, replaced
from tests.trainer.forks import Forks
from tests.trainer.test_resume import told
from tests.trainer.test_train import command, data, model
from trainer import run_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
__all__ = ["data", "model"]  # fixtures

SETTINGS = {"max_steps": 9, "save_steps": 3, "logging_steps": 1}
FILES = ("trainer_state.json", "optimizer.pt", "rng_state.pt", "adapter_config.json", "adapter_model.safetensors")
KINDS = ("half", "one byte less", "bits", *(kind for kind in REPLACEMENTS if kind != "device"))


@pytest.fixture(scope="module")
def stopped(fork: Forks, model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run that nothing interrupted, and one that was killed before its last checkpoint."""
    folder = tmp_path_factory.mktemp("runs")
    for name, kill in (("whole", None), ("killed", (r"rename /\.checkpoint-9", 1))):
        fork.train(command(model, data, folder / name, **SETTINGS)[3:], folder / name, kill)
    assert [path.name for path in run_folder.checkpoints(folder / "killed")] == ["checkpoint-3", "checkpoint-6"]
    return folder / "whole", folder / "killed"


def damage(path: Path, kind: str) -> None:
    data = path.read_bytes()
    if kind == "half":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "one byte less":
        path.write_bytes(data[:-1])
    elif kind == "bits":
        draw, bits = random.Random(0), bytearray(data)
        for _ in range(20):
            bits[draw.randrange(min(200, len(bits)))] ^= 255
        path.write_bytes(bytes(bits))
    else:
        replaced(path, REPLACEMENTS[kind])


@pytest.mark.parametrize(("name", "kind"), sample(2, FILES, KINDS))
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_it_goes_on(
    fork: Forks, stopped: tuple[Path, Path], model: Path, data: Path, tmp_path: Path, name: str, kind: str
) -> None:
    whole, killed = stopped
    run = Path(shutil.copytree(killed, tmp_path / "runs" / "run"))
    damage(run / "checkpoint-6" / name, kind)
    shown.of(run.parent)
    argv = [*command(model, data, run, **SETTINGS)[3:], "resume_from_checkpoint=latest"]
    status = fork.train(argv, run).status
    if status:
        end = runs.read(run)
        assert (status, end.status) == (1, "failed")
        assert "checkpoint-6" in monitor.why(end, Text("en"))
        assert (run / "checkpoint-3").exists()
        shutil.rmtree(run / "checkpoint-6")
        assert fork.train(argv, run).status == 0
    assert told(run) == told(whole)
