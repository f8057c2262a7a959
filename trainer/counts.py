"""Tokens and labels of a run's samples, as an estimate needs them. Light: a process of its own counts them.

`command` is that process, trainer/token_counts.py; `read` takes what it prints.
"""

import json
import sys
from dataclasses import dataclass

from trainer.settings import TrainSettings

# What the counts depend on; a cutoff is applied to them afterwards.
COUNTED = ("model_name_or_path", "template", "trust_remote_code", "stage", "dataset_dir", "dataset", "max_samples",
           "train_on_prompt", "mask_history", "skip_bad_rows", "placeholders", "seed")  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """Tokens and labels of each sample, uncut; `total`: samples of the datasets, of which these may be a part.

    `tflops`: what the processor that counted them computes. `firsts`: where each sample's first label stands; none:
    all labels stand at the end.
    """

    lengths: tuple[int, ...]
    labels: tuple[int, ...]
    total: int
    tflops: float | None = None
    firsts: tuple[int, ...] = ()

    @property
    def needed(self) -> list[int]:
        """The shortest cutoff that leaves each sample a label."""
        firsts = self.firsts or [n - labels for n, labels in zip(self.lengths, self.labels, strict=True)]
        return [first + 1 for first in firsts]

    def cut(self, cutoff_len: int) -> list[tuple[int, int]]:
        """(tokens, labels) of the samples that have labels left; but for the first, labels count as at the end."""
        samples = zip(self.lengths, self.labels, self.needed, strict=True)
        return [
            (min(n, cutoff_len), max(1, labels - max(0, n - cutoff_len)))
            for n, labels, needed in samples
            if labels and needed <= cutoff_len
        ]


def command(settings: TrainSettings) -> list[str]:
    """The argv that prints the counts of `settings`."""
    values = {key: getattr(settings, key) for key in COUNTED}
    return [sys.executable, "-m", "trainer.token_counts", json.dumps(values)]


def read(output: str) -> Counts:
    """What `command` has printed."""
    found = json.loads(output)
    return Counts(tuple(found["lengths"]), tuple(found["labels"]), found["total"], found["tflops"],
                  tuple(found["firsts"]))  # fmt: skip
