"""What of a model is trained: an adapter, some of its layers, or every weight."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from trainer.adapter import adapted_model
from trainer.device import DTYPES
from trainer.model import load_model
from trainer.model_folder import resolve
from trainer.model_size import stored_type, tensors
from trainer.problems import Problem
from trainer.settings import TrainSettings, label
from trainer.weights import Weights

CPU = torch.device("cpu")
STORED = {"BF16": torch.bfloat16, "F16": torch.float16}


def model_to_train(
    settings: TrainSettings,
    resumed_from: Path | None,
    compute_type: str,
    device: torch.device,
    as_stored: bool = False,
    weights: Weights | None = None,
) -> Any:
    """The model of `settings` with what is trained switched on, its weights from `resumed_from` when the run goes on.

    Trained weights are kept in fp32 unless pure_bf16 asks otherwise; autocast computes in 16 bits. `as_stored`: a
    whole model may come as its files have it: on the CPU that is the files' own memory, once for all processes.
    `weights`: the base's, for LoRA, on their way already.
    """
    method, folder = settings.finetuning_type, Path(settings.model_name_or_path)
    settings = settings.model_copy(update={"compute_type": compute_type})
    dtype = DTYPES[compute_type]
    if method == "lora":
        model = load_model(folder, dtype, device, settings.quantization_bit, weights, settings.trust_remote_code)
        model.config.use_cache = False
        return adapted_model(model, settings, resumed_from)
    if compute_type != "pure_bf16" and (method == "full" or resumed_from):
        # A frozen model's checkpoint holds fp32 where it was trained: read as that, beside the device's memory.
        source = resumed_from or folder
        stored = STORED.get(stored_type(tensors(resolve(source))) or "") if as_stored and method == "full" else None
        model = load_model(source, stored or torch.float32, device if method == "full" else CPU,
                           trust_remote_code=settings.trust_remote_code)  # fmt: skip
    else:
        model = load_model(resumed_from or folder, dtype, device, trust_remote_code=settings.trust_remote_code)
    model.config.use_cache = False
    if method == "full":
        return model.requires_grad_(True)
    freeze(model, settings, dtype)
    return model.to(device)


def freeze(model: PreTrainedModel, settings: TrainSettings, dtype: torch.dtype) -> None:
    """Leaves only the chosen layers' modules and the extra ones trainable; the others are kept in `dtype`."""
    names = [name for name, _ in model.named_parameters()]
    layers = sorted({place for name in names if (place := _layer(name)) is not None})
    count = settings.freeze_trainable_layers
    if abs(count) > len(layers):
        raise Problem("freeze_layers", label=label("freeze_trainable_layers"), value=count, layers=len(layers))
    chosen = set(layers[-count:] if count > 0 else layers[:-count])
    modules, extra = set(settings.freeze_trainable_modules), set(settings.freeze_extra_modules)
    output = model.get_output_embeddings()  # tied to the input's: no parameter of its own
    inner = {part for name in names if _layer(name) is not None for part in _parts(name)}
    outer = {part for name in names if _layer(name) is None for part in _parts(name)} | {"lm_head"}
    _check("freeze_trainable_modules", modules - {"all"}, inner)
    _check("freeze_extra_modules", extra, outer)
    kept = dtype if settings.compute_type == "pure_bf16" else torch.float32
    for name, parameter in model.named_parameters():
        parts = set(_parts(name)) | ({"lm_head"} if output is not None and parameter is output.weight else set())
        if _layer(name) is None:
            trained = bool(parts & extra)
        else:
            trained = _layer(name) in chosen and ("all" in modules or bool(parts & modules))
        parameter.requires_grad_(trained)
        parameter.data = parameter.data.to(kept if trained else dtype)


def draws_random_numbers(model: torch.nn.Module) -> bool:
    """Whether a training pass of `model` depends on the generator's state."""
    config: Any = getattr(model, "config", None)
    # Families call dropout as a function as well, and have names of their own for how much.
    shares = [value for name, value in config.to_dict().items() if "drop" in name] if config else []
    drops = any(isinstance(share, int | float) and share > 0 for share in shares)
    return drops or any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in model.modules())


def _layer(name: str) -> int | None:
    """The number of the layer that the parameter `name` belongs to; None outside of layers."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _parts(name: str) -> list[str]:
    """The modules of its layer that the parameter `name` is in; outside of layers the innermost."""
    parts = name.split(".")[:-1]
    numbers = [position for position, part in enumerate(parts) if part.isdigit()]
    return parts[numbers[0] + 1 :] if numbers else parts[-1:]


def _check(key: str, given: set[str], known: set[str]) -> None:
    for name in sorted(given - known):
        raise Problem("module_unknown", label=label(key), value=name, choices=", ".join(sorted(known)))
