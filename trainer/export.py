"""Merges an adapter into its base and writes a model that stands alone, compared with adapter-on-base before it counts.

One copy of the weights in memory at a time: the adapter's logits are taken first, then it is merged in place, saved
and freed, and what was saved is loaded as anyone would load it.
"""

import gc
import time
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from trainer.chat_template import ChatTemplate
from trainer.checkpoint import apply_umask, sync
from trainer.device import Device, current
from trainer.events import EventLog
from trainer.export_plan import MODEL, Plan
from trainer.model import attach_adapter, causal_lm, load_model, load_tokenizer
from trainer.problems import Problem

PROMPTS = (
    "你好，请介绍一下你自己。",
    "Write a Python function that returns the n-th Fibonacci number, and explain it.",
    "What is 17 × 23? 请一步一步地计算。",
)
_MOST_TOKENS = 256

# What `difference` may be at most, and what rounding alone may make of it: twice what was measured with random models
# of 2 and 24 layers and a trained one of 6, which was 1e-6 (fp32), 0.001 to 0.003 (fp16) and 0.01 to 0.023 (bf16).
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}
ROUNDING = {torch.float32: 1e-4, torch.float16: 0.006, torch.bfloat16: 0.05}

CPU = Device("cpu", "CPU", 1)


def export(plan: Plan, events: EventLog) -> dict[str, Any]:
    """Writes the complete model into `plan.partial`/model; the caller gives it its name. Returns what a record says.

    Raises Problem when the result is not what the adapter on its base is, or whatever the libraries raise.
    """
    device = _device(plan)
    events.append("stage", stage="loading_model", device=device.name, dtype=plan.load_dtype)
    tokenizer, template = _tokenizer(plan)
    prompts = [_ids(text, tokenizer, template) for text in PROMPTS]
    reference, effect = _merge_and_save(plan, device, tokenizer, template, prompts, events)
    release(device)  # before there is a second one
    events.append("stage", stage="checking")
    started = time.monotonic()
    difference = _reloaded_difference(plan, device, prompts, reference)
    dtype = getattr(torch, plan.dtype)
    shown = {"difference": _rounded(difference), "dtype": plan.dtype}
    if not difference <= (tolerance := allowed(effect, dtype)):  # NaN is not
        raise Problem("export_differs", **shown, tolerance=_rounded(tolerance))
    if effect and difference > effect / 2:
        events.append("warning", code="export_effect_small", **shown, effect=_rounded(effect))
    release(device)
    files = sorted((plan.partial / MODEL).glob("*.safetensors"))
    return {
        "model": str(plan.model),
        "adapter": str(plan.adapter) if plan.adapter else None,
        **shown,
        "tolerance": _rounded(tolerance),
        "effect": None if effect is None else _rounded(effect),
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "checking_seconds": round(time.monotonic() - started, 1),
    }


def difference_of(logits: list[Tensor], reference: list[Tensor]) -> float:
    """Root mean square of the difference over that of the reference's spread around each position's mean.

    Both: (tokens, vocabulary) of each prompt, fp32. The largest of the prompts.
    """
    return max(
        ((found - wanted).norm() / (wanted - wanted.mean(-1, keepdim=True)).norm()).item()
        for found, wanted in zip(logits, reference, strict=True)
    )


def allowed(effect: float | None, dtype: torch.dtype) -> float:
    """The tolerance: less than half of what the adapter changes, or a lost adapter would pass; never below rounding."""
    if effect is None:
        return TOLERANCE[dtype]
    return min(TOLERANCE[dtype], max(ROUNDING[dtype], effect / 2))


def release(device: Device) -> None:
    """Frees the model that has gone out of scope: its modules refer to each other in circles."""
    gc.collect()
    device.release_cached()


# ---- what goes in ----


def _device(plan: Plan) -> Device:
    """The accelerator when it is wanted and has room for the weights and a pass over them."""
    if plan.settings.export_device == "cpu":
        return CPU
    device = current()
    wide = 4 if plan.load_dtype == "float32" else 2
    needed = plan.weight_bytes // (4 if plan.dtype == "float32" else 2) * wide * 1.1 + 2 * 2**30
    return device if device.type == "cpu" or device.free_memory() > needed else CPU


def _tokenizer(plan: Plan) -> tuple[PreTrainedTokenizerBase, ChatTemplate | None]:
    """The model's tokenizer with the template that was trained; None where there is no template at all."""
    tokenizer = load_tokenizer(plan.model)
    if plan.template is not None:
        tokenizer.chat_template = plan.template
    return tokenizer, _template(tokenizer)


def _template(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate | None:
    try:
        return ChatTemplate.of(tokenizer)
    except Problem:  # a model without one that works is exported all the same; text is compared as it is
        return None


def _ids(text: str, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None) -> list[int]:
    if template:
        return template.prompt_ids([{"role": "user", "content": text}])[:_MOST_TOKENS]
    return tokenizer(text)["input_ids"][:_MOST_TOKENS]


# ---- merging ----


def _merge_and_save(
    plan: Plan,
    device: Device,
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate | None,
    prompts: list[list[int]],
    events: EventLog,
) -> tuple[list[Tensor], float | None]:
    """The logits to be met, and how much of them is the adapter's doing; None without one."""
    load_dtype = getattr(torch, plan.load_dtype)
    model = load_model(plan.model, load_dtype, device.torch_device)
    # Some weights are kept in fp32 by their model's own wish.
    kept = {name: parameter.dtype for name, parameter in model.named_parameters() if parameter.dtype != load_dtype}
    events.append("stage", stage="merging")
    effect = None
    if plan.adapter:
        adapted = attach_adapter(model, plan.adapter).eval()
        reference = logits_of(adapted, prompts)
        with adapted.disable_adapter():
            effect = difference_of(logits_of(adapted, prompts), reference)
        model = merge(adapted)
    else:
        reference = logits_of(model, prompts)
    _cast(model, plan.dtype, kept)
    events.append("stage", stage="saving", bytes=plan.weight_bytes)
    _save(plan, model, tokenizer, template)
    return reference, effect


@torch.no_grad()
def logits_of(model: Any, prompts: list[list[int]]) -> list[Tensor]:
    """(tokens, vocabulary) of each prompt, in fp32 on the CPU."""
    device = causal_lm(model).device
    return [model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0].float().cpu()
            for ids in prompts]  # fmt: skip


@torch.no_grad()
def merge(adapted: PeftModel) -> PreTrainedModel:
    """The base of `adapted` with the adapter in its weights, which are replaced layer by layer."""
    for layer in list(adapted.get_base_model().modules()):
        weight = getattr(layer.get_base_layer(), "weight", None) if isinstance(layer, LoraLayer) else None
        if isinstance(weight, nn.Parameter):
            _merge_layer(layer, weight)
    return adapted.merge_and_unload()  # takes the wrappers off, and merges what has no weight of its own


def _merge_layer(layer: Any, weight: nn.Parameter) -> None:
    """peft's own sum, in fp32: rounded once instead of twice, and in a tensor that no tied layer shares."""
    base = layer.get_base_layer()
    base.weight = nn.Parameter(weight.to(torch.float32, copy=True), requires_grad=False)
    layer.merge()
    base.weight = nn.Parameter(base.weight.to(weight.dtype), requires_grad=False)


@torch.no_grad()
def _cast(model: PreTrainedModel, dtype: str, kept: dict[str, torch.dtype]) -> None:
    """Weights to the type that they are written in, `kept` to theirs. Raises Problem for what is no number then."""
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(kept.get(name, getattr(torch, dtype)))
        if not parameter.isfinite().all():
            raise Problem("export_not_finite", name=name, dtype=dtype)


def _save(
    plan: Plan, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None
) -> None:
    folder = plan.partial / MODEL
    _prepare_configs(model, template)
    model.save_pretrained(str(folder), max_shard_size=int(plan.settings.export_size * 1e9))
    tokenizer.save_pretrained(str(folder))
    apply_umask(folder)
    sync(folder)


def _prepare_configs(model: PreTrainedModel, template: ChatTemplate | None) -> None:
    """Whoever loads the model generates with a cache, and stops where the template's answers end."""
    model.config.use_cache = True  # a training switches it off
    generation = model.generation_config
    assert generation is not None
    generation.use_cache = True
    ends = generation.eos_token_id
    known = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if template and (new := [token for token in template.stop_token_ids if token not in known]):
        both = [*known, *new]
        generation.eos_token_id = both if len(both) > 1 else both[0]
    if not generation.do_sample and (generation.temperature or generation.top_p or generation.top_k):
        generation.do_sample = True  # models are published so, and transformers refuses to save it


# ---- what came out ----


def _reloaded_difference(plan: Plan, device: Device, prompts: list[list[int]], reference: list[Tensor]) -> float:
    """As `difference_of` for the saved model, loaded in the plain way. Raises Problem when files lack something."""
    folder = plan.partial / MODEL
    again = load_tokenizer(folder)
    carried = _template(again)
    if [_ids(text, again, carried) for text in PROMPTS] != prompts:
        raise Problem("export_tokenizer_differs", path=str(plan.model))
    model = _load_plainly(folder, device)
    return difference_of(logits_of(model, prompts), reference)


def _load_plainly(folder: Path, device: Device) -> PreTrainedModel:
    model, report = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto",
        device_map={"": device.torch_device} if device.type != "cpu" else None,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):
        raise Problem("model_weights_missing", path=str(folder), count=len(missing), first=missing[0])
    return model.eval()


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")
