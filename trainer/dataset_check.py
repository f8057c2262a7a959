"""A whole dataset looked at before training: every bad row, and what its samples are like. Streaming; without torch."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from trainer import records
from trainer.chat_template import IGNORED, ChatTemplate
from trainer.dataset_files import Source, find_source
from trainer.dataset_stats import Duplicates, Lengths, language, shares
from trainer.encoding import REFUSALS, UNCUT, batches, in_both, samples_of
from trainer.problems import Problem
from trainer.records import BadRow, Progress, Record
from trainer.settings import TrainSettings
from trainer.training_records import Tally, filled

# Between two reports of progress.
_PROGRESS_S = 0.25
# Rows whose languages are looked at.
_MOST_READ = 5000


class Stopped(Exception):
    """Whoever asked for the check does not want it any more."""


@dataclass(frozen=True)
class Checked:
    """`rows`, `bad`, `samples`, `duplicates`: of the whole file; `bad_rows`: the first, (row, reason). Token figures
    are of uncut samples, None without a template, and scaled up from `sampled` rows unless that is None."""

    rows: int
    bad: int
    bad_rows: list[tuple[int, dict[str, str]]]
    samples: int
    duplicates: int
    languages: dict[str, float]
    placeholders: dict[str, int]
    kinds: dict[str, int]
    seconds: float
    tokens: int | None = None
    trained_tokens: int | None = None
    longest: int | None = None
    truncated: int | None = None
    nothing_left: int | None = None
    histogram: list[tuple[int, int]] = field(default_factory=list)
    sampled: int | None = None

    def event(self) -> dict[str, Any]:
        """As the page is told."""
        shown = [{"row": row, "reason": reason} for row, reason in self.bad_rows]
        return asdict(self) | {"bad_rows": shown}


class Survey:
    """What a pass over a dataset found, from which `checked` makes figures for any cutoff."""

    def __init__(self, settings: TrainSettings, template: ChatTemplate | None) -> None:
        self._settings, self._template = settings, template
        self.tally = Tally()
        self._kinds: Counter[str] = Counter()
        self._languages: Counter[str] = Counter()
        self._lengths, self._duplicates = Lengths(), Duplicates()
        self._drawn = random.Random(0)
        self._seconds = 0.0
        self._duplicate_count = 0

    def run(self, source: Source, progress: Progress, stopped: Callable[[], bool]) -> None:
        """Reads everything. Raises Problem for a file that cannot be read, Stopped when asked to."""
        began = told = time.monotonic()

        def read(*numbers: int) -> None:
            nonlocal told
            if stopped():
                raise Stopped
            if (now := time.monotonic()) - told >= _PROGRESS_S:
                told = now
                progress(*numbers)

        for batch in batches(self._usable(source, read)):
            self._take(batch)
        self._duplicate_count = self._duplicates.count()
        self._seconds = time.monotonic() - began

    def _usable(self, source: Source, read: Progress) -> Iterator[Record]:
        for item in records.iterate(source, progress=read):
            self.tally.rows += 1
            if isinstance(item, BadRow):
                self.tally.note_bad(item.row, item.reason)
            else:
                yield filled(item, self._settings, self.tally.unfilled)

    def _take(self, batch: list[Record]) -> None:
        for record in batch:
            self._kinds[record.kind] += 1
            self._duplicates.add(record)
            # Shares of a long file are known to a percent from the beginning and a fiftieth of the rest.
            if sum(self._kinds.values()) <= _MOST_READ or self._drawn.random() < 0.02:
                self._languages[language(record)] += 1
        if self._template:
            wanted = [record for record in batch if self._lengths.wants(record.row - 1)]
            for _, alike in groupby(wanted, lambda record: record.kind):
                self._measure(list(alike))

    def _measure(self, found: list[Record]) -> None:
        assert self._template is not None
        try:
            samples = samples_of(self._template, self._settings, found)
        except Problem as problem:
            if problem.code not in REFUSALS:
                raise
            if len(found) == 1:
                self.tally.note_bad(found[0].row, in_both(problem))
                self._kinds[found[0].kind] -= 1
                return
            for record in found:
                self._measure([record])
            return
        self._lengths.add([record.row - 1 for record in found], [_measured(sample.labels) for sample in samples])

    def checked(self, cutoff_len: int) -> Checked:
        """The figures under `cutoff_len`."""
        samples, tally = sum(self._kinds.values()), self.tally
        figures = asdict(self._lengths.figures(samples, cutoff_len)) if self._template else {}
        return Checked(
            rows=tally.rows,
            bad=tally.bad,
            bad_rows=sorted(tally.bad_rows, key=lambda found: found[0]),
            samples=samples,
            duplicates=self._duplicate_count,
            languages=shares(self._languages),
            placeholders=dict(tally.unfilled.most_common()),
            kinds={kind: count for kind, count in self._kinds.items() if count},
            seconds=round(self._seconds, 2),
            **figures,
        )


def _measured(labels: Sequence[int]) -> tuple[int, int, int]:
    """(tokens, labels, tokens up to the first label) of a sample; what stands first is predicted by nothing."""
    places = np.flatnonzero(np.array(labels[1:]) != IGNORED)
    return len(labels), len(places), int(places[0]) + 2 if len(places) else UNCUT


def check(
    settings: TrainSettings,
    name: str,
    template: ChatTemplate | None,
    progress: Progress = lambda rows, done, of: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Survey:
    """The dataset `name` of `settings`, read from its first row to its last. Raises Problem, Stopped."""
    survey = Survey(settings, template)
    survey.run(find_source(Path(settings.dataset_dir), name), progress, stopped)
    return survey
