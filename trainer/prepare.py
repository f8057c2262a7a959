"""What can be checked before anything starts: model, checkpoint, data and output folder. Light: no torch.

The page calls it before it starts a run, the trainer before it loads anything: same checks, same words.
"""

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from trainer import deepspeed_config, run_folder, training_records
from trainer.accelerators import accelerators, processor_name
from trainer.declared import DEEPSPEED_STAGES
from trainer.events import read_events
from trainer.lora_checks import check_lora
from trainer.model_folder import check_adapter_folder, check_model_folder, located
from trainer.model_size import most_positions, tensors
from trainer.problems import Problem, Problems, quoted
from trainer.quantization import check_quantization
from trainer.settings import TrainSettings, as_text, label, named, parse
from trainer.settings_file import read_yaml

# What may differ when a run goes on: everything else would make it another run.
RESUME_MAY_CHANGE = {"logging_steps", "save_steps", "eval_steps", "early_stopping_steps", "load_best_model_at_end",
                     "save_total_limit", "plot_loss", "output_dir", "resume_from_checkpoint", "fsdp", "deepspeed", "ds_offload",
                     "overwrite_cache", "preprocessing_num_workers", "dataloader_num_workers", "ddp_timeout"}  # fmt: skip


def absolute(settings: TrainSettings) -> TrainSettings:
    """The same settings with absolute paths, so that the command works from any folder."""

    def full(path: str) -> str:
        try:
            return str(Path(path).expanduser().absolute()) if path else path
        except RuntimeError:  # ~name of nobody here: a folder of that name, as shells take it
            return str(Path(path).absolute())

    resumed = settings.resume_from_checkpoint
    return settings.model_copy(
        update={
            "resume_from_checkpoint": resumed if resumed in (None, "latest") else full(resumed),
            "model_name_or_path": settings.model_name_or_path and located(settings.model_name_or_path),
            "dataset_dir": full(settings.dataset_dir),
            "output_dir": full(settings.output_dir),
            "deepspeed": settings.deepspeed
            if settings.deepspeed in DEEPSPEED_STAGES
            else full(settings.deepspeed or "") or None,
            "adapter_name_or_path": full(settings.adapter_name_or_path or "") or None,
        }
    )


def check(settings: TrainSettings, output: bool = True) -> None:
    """Raises Problems with everything that would stop a run of `settings`; reads no weights, writes nothing.

    `output` False: the output folder is another process's to check.
    """
    found: list[Problem] = []
    _collect(found, _check_paths, settings)
    if found:  # what cannot be looked up at all
        raise Problems(found)
    for part in (check_model, _check_data, _check_output)[: 3 if output else 2]:
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


def _check_paths(settings: TrainSettings) -> None:
    """Raises Problem for a path that no file can have here: too long, with a null byte, or not text."""
    for key in ("model_name_or_path", "adapter_name_or_path", "dataset_dir", "output_dir", "resume_from_checkpoint"):
        path = getattr(settings, key) or ""
        try:
            path.encode()
            os.lstat(path)
        except ValueError as error:
            raise _no_path(key, path, str(error)) from None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise _no_path(key, path, str(error.strerror)) from None


def _no_path(key: str, path: str, detail: str) -> Problem:
    shown = path.encode(errors="replace").decode().replace("\0", "?")
    return Problem("output_bad_name", label=label(key), value=quoted(shown), detail=detail)


def check_model(settings: TrainSettings) -> None:
    """Raises Problem for a model that cannot be trained so: its folder, module names, checkpoint, quantization."""
    folder = check_model_folder(settings.model_name_or_path, label=label("model_name_or_path"))
    _check_modules(settings, folder)
    _check_cutoff(settings, folder)
    check_quantization(settings, folder)
    deepspeed_config.check(settings)
    if settings.adapter_name_or_path:
        _check_adapter(settings, settings.adapter_name_or_path)
    elif settings.create_new_adapter:
        raise Problem("setting_needs", first=named("create_new_adapter", True), second=named("adapter_name_or_path"))
    check_lora(settings, folder, Path(settings.adapter_name_or_path) if settings.adapter_name_or_path else None)
    _check_compute_type(settings)


def _check_cutoff(settings: TrainSettings, folder: Path) -> None:
    limit = most_positions(folder)
    if limit is not None and settings.cutoff_len > limit:
        raise Problem("cutoff_over_positions", label=label("cutoff_len"), value=settings.cutoff_len, path=str(folder),
                      limit=limit)  # fmt: skip


def _check_compute_type(settings: TrainSettings) -> None:
    """Raises Problem for fp16 on a processor; which other types an accelerator lacks only its driver knows."""
    if settings.compute_type == "fp16" and sys.platform == "linux" and not accelerators():
        raise Problem("compute_unsupported", label=label("compute_type"), value="fp16", device=processor_name(),
                      choices="fp32, bf16, pure_bf16")  # fmt: skip


def _check_adapter(settings: TrainSettings, path: str) -> None:
    if settings.finetuning_type != "lora":
        raise Problem("setting_conflict", first=named("finetuning_type", settings.finetuning_type),
                      second=named("adapter_name_or_path"))  # fmt: skip
    adapter = check_adapter_folder(path, label=label("adapter_name_or_path"))
    if settings.create_new_adapter:
        return
    for key in ("use_rslora", "use_dora", "pissa_init", "additional_target"):
        if value := getattr(settings, key):
            raise Problem("adapter_has_own", label=label(key), value=f"`{as_text(value)}`",
                          other=label("create_new_adapter"))  # fmt: skip
    _check_continued(settings, adapter)


def _check_modules(settings: TrainSettings, folder: Path) -> None:
    """Raises Problem for module names and layers that the model has not, as far as its files tell."""
    chosen = {key: list(getattr(settings, key)) for key in ("additional_target", "freeze_extra_modules")}
    for key in ("lora_target", "freeze_trainable_modules"):
        chosen[key] = [name for name in getattr(settings, key) if name != "all"]
    if settings.finetuning_type != "freeze" and not any(chosen.values()):
        return
    found = tensors(folder)
    modules = [name.split(".")[:-1] for name in found]
    known = {part for parts in modules for part in parts} | {"lm_head"}  # in no file when it is tied
    names = ", ".join(sorted({parts[-1] for parts in modules if parts and not parts[-1].isdigit()}))
    for key, given in chosen.items():
        for name in given:
            if not set(name.split(".")) <= known:
                raise Problem("module_unknown", label=label(key), value=name, choices=names)
    linear = {name.split(".")[-2] for name, (_, shape) in found.items() if len(shape) > 1 and "." in name} | {"lm_head"}
    for name in chosen["lora_target"]:
        if name.split(".")[-1] not in linear:
            choices = ", ".join(sorted(linear))
            raise Problem("module_not_linear", label=label("lora_target"), value=name, choices=choices)
    layers = len({next((part for part in parts if part.isdigit()), None) for parts in modules} - {None})
    if settings.finetuning_type == "freeze" and abs(settings.freeze_trainable_layers) > layers > 0:
        raise Problem("freeze_layers", label=label("freeze_trainable_layers"), value=settings.freeze_trainable_layers,
                      layers=layers)  # fmt: skip


def _check_continued(settings: TrainSettings, adapter: Path) -> None:
    """Raises Problem for what is set otherwise than the adapter has it, which would be ignored."""
    theirs = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    targets = theirs.get("target_modules")
    pairs = [("lora_rank", theirs.get("r")), ("lora_dropout", theirs.get("lora_dropout"))]
    pairs.append(("lora_target", tuple(sorted(targets)) if isinstance(targets, list) else targets))
    if (settings.lora_rank, settings.alpha) != (8, 16):  # the page's own
        pairs.append(("lora_alpha", theirs.get("lora_alpha")))
    for key, value in pairs:
        mine = getattr(settings, key)
        ours = tuple(sorted(mine)) if isinstance(mine, tuple) else mine
        if mine is None or mine == type(settings).model_fields[key].default or value is None or ours == value:
            continue
        raise Problem("adapter_differs", label=label(key), value=f"`{as_text(mine)}`", theirs=f"`{as_text(value)}`",
                      other=label("create_new_adapter"))  # fmt: skip


def _check_data(settings: TrainSettings) -> None:
    folder = Path(settings.dataset_dir)
    if not folder.is_dir():
        raise Problem("data_dir_missing", label=label("dataset_dir"), path=str(folder))
    if not settings.dataset:
        raise Problem("dataset_missing", label=label("dataset"))
    found, total = training_records.check_ahead(settings)
    if found:
        raise Problems(found)
    if total is not None:
        validation_count(settings, total)


def validation_count(settings: TrainSettings, total: int) -> int:
    """How many of `total` samples are kept for validation. Raises Problem when a part would be empty."""
    if not settings.val_size:
        return 0
    validation = round(total * settings.val_size)
    if not 0 < validation < total:
        raise Problem("validation_too_small", label=label("val_size"), value=as_text(settings.val_size), total=total,
                      train=total - validation, validation=validation,
                      remedy=_validation_remedy(total, validation))  # fmt: skip
    return validation


def _validation_remedy(total: int, validation: int) -> dict[str, str]:
    """What to write instead of a share that keeps `validation` of `total` samples, which is none or all of them."""
    if total < 2:
        return {"en": "Set it to 0 (no validation), or add samples.", "zh": "请设为 0（不验证），或补充样本。"}
    one, digits = 1 / total, len(str(total)) + 1  # so that rounding keeps one sample on either side
    if not validation:
        least = f"{one:.{digits}f}".rstrip("0")
        return {"en": f"Raise it to {least} or more, or set it to 0 (no validation).",
                "zh": f"请调到 {least} 或更大，或设为 0（不验证）。"}  # fmt: skip
    most = f"{1 - one:.{digits}f}".rstrip("0")
    return {"en": f"Lower it to {most} or less, usually 0.1, or set it to 0 (no validation).",
            "zh": f"请调到 {most} 或更小（常用 0.1），或设为 0（不验证）。"}  # fmt: skip


def _check_output(settings: TrainSettings) -> None:
    folder = Path(settings.output_dir)
    if not settings.output_dir:
        raise Problem("setting_missing", label=label("output_dir"))
    if settings.resume_from_checkpoint:
        _check_resume(settings, folder)
    elif folder.is_dir() and run_folder.holds_run(folder):
        raise Problem("output_exists", label=label("output_dir"), path=str(folder))
    check_writable(folder)


def check_writable(folder: Path, named: dict[str, str] | None = None) -> None:
    """Raises Problem unless `folder`, or the nearest parent that exists, is a folder that we may write to.

    `named`: the label of the setting that names it, where that is not the output dir.
    """
    shown = named or label("output_dir")
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise Problem("output_not_writable", label=shown, path=str(existing), detail="not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise Problem("output_not_writable", label=shown, path=str(existing), detail="permission denied")
    # Root passes os.access on read-only file systems that refuse the write.
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        raise Problem("output_not_writable", label=shown, path=str(existing), detail="read-only")


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
