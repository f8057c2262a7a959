"""In place of a ChatModel, for what the server does by itself: it answers with what it is told. No torch.

A message may order: "slow TEXT" writes a character each 20 ms, "adapter" names the adapter, "problem" and "crash" fail.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trainer.problems import Problem


@dataclass(frozen=True)
class Finish:
    """As trainer.generate's."""

    reason: str
    tokens: int
    prompt_tokens: int
    seconds: float = 0.1
    first_token_s: float | None = 0.1


class EchoModel:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.values: dict[str, Any] = {}

    def reply(
        self, messages: list[dict[str, Any]], sampling: Any, cancel: threading.Event, **values: Any
    ) -> Iterator[Any]:
        self.values = {"sampling": sampling, "messages": messages, **values}
        content = messages[-1]["content"]
        self.asked.append(content)
        order, _, text = content.partition(" ")
        if order == "problem":
            raise Problem("chat_too_long", tokens=5, limit=4)
        if order == "crash":
            yield "half"
            raise RuntimeError("it broke")
        tokens, reason = 0, "stop"
        for character in str(values["adapter"]) if order == "adapter" else text:
            if cancel.is_set() or tokens >= sampling.max_new_tokens:
                reason = "cancelled" if cancel.is_set() else "length"
                break
            time.sleep(0.02 * (order == "slow"))
            tokens += 1
            yield character
        yield Finish(reason, tokens, len(messages))
