"""What a LoRA's settings cannot be on this model and checkpoint, as far as their files tell. Light: no torch."""

import json
from pathlib import Path

from trainer.model_size import tensors
from trainer.problems import Problem
from trainer.quantization import stored_quantization
from trainer.settings import TrainSettings, label, named


def check_lora(settings: TrainSettings, folder: Path, adapter: Path | None) -> None:
    """Raises Problem for a combination of modules, ranks and checkpoint that the trainer would refuse on loading."""
    if settings.finetuning_type != "lora":
        return
    # Paths and shapes of what LoRA may be put on.
    linear = {name.rsplit(".", 1)[0]: shape for name, (_, shape) in tensors(folder).items() if len(shape) == 2}
    targets = {path for path in linear if _is_target(path, settings)}
    _check_additional(settings, folder, set(linear), targets)
    most = min((min(linear[path]) for path in targets), default=settings.lora_rank)
    if settings.pissa_init and settings.lora_rank > most:
        raise Problem("pissa_rank", label=label("lora_rank"), value=settings.lora_rank, most=most)
    if adapter and settings.create_new_adapter:
        _check_stacked(settings, adapter)


def _is_target(path: str, settings: TrainSettings) -> bool:
    if "all" in settings.lora_target and _in_layer(path):
        return True
    return any(f".{path}".endswith(f".{name}") for name in settings.lora_target)


def _in_layer(path: str) -> bool:
    return any(part.isdigit() for part in path.split("."))


def _check_additional(settings: TrainSettings, folder: Path, linear: set[str], targets: set[str]) -> None:
    """Modules that are trained in full can neither carry an adapter nor be quantized, nor can what is inside."""
    quantized = settings.quantization_bit or stored_quantization(folder)
    for name in settings.additional_target:
        for path in sorted(linear):
            if f".{name}." not in f".{path}.":
                continue
            whole = named("additional_target", name)
            if path in targets:
                raise Problem("setting_conflict", first=whole, second=named("lora_target", settings.lora_target))
            if quantized and _in_layer(path):
                raise Problem("setting_conflict", first=whole, second=named("quantization_bit", quantized))


def _check_stacked(settings: TrainSettings, adapter: Path) -> None:
    """Raises Problem for a checkpoint that cannot be kept exactly below a new adapter."""
    theirs = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if theirs.get("use_dora") or theirs.get("modules_to_save") or theirs.get("bias", "none") != "none":
        raise Problem("stack_not_exact", label=label("create_new_adapter"), path=str(adapter))
    below = theirs.get("target_modules")
    if isinstance(below, list) and "all" not in settings.lora_target:
        ours = {name.rsplit(".", 1)[-1] for name in settings.lora_target}
        if missing := sorted({name.rsplit(".", 1)[-1] for name in below} - ours):
            raise Problem("stack_targets", label=label("lora_target"), value=",".join(settings.lora_target),
                          missing=", ".join(missing))  # fmt: skip
