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


Frozen = tuple[Tensor, Tensor | None, float]


class LoraProducts(torch.autograd.Function):
    """The same for several layers of one input, in fp32 on the CPU.

    x: (…, in) · frozen: weight (out, in), bias (out) or None, and scaling of each layer · factors: a (rank, in) and
    b (out, rank) of each in turn. Returns each layer's (…, out).
    The low-rank states are (rank, tokens): products with 8 columns take MKL 2 to 5 times as long as with 8 rows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: list[Frozen], *factors: Tensor) -> tuple[Tensor, ...]:
        flat = x.reshape(-1, x.shape[-1])
        a = torch.cat(factors[::2])
        low = a @ flat.T
        ctx.save_for_backward(flat, low, a, *factors[1::2])
        ctx.frozen, ctx.shape = frozen, x.shape
        ctx.ranks = [len(matrix) for matrix in factors[::2]]
        outputs = []
        for (weight, bias, scaling), part, b in zip(frozen, low.split(ctx.ranks), factors[1::2], strict=True):
            y = torch.mm(flat, weight.T) if bias is None else torch.addmm(bias, flat, weight.T)
            outputs.append(y.addmm_(part.T, b.T, alpha=scaling).view(*x.shape[:-1], -1))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flat, low, a, *bs = ctx.saved_tensors
        grad_low, grad_x = torch.empty_like(low), None
        of_factors: list[Tensor] = []
        parts = zip(ctx.frozen, grads, low.split(ctx.ranks), grad_low.split(ctx.ranks), bs, strict=True)
        for (weight, _, scaling), whole, part, grad_part, b in parts:
            grad = whole.reshape(len(flat), -1)
            torch.mm(b.T, grad.T, out=grad_part).mul_(scaling)
            of_factors.append((part @ grad).mul_(scaling).T.contiguous())
            if ctx.needs_input_grad[0]:
                grad_x = grad @ weight if grad_x is None else grad_x.addmm_(grad, weight)
        of_a = (grad_low @ flat).split(ctx.ranks)
        if grad_x is not None:
            grad_x = grad_x.addmm_(grad_low.T, a).view(ctx.shape)
        return grad_x, None, *(grad for pair in zip(of_a, of_factors, strict=True) for grad in pair)


def speed_up(model: torch.nn.Module) -> bool:
    """Lets the plain LoRA layers of `model` compute in one node. Whether that is all that is trained."""
    if not isinstance(model, PeftModel):
        return False
    layers = [module for module in model.modules() if hasattr(module, "lora_A")]
    plain = [layer for layer in layers if is_plain(layer)]
    for layer in plain:
        layer.forward = types.MethodType(_forward, layer)
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    return bool(plain) and trained == {id(weight) for layer in plain for weight in factors(layer)}


def is_plain(layer: torch.nn.Module) -> bool:
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


def factors(layer: torch.nn.Module) -> tuple[Tensor, Tensor]:
    """a and b of a plain LoRA layer."""
    name = layer.active_adapters[0]
    return layer.lora_A[name].weight, layer.lora_B[name].weight


def products(x: Tensor, *layers: LoraLinear) -> tuple[Tensor, ...]:
    """What plain LoRA layers make of one input."""
    if any(layer.disable_adapters or layer.merged for layer in layers):
        return tuple(LoraLinear.forward(layer, x) for layer in layers)
    frozen = [_frozen(layer) for layer in layers]
    if all(in_fp32_on_cpu(layer) for layer in layers) and x.dtype == torch.float32:
        return LoraProducts.apply(x, frozen, *(factor for layer in layers for factor in factors(layer)))
    return tuple(
        LoraProduct.apply(x, weight, bias, *factors(layer), scaling)
        for layer, (weight, bias, scaling) in zip(layers, frozen, strict=True)
    )


def in_fp32_on_cpu(layer: LoraLinear) -> bool:
    weight = layer.get_base_layer().weight
    return weight.is_cpu and weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def _frozen(layer: LoraLinear) -> Frozen:
    base = layer.get_base_layer()
    return base.weight, base.bias, layer.scaling[layer.active_adapters[0]]


def _forward(layer: LoraLinear, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return LoraLinear.forward(layer, x, *args, **kwargs) if args or kwargs else products(x, layer)[0]
