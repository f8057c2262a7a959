"""Weights read ahead into a device's memory are those that transformers loads."""

import os
from pathlib import Path

import pytest
import torch

from tests.tiny import build_tiny_model
from trainer import weights
from trainer.device import current
from trainer.model import load_model
from trainer.weights import Weights

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose weights are in several files."""
    model = load_model(build_tiny_model(tmp_path / "whole"), torch.float32, torch.device("cpu"))
    model.save_pretrained(tmp_path / "model", max_shard_size="40KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 2
    return tmp_path / "model"


@pytest.mark.parametrize("piece", [1000, 2**20])
def test_a_model_made_of_weights_read_ahead_is_the_one_that_transformers_loads(
    folder: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "PIECE", piece)
    device = current().torch_device
    ahead = load_model(folder, torch.float32, device, weights=Weights(folder, device))
    plain = load_model(folder, torch.float32, torch.device("cpu"))
    assert ahead.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(ahead.state_dict()[name].cpu(), tensor) for name, tensor in plain.state_dict().items())
    assert ahead.config.to_dict() == plain.config.to_dict()
    assert ahead.generation_config == plain.generation_config
    assert ahead.name_or_path == plain.name_or_path


def test_weights_of_another_dtype_and_a_processors_are_left_to_transformers(folder: Path) -> None:
    assert Weights.of(folder, torch.float32, torch.device("cpu")) is None
    assert Weights.of(folder, torch.bfloat16, torch.device("cuda")) is None


def test_a_file_that_ends_early_is_an_error(folder: Path) -> None:
    file = sorted(folder.glob("*.safetensors"))[-1]
    reading = Weights(folder, torch.device("cpu"))
    reading.state_dict()
    os.truncate(file, file.stat().st_size - 8)
    with pytest.raises(OSError, match=str(file)):
        Weights(folder, torch.device("cpu")).state_dict()
