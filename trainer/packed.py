"""Samples as flat arrays: a tenth of the memory of as many lists, and a file can hold them.

numpy only: whoever counts tokens or keeps them between runs needs no torch.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from trainer.chat_template import IGNORED, Sample

IDS, TRAINED, OFFSETS = np.dtype("<i4"), np.dtype("u1"), np.dtype("<i8")
# Samples whose labels are counted in one go: few enough to bound memory.
_AT_ONCE = 4096


@dataclass(frozen=True)
class Part:
    """Samples end to end, uncut. `ids`: int32 (tokens); `trained`: uint8 (tokens), 1 where a token is learnt;
    `offsets`: int64 (samples + 1), where each begins and the last one ends."""

    ids: NDArray[np.int32]
    trained: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def first_labels(self) -> NDArray[np.int64]:
        """Where each sample's first label stands, not counting position 0, which nothing predicts; -1: there is none."""
        firsts = np.full(len(self), -1, np.int64)
        for begun, (start, end) in enumerate(zip(self.offsets[:-1], self.offsets[1:], strict=True)):
            found = np.flatnonzero(self.trained[start + 1 : end])
            if len(found):
                firsts[begun] = found[0] + 1
        return firsts

    def label_counts(self, cutoff_len: int) -> NDArray[np.int64]:
        """Labels of each sample's first `cutoff_len` tokens, not counting position 0."""
        counts = np.zeros(len(self), np.int64)
        for begun in range(0, len(self), _AT_ONCE):
            bounds = self.offsets[begun : begun + _AT_ONCE + 1]
            sums = np.concatenate(([0], np.cumsum(self.trained[bounds[0] : bounds[-1]], dtype=np.int64)))
            starts, ends = bounds[:-1] - bounds[0], bounds[1:] - bounds[0]
            ends = np.minimum(ends, starts + cutoff_len)
            counts[begun : begun + _AT_ONCE] = sums[ends] - sums[np.minimum(starts + 1, ends)]
        return counts


class Frame(NamedTuple):
    """Some samples as bytes: of int32 ids, of uint8 marks, of int64 lengths."""

    ids: bytes
    trained: bytes
    lengths: bytes


def frame(samples: Sequence[Sample]) -> Frame:
    """`samples` as bytes; a label is its own token wherever it is one."""
    ids = np.fromiter((token for sample in samples for token in sample.input_ids), IDS)
    labels = np.fromiter((label for sample in samples for label in sample.labels), IDS)
    lengths = np.fromiter((len(sample.input_ids) for sample in samples), OFFSETS)
    assert len(ids) == len(labels)
    return Frame(ids.tobytes(), (labels != IGNORED).astype(TRAINED).tobytes(), lengths.tobytes())


class Writer:
    """Takes frames in order. `ids`, `trained`: where their bytes go; memory unless given."""

    def __init__(self, ids: IO[bytes] | None = None, trained: IO[bytes] | None = None) -> None:
        self._ids, self._trained = ids or io.BytesIO(), trained or io.BytesIO()
        self._lengths: list[NDArray[np.int64]] = []

    def add(self, given: Frame) -> None:
        self._ids.write(given.ids)
        self._trained.write(given.trained)
        self._lengths.append(np.frombuffer(given.lengths, OFFSETS))

    def offsets(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(np.concatenate(self._lengths or [np.zeros(0, OFFSETS)]))]).astype(OFFSETS)

    def part(self) -> Part:
        """What was written, of a writer into memory."""
        assert isinstance(self._ids, io.BytesIO)
        assert isinstance(self._trained, io.BytesIO)
        return Part(np.frombuffer(self._ids.getbuffer(), IDS), np.frombuffer(self._trained.getbuffer(), TRAINED),
                    self.offsets())  # fmt: skip


class PackedSamples(Sequence[Sample]):
    """The samples `places` of `parts` counted through, each cut on the right to `cutoff_len` tokens."""

    def __init__(self, parts: Sequence[Part], cutoff_len: int, places: NDArray[np.int64] | None = None) -> None:
        self.parts = list(parts)
        self.cutoff_len = cutoff_len
        self._begins = np.cumsum([0, *(len(part) for part in parts)])
        self.places = np.arange(self._begins[-1]) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> "PackedSamples": ...

    def __getitem__(self, index: int | slice) -> "Sample | PackedSamples":
        if isinstance(index, slice):
            return self.chosen(np.arange(len(self))[index])
        place = self.places[index]
        number = int(np.searchsorted(self._begins, place, "right")) - 1
        part, at = self.parts[number], place - self._begins[number]
        start = int(part.offsets[at])
        end = min(int(part.offsets[at + 1]), start + self.cutoff_len)
        ids = part.ids[start:end]
        labels = np.where(part.trained[start:end], ids, IGNORED)
        return Sample(ids.tolist(), labels.tolist())

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def chosen(self, indices: NDArray[np.int64]) -> "PackedSamples":
        """Those of `indices`, in that order; nothing is copied."""
        return PackedSamples(self.parts, self.cutoff_len, self.places[indices])

    def digest(self) -> str:
        """Of all that makes these samples, so that other processes can tell whether theirs are the same."""
        found = hashlib.blake2b(digest_size=16)
        for array in (self.places, *(each for part in self.parts for each in (part.ids, part.trained, part.offsets))):
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return np.minimum(self._of_all([part.lengths() for part in self.parts]), self.cutoff_len)

    @cached_property
    def label_counts(self) -> NDArray[np.int64]:
        return self._of_all([part.label_counts(self.cutoff_len) for part in self.parts])

    @cached_property
    def first_labels(self) -> NDArray[np.int64]:
        """As Part's, of the uncut samples."""
        return self._of_all([part.first_labels() for part in self.parts])

    def _of_all(self, found: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        return np.concatenate(found)[self.places] if found else np.zeros(0, np.int64)


def lengths_of(samples: Sequence[Sample]) -> Sequence[int]:
    """Tokens of each sample."""
    if isinstance(samples, PackedSamples):
        return samples.lengths.tolist()
    return [len(sample.input_ids) for sample in samples]


def label_counts_of(samples: Sequence[Sample]) -> Sequence[int]:
    """Labels of each sample that something predicts."""
    if isinstance(samples, PackedSamples):
        return samples.label_counts.tolist()
    return [sum(label != IGNORED for label in sample.labels[1:]) for sample in samples]
