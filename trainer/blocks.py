"""Attention and feed-forward blocks of LoRA training on the CPU, in few autograd nodes with few passes over memory.

Matrix products run at the processor's peak there, and what surrounds them took as long as they did. The nodes
here take over where a model's own blocks, tried on random numbers, compute the same; others keep their own.
"""

import inspect
import logging
import types
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trainer.lora import in_fp32_on_cpu, is_plain, products

log = logging.getLogger("trainer")


class SwiGLU(torch.autograd.Function):
    """silu(gate) · up (https://arxiv.org/abs/2002.05202), both (…, inner); one exponential for both directions."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        sigmoid = gate.sigmoid()
        silu = gate * sigmoid
        ctx.save_for_backward(sigmoid, silu, up)
        return silu * up

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        sigmoid, silu, up = ctx.saved_tensors
        slope = torch.lerp(sigmoid, sigmoid.new_ones(()), silu)  # σ + silu · (1 - σ)
        return slope.mul_(grad).mul_(up), grad * silu


class Rotary(torch.autograd.Function):
    """Rotary positions (https://arxiv.org/abs/2104.09864), the two halves of a head being the coordinates.

    x: (samples, tokens, heads, head_dim) · cos, sin: (1 or samples, tokens, head_dim).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
        ctx.save_for_backward(cos, sin)
        y = x * cos
        (y1, y2), (x1, x2), (sin1, sin2) = (states.chunk(2, -1) for states in (y, x, sin))
        y1.addcmul_(x2, sin1, value=-1)
        y2.addcmul_(x1, sin2)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        grad_x = grad * cos
        (x1, x2), (y1, y2), (sin1, sin2) = (states.chunk(2, -1) for states in (grad_x, grad, sin))
        x1.addcmul_(y2, sin2)
        x2.addcmul_(y1, sin1, value=-1)
        return grad_x, None, None


def fuse_blocks(model: nn.Module) -> int:
    """Lets the blocks of `model` that compute what the nodes here do use them; how many do.

    Only blocks whose linear layers are all plain LoRA layers with frozen fp32 weights on the CPU.
    """
    fused = 0
    for module in model.modules():
        for names, forward, inputs in (
            (("gate_proj", "up_proj", "down_proj"), _feed_forward, _feed_forward_inputs),
            (("q_proj", "k_proj", "v_proj", "o_proj"), _attention, _attention_inputs),
        ):
            layers = [getattr(module, name, None) for name in names]
            if all(isinstance(layer, LoraLinear) and is_plain(layer) and in_fp32_on_cpu(layer) for layer in layers):
                fused += _replace(module, forward, inputs)
    return fused


@torch.no_grad()
def _replace(module: nn.Module, forward: Any, make_inputs: Any) -> bool:
    """Whether `forward` gives what the module's own does, and so takes its place."""
    if "forward" in vars(module) or not (inputs := make_inputs(module)):
        return False
    ours, training = types.MethodType(forward, module), module.training
    try:
        # In training as well: a block may have dropout of its own.
        same = all(_is_same(module.train(mode), ours, inputs) for mode in (False, True))
    except Exception as error:  # a model's own code is not made for these inputs, nor ours for its
        log.debug("%s keeps its own forward pass: %s", type(module).__name__, error)
        same = False
    module.train(training)
    if same:
        module.forward = ours
    return same


def _is_same(own: Any, ours: Any, inputs: dict[str, Any]) -> bool:
    """Whether both give the same from the same random numbers."""
    outputs = []
    for compute in (own, ours):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            outputs.append(_first(compute(**inputs)))
    wanted, found = outputs
    return wanted.shape == found.shape and torch.allclose(
        wanted, found, rtol=1e-4, atol=1e-5 * float(wanted.abs().max())
    )


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _feed_forward(module: Any, x: Tensor) -> Tensor:
    gate, up = products(x, module.gate_proj, module.up_proj)
    return module.down_proj(SwiGLU.apply(gate, up))


def _feed_forward_inputs(module: Any) -> dict[str, Tensor] | None:
    names = list(inspect.signature(module.forward).parameters)
    width = module.gate_proj.in_features
    # Small numbers and large ones: an activation may differ in its tails only.
    return (
        {names[0]: _random(1, 4, width) * torch.tensor([0.1, 1.0, 10.0, 100.0])[:, None]} if len(names) == 1 else None
    )


def _attention(
    module: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    cos, sin = position_embeddings
    if past_key_values is not None or cos.shape[-1] != module.head_dim:
        return type(module).forward(
            module, hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs
        )
    heads = (*hidden_states.shape[:-1], -1, module.head_dim)
    q, k, v = (states.view(heads) for states in products(hidden_states, module.q_proj, module.k_proj, module.v_proj))
    if hasattr(module, "q_norm"):
        q, k = module.q_norm(q), module.k_norm(k)
    q, k = Rotary.apply(q, cos, sin), Rotary.apply(k, cos, sin)
    attend = ALL_ATTENTION_FUNCTIONS[module.config._attn_implementation]
    states, weights = attend(
        module,
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attention_mask,
        dropout=module.attention_dropout if module.training else 0.0,
        scaling=module.scaling,
        sliding_window=getattr(module, "sliding_window", None),
        **kwargs,
    )
    return module.o_proj(states.flatten(2)), weights


def _attention_inputs(module: Any) -> dict[str, Any] | None:
    wanted = ["hidden_states", "position_embeddings", "attention_mask"]
    known = inspect.signature(module.forward).parameters
    needed = {"head_dim", "scaling", "attention_dropout", "config"}
    if not known.keys() >= set(wanted) or not all(hasattr(module, name) for name in needed):
        return None
    if module.config._attn_implementation not in ALL_ATTENTION_FUNCTIONS:
        return None
    width, tokens = module.q_proj.in_features, 5
    positions = tuple(_random(2, 1, tokens, module.head_dim))
    return dict(zip(wanted, (_random(2, tokens, width), positions, None), strict=True))
