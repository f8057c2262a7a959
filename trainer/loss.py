"""The loss of a batch, with logits only where there are labels, a chunk of them at a time."""

import types
from typing import Any

import torch
from torch import Tensor, nn

from trainer.batching import Batch
from trainer.budget import CHUNK_ELEMENTS
from trainer.model import causal_lm

LAYER_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


class LinearCrossEntropy(torch.autograd.Function):
    """Weighted sum of the cross entropies of hidden @ weightᵀ; the gradient is computed beside the value.

    hidden: (labels, hidden) · weight: (vocabulary, hidden) · targets: int64 (labels) · weights: fp32 (labels).
    Returns a fp32 scalar. The derivative is softmax(logits) minus one at the target, so one buffer of logits
    serves for both, and only a chunk of it exists at any time.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        total = torch.zeros((), device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        with torch.autocast(kind, enabled=False):
            matrix = weight.to(dtype)
            rows = max(1, CHUNK_ELEMENTS // len(weight))
            for start in range(0, len(hidden), rows):
                part, target = hidden[start : start + rows].to(dtype), targets[start : start + rows, None]
                counted = weights[start : start + rows, None]
                log_probabilities = (part @ matrix.T).float().log_softmax(-1)
                total -= (log_probabilities.gather(1, target) * counted).sum()
                if grad_hidden is None and grad_weight is None:
                    continue
                grad = log_probabilities.exp_().scatter_add_(1, target, torch.full_like(counted, -1.0))
                grad = grad.mul_(counted).to(dtype)
                if grad_hidden is not None:
                    grad_hidden[start : start + rows] = grad @ matrix
                if grad_weight is not None:
                    grad_weight += grad.T @ part
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * grad.to(grad_hidden.dtype),
            None if grad_weight is None else grad_weight * grad.to(grad_weight.dtype),
            None,
            None,
        )


class LabelLoss(nn.Module):
    """Weighted sum of the cross entropies at the label positions of a batch.

    A vocabulary of 152k makes the logits of prompt and padding the largest tensor of a step, so only
    the hidden states that predict a label reach the output layer. Models that do more than one linear
    layer there (soft capping, logit scales) are found by `check` and take their own forward pass.
    On the CPU the last layer's feed-forward block, too, sees only those states: no later one needs the others.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.labels_only = True
        self.narrow = False

    def forward(self, batch: Batch, states: bool = False) -> Tensor:
        """The fp32 loss of `batch`, a scalar; `states`: what the output layer makes it of instead, (labels, hidden)."""
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
        if batch.starts is not None:
            inputs |= {"position_ids": batch.position_ids, "cu_seq_lens_q": batch.starts, "cu_seq_lens_k": batch.starts,
                       "max_length_q": batch.longest, "max_length_k": batch.longest}  # fmt: skip
        if not self.labels_only and not states:
            logits = self.model(**inputs).logits.flatten(0, 1).index_select(0, batch.predicting)
            return _weighted(logits, batch)
        model = causal_lm(self.model)
        if self.narrow:
            hidden = model.get_decoder()(**inputs, predicting=batch.predicting).last_hidden_state[0]
        else:
            hidden = model.get_decoder()(**inputs).last_hidden_state.flatten(0, 1).index_select(0, batch.predicting)
        if states:
            return hidden
        output = model.get_output_embeddings()
        if type(output) is nn.Linear and output.bias is None:
            loss: Tensor = LinearCrossEntropy.apply(hidden, output.weight, batch.targets, batch.weights)
            return loss
        return _weighted(output(hidden), batch)

    @torch.no_grad()
    def check(self, batch: Batch) -> None:
        """Compares the ways on `batch`; where they differ, this model's own forward pass is used from now on."""
        training = self.training
        self.eval()
        self.labels_only = self.narrow = False
        states = self(batch, states=True)
        self.labels_only = self._is_one_layer(batch, states)
        if self.labels_only and batch.input_ids.is_cpu and not torch.is_autocast_enabled("cpu"):
            self._try_narrow(batch, states)
        self.train(training)

    def _is_one_layer(self, batch: Batch, states: Tensor) -> bool:
        """Whether the model's logits are what its output layer makes of `states`.

        Not the loss tells: that of a model that has learned nothing hardly depends on its logits. Here the layer
        answers with numbers of every size, for what caps them shows in large ones only.
        """
        output = causal_lm(self.model).get_output_embeddings()
        seen: list[Tensor] = []

        def answer(_: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> Tensor:
            given = torch.linspace(-100, 100, logits.shape[-1]).to(logits).expand_as(logits)
            seen.extend(part.flatten(0, 1).index_select(0, batch.predicting) for part in (inputs[0], given))
            return given

        if output is None:
            return False
        hook = output.register_forward_hook(answer)
        try:
            loss = self(batch)
        finally:
            hook.remove()
        if not seen:
            return False
        given_states, given = seen
        return torch.allclose(loss, _weighted(given, batch), rtol=1e-3) and are_close(states, given_states, 2e-2)

    def _try_narrow(self, batch: Batch, states: Tensor) -> None:
        layers = getattr(causal_lm(self.model).get_decoder(), "layers", None)
        if not layers or {name for name, _ in layers[-1].named_children()} != LAYER_PARTS:
            return
        last = layers[-1]
        last.forward = types.MethodType(_last_layer, last)
        self.narrow = True
        self.narrow = are_close(self(batch, states=True), states, 1e-4)
        if not self.narrow:
            del last.forward


def are_close(found: Tensor, wanted: Tensor, most: float) -> bool:
    """Whether the norm of their difference is at most `most` times that of `wanted`."""
    return found.shape == wanted.shape and bool((found - wanted).float().norm() <= most * wanted.float().norm())


def _last_layer(layer: Any, hidden_states: Tensor, *args: Any, predicting: Tensor | None = None, **kwargs: Any) -> Any:
    """A decoder layer for the positions `predicting` of the flattened input only: (1, labels, hidden)."""
    if predicting is None:
        return type(layer).forward(layer, hidden_states, *args, **kwargs)
    attended = layer.self_attn(layer.input_layernorm(hidden_states), *args, **kwargs)[0]
    chosen = (hidden_states + attended).flatten(0, 1).index_select(0, predicting).unsqueeze(0)
    return chosen + layer.mlp(layer.post_attention_layernorm(chosen))


def _weighted(logits: Tensor, batch: Batch) -> Tensor:
    return (nn.functional.cross_entropy(logits.float(), batch.targets, reduction="none") * batch.weights).sum()
