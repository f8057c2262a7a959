"""The estimate of a run in its own events, so that what is measured can be compared with it."""

from collections.abc import Sequence
from pathlib import Path

from trainer.chat_template import Sample
from trainer.counts import Counts
from trainer.device import Device
from trainer.estimate import GIB, Hardware, estimated
from trainer.events import EventLog
from trainer.model_folder import resolve
from trainer.model_size import read_model_size
from trainer.packed import label_counts_of, lengths_of
from trainer.settings import TrainSettings


def note_estimate(
    settings: TrainSettings, samples: Sequence[Sample], device: Device, processes: int, events: EventLog
) -> None:
    """`samples`: those that are trained on."""
    size = read_model_size(resolve(Path(settings.model_name_or_path)))
    if size is None:
        return
    lengths, labels = tuple(lengths_of(samples)), tuple(label_counts_of(samples))
    whole = device.total_memory()
    # What others hold is not there; what this process holds already is part of the estimate.
    free = whole if device.type == "cpu" else device.free_memory() + device.allocated_memory()
    hardware = Hardware(device.type, device.name, free / GIB, processes, total_gib=whole / GIB)
    without_validation = settings.model_copy(update={"val_size": 0.0})
    if found := estimated(without_validation, size, Counts(lengths, labels, len(samples)), hardware):
        events.append("estimate", memory_gib=round(found.peak_gib, 3), seconds=round(found.seconds, 1))
