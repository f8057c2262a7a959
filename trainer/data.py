"""Datasets to encoded samples: read, checked, mixed, the validation part split off, what was cut counted."""

import logging
import random
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer import mixing, sample_cache
from trainer.chat_template import ChatTemplate
from trainer.dataset_files import Source, find_source
from trainer.encoding import encode
from trainer.events import EventLog
from trainer.model_folder import resolve
from trainer.packed import PackedSamples, Part, Writer
from trainer.prepare import validation_count
from trainer.problems import Problem
from trainer.settings import TrainSettings, label
from trainer.training_records import Tally, problems_of, records_of, rows_wanted

log = logging.getLogger("trainer")

# What a dataset's samples depend on, besides its rows, the template and the tokenizer.
_DECIDING = ("stage", "train_on_prompt", "mask_history", "skip_bad_rows", "placeholders", "literal_placeholders")


@dataclass(frozen=True)
class Samples:
    train: PackedSamples
    validation: PackedSamples


def load_samples(settings: TrainSettings, template: ChatTemplate, events: EventLog) -> Samples:
    """The samples of `settings`. Raises Problem when a dataset is unusable or nothing is left to learn."""
    parts: list[Part] = []
    rows: list[NDArray[np.int64]] = []
    for name in settings.dataset:
        source = find_source(Path(settings.dataset_dir), name)
        part = _prepared(source, settings, template, events)
        rows.append(_repeated(source, settings, len(part)) + sum(map(len, parts)))
        parts.append(part)
    samples = PackedSamples(parts, settings.cutoff_len, _mixed(rows, settings))
    kept_for_validation = validation_count(settings, len(samples))
    if kept_for_validation:
        shuffled = list(range(len(samples)))
        random.Random(settings.seed).shuffle(shuffled)
        samples = samples.chosen(np.array(shuffled))
    validation = _learnable(samples[:kept_for_validation], settings, events)
    train = _learnable(samples[kept_for_validation:], settings, events)
    return Samples(train, validation)


def _repeated(source: Source, settings: TrainSettings, count: int) -> NDArray[np.int64]:
    """An entry's num_samples takes that many, beginning again where the file has fewer, so that it weighs datasets."""
    return np.resize(np.arange(count), rows_wanted(source, settings) if source.num_samples is not None else count)


def _mixed(rows: list[NDArray[np.int64]], settings: TrainSettings) -> NDArray[np.int64]:
    if settings.mix_strategy == "concat":
        return np.concatenate(rows)
    order = mixing.order([len(of) for of in rows], settings.mix_strategy, settings.interleave_probs, settings.seed)
    return np.array([rows[part][item] for part, item in order], np.int64)


def _learnable(samples: PackedSamples, settings: TrainSettings, events: EventLog) -> PackedSamples:
    """Those that have a label within the cutoff. Raises Problem when there are none."""
    if not len(samples):
        return samples
    learnable = samples.chosen(np.flatnonzero(samples.label_counts))
    if not len(learnable):
        firsts = samples.first_labels
        needed = int(min(firsts[firsts > 0], default=1)) + 1
        raise Problem("all_truncated", label=label("cutoff_len"), value=settings.cutoff_len, needed=needed)
    if dropped := len(samples) - len(learnable):
        events.append("warning", code="samples_dropped", count=dropped, cutoff_len=settings.cutoff_len)
    if cut := int(np.count_nonzero(learnable.lengths >= settings.cutoff_len)):
        events.append("warning", code="samples_cut", count=cut, cutoff_len=settings.cutoff_len)
    return learnable


# ---- one dataset ----


def _prepared(source: Source, settings: TrainSettings, template: ChatTemplate, events: EventLog) -> Part:
    """The uncut samples of a dataset's rows, from the cache where it has them. Raises Problem."""
    name = _key(source, settings, template)
    if name is None:
        part, tally = _encoded(source, settings, template)
        told = tally.values()
    else:
        entry = sample_cache.find(name) or _made(name, source, settings, template)
        part, told = entry.part, entry.info
    if told["bad"]:
        events.append("warning", code="samples_skipped", name=source.name, **told)
    return part


def _made(name: str, source: Source, settings: TrainSettings, template: ChatTemplate) -> sample_cache.Entry:
    """The new entry `name`; in memory alone where the cache cannot take it."""
    with sample_cache.one_at_a_time(name):
        if entry := sample_cache.find(name):  # another process has just made it
            return entry
        try:
            with sample_cache.draft(name) as draft:
                tally = _write(draft.writer, source, settings, template)
                if _key(source, settings, template) == name and (entry := draft.store(tally.values())):
                    return entry
            log.info("dataset %s changed while it was read: its samples are not kept", source.name)
        except OSError as error:
            log.info("the samples of dataset %s are not kept: %s", source.name, error)
    part, tally = _encoded(source, settings, template)
    return sample_cache.Entry(part, tally.values())


def _encoded(source: Source, settings: TrainSettings, template: ChatTemplate) -> tuple[Part, Tally]:
    writer = Writer()
    tally = _write(writer, source, settings, template)
    return writer.part(), tally


def _write(writer: Writer, source: Source, settings: TrainSettings, template: ChatTemplate) -> Tally:
    """Encodes the dataset's rows into `writer`. Raises Problem for what stops a run."""
    tally = Tally()
    found = records_of(source, settings, rows_wanted(source, settings), tally)
    for done in encode(found, settings, template, source.bytes(), settings.skip_bad_rows):
        for row, reason in done.refused:
            tally.note_bad(row, reason)
        if not (tally.unfilled or (tally.bad and not settings.skip_bad_rows)):  # else it is only counted what is wrong
            writer.add(done.frame)
    for problem in problems_of(source, settings, tally):
        raise problem
    return tally


def _key(source: Source, settings: TrainSettings, template: ChatTemplate) -> str | None:
    """The name of the dataset's samples in the cache; None when they are not worth it."""
    if source.bytes() < sample_cache.LEAST_BYTES:
        return None
    return sample_cache.key(
        files=[f"{path.suffixes} {sample_cache.content(path)}" for path in source.files],
        source=(source.name, source.layout),
        rows=rows_wanted(source, settings),
        template=template.source,
        stops=template.stop_token_ids,
        tokenizer=sample_cache.tokenizer_content(resolve(Path(settings.model_name_or_path))),
        today=str(date.today()) if "strftime" in template.source else "",
        **{key: getattr(settings, key) for key in _DECIDING},
    )
