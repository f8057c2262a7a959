"""Models and checkpoints on this machine, as the page's lists show them."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from app import runs
from app.roots import Roots, resolved
from app.text import Text
from trainer import models_here, run_folder, template_family
from trainer.download import size_words
from trainer.model_folder import recommended, resolve
from trainer.models_here import Model
from trainer.problems import Language, Problem, Problems
from trainer.settings import TrainSettings, as_text, parse
from trainer.settings_file import read_yaml
from trainer.validation import best, holding

Choice = tuple[str, str]


def found(model: str, roots: Roots) -> dict[str, Model]:
    """The models of this machine by name, `model` and those beside it first: all that lie within `roots`."""
    here = [Path(os.path.expanduser(model.strip())).absolute()] if model.strip() and model in roots else []
    named: dict[str, Model] = {}
    for one in models_here.find(here, lambda path: path in roots):
        named[one.name if one.name not in named else str(one.path)] = one
    return named


def name_of(model: str, found: Mapping[str, Model]) -> str | None:
    """The name in `found` of what is typed as `model`; None when it is nobody's."""
    wanted = _real(model)
    return next((name for name, one in found.items() if _real(str(one.path)) == wanted), None)


def described(name: str, model: Model, text: Text) -> str:
    """How the list shows `model`: name, size on the disk, parameters, type, chat or base, and whether files are missing."""
    parts = [name, size_words(model.size_bytes)]
    if model.parameters:
        parts.append(_count_words(model.parameters))
    parts.append(model.model_type)
    parts.append(text("model_name.chat" if model.chat else "model_name.base"))
    if model.missing:
        parts.append(text("model_name.incomplete", count=len(model.missing)))
    return " · ".join(parts)


def _count_words(count: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.2f}{unit}" if unit == "B" else f"{count / size:.3g}{unit}"
    return str(count)


class Checkpoints:
    """The checkpoints of all runs, looked up again only where a folder has changed: a page asks every second."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[tuple[int, ...], str, list[tuple[str, str, bool]]]] = {}

    def of(self, model: str, text: Text) -> list[Choice]:
        """(label, path) of the results and complete checkpoints of `model`'s runs, also of those that train now; newest
        first, the best marked."""
        wanted, choices = _real(model), []
        for folder in runs.find(self._runs_dir):
            theirs, found = self._found(folder)
            if theirs != wanted:
                continue
            for checkpoint, path, marked in found:
                name = f"{folder.name} / {checkpoint}" if checkpoint else text("checkpoint_result", run=folder.name)
                choices.append((text("checkpoint_best", name=name) if marked else name, path))
        return choices

    def _found(self, folder: Path) -> tuple[str, list[tuple[str, str, bool]]]:
        """The run's model, and of each checkpoint its name ("" for the result), its path and whether it is the best."""
        state = _state(folder)
        with self._lock:
            known = self._known.get(folder)
        if known is None or known[0] != state:
            settings = _settings(folder)
            model = _real(settings.model_name_or_path) if settings else "?"
            known = state, model, _listed(folder, bool(settings and settings.val_size))
            with self._lock:
                self._known[folder] = known
        return known[1], known[2]


def _state(folder: Path) -> tuple[int, ...]:
    """Changes with the settings, with each checkpoint that is renamed into place, and with each evaluation."""
    found = []
    for path in (folder, folder / run_folder.CONFIG, folder / run_folder.EVENTS):
        try:
            stat = path.stat()
            found += [stat.st_mtime_ns, stat.st_size]
        except OSError:
            found += [0, 0]
    return tuple(found)


def _listed(folder: Path, validated: bool) -> list[tuple[str, str, bool]]:
    best_step, result = _best_steps(folder) if validated else (None, None)
    names: list[tuple[str, Path, int | None]] = []
    if run_folder.has_weights(folder):
        names.append(("", folder, result))
    for checkpoint in reversed(run_folder.checkpoints(folder)):
        names.append((checkpoint.name, checkpoint, run_folder.step_of(checkpoint)))
    return [(name, str(path), best_step is not None and step == best_step) for name, path, step in names]


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
    """A path by which the same model is known however it was typed, also by another snapshot of a hub's cache."""
    try:
        folder = resolve(Path(os.path.expanduser(model.strip()))) if model.strip() else Path()
    except (OSError, ValueError):  # no folder that anyone can open
        folder = Path(model)
    real = resolved(folder.parent.parent if folder.parent.name == "snapshots" else folder) if model.strip() else None
    return str(real or "?")


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


def short_name(checkpoint: str, runs_dir: Path, text: Text) -> str:
    """A checkpoint as one says it: run and step; the model itself for none."""
    path = Path(checkpoint)
    if not checkpoint:
        return text("base_model")
    parts = path.relative_to(runs_dir).parts if path.is_relative_to(runs_dir) else path.parts[-2:]
    return " / ".join(parts)


def knows_thinking(model: str, template: str) -> bool:
    """Whether the chat template can be told to think or not: the named one, the model's own, or its family's."""
    try:
        folder = _folder(model)
        if folder is None and template == "auto":
            return False
        return "enable_thinking" in (template_family.source_of(folder or Path(), template) or "")
    except (OSError, ValueError, RuntimeError):
        return False


def template_notices(model: str, checkpoint: str, template: str, language: Language) -> list[str]:
    """What there is to say of the template before it is used, a sentence each; nothing of what is no model, as the checks
    say that. What was trained with a template brings it."""
    try:
        model, adapter = as_chosen(model, checkpoint)
        folder = _folder(model)
        if folder is None or not (folder / "config.json").is_file():
            return []
        if template == "auto" and adapter and template_family.has_own_template(Path(adapter)):
            return []
        return [problem.sentence(language) for problem in template_family.warnings(folder, template)]
    except (OSError, ValueError, RuntimeError):  # no path that anyone can open
        return []


def _folder(model: str) -> Path | None:
    return resolve(Path(model.strip()).expanduser()) if model.strip() else None
