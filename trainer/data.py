"""Datasets to tokenized samples: read, split off the validation part, encode, count what was cut."""

import random
from dataclasses import dataclass
from pathlib import Path

from trainer import records
from trainer.batching import label_count
from trainer.chat_template import ChatTemplate, Sample
from trainer.events import EventLog
from trainer.prepare import validation_count
from trainer.problems import Problem
from trainer.records import Record
from trainer.settings import TrainSettings, label


@dataclass(frozen=True)
class Samples:
    train: list[Sample]
    validation: list[Sample]


def load_samples(settings: TrainSettings, template: ChatTemplate, events: EventLog) -> Samples:
    """The samples of `settings`. Raises Problem when a dataset is unusable or nothing is left to learn."""
    folder = Path(settings.dataset_dir)
    found = [record for name in settings.dataset for record in records.read_dataset(folder, name, settings.max_samples)]
    kept_for_validation = validation_count(settings, len(found))
    if kept_for_validation:
        random.Random(settings.seed).shuffle(found)
    validation = _encode(found[:kept_for_validation], settings, template, events)
    train = _encode(found[kept_for_validation:], settings, template, events)
    return Samples(train, validation)


def _encode(found: list[Record], settings: TrainSettings, template: ChatTemplate, events: EventLog) -> list[Sample]:
    if not found:
        return []
    samples = _encoded(found, settings, template, settings.cutoff_len)
    learnable = [sample for sample in samples if label_count([sample])]
    if not learnable:
        whole = _encoded(found, settings, template, cutoff_len=2**30)
        needed = min(_first_label(sample) for sample in whole) + 1
        raise Problem("all_truncated", label=label("cutoff_len"), value=settings.cutoff_len, needed=needed)
    if dropped := len(samples) - len(learnable):
        events.append("warning", code="samples_dropped", count=dropped, cutoff_len=settings.cutoff_len)
    if cut := sum(len(sample.input_ids) >= settings.cutoff_len for sample in learnable):
        events.append("warning", code="samples_cut", count=cut, cutoff_len=settings.cutoff_len)
    return learnable


def _encoded(found: list[Record], settings: TrainSettings, template: ChatTemplate, cutoff_len: int) -> list[Sample]:
    return template.encode_all(
        [list(record.messages) for record in found],
        cutoff_len=cutoff_len,
        train_on_prompt=settings.train_on_prompt,
        mask_history=settings.mask_history,
        rows=[record.row for record in found],
    )


def _first_label(sample: Sample) -> int:
    return next(position for position, token in enumerate(sample.labels) if position and token != -100)
