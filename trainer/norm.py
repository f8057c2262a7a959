"""RMS norms (https://arxiv.org/abs/1910.07467) in torch's one kernel instead of six operations that copy to fp32.

On the CPU torch has no such kernel; there a frozen norm is one autograd node of few passes over memory.
"""

import types
from typing import Any

import torch
from torch import Tensor, nn


class FrozenNorm(torch.autograd.Function):
    """x · weight / rms(x) in fp32 for a weight that is not trained. x: (…, size) · weight: (size)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = length.square_().div_(len(weight)).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        grad = grad * weight
        along = torch.linalg.vecdot(grad, x).unsqueeze(-1).mul_(scale.pow(3)).div_(len(weight))
        return grad.mul_(scale).addcmul_(x, along, value=-1), None, None


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
    if x.is_cpu and x.dtype == weight.dtype == torch.float32 and not weight.requires_grad:
        return FrozenNorm.apply(x, weight, _epsilon(module))
    return nn.functional.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), _epsilon(module))
