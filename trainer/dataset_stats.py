"""What a dataset is like, row by row in bounded memory: lengths, labels, duplicates, languages. Light: no torch.

Token counts are exact up to MOST_ENCODED rows; of more rows an evenly spread part is encoded and scaled up.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.records import Record

# Rows that are encoded; and hashes that are kept, eight bytes each.
MOST_ENCODED, MOST_HASHES = 100_000, 2**25
# Bars of the histogram, about, and characters that tell a sample's language.
BARS, _LANGUAGE_CHARS = 20, 120
_HAN = re.compile("[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\U00020000-\U0003ffff]")
_LATIN = re.compile("[A-Za-zÀ-ɏ]")
_LETTER = re.compile(r"[^\W\d_]")
_KANA = re.compile("[\u3041-\u30ff\uac00-\ud7af]")  # and Hangul: with these, Chinese characters are not Chinese


class Duplicates:
    """Counts rows that say the same as an earlier one, by a 64-bit hash of their messages: of ten million rows,
    the chance that two different ones share a hash is one in 300,000. Only the first MOST_HASHES rows count."""

    def __init__(self) -> None:
        self._kept: list[NDArray[np.uint64]] = []
        self._fresh: list[int] = []
        self._count = 0

    def add(self, record: Record) -> None:
        if self._count == MOST_HASHES:
            return
        self._count += 1
        self._fresh.append(_hash(record))
        if len(self._fresh) == 2**16:
            self._pack()

    def count(self) -> int:
        self._pack()
        hashes = np.concatenate(self._kept) if self._kept else np.zeros(0, np.uint64)
        self._kept = [hashes]
        hashes.sort()
        return int(np.count_nonzero(hashes[1:] == hashes[:-1]))

    def _pack(self) -> None:
        self._kept.append(np.array(self._fresh, np.uint64))
        self._fresh.clear()


def _hash(record: Record) -> int:
    told = [record.kind, record.messages, record.rejected, record.tools, record.desirable]
    return int.from_bytes(hashlib.blake2b(json.dumps(told).encode(), digest_size=8).digest(), "little")


def language(record: Record) -> str:
    """zh, en or other, by the script of most letters; Latin letters count as en, Han ones among kana as other."""
    text = " ".join(str(message["content"])[:_LANGUAGE_CHARS] for message in record.messages[:4])
    if text.isascii():
        return "en" if _LATIN.search(text) else "other"
    han, latin, letters = (len(pattern.findall(text)) for pattern in (_HAN, _LATIN, _LETTER))
    if han and 20 * len(_KANA.findall(text)) < han and 2 * han >= letters - latin:
        # A Chinese character says about as much as four letters.
        return "zh" if 4 * han >= latin else "en"
    return "en" if 2 * latin > letters else "other"


@dataclass
class Spread:
    """Picks rows evenly from a stream whose length nobody knows: all up to `most`, then every second, fourth, …"""

    most: int = MOST_ENCODED
    stride: int = 1
    rows: list[int] = field(default_factory=list)

    def wants(self, row: int) -> bool:
        """Whether the row of this number, counted from 0, is to be encoded; after `thin` has made room for it."""
        return row % self.stride == 0

    def full(self) -> bool:
        return len(self.rows) >= self.most

    def thin(self) -> list[int]:
        """Doubles the stride; returns the positions in `rows` that stay."""
        self.stride *= 2
        kept = [at for at, row in enumerate(self.rows) if row % self.stride == 0]
        self.rows = [self.rows[at] for at in kept]
        return kept


class Lengths:
    """Tokens and labels of encoded rows, whatever the cutoff."""

    def __init__(self, most: int = MOST_ENCODED) -> None:
        self.spread = Spread(most)
        self._found: list[tuple[int, int, int]] = []

    def wants(self, row: int) -> bool:
        return self.spread.wants(row)

    def add(self, rows: Sequence[int], found: Iterable[tuple[int, int, int]]) -> None:
        """(tokens, labels, tokens up to the first label) of `rows`, numbers from 0 in ascending order."""
        for row, numbers in zip(rows, found, strict=True):
            if self.spread.full() and self.spread.wants(row):
                self._found = [self._found[at] for at in self.spread.thin()]
            if self.spread.wants(row):
                self.spread.rows.append(row)
                self._found.append(numbers)

    def figures(self, samples: int, cutoff_len: int) -> "TokenFigures":
        """Scaled to `samples`, of which these may be a part."""
        tokens, labels, needed = (
            np.array(column, np.int64) for column in (zip(*self._found, strict=True) if self._found else [[], [], []])
        )
        sampled = len(tokens) if len(tokens) < samples else None
        scale = samples / len(tokens) if sampled else 1

        def scaled(number: "float | np.integer[Any]") -> int:
            return round(float(number) * scale)

        return TokenFigures(
            tokens=scaled(tokens.sum()),
            trained_tokens=scaled(labels.sum()),
            longest=int(tokens.max(initial=0)),
            truncated=scaled(np.count_nonzero(tokens > cutoff_len)),
            nothing_left=scaled(np.count_nonzero(needed > cutoff_len)),
            histogram=[(upper, scaled(count)) for upper, count in histogram(tokens)],
            sampled=sampled,
        )


@dataclass(frozen=True)
class TokenFigures:
    """Of uncut samples. `truncated`: longer than the cutoff; `nothing_left`: without a label within it;
    `sampled`: how many were encoded, None: all."""

    tokens: int
    trained_tokens: int
    longest: int
    truncated: int
    nothing_left: int
    histogram: list[tuple[int, int]]
    sampled: int | None


def histogram(lengths: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(largest length, samples) of bars of equal, round width; the last holds the longest hundredth as well."""
    if not len(lengths):
        return []
    longest, usual = int(lengths.max()), float(np.percentile(lengths, 99))
    width = _round_width(usual / BARS)
    bars = max(1, ceil(usual / width))
    uppers = [width * (number + 1) for number in range(bars)]
    uppers[-1] = max(uppers[-1], longest)
    counts = Counter(np.searchsorted(uppers, lengths).tolist())
    return [(upper, counts[number]) for number, upper in enumerate(uppers)]


def _round_width(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, … that is not below `least`."""
    width = 1
    while width < least:
        for step in (1, 2, 5, 10):
            if width * step >= least:
                return width * step
        width *= 10
    return width


def shares(counts: Counter[str]) -> dict[str, float]:
    """Each language's share, together 1."""
    total = sum(counts.values())
    return {name: round(counts[name] / total, 4) if total else 0.0 for name in ("zh", "en", "other")}
