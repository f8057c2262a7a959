"""Models and adapters from local folders: safetensors only, never a hub, a folder's own code only where it is trusted."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D

from trainer.device import current, is_out_of_memory
from trainer.problems import Problem
from trainer.settings import label
from trainer.weights import Weights

# What transformers says of a folder with code that it would have to run.
_OWN_CODE = "contains custom code"


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder. Raises Problem when it cannot be read."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises what its parts raise; the sentence needs the cause
        if _OWN_CODE in str(error):
            raise Problem("model_own_code", path=str(folder)) from error
        raise Problem("model_load_failed", path=str(folder), detail=_first_line(error)) from error


def load_model(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    bits: int | None = None,
    weights: Weights | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The causal language model of `folder`, in evaluation mode, weights read straight to `device`.

    `bits`: 8 or 4, the linear layers' weights are kept in so many; what they compute is in `dtype`.
    `weights`: those of `folder` in `dtype`, on `device` or on their way there.
    `trust_remote_code`: Python code in the folder may be run, where its architecture needs it.
    Raises Problem for an unknown architecture or unreadable weights; out of memory passes through.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:
        if _OWN_CODE in str(error):
            raise Problem("model_own_code", path=str(folder)) from error
        if "does not recognize this architecture" in str(error):
            kind = json.loads((folder / "config.json").read_text()).get("model_type", "?")
            raise Problem("model_architecture", path=str(folder), architecture=kind) from error
        raise Problem("model_config_broken", label=label("model_name_or_path"), path=str(folder / "config.json"),
                      detail=_first_line(error)) from error  # fmt: skip
    weights = weights or (None if bits else Weights.of(folder, dtype, device))
    family = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if weights and isinstance(family, type):
        source = {"state_dict": weights.state_dict(), "generation_config": _generation_config(folder)}
    else:
        weights, family, source = None, AutoModelForCausalLM, {"pretrained_model_name_or_path": folder}
    try:
        model, report = family.from_pretrained(
            **{"pretrained_model_name_or_path": None, **source},
            config=config,
            dtype=dtype,
            device_map={"": device} if device.type != "cpu" else None,
            attn_implementation=_attention(config),
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            quantization_config=_quantization(bits, dtype) if bits else None,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if is_out_of_memory(error):
            raise
        if "ignore_mismatched_sizes" in str(error):
            raise Problem("model_shapes_differ", path=str(folder)) from error
        if "Unrecognized configuration class" in str(error):
            raise Problem(
                "model_architecture", path=str(folder), architecture=", ".join(config.architectures or ["?"])
            ) from error
        raise Problem("model_load_failed", path=str(folder), detail=_first_line(error)) from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise Problem("model_load_failed", path=str(folder), detail=_first_line(error)) from error
        raise
    if missing := sorted(report["missing_keys"]):
        # transformers fills them with random numbers and goes on.
        raise Problem("model_weights_missing", path=str(folder), count=len(missing), first=missing[0])
    if getattr(model, "is_quantized", False):
        _keep_trainable(model)
    if weights:
        model.name_or_path = model.config.name_or_path = str(folder)
    if device.type != "cpu":
        current().release_cached()  # transformers sets aside as much memory again as the weights take
    return model.eval()


def _attention(config: Any) -> str:
    """Attention by torch's own kernel; "eager" for families that have none, or no attention at all."""
    family = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return "sdpa" if getattr(family, "_supports_sdpa", True) else "eager"


def _generation_config(folder: Path) -> GenerationConfig | None:
    """What the folder says of it; None where it says nothing, and it is made from the config."""
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:
        return None


def _quantization(bits: int, dtype: torch.dtype) -> BitsAndBytesConfig:
    """QLoRA's (https://arxiv.org/abs/2305.14314) 4-bit NormalFloat with quantized constants; LLM.int8() for 8 bits."""
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _keep_trainable(model: PreTrainedModel) -> None:
    """Switches off what bitsandbytes does on processors with AVX512-BF16 once it has answered without gradients: it
    packs the 4-bit weights for a kernel that has no backward pass, and training would go on without gradients.

    An 8-bit layer takes its scales from its weight in its first pass and again from one that is renewed; peft's DoRA
    renews it in every pass on a processor, and without scales (peft 0.21, dequantize_module_weight).
    The warning that 8-bit layers compute in fp16 comes for every layer of every pass.
    """

    def keep_scales(layer: Any, _: Any) -> None:
        if layer.state.SCB is not None and layer.weight.SCB is None:
            layer.weight.CB = None

    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        if hasattr(module, "init_8bit_state"):
            module.register_forward_pre_hook(keep_scales)


def attach_adapter(model: PreTrainedModel, folder: Path, trainable: bool = False) -> PeftModel:
    """`model` with the LoRA adapter of `folder`. Raises Problem when it does not fit."""
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, local_files_only=True)
    except (RuntimeError, ValueError, KeyError, OSError, TypeError) as error:
        raise adapter_mismatch(model, folder, _first_line(error)) from error
    # peft raises for shapes that differ; layers that only one of the two has are silently left out.
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        given = set(file.keys())
    # peft's own saving adds the base's embeddings to an adapter on them.
    least, most = (set(get_peft_model_state_dict(adapted, save_embedding_layers=whole)) for whole in (False, True))
    if different := sorted((least - given) | (given - most)):
        adapted.unload()
        raise adapter_mismatch(model, folder, different[0])
    return adapted


def adapter_mismatch(model: PreTrainedModel, folder: Path, detail: str) -> Problem:
    """The refusal of an adapter that was made for another model."""
    return Problem("adapter_mismatch", path=str(folder), model=str(model.name_or_path), detail=detail)


def linear_names(model: PreTrainedModel) -> list[str]:
    """Last name parts of the model's linear layers without its output layer, sorted."""
    output = model.get_output_embeddings()
    return sorted(
        {name.rsplit(".", 1)[-1] for name, module in model.named_modules()
         if isinstance(module, torch.nn.Linear | Conv1D) and module is not output}
    )  # fmt: skip


def checkpoint_activations(model: PreTrainedModel) -> None:
    """From now on each layer keeps its input only and computes the rest again in the backward pass."""
    options = {"use_reentrant": False}  # the other kind needs inputs with gradients, which a frozen embedding has not
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:  # transformers < 5.20
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def causal_lm(model: Any) -> PreTrainedModel:
    """The transformers model inside a peft wrapper; its layers carry the adapter."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _first_line(error: BaseException) -> str:
    """What a library says, without the headlines that end in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.endswith(":")] or lines
    return telling[0][:300].rstrip(".") if telling else type(error).__name__
