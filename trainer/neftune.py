"""NEFTune (https://arxiv.org/abs/2310.05914): noise on the input embeddings in training."""

from typing import Any

import torch
from torch import Tensor, nn

from trainer.batching import Batch


class Neftune:
    """Adds U(-1, 1) · alpha / sqrt(L d) to the embeddings of each sample, L its tokens, d the hidden size.

    L counts a sample's own tokens, never the padding, so the noise is as strong however a step is cut into passes.
    `loss_of` is the module that is given the batches, `embeddings` the one inside it that looks tokens up.
    """

    def __init__(self, loss_of: nn.Module, embeddings: nn.Module, alpha: float) -> None:
        self._alpha = alpha
        self._batch: Batch | None = None
        loss_of.register_forward_pre_hook(self._see)
        embeddings.register_forward_hook(self._add_noise)

    def _see(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._batch = arguments[0]

    def _add_noise(self, module: nn.Module, _: Any, embedded: Tensor) -> Tensor:
        if not module.training:
            return embedded
        assert self._batch is not None
        scale = self._alpha / (_token_lengths(self._batch) * embedded.shape[-1]).sqrt()
        return embedded + torch.empty_like(embedded).uniform_(-1, 1) * scale[..., None].to(embedded)


def _token_lengths(batch: Batch) -> Tensor:
    """For every token how many its sample has: (samples, 1) of a padded batch, (1, tokens) of one end to end."""
    lengths = torch.tensor(batch.lengths)
    return lengths[:, None] if batch.starts is None else lengths.repeat_interleave(lengths)[None]
