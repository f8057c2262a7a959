"""The two things every topic is made of: an exchange, and patterns that expand into many phrasings."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Lang = Literal["zh", "en"]

_INNERMOST = re.compile(r"\(([^()]*)\)")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer."""

    question: str
    answer: str
    lang: Lang
    case_matters: bool = False


Topic = Callable[[random.Random], Exchange]


@lru_cache(maxsize=65536)
def _pieces(pattern: str) -> tuple[str, tuple[str, ...], str] | None:
    found = _INNERMOST.search(pattern)
    if found is None:
        return None
    return pattern[: found.start()], tuple(found[1].split("|")), pattern[found.end() :]


def expand(rng: random.Random, pattern: str) -> str:
    """Resolve every `(a|b|)` in `pattern` by a random choice; groups may nest."""
    # Cutting at a literal closing keeps the cache small: only whole patterns and
    # their few partial expansions are looked up again.
    while (pieces := _pieces(pattern)) is not None:
        before, options, after = pieces
        pattern = before + rng.choice(options) + after
    return " ".join(pattern.split())


def pick_frame(rng: random.Random, frames: Sequence[str], **slots: str | int) -> str:
    """Expand one of `frames` and fill its `{slots}`; slot texts are never expanded."""
    return expand(rng, rng.choice(frames)).format(**slots)
