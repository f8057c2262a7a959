"""Models and checkpoints on this machine, as the page's lists show them."""

import os
from pathlib import Path

from app import runs
from app.text import Text
from trainer import run_folder
from trainer.model_folder import describe, recommended
from trainer.problems import Problem, Problems
from trainer.settings import TrainSettings, as_text, parse
from trainer.settings_file import read_yaml
from trainer.validation import best, holding

Choice = tuple[str, str]


def found(model: str) -> list[Choice]:
    """(name, path) of the models beside `model`, in ./models and in the Hugging Face cache."""
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub")
    places = [Path(model).expanduser().absolute().parent, Path("models").absolute(), cache.expanduser()]
    folders = [Path(model).expanduser().absolute()] if model.strip() else []
    for place in places:
        try:
            folders += sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
        except OSError:
            continue  # not there, or not ours to read
    choices: dict[str, str] = {}
    for folder in folders:
        try:
            name = describe(folder).name
        except Problem:
            continue  # not a model: most folders are none
        if str(folder) not in choices.values():
            choices[name if name not in choices else str(folder)] = str(folder)
    return list(choices.items())


def checkpoints(runs_dir: Path, model: str, text: Text) -> list[Choice]:
    """(label, path) of the finished runs and complete checkpoints of `model`, newest first, the best marked."""
    choices = []
    for folder in runs.find(runs_dir):
        settings = _settings(folder)
        if settings is None or _real(settings.model_name_or_path) != _real(model):
            continue
        best_step, result = _best_steps(folder) if settings.val_size else (None, None)
        names: dict[Path, tuple[str, int | None]] = {}
        if run_folder.has_weights(folder):
            names[folder] = text("checkpoint_result", run=folder.name), result
        for checkpoint in reversed(run_folder.checkpoints(folder)):
            names[checkpoint] = f"{folder.name} / {checkpoint.name}", run_folder.step_of(checkpoint)
        for path, (name, step) in names.items():
            marked = best_step is not None and step == best_step
            choices.append((text("checkpoint_best", name=name) if marked else name, str(path)))
    return choices


def _settings(folder: Path) -> TrainSettings | None:
    """The settings of the run in `folder`; None when they cannot be read."""
    try:
        return parse(read_yaml(folder / run_folder.CONFIG))
    except (Problem, Problems):
        return None


def _best_steps(folder: Path) -> tuple[int | None, int | None]:
    """The step with the run's lowest eval loss, and the one whose weights are its result."""
    run = runs.read(folder)
    lowest, finished = best(holding(run.events)[1]), run.last("finished")
    return lowest["step"] if lowest else None, finished.get("result_step") if finished else None


def same(first: str, second: str) -> bool:
    """Whether two paths lead to one folder."""
    return _real(first) == _real(second)


def _real(model: str) -> str:
    """A path by which the same folder is known however it was typed."""
    return os.path.realpath(os.path.expanduser(model.strip())) if model.strip() else "?"


def as_chosen(model: str, checkpoint: str) -> tuple[str, str | None]:
    """(model, adapter) to load: a full-parameter checkpoint is a model of its own."""
    checkpoint = (checkpoint or "").strip()
    if checkpoint and not run_folder.is_adapter(Path(checkpoint)) and (Path(checkpoint) / "config.json").is_file():
        return checkpoint, None
    return model.strip(), checkpoint or None


def proposed(model: str, key: str) -> str | None:
    """What the model's folder recommends for the setting `key`, as text."""
    value = recommended(model).get(key) if model.strip() else None
    return None if value is None else as_text(value)
