"""The loss of a batch, with logits only where there are labels."""

import torch
from torch import nn

from trainer.batching import IGNORED, Batch
from trainer.model import causal_lm


class LabelLoss(nn.Module):
    """Sum of the cross entropies at the label positions of a batch.

    A vocabulary of 152k makes the logits of prompt and padding the largest tensor of a step, so only
    the hidden states that predict a label reach the output layer. Models that do more than one linear
    layer there (soft capping, logit scales) are found by `check` and take their own forward pass.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.labels_only = True

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """input_ids, labels: int64 (samples, tokens). Returns the fp32 sum, a scalar."""
        targets = labels[:, 1:]
        kept = targets != IGNORED
        if self.labels_only:
            model = causal_lm(self.model)
            hidden = model.get_decoder()(input_ids=input_ids, use_cache=False).last_hidden_state
            logits = model.get_output_embeddings()(hidden[:, :-1][kept])
        else:
            logits = self.model(input_ids=input_ids, use_cache=False).logits[:, :-1][kept]
        return nn.functional.cross_entropy(logits.float(), targets[kept], reduction="sum")

    @torch.no_grad()
    def check(self, batch: Batch) -> None:
        """Compares both ways on `batch`; where they differ, this model's own forward pass is used from now on."""
        training = self.training
        self.eval()
        short = self(batch.input_ids, batch.labels)
        self.labels_only = False
        whole = self(batch.input_ids, batch.labels)
        self.labels_only = torch.allclose(short, whole, rtol=2e-2)
        self.train(training)
