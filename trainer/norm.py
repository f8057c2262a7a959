"""RMS norms (https://arxiv.org/abs/1910.07467) in torch's one kernel instead of six operations that copy to fp32."""

import types

import torch
from torch import Tensor, nn


def fuse_norms(model: nn.Module) -> int:
    """Lets the norms of `model` that compute what torch's kernel computes use it; how many do."""
    fused = 0
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and _is_plain(module):
            module.forward = types.MethodType(_forward, module)
            fused += 1
    return fused


def _epsilon(module: nn.Module) -> float | None:
    return next((getattr(module, name) for name in ("variance_epsilon", "eps") if hasattr(module, name)), None)


@torch.no_grad()
def _is_plain(module: nn.Module) -> bool:
    """Found by trying: some families add one to the weight, scale or shift."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 1 or _epsilon(module) is None:
        return False
    if sum(parameter.numel() for parameter in module.parameters()) != weight.numel():
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, len(weight), generator=generator).to(weight)
    # A weight of ones would hide what a family does with it.
    kept = weight.clone()
    weight.copy_(torch.rand(len(weight), generator=generator).to(weight))
    same = torch.allclose(module(x), _forward(module, x), rtol=2e-2 if weight.dtype != torch.float32 else 1e-5)
    weight.copy_(kept)
    return same


def _forward(module: nn.Module, x: Tensor) -> Tensor:
    weight: Tensor = module.weight
    return nn.functional.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), _epsilon(module))
