"""What can be checked before anything starts: model, checkpoint, data and output folder. Light: no torch.

The page calls it before it starts a run, the trainer before it loads anything: same checks, same words.
"""

import os
from collections.abc import Callable
from pathlib import Path

from trainer import records, run_folder
from trainer.events import read_events
from trainer.model_folder import check_adapter_folder, check_model_folder
from trainer.problems import Problem, Problems
from trainer.settings import TrainSettings, label, parse, read_yaml

# What may differ when a run goes on: everything else would make it another run.
RESUME_MAY_CHANGE = {"logging_steps", "save_steps", "eval_steps", "save_total_limit", "plot_loss", "output_dir",
                     "resume_from_checkpoint"}  # fmt: skip


def absolute(settings: TrainSettings) -> TrainSettings:
    """The same settings with absolute paths, so that the command works from any folder."""

    def full(path: str) -> str:
        return str(Path(path).expanduser().absolute()) if path else path

    resumed = settings.resume_from_checkpoint
    return settings.model_copy(
        update={
            "resume_from_checkpoint": resumed if resumed in (None, "latest") else full(resumed),
            "model_name_or_path": full(settings.model_name_or_path),
            "dataset_dir": full(settings.dataset_dir),
            "output_dir": full(settings.output_dir),
            "adapter_name_or_path": full(settings.adapter_name_or_path or "") or None,
        }
    )


def check(settings: TrainSettings) -> None:
    """Raises Problems with everything that would stop a run of `settings`; reads no weights, writes nothing."""
    found: list[Problem] = []
    for part in (_check_model, _check_data, _check_output):
        _collect(found, part, settings)
    if found:
        raise Problems(found)


def _collect(found: list[Problem], part: Callable[[TrainSettings], None], settings: TrainSettings) -> None:
    try:
        part(settings)
    except Problem as problem:
        found.append(problem)
    except Problems as several:
        found += several.problems


def _check_model(settings: TrainSettings) -> None:
    check_model_folder(settings.model_name_or_path, label=label("model_name_or_path"))
    if settings.adapter_name_or_path:
        if settings.finetuning_type == "lora":
            check_adapter_folder(settings.adapter_name_or_path, label=label("adapter_name_or_path"))
        else:
            raise Problem("setting_conflict", first=f"`finetuning_type: {settings.finetuning_type}`",
                          second="`adapter_name_or_path`")  # fmt: skip


def _check_data(settings: TrainSettings) -> None:
    folder = Path(settings.dataset_dir)
    if not folder.is_dir():
        raise Problem("data_dir_missing", label=label("dataset_dir"), path=str(folder))
    if not settings.dataset:
        raise Problem("dataset_missing", label=label("dataset"))
    total = sum(len(records.read_dataset(folder, name, settings.max_samples)) for name in settings.dataset)
    validation_count(settings, total)


def validation_count(settings: TrainSettings, total: int) -> int:
    """How many of `total` samples are kept for validation. Raises Problem when a part would be empty."""
    if not settings.val_size:
        return 0
    validation = round(total * settings.val_size)
    if not 0 < validation < total:
        raise Problem("validation_too_small", label=label("val_size"), value=settings.val_size, total=total,
                      train=total - validation, validation=validation)  # fmt: skip
    return validation


def _check_output(settings: TrainSettings) -> None:
    folder = Path(settings.output_dir)
    if not settings.output_dir:
        raise Problem("setting_missing", label=label("output_dir"))
    if settings.resume_from_checkpoint:
        _check_resume(settings, folder)
    elif folder.is_dir() and run_folder.holds_run(folder):
        raise Problem("output_exists", label=label("output_dir"), path=str(folder))
    check_writable(folder)


def check_writable(folder: Path) -> None:
    """Raises Problem unless `folder`, or the nearest parent that exists, is a folder that we may write to."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise Problem("output_not_writable", label=label("output_dir"), path=str(existing), detail="not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise Problem("output_not_writable", label=label("output_dir"), path=str(existing), detail="permission denied")
    # Root passes os.access on read-only file systems that refuse the write.
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        raise Problem("output_not_writable", label=label("output_dir"), path=str(existing), detail="read-only")


def _check_resume(settings: TrainSettings, folder: Path) -> None:
    resume_checkpoint(settings)
    events, _ = read_events(folder / run_folder.EVENTS)
    if events and events[-1].get("outcome") == "completed":
        raise Problem("already_finished", label=label("output_dir"), path=str(folder))
    if not (folder / run_folder.CONFIG).is_file():
        return
    before = absolute(parse(read_yaml(folder / run_folder.CONFIG)))
    for key in type(settings).model_fields:
        old, new = getattr(before, key), getattr(settings, key)
        if key not in RESUME_MAY_CHANGE and old != new:
            raise Problem("resume_changed", label=label(key), before=f"`{old}`", after=f"`{new}`")


def resume_checkpoint(settings: TrainSettings) -> Path | None:
    """The checkpoint that the run goes on from, None for a fresh start. Raises Problem when there is none."""
    wanted = settings.resume_from_checkpoint
    if not wanted:
        return None
    folder = Path(settings.output_dir)
    candidates = run_folder.checkpoints(folder) if wanted == "latest" else [Path(wanted)]
    complete = [path for path in candidates if run_folder.is_resumable(path)]
    if not complete:
        key = "output_dir" if wanted == "latest" else "resume_from_checkpoint"
        raise Problem("nothing_to_resume", label=label(key), path=str(folder if wanted == "latest" else wanted))
    return complete[-1]
