"""`python -m trainer.token_counts`: tokens and labels of a run's samples, as JSON, for an estimate.

A process of its own that ends in a few seconds: it imports transformers' tokenizers, but not torch.
"""

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from trainer import records
from trainer.chat_template import IGNORED
from trainer.counts import Counts
from trainer.dataset_files import Source, find_source
from trainer.encoding import UNCUT, go_without_torch, load_template, samples_of
from trainer.problems import Problem, Problems
from trainer.records import BadRow, Record
from trainer.settings import TrainSettings, parse
from trainer.training_records import filled, rows_wanted

# Samples that are tokenized at most: enough to know how long the others are.
MOST_SAMPLES = 2000
# Of a dataset's files: up to here every row is read; of larger ones so many stretches of so many rows.
READ_BYTES, STRETCHES, STRETCH_ROWS = 16 * 2**20, 40, 50


def count(settings: TrainSettings) -> Counts:
    """Raises Problem as the trainer does for a dataset or template that cannot be used."""
    template, chance = load_template(settings), random.Random(settings.seed)
    drawn: list[Record] = []
    seen = total = 0
    for name in settings.dataset:
        source = find_source(Path(settings.dataset_dir), name)
        records.check_stage(source, settings.stage)
        wanted, before = rows_wanted(source, settings), seen
        for record in _some(source, settings, wanted):
            seen += 1
            # Each of those that come is kept with the same chance (reservoir sampling, Vitter's algorithm R).
            place = len(drawn) if len(drawn) < MOST_SAMPLES else chance.randrange(seen)
            if place < MOST_SAMPLES:
                drawn[place : place + 1] = [filled(record, settings, Counter())]
        if source.num_samples is not None:
            total += wanted
        else:
            total += seen - before if _is_small(source) else min(wanted, records.count_rows(source))
    samples = samples_of(template, settings, drawn)
    lengths = tuple(len(sample.input_ids) for sample in samples)
    labels = tuple(sum(label != IGNORED for label in sample.labels[1:]) for sample in samples)
    # A sample without any is never reached by a cutoff.
    firsts = tuple(next((at for at, label in enumerate(sample.labels) if at and label != IGNORED), UNCUT)
                   for sample in samples)  # fmt: skip
    return Counts(lengths, labels, total, firsts=firsts)


def _is_small(source: Source) -> bool:
    return source.bytes() <= READ_BYTES


def _some(source: Source, settings: TrainSettings, wanted: int) -> Iterator[Record]:
    """The records of the first `wanted` rows, of a large dataset those of a few stretches, evenly spread. Raises
    Problem for a bad row among them, unless those are skipped."""
    stretches = [(0, wanted)]
    if not _is_small(source):
        rows = min(wanted, records.count_rows(source))
        stretches = [(rows * number // STRETCHES, STRETCH_ROWS) for number in range(STRETCHES)]
    for first, count in stretches:
        for item in islice(records.iterate(source, first), count):
            if not isinstance(item, BadRow):
                yield item
            elif not settings.skip_bad_rows:
                raise item.problem


def processor_tflops() -> float:
    """What a matrix product of this processor reaches in fp32, measured in some milliseconds."""
    import numpy as np

    matrix = np.ones((768, 768), np.float32)
    times = []
    for _ in range(4):  # the first one starts the threads
        began = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - began)
    return 2 * len(matrix) ** 3 / min(times) / 1e12


def main(values: str) -> int:
    os.nice(10)  # nobody waits for it
    go_without_torch()
    try:
        counts = count(parse(json.loads(values)))
    except (Problem, Problems) as problem:
        print(problem, file=sys.stderr)
        return 2
    found = {"lengths": counts.lengths, "labels": counts.labels, "firsts": counts.firsts, "total": counts.total,
             "tflops": processor_tflops()}  # fmt: skip
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
