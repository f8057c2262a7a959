"""LoRA layers (https://arxiv.org/abs/2106.09685) with as few operations as they need.

peft's own layer casts, scales and adds in operations of their own, each of which reads and writes the
whole activation; on short samples those cost more than the low-rank product. Here one autograd node
computes y = x Wᵀ + b + s (x Aᵀ) Bᵀ with the additions inside the matrix products.
"""

import types
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor


class LoraProduct(torch.autograd.Function):
    """x: (…, in) · weight: (out, in), frozen · bias: (out) or None · a: (rank, in) · b: (out, rank).

    Computes in `weight`'s dtype; the gradients of `a` and `b` are in theirs.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(weight.dtype)
        a_cast, b_cast = a.to(weight.dtype), b.to(weight.dtype)
        low = flat @ a_cast.T
        y = torch.mm(flat, weight.T) if bias is None else torch.addmm(bias, flat, weight.T)
        y.addmm_(low, b_cast.T, alpha=scaling)
        ctx.save_for_backward(flat, low, weight, a_cast, b_cast)
        ctx.scaling, ctx.shape, ctx.dtypes = scaling, x.shape, (x.dtype, a.dtype, b.dtype)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, low, weight, a, b = ctx.saved_tensors
        x_dtype, a_dtype, b_dtype = ctx.dtypes
        grad = grad.reshape(-1, grad.shape[-1])
        unused = grad.new_empty(())  # times beta = 0: the scaling is inside the product
        grad_low = torch.addmm(unused, grad, b, beta=0, alpha=ctx.scaling)
        grad_a = (grad_low.T @ flat).to(a_dtype)
        grad_b = torch.addmm(unused, grad.T, low, beta=0, alpha=ctx.scaling).to(b_dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ weight).addmm_(grad_low, a).view(ctx.shape).to(x_dtype)
        return grad_x, None, None, grad_a, grad_b, None


def speed_up(model: torch.nn.Module) -> bool:
    """Lets the plain LoRA layers of `model` compute in one node. Whether that is all that is trained."""
    if not isinstance(model, PeftModel):
        return False
    layers = [module for module in model.modules() if hasattr(module, "lora_A")]
    plain = [layer for layer in layers if _is_plain(layer)]
    for layer in plain:
        layer.forward = types.MethodType(_forward, layer)
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    return bool(plain) and trained == {id(weight) for layer in plain for weight in _matrices(layer)}


def _is_plain(layer: torch.nn.Module) -> bool:
    """One adapter, no dropout and no variant (DoRA …) on an unquantized linear layer."""
    return (
        type(layer) is LoraLinear
        and type(layer.get_base_layer()) is torch.nn.Linear
        and len(layer.active_adapters) == 1
        and len(layer.lora_A) == 1
        and not layer.lora_variant
        and not layer.fan_in_fan_out
        and isinstance(layer.lora_dropout[layer.active_adapters[0]], torch.nn.Identity)
        and layer.lora_B[layer.active_adapters[0]].bias is None
    )


def _matrices(layer: torch.nn.Module) -> tuple[Tensor, Tensor]:
    name = layer.active_adapters[0]
    return layer.lora_A[name].weight, layer.lora_B[name].weight


def _forward(layer: LoraLinear, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if layer.disable_adapters or layer.merged or args or kwargs:
        return LoraLinear.forward(layer, x, *args, **kwargs)
    base = layer.get_base_layer()
    return LoraProduct.apply(x, base.weight, base.bias, *_matrices(layer), layer.scaling[layer.active_adapters[0]])
