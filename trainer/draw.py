"""Drawing the next token, on whatever device the logits are: nothing here waits for it.

As transformers' processors do: repetition penalty, temperature, top-k, top-p, in that order. Chance comes from
numbers made beforehand on the processor, so that a seed gives the same numbers on every device.
"""

import torch
from torch import Tensor

from trainer.sampling import Sampling

NOT_FINITE = -1
# Temperatures below it choose the likeliest token in any case, and fp32 has no number for the least of them.
_LEAST = 1e-30


class Draw:
    """Call it with fp32 or 16-bit logits of shape (vocabulary,) for the token id, int64 of shape (1,).

    NOT_FINITE stands for logits that are no numbers. `count`: most tokens that will be drawn.
    """

    def __init__(self, sampling: Sampling, prompt_ids: list[int], count: int, vocabulary: int, device: torch.device):
        self._sampling = sampling
        self.kept = min(sampling.top_k or vocabulary, vocabulary)
        generator = torch.Generator()
        # An own generator: no other use of random numbers in this process can change a seeded reply.
        if sampling.seed < 0:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
        # Rounding must not make 1 of one: that is the place of the unlikeliest token, whose probability may be 0.
        self.chances = (
            torch.rand(count, generator=generator, dtype=torch.float64).clamp(max=1 - 2**-23).float().to(device)
        )
        self.index = torch.zeros(1, dtype=torch.int64, device=device)
        self._seen: Tensor | None = None
        if sampling.repetition_penalty != 1:
            self._seen = torch.zeros(vocabulary, dtype=torch.bool, device=device)
            self._seen[torch.tensor(prompt_ids, device=device)] = True

    def __call__(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        if self._seen is not None:
            logits = self._penalised(logits, self._seen)
        if self._sampling.temperature == 0:
            value, token = logits.max(dim=-1, keepdim=True)
        else:
            probabilities, ids, value = self.distribution(logits)
            token = ids.gather(0, self._place(probabilities))
        if self._seen is not None:
            self._seen.index_fill_(0, token, True)
        self.index += 1
        return torch.where(value.isfinite(), token, NOT_FINITE)

    def distribution(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities of the tokens that may be drawn and their ids, likeliest first, shapes (k,); the largest logit.

        The probabilities of those beyond top-p are 0; they need not add up to 1.
        """
        values, ids = logits.topk(self.kept)
        # Less the largest: what is divided by next to nothing is then 0 or -inf, and never inf.
        probabilities = ((values - values[:1]) / max(self._sampling.temperature, _LEAST)).softmax(dim=-1)
        if self._sampling.top_p < 1:
            # A token stays when those before it do not reach top_p yet; so the first always does.
            before = probabilities.cumsum(dim=-1) - probabilities
            probabilities = probabilities.masked_fill(before >= max(self._sampling.top_p, 1e-9), 0)
        return probabilities, ids, values[:1]

    def _place(self, probabilities: Tensor) -> Tensor:
        """Where the chance of this token falls in the sums of `probabilities`, shape (1,)."""
        sums = probabilities.cumsum(dim=-1)
        chance = self.chances.gather(0, self.index) * sums[-1:]
        return torch.searchsorted(sums, chance, right=True).clamp(max=len(sums) - 1)

    def _penalised(self, logits: Tensor, seen: Tensor) -> Tensor:
        penalty = self._sampling.repetition_penalty
        return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)
