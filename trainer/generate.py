"""The decoding loop: prompt ids in, text out as it comes, over any AutoModelForCausalLM.

One reply at a time, batch size 1. Greedy output is that of transformers' `generate`, token for token.
"""

import inspect
import math
import threading
import time
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from trainer.detokenizer import Detokenizer
from trainer.problems import Problem
from trainer.sampling import Sampling

FinishReason = Literal["stop", "length", "context", "cancelled"]

# Stands in for a forward pass's result and the wrapped model alike: peft's wrapper is no PreTrainedModel.
Model = Any


@dataclass(frozen=True)
class Finish:
    """Why a reply ended, and its numbers. `tokens` without the stop token; `first_token_s` None when there was none."""

    reason: FinishReason
    tokens: int
    prompt_tokens: int
    seconds: float
    first_token_s: float | None

    @property
    def tokens_per_second(self) -> float | None:
        """Of decoding alone, the prompt's time left out; None for less than two tokens."""
        if self.first_token_s is None or self.tokens < 2 or self.seconds <= self.first_token_s:
            return None
        return (self.tokens - 1) / (self.seconds - self.first_token_s)


class Cancelled(Exception):
    """Raised inside a forward pass to leave it early."""


def reply(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: list[int],
    sampling: Sampling,
    stop_token_ids: Collection[int],
    *,
    cancel: threading.Event | None = None,
    skip_special_tokens: bool = True,
) -> Generator[str | Finish, None, None]:
    """Text in whole characters, as soon as it is certain, then one Finish.

    Raises Problem chat_too_long when the prompt leaves no room for an answer, chat_not_finite when the
    model computes no numbers.
    """
    cancel = cancel or threading.Event()
    text = Detokenizer(tokenizer, skip_special_tokens)
    decoding = Decoding(model, prompt_ids, sampling, cancel)
    started, first_token_s, tokens = time.perf_counter(), None, 0
    reason: FinishReason = decoding.room_reason
    for token_id in decoding:
        first_token_s = first_token_s or time.perf_counter() - started
        if token_id in stop_token_ids:
            reason = "stop"
            break
        tokens += 1
        if new := text.push(token_id):
            yield new
    if cancel.is_set() and reason != "stop":
        reason = "cancelled"
    if rest := text.end():
        yield rest
    yield Finish(reason, tokens, len(prompt_ids), time.perf_counter() - started, first_token_s)


class Decoding:
    """Iterates over new token ids until there is no room or `cancel` is set; the caller knows the stop ids."""

    def __init__(self, model: Model, prompt_ids: list[int], sampling: Sampling, cancel: threading.Event) -> None:
        limit = context_limit(model)
        if limit is not None and len(prompt_ids) >= limit:
            raise Problem("chat_too_long", tokens=len(prompt_ids), limit=limit)
        room = sampling.max_new_tokens if limit is None else min(sampling.max_new_tokens, limit - len(prompt_ids))
        self.room_reason: FinishReason = "length" if room == sampling.max_new_tokens else "context"
        self._room = room
        self._model, self._cancel, self._ids = model, cancel, prompt_ids
        self._cache: Any = None
        self._draw = Draw(sampling, prompt_ids, model.device)
        self._arguments = {"use_cache": True} | ({"logits_to_keep": 1} if _keeps_last_logits(model) else {})

    def __iter__(self) -> Iterator[int]:
        try:
            with _leaving_early(self._model, self._cancel):
                token = self._next(torch.tensor([self._ids], device=self._model.device))
        except Cancelled:
            return
        for position in range(1, self._room + 1):
            token_id = int(token)  # The one wait for the device a token: streaming needs the number.
            yield token_id
            if self._cancel.is_set() or position == self._room:
                return
            token = self._step(token)

    def _step(self, token: torch.Tensor) -> torch.Tensor:
        if self._cache is not None:
            return self._next(token.view(1, 1))
        # A model that keeps no cache computes everything again: slow, and right.
        self._ids = [*self._ids, int(token)]
        return self._next(torch.tensor([self._ids], device=self._model.device))

    @torch.inference_mode()
    def _next(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The next token, shape (1,), after `input_ids` of shape (1, n)."""
        output = self._model(input_ids=input_ids, past_key_values=self._cache, **self._arguments)
        self._cache = getattr(output, "past_key_values", None)
        return self._draw(output.logits[0, -1].float())


class Draw:
    """Draws a token from logits as transformers' processors do: repetition penalty, temperature, top-k, top-p."""

    def __init__(self, sampling: Sampling, prompt_ids: list[int], device: torch.device) -> None:
        self._sampling = sampling
        self._prompt_ids = prompt_ids
        self._seen: torch.Tensor | None = None
        self._generator = torch.Generator(device)
        # An own generator: no other use of random numbers in this process can change a seeded reply.
        if sampling.seed < 0:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """The drawn token id, shape (1,), from fp32 logits of shape (vocabulary,). Raises Problem chat_not_finite."""
        if self._sampling.repetition_penalty != 1:
            logits = self._penalised(logits)
        if self._sampling.temperature == 0:
            value, token = logits.max(dim=-1, keepdim=True)
            _check_finite(value)
        else:
            probabilities, ids = self.distribution(logits)
            token = ids[torch.multinomial(probabilities, 1, generator=self._generator)]
        if self._seen is not None:
            self._seen[token] = True
        return token

    def distribution(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities of the tokens that may be drawn and their ids, likeliest first, shapes (k,)."""
        kept = min(self._sampling.top_k or logits.shape[-1], logits.shape[-1])
        values, ids = (logits / self._sampling.temperature).topk(kept)
        _check_finite(values[:1])
        probabilities = values.softmax(dim=-1)
        if self._sampling.top_p < 1:
            # A token stays when those before it do not reach top_p yet; so the first always does.
            before = probabilities.cumsum(dim=-1) - probabilities
            probabilities = probabilities.masked_fill(before >= max(self._sampling.top_p, 1e-9), 0)
        return probabilities, ids

    def _penalised(self, logits: torch.Tensor) -> torch.Tensor:
        if self._seen is None:
            self._seen = torch.zeros_like(logits, dtype=torch.bool)
            self._seen[torch.tensor(self._prompt_ids, device=logits.device)] = True
        penalty = self._sampling.repetition_penalty
        return torch.where(self._seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def context_limit(model: Model) -> int | None:
    """The most tokens of prompt and answer together; None when the model names no limit."""
    config = model.config.get_text_config(decoder=True)
    return getattr(config, "max_position_embeddings", None)


def _keeps_last_logits(model: Model) -> bool:
    """Whether the model can leave out the logits of all but the last position."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(inner.forward).parameters


def _check_finite(largest: torch.Tensor) -> None:
    """NaN sorts above every number, so the largest logit tells for all of them."""
    value = float(largest)
    if not math.isfinite(value):
        raise Problem("chat_not_finite", value=str(value))


@contextmanager
def _leaving_early(model: Model, cancel: threading.Event) -> Iterator[None]:
    """Within it, a set `cancel` ends a forward pass at its next layer: a long prompt takes seconds on a CPU."""

    def check(*_: Any) -> None:
        if cancel.is_set():
            raise Cancelled

    layers = [layer for module in model.modules() if isinstance(module, torch.nn.ModuleList) for layer in module]
    handles = [layer.register_forward_pre_hook(check) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
