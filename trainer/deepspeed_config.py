"""DeepSpeed's configuration of a run: of a stage by its number, or from a JSON file with its "auto" filled in.

Light: no torch, no deepspeed. What would contradict our settings, or change what a step is, is refused by name.
"""

import importlib.metadata
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from trainer.declared import DEEPSPEED_STAGES
from trainer.problems import Problem, Problems, quoted
from trainer.settings import TrainSettings, label, named

# The first one in which the caller says where an optimizer step ends ("managed_gradient_accumulation").
LEAST_VERSION = (0, 19, 8)

# What a file may say, beside what must agree with our settings: only how work is done, never what comes out.
FREE = {"zero_allow_untested_optimizer", "steps_per_print"}
FREE_OF_ZERO = {"stage", "allgather_partitions", "allgather_bucket_size", "overlap_comm", "reduce_scatter",
                "reduce_bucket_size", "contiguous_gradients", "round_robin_gradients", "sub_group_size",
                "stage3_max_live_parameters", "stage3_max_reuse_distance", "stage3_prefetch_bucket_size",
                "stage3_param_persistence_threshold", "stage3_gather_16bit_weights_on_model_save", "offload_optimizer",
                "offload_param"}  # fmt: skip
FREE_OF_OFFLOAD = {"device", "pin_memory", "buffer_count", "buffer_size", "max_in_cpu", "fast_init"}


def missing() -> str | None:
    """What this machine lacks for DeepSpeed; None when nothing."""
    wanted = f"deepspeed>={'.'.join(map(str, LEAST_VERSION))}"
    if importlib.util.find_spec("deepspeed") is None:
        return wanted
    numbers = re.findall(r"\d+", importlib.metadata.version("deepspeed"))
    return None if tuple(map(int, numbers[:3])) >= LEAST_VERSION else wanted


def stage(settings: TrainSettings) -> int | None:
    """2 or 3; None for a run without DeepSpeed. Raises Problem for a file that cannot be read or says neither."""
    if settings.deepspeed is None:
        return None
    if settings.deepspeed in DEEPSPEED_STAGES:
        return int(settings.deepspeed)
    zero = _file(settings).get("zero_optimization")
    found = zero.get("stage") if isinstance(zero, dict) else None
    if found not in (2, 3):
        raise _refused(settings, "zero_optimization.stage", found, reason="deepspeed_stage")
    return int(found)


def offloads(settings: TrainSettings) -> bool:
    """Whether the optimizer's state is kept in the host's memory."""
    return "offload_optimizer" in _zero(settings) if settings.deepspeed else False


def check(settings: TrainSettings) -> None:
    """Raises Problem or Problems when DeepSpeed is asked for and cannot do what `settings` say."""
    if settings.deepspeed is None:
        return
    if lacking := missing():
        raise Problem("deepspeed_missing", label=label("deepspeed"), value=quoted(settings.deepspeed), missing=lacking)
    stage(settings)
    if settings.deepspeed not in DEEPSPEED_STAGES and (found := _found(settings, _file(settings))):
        raise Problems(found)


def config(settings: TrainSettings, compute_type: str, processes: int) -> dict[str, Any]:
    """What deepspeed.initialize takes: a pass is a batch of one, and a step ends where we say so.

    Raises Problem for a `compute_type` that it cannot keep: it has fp32 weights to update, and a loss scale of its own.
    """
    if compute_type not in ("bf16", "fp32"):  # the device chose it
        raise Problem("setting_conflict", first=named("deepspeed", settings.deepspeed),
                      second=named("compute_type", compute_type))  # fmt: skip
    file = {} if settings.deepspeed in DEEPSPEED_STAGES else _file(settings)
    return {
        **{key: value for key, value in file.items() if key in FREE and value != "auto"},
        "train_batch_size": processes,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": settings.max_grad_norm,
        "bf16": {"enabled": compute_type == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},  # gradients are added up in fp32, as everywhere else
        "communication_data_type": "fp32",
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW runs on a processor as well, and needs no compiler
        "zero_optimization": _zero(settings),
    }


def _zero(settings: TrainSettings) -> dict[str, Any]:
    if settings.deepspeed not in DEEPSPEED_STAGES:
        return _without_auto(_file(settings)["zero_optimization"])
    found: dict[str, Any] = {"stage": stage(settings)}
    if settings.ds_offload:
        found["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
        if found["stage"] == 3:
            found["offload_param"] = {"device": "cpu", "pin_memory": True}
    return found


def _without_auto(section: dict[str, Any]) -> dict[str, Any]:
    """`section` with DeepSpeed's own defaults where it says "auto", and without offloading to nowhere."""
    found = {key: _without_auto(value) if isinstance(value, dict) else value for key, value in section.items()}
    return {key: value for key, value in found.items()
            if value != "auto" and not (key.startswith("offload_") and value.get("device", "none") == "none")}  # fmt: skip


def _file(settings: TrainSettings) -> dict[str, Any]:
    """The JSON object of the file. Raises Problem when there is none."""
    assert settings.deepspeed is not None
    path, about = Path(settings.deepspeed), label("deepspeed")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Problem("deepspeed_file", label=about, path=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Problem("file_unreadable", label=about, path=str(path), detail=str(error)) from None
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise Problem("json_broken", label=about, line=error.lineno, column=error.colno, detail=error.msg) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
        raise Problem("deepspeed_file", label=about, path=str(path)) from None
    if not isinstance(found, dict):
        raise Problem("deepspeed_file", label=about, path=str(path))
    return found


def _found(settings: TrainSettings, file: dict[str, Any]) -> list[Problem]:
    """Everything in `file` that we cannot do or that says otherwise than the settings."""
    ours: dict[str, tuple[str, Any]] = {
        "gradient_clipping": ("max_grad_norm", settings.max_grad_norm),
        "gradient_accumulation_steps": ("gradient_accumulation_steps", settings.gradient_accumulation_steps),
        "train_micro_batch_size_per_gpu": ("per_device_train_batch_size", settings.per_device_train_batch_size),
        "fp16.enabled": ("compute_type", False),
        "bf16.enabled": ("compute_type", settings.compute_type != "fp32"),
    }
    found = []
    for key, value in _flat(file):
        top, _, rest = key.partition(".")
        of_precision = top in ("fp16", "bf16") and rest != "enabled"  # acts with fp16 alone, which is refused
        if value == "auto" or key in FREE or of_precision or (key == "wall_clock_breakdown" and value is False):
            continue
        if key in ours:
            other, wanted = ours[key]
            if value != wanted:
                found.append(Problem("deepspeed_differs", label=label("deepspeed"), path=str(settings.deepspeed),
                                     key=key, value=quoted(value), other=named(other, getattr(settings, other))))  # fmt: skip
        elif not (top == "zero_optimization" and _allowed(rest, value)):
            found.append(_refused(settings, key, value))
    return found


def _allowed(key: str, value: Any) -> bool:
    """Whether ZeRO may be told this."""
    top, _, rest = key.partition(".")
    if top.startswith("offload_") and top in FREE_OF_ZERO:
        return rest in FREE_OF_OFFLOAD and (rest != "device" or value in ("cpu", "none"))
    return key in FREE_OF_ZERO


def _flat(section: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Keys joined by dots, and their values."""
    found: list[tuple[str, Any]] = []
    for key, value in section.items():
        if isinstance(value, dict):
            found += _flat(value, f"{before}{key}.")
        else:
            found.append((f"{before}{key}", value))
    return found


def _refused(settings: TrainSettings, key: str, value: Any, reason: str = "deepspeed_key") -> Problem:
    return Problem(reason, label=label("deepspeed"), path=str(settings.deepspeed), key=key, value=quoted(value))
