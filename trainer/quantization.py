"""Whether and why quantized models run here, and which models come quantized. Light: no torch."""

import importlib.metadata
import json
import re
import sys
from pathlib import Path
from typing import Any

from trainer import device_kinds
from trainer.accelerators import accelerators
from trainer.model_folder import resolve
from trainer.problems import Problem
from trainer.settings import TrainSettings, label, named

# The first bitsandbytes whose 4 and 8 bits train on a processor as well.
OLDEST = (0, 48)


def quantization_missing() -> str | None:
    """Why nothing can be quantized here, as a problem's code; None where it can."""
    if not all(device_kinds.of(device.kind).quantizes for device in accelerators()):
        return "quantization_device"
    try:
        version = importlib.metadata.version("bitsandbytes")
    except importlib.metadata.PackageNotFoundError:
        return "quantization_package"
    return None if tuple(map(int, re.findall(r"\d+", version)[:2])) >= OLDEST else "quantization_package"


def stored_quantization(folder: Path) -> str | None:
    """How the weights of a model folder are quantized, by its config.json's own name for it; None: they are not."""
    config: dict[str, Any] = json.loads((resolve(folder) / "config.json").read_text(encoding="utf-8"))
    found = config.get("quantization_config")
    return str(found.get("quant_method", "?")) if isinstance(found, dict) else None


def check_quantization(settings: TrainSettings, folder: Path) -> None:
    """Raises Problem for what a quantized model cannot do, and where none runs."""
    stored = stored_quantization(folder)
    key = "model_name_or_path" if stored else "quantization_bit"
    if (settings.quantization_bit or stored == "bitsandbytes") and (missing := quantization_missing()):
        raise Problem(missing, label=label(key), value=getattr(settings, key))
    if not stored:
        return
    if settings.quantization_bit:
        raise Problem("quantized_already", label=label("quantization_bit"), path=str(folder), stored=stored)
    for key in ("finetuning_type", "pissa_init", "create_new_adapter"):
        if (value := getattr(settings, key)) and value != "lora":
            raise Problem("quantized_needs_lora", first=named(key, value), path=str(folder), stored=stored)


def without_bitsandbytes(settings: TrainSettings) -> None:
    """Keeps peft from importing what this run has no use for: 1.5 s, most of it torch's compiler."""
    quantized = settings.quantization_bit or stored_quantization(Path(settings.model_name_or_path))
    if not quantized and "bitsandbytes" not in sys.modules:
        sys.modules["bitsandbytes"] = None  # type: ignore[assignment]  # Python's way to say: not to be found
