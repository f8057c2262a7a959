"""AdamW and its parameter groups: which weights decay, and which have a learning rate of their own."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from trainer import device_kinds
from trainer.distributed import number
from trainer.settings import TrainSettings


def adamw(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """The optimizer of `model`'s trained weights; its first group has the learning rate of `settings`."""
    place = next(parameter.device.type for parameter in model.parameters() if parameter.requires_grad)
    return torch.optim.AdamW(
        groups(model, settings),
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        fused=device_kinds.of(place).fuses_adamw or None,  # None: torch's choice of the other ways
    )


def groups(model: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """Matrices decay, and DoRA's magnitudes as transformers' Trainer has it; biases and norms do not.

    LoRA+ (https://arxiv.org/abs/2402.12354, eq. 5): the B matrices learn `loraplus_lr_ratio` times as fast, and with
    them vectors such as DoRA's magnitudes, as peft has it.
    """
    found: dict[tuple[float, float], list[nn.Parameter]] = {(1.0, settings.weight_decay): []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        fast = settings.loraplus_lr_ratio and ("lora_B" in name or "lora_embedding_B" in name or parameter.ndim < 2)
        decays = parameter.ndim >= 2 or "lora_magnitude_vector" in name
        key = (settings.loraplus_lr_ratio if fast else 1.0, settings.weight_decay if decays else 0.0)
        found.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": settings.learning_rate * ratio, "weight_decay": decay}
        for (ratio, decay), parameters in found.items()
    ]


def overflowed(scaler: torch.amp.GradScaler, grad_norm: Tensor) -> bool:
    """Whether scaled fp16 gradients were too large, so that no weight was changed and the step is to be made again.

    The scale has been halved by then. Below 1 it is no longer the scale's fault.
    """
    return scaler.is_enabled() and not math.isfinite(number(grad_norm)) and scaler.get_scale() >= 1
