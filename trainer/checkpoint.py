"""Checkpoints: complete or absent, readable by the group as umask says, resumable to the bit.

checkpoint-N/  adapter or model, tokenizer, trainer_state.json, optimizer.pt, rng_state.pt
"""

import json
import os
import random
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from trainer import run_folder
from trainer.run_folder import OPTIMIZER, RNG, STATE


@dataclass
class TrainerState:
    """Where a run stands. `loss_sum`: losses of the steps since the last logged one."""

    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    losses: int = 0
    tokens: int = 0
    last_loss: float | None = None
    best_eval_loss: float | None = field(default=None)


def save_model(folder: Path, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Adapter or model files and the tokenizer, into `folder`."""
    if isinstance(model, PeftModel):
        # "auto" would look the base model up on a hub to see whether its embeddings changed size.
        model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # a card with blanks to fill in
    else:
        model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    _apply_umask(folder)


def save(
    folder: Path,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    state: TrainerState,
    training: dict[str, Any] | None,
) -> Path:
    """Writes `folder`/checkpoint-N beside its name and renames it, so that a half-written one is never found.

    `training`: state dicts of optimizer, scheduler and scaler, or None for a checkpoint without them.
    """
    final = folder / f"checkpoint-{state.step}"
    beside = folder / f".checkpoint-{state.step}.saving"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        save_model(beside, model, tokenizer)
        if training is not None:
            torch.save(training, beside / OPTIMIZER)
            torch.save(_rng_state(), beside / RNG)
        (beside / STATE).write_text(json.dumps(asdict(state), indent=1) + "\n")
        _apply_umask(beside)
        _sync(beside)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)  # a full disk stays full otherwise
        raise
    if final.exists():  # a resumed run comes by a second time
        _remove(final)
    beside.rename(final)
    return final


def _remove(checkpoint: Path) -> None:
    """Gone at once by its name, so that a half-removed one is never found."""
    gone = checkpoint.with_name(f".{checkpoint.name}.removing")
    checkpoint.rename(gone)
    shutil.rmtree(gone)


def finish(folder: Path, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """The run's result into the run folder itself; the weights arrive last and whole."""
    beside = folder / ".final.saving"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    save_model(beside, model, tokenizer)
    _sync(beside)
    for path in sorted(beside.iterdir(), key=lambda path: path.name in run_folder.WEIGHT_FILES):
        path.replace(folder / path.name)
    beside.rmdir()


def prune(folder: Path, keep: int) -> None:
    """Removes the oldest checkpoints so that `keep` remain."""
    for path in run_folder.checkpoints(folder)[:-keep]:
        _remove(path)


def read_state(checkpoint: Path) -> TrainerState:
    return TrainerState(**json.loads((checkpoint / STATE).read_text()))


def read_training(checkpoint: Path) -> dict[str, Any]:
    """The state dicts that `save` was given; tensors on the CPU. Never unpickles code."""
    return torch.load(checkpoint / OPTIMIZER, map_location="cpu", weights_only=True)


def _rng_state() -> dict[str, Any]:
    version, numbers, gauss = random.getstate()
    kind, values, position, has_gauss, cached = numpy.random.get_state(legacy=True)
    assert isinstance(values, numpy.ndarray)
    state = {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, torch.from_numpy(values.astype("int64")), position, has_gauss, cached],
        "cpu": torch.get_rng_state(),
    }
    if torch.accelerator.is_available():
        accelerator = torch.accelerator.current_accelerator()
        assert accelerator is not None
        state["device"] = getattr(torch, accelerator.type).get_rng_state()
    return state


def restore_rng(checkpoint: Path) -> None:
    """Python's, NumPy's, torch's and the device's random states, as they were at the checkpoint."""
    state = torch.load(checkpoint / RNG, map_location="cpu", weights_only=True)
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, values, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state((kind, values.numpy().astype("uint32"), position, has_gauss, cached))
    torch.set_rng_state(state["cpu"])
    if "device" in state and torch.accelerator.is_available():
        accelerator = torch.accelerator.current_accelerator()
        assert accelerator is not None
        getattr(torch, accelerator.type).set_rng_state(state["device"])


def _apply_umask(folder: Path) -> None:
    """safetensors writes 0600, which shuts out the group and containers that run as another user."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask)


def _sync(folder: Path) -> None:
    """To the disk before the rename: a power cut must not leave a complete name over missing bytes."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
