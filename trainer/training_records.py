"""The rows of a dataset that a run trains on: bad ones counted, placeholders filled, the stage's kind of record.

Light: no torch. Bad rows stop a run, or are left out where the settings say so; never in silence.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from trainer import placeholders, records
from trainer.dataset_files import Source, find_source
from trainer.problems import Problem
from trainer.records import BadRow, Record
from trainer.settings import TrainSettings

# Bad rows that are shown, of however many there are.
MOST_SHOWN = 20
# Bytes of a dataset that are read before anything starts, and rows of a larger one; preparation reads the rest.
READ_AHEAD_BYTES, READ_AHEAD_ROWS = 4 * 2**20, 1000


@dataclass
class Tally:
    """What came by. `bad_rows`: (row, reason) of the first MOST_SHOWN of `bad`; `unfilled`: placeholders without
    a text, and how often; `problem`: the first bad row's own."""

    rows: int = 0
    bad: int = 0
    bad_rows: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    unfilled: Counter[str] = field(default_factory=Counter)
    problem: Problem | None = None

    def note_bad(self, row: int, reason: dict[str, str]) -> None:
        self.bad += 1
        if len(self.bad_rows) < MOST_SHOWN:
            self.bad_rows.append((row, reason))

    def shown(self) -> dict[str, str]:
        """The first bad rows and what is wrong with each, in both languages."""
        more = self.bad - len(self.bad_rows)
        en = " ".join(f"Row {row}: {reason['en'].rstrip('.')}." for row, reason in self.bad_rows)
        zh = "".join(f"第 {row} 行：{reason['zh'].rstrip('。')}。" for row, reason in self.bad_rows)
        if more:
            en, zh = f"{en} And {more} more.", f"{zh}另有 {more} 行。"
        return {"en": en, "zh": zh}

    def values(self) -> dict[str, Any]:
        """What a sentence on the bad rows needs, but for the dataset's name."""
        return {"bad": self.bad, "rows": self.rows, "shown": self.shown()}


def rows_wanted(source: Source, settings: TrainSettings) -> int:
    """How many rows a run takes of `source`, which may have fewer."""
    return min(settings.max_samples, source.num_samples or settings.max_samples)


def records_of(source: Source, settings: TrainSettings, wanted: int, tally: Tally) -> Iterator[Record]:
    """The usable records of the first `wanted` rows, placeholders filled. Raises Problem for a file that cannot be read
    and for records that the stage cannot train on; what else is wrong goes to `tally`."""
    records.check_stage(source, settings.stage)
    for item in islice(records.iterate(source), wanted):
        tally.rows += 1
        if isinstance(item, BadRow):
            tally.note_bad(item.row, item.reason)
            tally.problem = tally.problem or item.problem
            continue
        yield filled(item, settings, tally.unfilled)


def filled(record: Record, settings: TrainSettings, unfilled: Counter[str]) -> Record:
    """`record` with the placeholders' texts; those without one are counted in `unfilled` unless they are literal."""
    # What may hold one elsewhere than in a content has calls of tools.
    if not any("{{" in message["content"] or len(message) > 2 for message in (*record.messages, *record.rejected)):
        return record
    record = placeholders.fill(record, settings.placeholders)
    if not settings.literal_placeholders:
        unfilled.update(placeholders.find([record]))
    return record


def problems_of(source: Source, settings: TrainSettings, tally: Tally) -> list[Problem]:
    """What of `tally` stops a run."""
    if not tally.rows:
        return [Problem("dataset_empty", name=source.name, path=str(source.path))]
    found = []
    if tally.bad and not settings.skip_bad_rows:
        alone = tally.problem if tally.bad == 1 else None
        found.append(alone or Problem("rows_bad", name=source.name, **tally.values()))
    elif tally.bad == tally.rows:
        found.append(Problem("dataset_all_bad", name=source.name, count=tally.rows, detail=tally.bad_rows[0][1]))
    if tally.unfilled:
        names = ", ".join(f"{{{{{name}}}}}" for name in sorted(tally.unfilled))
        found.append(Problem("placeholders_unfilled", name=source.name, names=names))
    return found


def check_ahead(settings: TrainSettings) -> tuple[list[Problem], int | None]:
    """What stops a run, as far as READ_AHEAD tells, and the number of samples when all were read. Raises Problem."""
    found: list[Problem] = []
    total: int | None = 0
    for name in settings.dataset:
        source, tally = find_source(Path(settings.dataset_dir), name), Tally()
        wanted = rows_wanted(source, settings)
        large = source.bytes() > READ_AHEAD_BYTES
        usable = sum(1 for _ in records_of(source, settings, min(wanted, READ_AHEAD_ROWS) if large else wanted, tally))
        found += problems_of(source, settings, tally)
        if large and tally.rows < wanted:
            total = None
        elif total is not None:
            total += wanted if source.num_samples is not None else usable
    return found, total
