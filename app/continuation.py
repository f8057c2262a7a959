"""A run trained further with other settings: the form's values that show its settings, with its result to go on from."""

import json
from pathlib import Path
from typing import Any

import yaml

from app import form, runs
from trainer import run_folder
from trainer.plain_file import read_plain
from trainer.problems import LANGUAGES, Problem, Problems
from trainer.settings import TrainSettings, default_text, parse
from trainer.settings_file import read_yaml

# A checkpoint that is trained further keeps its own: prepare.check refuses to set them.
KEPT_BY_THE_ADAPTER = ("use_rslora", "use_dora", "pissa_init", "additional_target", "create_new_adapter")


def values(folder: Path) -> tuple[dict[str, Any], str]:
    """The form's values by key, and the checkpoint that they go on from, "" where the run has left none.

    Raises Problem when the run's settings cannot be read.
    """
    settings, written = settings_of(folder)
    found = form.values_from(settings, written)
    found["output_dir"] = runs.new_name()
    checkpoint = _result(folder)
    if checkpoint is None:
        return found, ""
    found["adapter_name_or_path"] = str(checkpoint)
    if run_folder.is_adapter(checkpoint):
        found |= _as_the_adapter(checkpoint)
    return found, str(checkpoint)


def settings_of(folder: Path) -> tuple[TrainSettings, dict[str, Any]]:
    """The run's settings, and what its config.yaml says as it is written there. Raises Problem."""
    path = folder / run_folder.CONFIG
    try:
        settings = parse(read_yaml(path))
        return settings, yaml.load(read_plain(path), Loader=yaml.BaseLoader)  # noqa: S506  # makes text of everything, objects of nothing
    except (Problem, Problems, OSError, ValueError) as error:
        raise Problem("run_settings_broken", name=folder.name, detail=_detail(error)) from None


def _detail(error: Exception) -> dict[str, str]:
    """What is wrong, by language, in a line."""
    first = error.problems[0] if isinstance(error, Problems) else error
    said = {one: first.sentence(one) if isinstance(first, Problem) else str(first) for one in LANGUAGES}
    return {one: words.splitlines()[0][:200] for one, words in said.items()}


def _result(folder: Path) -> Path | None:
    """What the run came to, else its last complete checkpoint."""
    if run_folder.has_weights(folder):
        return folder
    found = run_folder.checkpoints(folder)
    return found[-1] if found else None


def _as_the_adapter(checkpoint: Path) -> dict[str, Any]:
    """The form's LoRA values that agree with the adapter's own, which may be several runs' put together."""
    found: dict[str, Any] = dict.fromkeys(KEPT_BY_THE_ADAPTER, False) | {"additional_target": ""}
    try:
        theirs = json.loads(read_plain(checkpoint / "adapter_config.json"))
    except (OSError, ValueError, RecursionError):
        return found  # Start says that it is broken
    pairs = {"lora_rank": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}
    if isinstance(theirs, dict):
        found |= {key: str(theirs[name]) for key, name in pairs.items() if isinstance(theirs.get(name), int | float)}
    return found | {"lora_target": default_text("lora_target")}
