"""A dataset's files as one row after the other, from any row on, in bounded memory.

Light: no torch. What a row means is the business of layouts and records.
"""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from trainer import json_rows, table_rows
from trainer.dataset_files import Source, format_of
from trainer.json_rows import Item
from trainer.text_files import PACKED, told

_READERS: dict[str, Callable[..., Iterator[Item]]] = {
    ".json": json_rows.rows,
    ".jsonl": json_rows.rows,
    ".csv": table_rows.delimited_rows,
    ".tsv": table_rows.delimited_rows,
    ".txt": table_rows.text_rows,
    ".parquet": table_rows.parquet_rows,
    ".arrow": table_rows.arrow_rows,
}
# Rows between two places that are kept, and datasets whose places are.
_STRIDE, _MOST_KEPT = 256, 8
# Up to here rows are counted at once when a page is turned.
_COUNTED_BYTES = 16 * 2**20


class Place(NamedTuple):
    """Behind the row `rows` of a dataset: in which file, which begins behind the row `begun`, and where there."""

    rows: int = 0
    file: int = 0
    offset: int = 0
    line: int = 0
    begun: int = 0


def read(source: Source, place: Place, skim: bool = False) -> Iterator[tuple[Any, Place]]:
    """The rows behind `place`, each with the place behind it; a row that cannot be read is a Fault. Raises Problem.

    `skim`: they are wanted for their places alone, and may be None.
    """
    rows, offset, line, begun = place.rows, place.offset, place.line, place.begun
    for index in range(place.file, len(source.files)):
        path = source.files[index]
        with told(source.name, path):
            for value, behind, number in _READERS[format_of(path)](path, offset, line, skim):
                rows += 1
                yield value, Place(rows, index, behind, number, begun)
        offset, line, begun = 0, 0, rows


class _Places:
    """Where every so many rows of a dataset begin, as far as it was read; `total` once its end was."""

    def __init__(self) -> None:
        self.known = [Place()]
        self.total: int | None = None

    def before(self, row: int) -> Place:
        """The last known place with at most `row` rows before it."""
        return self.known[bisect_right(self.known, (row, 2**60)) - 1]

    def note(self, place: Place) -> None:
        if place.rows % _STRIDE == 0 and place.rows > self.known[-1].rows:
            self.known.append(place)


_kept: "OrderedDict[tuple[Any, ...], _Places]" = OrderedDict()
_lock = threading.Lock()


def _places(source: Source) -> _Places:
    """What is known of `source`'s files as they are now."""
    stats = []
    for path in source.files:
        with told(source.name, path):
            stat = path.stat()
            stats.append((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino))
    with _lock:
        found = _kept.setdefault(tuple(stats), _Places())
        _kept.move_to_end(tuple(stats))
        while len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return found


def page(source: Source, first: int, count: int) -> list[tuple[Any, Place]]:
    """`count` rows behind the first `first`, each with its place. Raises Problem."""
    return list(islice(_from(source, _places(source), first), count))


def _from(source: Source, places: _Places, first: int) -> Iterator[tuple[Any, Place]]:
    """The rows behind the first `first`. Notes the places that it passes."""
    start = _jumped(source, places.before(first), first)
    if start.rows + _STRIDE < first:
        place = start
        for _, place in read(source, start, skim=True):
            _note(places, place)
            if place.rows >= first:
                break
        else:
            places.total = place.rows
            return
        start = place
    place = start
    for value, place in read(source, start):
        _note(places, place)
        if place.rows > first:
            yield value, place
    if place.rows >= first:
        places.total = place.rows


def _note(places: _Places, place: Place) -> None:
    if place.rows % _STRIDE == 0:
        with _lock:
            places.note(place)


def _jumped(source: Source, place: Place, first: int) -> Place:
    """A later place that still has at most `first` rows before it, where files say how many rows they have."""
    while place.file < len(source.files):
        path = source.files[place.file]
        with told(source.name, path):
            count = table_rows.row_count(path)
        if count is None:
            return place
        inside = min(first - place.begun, count)
        if inside < count or place.file + 1 == len(source.files):
            return Place(place.begun + inside, place.file, inside, inside, place.begun)
        place = Place(place.begun + count, place.file + 1, begun=place.begun + count)
    return place


def rows_from(source: Source, first: int = 0) -> Iterator[tuple[Any, Place]]:
    """The rows behind the first `first`, to the end, each with its place."""
    return _from(source, _places(source), first)


def bytes_before(source: Source, rows: int) -> int:
    """About how many of the files' bytes stand before the row `rows`, which has been read."""
    place = _places(source).before(rows)
    sizes = [path.stat().st_size for path in source.files]
    return sum(sizes[: place.file]) + int(place.offset * _bytes_an_offset(source.files[place.file]))


def _bytes_an_offset(path: Path) -> float:
    """How many bytes of the file stand behind one step of a place's offset, about."""
    if rows := table_rows.row_count(path):
        return path.stat().st_size / rows
    if format_of(path) == ".arrow":
        return 0.0  # it does not say how many rows it has
    with told("", path), path.open("rb") as file:
        if file.read(2) != PACKED:
            return 1.0
        file.seek(-4, 2)
        return path.stat().st_size / max(int.from_bytes(file.read(), "little"), 1)  # less whole times 4 GiB


def known_total(source: Source) -> int | None:
    """How many rows there are, where that is known, or told at once; else None until somebody has counted them."""
    places = _places(source)
    if places.total is None and (source.bytes() <= _COUNTED_BYTES or all(map(_counts_itself, source.files))):
        count_rows(source)
    return places.total


def _counts_itself(path: Path) -> bool:
    return format_of(path) == ".parquet"


def count_rows(source: Source) -> int:
    """How many rows there are, bad ones too; reads on from where it was read before. Raises Problem."""
    places = _places(source)
    if places.total is None:
        place = places.known[-1]
        if all(map(_counts_itself, source.files)):
            place = _jumped(source, place, 2**60)
        last = place
        for _, last in read(source, place, skim=True):
            _note(places, last)
        places.total = last.rows
    return places.total
