"""LoRA adapters to be trained: new, continued, or stacked on another; written so that base and file give the model.

PiSSA takes the adapter's start out of the base's weights, stacking puts the given adapter in: both add a low-rank
term to the base in memory that is not trained. The file holds that term beside what was trained, in a higher rank,
so the original base with the file alone computes what was trained, and resuming needs nothing else.
"""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trainer.distributed import from_the_first
from trainer.model import adapter_mismatch, attach_adapter, linear_names
from trainer.problems import Problem
from trainer.settings import TrainSettings, label, named

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
# As LLaMA-Factory starts PiSSA: power iterations of the randomized singular value decomposition.
PISSA_ITERATIONS = 16

# a: (rank, in) and b: (out, rank) by layer; the base's weight is W + scaling · b a, the scaling that of the adapter.
Factors = dict[str, tuple[Tensor, Tensor]]


def adapted_model(model: PreTrainedModel, settings: TrainSettings, resumed_from: Path | None) -> PeftModel:
    """`model` with the adapter that `settings` trains, its weights from `resumed_from` when the run goes on.

    Raises Problem when a module is unknown or a given adapter does not fit.
    """
    given = Path(settings.adapter_name_or_path) if settings.adapter_name_or_path else None
    if given and not settings.create_new_adapter:
        source = resumed_from or given
        config = PeftConfig.from_pretrained(str(source))
        config.inference_mode = False
        adapted = _with_adapter(model, config, settings)
        _load(adapted, load_file(source / WEIGHTS), source)
        return adapted
    old = _factors(model, given) if given and not resumed_from else {}
    adapted = _with_adapter(model, _new_config(model, settings), settings)
    if settings.pissa_init or settings.create_new_adapter:
        _check_foldable(adapted, settings)
        adapted.folded = _resume_folded(adapted, resumed_from) if resumed_from else _start(adapted, old, settings)
        _fold(adapted)
        if settings.use_dora and not resumed_from:
            _start_magnitudes(adapted)
    elif resumed_from:
        _load(adapted, load_file(resumed_from / WEIGHTS), resumed_from)
    return adapted


def save_adapter(model: PeftModel, folder: Path, weights: dict[str, Any] | None = None) -> None:
    """Writes the adapter's configuration and weights into `folder`. `weights`: instead of the model's own."""
    # "auto" would look the base model up on a hub to see whether its embeddings changed size.
    model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=weights)
    (folder / "README.md").unlink(missing_ok=True)  # a card with blanks to fill in
    if folded := getattr(model, "folded", None):
        _write_folded(folder, folded)


# ---- a new adapter ----


def _new_config(model: PreTrainedModel, settings: TrainSettings) -> LoraConfig:
    linear = linear_names(model)
    chosen = ((linear if name == "all" else [name]) for name in settings.lora_target)
    targets = list(dict.fromkeys(name for names in chosen for name in names))
    _check_adaptable(model, targets, linear)
    extra = list(settings.additional_target)
    check_modules(model, "additional_target", extra, _outer_names(model))
    for name, module in model.named_modules():
        inside = (f"{name}.{below}".rstrip(".").rsplit(".", 1)[-1] for below, _ in module.named_modules())
        if name.endswith(tuple(extra)) and not set(targets).isdisjoint(inside):
            raise Problem("setting_conflict", first=named("additional_target", name), second=named("lora_target"))
        if name.endswith(tuple(extra)) and not all(weight.is_floating_point() for weight in module.parameters()):
            raise Problem("setting_conflict", first=named("additional_target", name),
                          second=named("quantization_bit", settings.quantization_bit))  # fmt: skip
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        modules_to_save=extra or None,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        base_model_name_or_path=str(Path(settings.model_name_or_path).resolve()),
    )


def check_modules(model: PreTrainedModel, key: str, given: list[str], choices: list[str]) -> None:
    """Raises Problem when one of `given` is the end of no module's name."""
    known = [f".{name}" for name, _ in model.named_modules()]
    for name in given:
        if not any(path.endswith(f".{name}") for path in known):
            raise Problem("module_unknown", label=label(key), value=name, choices=", ".join(choices))


def _check_adaptable(model: PreTrainedModel, targets: list[str], choices: list[str]) -> None:
    """Raises Problem when one of `targets` stands for no layer that LoRA can be put on."""
    for name in targets:
        meant = [part for path, part in model.named_modules() if f".{path}".endswith(f".{name}")]
        if not meant or not all(isinstance(part, nn.Linear | nn.Embedding | Conv1D) for part in meant):
            raise Problem("module_not_linear", label=label("lora_target"), value=name, choices=", ".join(choices))


def _outer_names(model: PreTrainedModel) -> list[str]:
    """Last name parts of the modules with weights that stand outside the layers, sorted."""
    names = (name.split(".") for name, _ in model.named_parameters())
    return sorted({parts[-2] for parts in names if not any(part.isdigit() for part in parts)} | {"lm_head"})


def _with_adapter(model: PreTrainedModel, config: Any, settings: TrainSettings) -> PeftModel:
    """`model` with a fresh adapter; what is trained is kept in fp32 unless pure_bf16 asks otherwise."""
    pure = settings.compute_type == "pure_bf16"
    adapted = get_peft_model(model, config, autocast_adapter_dtype=not pure)
    for parameter in adapted.parameters():
        if parameter.requires_grad and not pure:
            parameter.data = parameter.data.float()
    return adapted


def _load(adapted: PeftModel, tensors: dict[str, Tensor], folder: Path) -> None:
    """Raises Problem unless the adapter has exactly these weights."""
    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    different = sorted(set(tensors) ^ set(wanted)) or [
        name for name, tensor in tensors.items() if tensor.shape != wanted[name].shape
    ]
    if different:
        raise adapter_mismatch(adapted.get_base_model(), folder, different[0])
    set_peft_model_state_dict(adapted, tensors)


# ---- the term that is added to the base ----


def _layers(adapted: PeftModel) -> dict[str, LoraLayer]:
    modules = adapted.get_base_model().named_modules()
    return {name: module for name, module in modules if isinstance(module, LoraLayer)}


def _factors(model: PreTrainedModel, folder: Path) -> Factors:
    """What the adapter of `folder` adds to each layer, its scaling multiplied in; `model` is left as it was.

    Raises Problem for adapters that do more than add one product to a linear layer.
    """
    adapted = attach_adapter(model, folder)
    config = adapted.peft_config["default"]
    found: Factors = {}
    for name, layer in _layers(adapted).items():
        if type(layer) is not LoraLinear or layer.lora_variant or layer.lora_B["default"].bias is not None:
            found.clear()
            break
        product = layer.lora_B["default"].weight.detach().float() * layer.scaling["default"]
        found[name] = (layer.lora_A["default"].weight.detach().float(), product)
    if not found or config.modules_to_save or config.bias != "none":
        raise Problem("stack_not_exact", label=label("create_new_adapter"), path=str(folder))
    adapted.unload()
    if hasattr(model, "peft_config"):  # a mark that peft may leave; it warns of several adapters when it finds one
        del model.peft_config
    return found


def _check_foldable(adapted: PeftModel, settings: TrainSettings) -> None:
    embedding = adapted.get_base_model().get_input_embeddings().weight
    for name, layer in _layers(adapted).items():
        if type(layer.get_base_layer()) is not nn.Linear or layer.get_base_layer().weight is embedding:
            method = "pissa_init" if settings.pissa_init else "create_new_adapter"
            raise Problem("fold_unsupported", method=label(method), value=name, label=label("lora_target"))
    most = min(min(layer.get_base_layer().weight.shape) for layer in _layers(adapted).values())
    if settings.pissa_init and settings.lora_rank > most:
        raise Problem("pissa_rank", label=label("lora_rank"), value=settings.lora_rank, most=most)


def _start(adapted: PeftModel, old: Factors, settings: TrainSettings) -> Factors:
    """The term that a fresh run adds to the base: the old adapter's product, less what PiSSA starts from."""
    layers = _layers(adapted)
    if missing := sorted({name.rsplit(".", 1)[-1] for name in old.keys() - layers.keys()}):
        raise Problem("stack_targets", label=label("lora_target"), value=",".join(settings.lora_target),
                      missing=", ".join(missing))  # fmt: skip
    found: Factors = {}
    for name, layer in layers.items():
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        parts = []
        if name in old:
            old_a, old_b = old[name]
            parts.append((old_a.to(a), (old_b / layer.scaling["default"]).to(b)))
        if settings.pissa_init:
            _start_from_principal_part(layer, parts)
            parts.append((a.detach().clone(), -b.detach()))
        nothing = (a.new_empty(0, a.shape[1]), b.new_empty(b.shape[0], 0))
        firsts, seconds = zip(*(parts or [nothing]), strict=True)
        found[name] = (torch.cat(firsts).detach(), torch.cat(seconds, 1).detach())
    return _same_rank(found)


def _start_from_principal_part(layer: LoraLayer, parts: list[tuple[Tensor, Tensor]]) -> None:
    """The adapter's matrices from the weight's greatest singular values (https://arxiv.org/abs/2404.02948, eq. 2-4)."""
    weight = layer.get_base_layer().weight.detach().float()
    scaling = layer.scaling["default"]
    for a, b in parts:
        weight = weight + scaling * (b.float() @ a.float())
    u, s, v = torch.svd_lowrank(weight, layer.r["default"], PISSA_ITERATIONS)
    root = (s / scaling).sqrt()
    for matrix, value in ((layer.lora_A, root[:, None] * v.T), (layer.lora_B, u * root)):
        # Every process must take the same start out of its base.
        matrix["default"].weight.data.copy_(from_the_first(value))


def _same_rank(found: Factors) -> Factors:
    """Zeros where a layer's term has a lower rank than another's: a file has one rank for all."""
    rank = max(len(a) for a, _ in found.values())
    return {
        name: (nn.functional.pad(a, (0, 0, 0, rank - len(a))), nn.functional.pad(b, (0, rank - len(a))))
        for name, (a, b) in found.items()
    }


def _resume_folded(adapted: PeftModel, folder: Path) -> Factors:
    """Loads what was trained from a file that `_write_folded` made; returns the rest of it."""
    tensors = load_file(folder / WEIGHTS)
    found: Factors = {}
    for name, layer in _layers(adapted).items():
        first, second = (f"base_model.model.{name}.lora_{matrix}.weight" for matrix in "AB")
        if first not in tensors or second not in tensors:
            raise adapter_mismatch(adapted.get_base_model(), folder, first)
        rank, a, b = layer.r["default"], tensors[first], tensors[second]
        tensors[first], tensors[second] = a[:rank].contiguous(), b[:, :rank].contiguous()
        like = layer.lora_A["default"].weight
        found[name] = (a[rank:].contiguous().to(like), b[:, rank:].contiguous().to(like))
    _load(adapted, tensors, folder)
    return found


@torch.no_grad()
def _fold(adapted: PeftModel) -> None:
    """Adds `adapted.folded` to the base's weights, and keeps it on the CPU from then on."""
    for name, layer in _layers(adapted).items():
        weight = layer.get_base_layer().weight
        a, b = adapted.folded[name]
        weight.copy_((weight.float() + layer.scaling["default"] * (b.float() @ a.float())).to(weight.dtype))
        adapted.folded[name] = (a.cpu(), b.cpu())


@torch.no_grad()
def _start_magnitudes(adapted: PeftModel) -> None:
    """DoRA's magnitudes are the norms of the weights that it starts from (https://arxiv.org/abs/2402.09353, eq. 5)."""
    for layer in _layers(adapted).values():
        low = layer.lora_B["default"].weight.float() @ layer.lora_A["default"].weight.float()
        whole = layer.get_base_layer().weight.float() + layer.scaling["default"] * low
        layer.lora_magnitude_vector["default"].weight.copy_(whole.norm(dim=1))


def _write_folded(folder: Path, folded: Factors) -> None:
    """Widens the adapter in `folder` by `folded`: B A + b a = [B b] [A a]ᵀ, at the same scaling."""
    tensors = load_file(folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    for name, (a, b) in folded.items():
        first, second = (f"base_model.model.{name}.lora_{matrix}.weight" for matrix in "AB")
        tensors[first] = torch.cat([tensors[first], a])
        tensors[second] = torch.cat([tensors[second], b], 1)
    rank = config["r"] + len(a)
    scaling = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
    alpha = scaling * rank
    config |= {"r": rank, "lora_alpha": int(alpha) if alpha == int(alpha) else alpha, "use_rslora": False}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
