"""Checkpoints: complete or absent, readable by the group as umask says, resumable to the bit.

checkpoint-N/  adapter or model, tokenizer, trainer_state.json, optimizer.pt, rng_state.pt
"""

import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import PreTrainedTokenizerBase

from trainer import device, run_folder
from trainer.adapter import save_adapter
from trainer.plain_file import read_plain
from trainer.problems import Problem
from trainer.run_folder import OPTIMIZER, RESUME_FILES, RNG, STATE
from trainer.validation import Standing


@dataclass
class TrainerState(Standing):
    """Where a run stands. `loss_sum`: losses of the steps since the last logged one. `step_size`: samples of a
    step, which stay the same when a run goes on with another number of processes."""

    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    losses: int = 0
    tokens: int = 0
    last_loss: float | None = None
    step_size: int = 0


def save_model(
    folder: Path, model: Any, tokenizer: PreTrainedTokenizerBase, weights: dict[str, Any] | None = None
) -> None:
    """Adapter or model files and the tokenizer, into `folder`. `weights`: instead of the model's own."""
    if isinstance(model, PeftModel):
        save_adapter(model, folder, weights)
    else:
        model.save_pretrained(str(folder), state_dict=weights)
    tokenizer.save_pretrained(str(folder))
    apply_umask(folder)


def save(
    folder: Path,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    state: TrainerState,
    training: dict[str, Any] | None,
    weights: dict[str, Any] | None = None,
    rng: list[dict[str, Any]] | None = None,
) -> Path:
    """Writes `folder`/checkpoint-N beside its name and renames it, so that a half-written one is never found.

    `training`: state dicts of optimizer, scheduler and scaler, or None for a checkpoint without them.
    `weights`: of a sharded model, gathered. `rng`: `rng_state` of every process, where there are several.
    """
    final = folder / f"checkpoint-{state.step}"
    beside = folder / f".checkpoint-{state.step}.saving"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        save_model(beside, model, tokenizer, weights)
        if training is not None:
            torch.save(training, beside / OPTIMIZER)
            torch.save({"ranks": rng} if rng else rng_state(), beside / RNG)
        (beside / STATE).write_text(json.dumps(asdict(state), indent=1) + "\n")
        apply_umask(beside)
        sync(beside)
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


def finish(
    folder: Path,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    weights: dict[str, Any] | None = None,
    best: Path | None = None,
) -> None:
    """The run's result into the run folder itself; the weights arrive last and whole.

    `best`: the checkpoint whose files are the result, instead of the model as it is.
    """
    beside = folder / ".final.saving"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        if best:
            for path in best.iterdir():
                if path.name not in RESUME_FILES:
                    shutil.copyfile(path, beside / path.name)
        else:
            save_model(beside, model, tokenizer, weights)
        sync(beside)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    for path in sorted(beside.iterdir(), key=lambda path: path.name in run_folder.WEIGHT_FILES):
        path.replace(folder / path.name)
    beside.rmdir()


def prune(folder: Path, keep: int, newest: int, best: int | None) -> None:
    """Removes checkpoints so that `keep` remain, but never those of the steps `newest`, just saved, and `best`.

    Those of later steps, left by a run that went back to an earlier one, go first; then the oldest.
    """
    found = run_folder.checkpoints(folder)
    spare = [path for path in found if run_folder.step_of(path) not in (newest, best)]
    spare.sort(key=lambda path: run_folder.step_of(path) < newest)  # stable: ascending within each
    for path in spare[: max(0, len(found) - keep)]:
        _remove(path)


def check_weights(checkpoint: Path) -> None:
    """Raises Problem when a weight file of `checkpoint` is damaged, as far as its header and length tell."""
    for path in sorted(checkpoint.glob("*.safetensors")):
        with _told_by_name(path), safe_open(path, "pt"):
            pass


def read_state(checkpoint: Path) -> TrainerState:
    with _told_by_name(checkpoint / STATE):
        return TrainerState(**json.loads(read_plain(checkpoint / STATE)))


def read_training(checkpoint: Path) -> dict[str, Any]:
    """The state dicts that `save` was given; tensors on the CPU. Never unpickles code."""
    with _told_by_name(checkpoint / OPTIMIZER):
        return torch.load(checkpoint / OPTIMIZER, map_location="cpu", weights_only=True)


@contextmanager
def _told_by_name(path: Path) -> Iterator[None]:
    """Whatever reading `path` raises becomes the Problem that it is broken: the formats' readers raise all kinds."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Problem("checkpoint_broken", path=str(path.parent), detail=f"{path.name}: {lines[0][:200]}") from error


def rng_state() -> dict[str, Any]:
    """Python's, NumPy's, torch's and the device's random states."""
    version, numbers, gauss = random.getstate()
    kind, values, position, has_gauss, cached = numpy.random.get_state(legacy=True)
    assert isinstance(values, numpy.ndarray)
    state = {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, torch.from_numpy(values.astype("int64")), position, has_gauss, cached],
        "cpu": torch.get_rng_state(),
    }
    if (of_device := device.current().rng_state()) is not None:
        state["device"] = of_device
    return state


def restore_rng(checkpoint: Path, rank: int = 0) -> None:
    """The random states as they were at the checkpoint; a process that was not there keeps its own."""
    with _told_by_name(checkpoint / RNG):
        saved = torch.load(checkpoint / RNG, map_location="cpu", weights_only=True)
        states = saved.get("ranks", [saved])
    if rank >= len(states):
        return
    with _told_by_name(checkpoint / RNG):
        _set_rng(states[rank])


def _set_rng(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, values, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state((kind, values.numpy().astype("uint32"), position, has_gauss, cached))
    torch.set_rng_state(state["cpu"])
    device.current().set_rng_state(state.get("device"))


def apply_umask(folder: Path) -> None:
    """safetensors writes 0600, which shuts out the group and containers that run as another user."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask)


def sync(folder: Path) -> None:
    """To the disk before the rename: a power cut must not leave a complete name over missing bytes."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
