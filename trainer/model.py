"""Models and adapters from local folders: safetensors only, no remote code, never a hub."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trainer.problems import Problem
from trainer.settings import TrainSettings, label


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder. Raises Problem when it cannot be read."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises what its parts raise; the sentence needs the cause
        raise Problem("model_load_failed", path=str(folder), detail=_first_line(error)) from error


def load_model(folder: Path, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The causal language model of `folder`, in evaluation mode, weights read straight to `device`.

    Raises Problem for an unknown architecture or unreadable weights; out of memory passes through.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise Problem("model_config_broken", label=label("model_name_or_path"), path=str(folder / "config.json"),
                      detail=_first_line(error)) from error  # fmt: skip
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            device_map={"": device} if device.type != "cpu" else None,
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError) as error:
        if "Unrecognized configuration class" in str(error):
            raise Problem(
                "model_architecture", path=str(folder), architecture=", ".join(config.architectures or ["?"])
            ) from error
        raise Problem("model_load_failed", path=str(folder), detail=_first_line(error)) from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise Problem("model_load_failed", path=str(folder), detail=_first_line(error)) from error
        raise
    return model.eval()


def attach_adapter(model: PreTrainedModel, folder: Path, trainable: bool = False) -> PeftModel:
    """`model` with the LoRA adapter of `folder`. Raises Problem when it does not fit."""
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, local_files_only=True)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise Problem(
            "adapter_mismatch", path=str(folder), model=str(model.name_or_path), detail=_first_line(error)
        ) from error


def linear_names(model: PreTrainedModel) -> list[str]:
    """Last name parts of the model's linear layers without its output layer, sorted."""
    output = model.get_output_embeddings()
    return sorted(
        {name.rsplit(".", 1)[-1] for name, module in model.named_modules()
         if isinstance(module, torch.nn.Linear) and module is not output}
    )  # fmt: skip


def trainable_model(model: PreTrainedModel, settings: TrainSettings) -> PreTrainedModel | PeftModel:
    """`model` with what `settings` trains switched on: a new adapter, a given one, or every weight."""
    if settings.finetuning_type == "full":
        return model.requires_grad_(True)
    if settings.adapter_name_or_path:
        return attach_adapter(model, Path(settings.adapter_name_or_path), trainable=True)
    targets = list(settings.lora_target)
    if targets == ["all"]:
        targets = linear_names(model)
    else:
        known = {part for name, _ in model.named_modules() for part in name.split(".")}
        for target in targets:
            if target not in known:
                raise Problem("lora_target_unknown", label=label("lora_target"), value=target,
                              choices=", ".join(linear_names(model)))  # fmt: skip
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        base_model_name_or_path=str(Path(settings.model_name_or_path).resolve()),
    )
    return get_peft_model(model, config, autocast_adapter_dtype=settings.compute_type != "pure_bf16")


def causal_lm(model: Any) -> PreTrainedModel:
    """The transformers model inside a peft wrapper; its layers carry the adapter."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def adapter_base(folder: Path) -> str:
    """The base model path that an adapter folder names; "" when it names none."""
    return PeftConfig.from_pretrained(str(folder)).base_model_name_or_path or ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
