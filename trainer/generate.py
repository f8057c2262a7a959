"""A reply: prompt ids in, text out as it comes. Greedy output is that of transformers' `generate`, token for token."""

import threading
import time
from collections.abc import Collection, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import PreTrainedTokenizerBase

from trainer.decoding import Engine
from trainer.detokenizer import Detokenizer
from trainer.sampling import Sampling

FinishReason = Literal["stop", "length", "context", "cancelled"]


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


def reply(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: list[int],
    sampling: Sampling,
    stop_token_ids: Collection[int],
    *,
    adapter: Path | None = None,
    cancel: threading.Event | None = None,
    skip_special_tokens: bool = True,
    calls: bool = False,
) -> Generator[str | Finish, None, None]:
    """Text in whole characters, as soon as it is certain, then one Finish, whose times are those of this reply's work:
    what happens between two parts, another reply say, does not count. `calls`: the model may call tools, and the marks
    of its calls are part of the text.

    Raises Problem chat_too_long when the prompt leaves no room for an answer, chat_not_finite when the
    model computes no numbers.
    """
    cancel = cancel or threading.Event()
    watch, first_token_s, tokens = Stopwatch(), None, 0
    if cancel.is_set():  # before an adapter is put on for nothing
        yield Finish("cancelled", 0, len(prompt_ids), watch.seconds(), None)
        return
    text = Detokenizer(tokenizer, skip_special_tokens, calls)
    answer = engine.answer(prompt_ids, sampling, cancel, adapter)
    reason: FinishReason = answer.room_reason
    for token_id in answer:
        first_token_s = first_token_s or watch.seconds()
        if token_id in stop_token_ids:
            reason = "stop"
            break
        tokens += 1
        if new := text.push(token_id):
            watch.stop()
            yield new
            watch.go_on()
    if cancel.is_set() and reason != "stop":
        reason = "cancelled"
    finish = Finish(reason, tokens, len(prompt_ids), watch.seconds(), first_token_s)
    if rest := text.end():
        yield rest
    yield finish


class Stopwatch:
    """Runs from the beginning."""

    def __init__(self) -> None:
        self._before, self._since = 0.0, time.perf_counter()

    def stop(self) -> None:
        self._before += time.perf_counter() - self._since

    def go_on(self) -> None:
        self._since = time.perf_counter()

    def seconds(self) -> float:
        """So far, while it runs."""
        return self._before + time.perf_counter() - self._since
