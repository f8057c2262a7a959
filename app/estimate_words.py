"""An estimate in words, as HTML and for a terminal. Pure functions."""

from html import escape
from typing import Any

from app.monitor import duration
from app.runs import Run
from app.text import Text
from trainer.estimate import Estimate, Hardware
from trainer.settings import as_text, shown


def pending_html(text: Text) -> str:
    return f'<p class="td-estimate" role="status">{escape(text("estimate.pending"))}</p>'


def estimate_html(found: Estimate, machine: Hardware, text: Text) -> str:
    """One line, the parts folded below it, and a warning when it will not fit."""
    cells = "".join(f"<div><dt>{escape(part)}</dt><dd>{value}</dd></div>" for part, value in _parts(found, text))
    notes = "".join(f"<p>{escape(note)}</p>" for note in _notes(found, text))
    summary = f"<summary>{escape(_headline(found, machine, text))}</summary>"
    fold = f'<details>{summary}<dl class="td-metrics">{cells}</dl>{notes}</details>'
    warning = (
        "" if found.fits else f'<p class="td-notice" role="alert">{escape(warning_words(found, machine, text))}</p>'
    )
    return f'<section class="td-estimate" data-fits="{str(found.fits).lower()}">{fold}{warning}</section>'


def estimate_lines(found: Estimate, machine: Hardware, text: Text) -> list[str]:
    """The same for a terminal."""
    parts = [f"  {value:>10}  {part}" for part, value in _parts(found, text)]
    warning = [] if found.fits else [warning_words(found, machine, text)]
    return [_headline(found, machine, text), *parts, *_notes(found, text), *warning]


def _headline(found: Estimate, machine: Hardware, text: Text) -> str:
    return text("estimate.line", peak=_gib(found.peak_gib), free=_free(machine, text), steps=found.steps,
                time=duration(found.seconds))  # fmt: skip


def _free(machine: Hardware, text: Text) -> str:
    """What is free of the device's memory, in words: X of Y."""
    return text("estimate.free", free=_gib(machine.memory_gib), total=_gib(machine.whole_gib))


def _parts(found: Estimate, text: Text) -> list[tuple[str, str]]:
    """Label and amount of every part that can be seen."""
    return [(text(f"estimate.part.{name}"), _gib(value)) for name, value in found.parts.items() if value >= 0.005]


def _notes(found: Estimate, text: Text) -> list[str]:
    notes = [text("estimate.budget", budget=found.budget)]
    if found.checkpointed:
        notes.append(text("estimate.checkpointed"))
    if found.sampled:
        notes.append(text("estimate.sampled", count=found.sampled))
    notes.append(text("estimate.reserved", reserved=_gib(found.reserved_gib)))
    return notes


def warning_words(found: Estimate, machine: Hardware, text: Text) -> str:
    """That it does not fit, and what makes it fit."""
    needed = found.peak_gib + found.reserved_gib
    words = text("estimate.no_fit", needed=_gib(needed), name=machine.name, free=_free(machine, text))
    if needed <= machine.whole_gib:
        words += text("estimate.in_use")
    if not found.advice:
        return words + text("estimate.no_advice")
    several = [
        text("estimate.and").join(
            f"{shown(key).label(text.language)} {_value(value, text)}" for key, value in change.items()
        )
        for change in found.advice
    ]
    return words + text("estimate.advice", changes=text("estimate.or").join(several))


def _value(value: Any, text: Text) -> str:
    return as_text(value) or text("estimate.empty")


def measured_html(run: Run | None, text: Text) -> str | None:
    """What a run that trains has measured, in the estimate's place; None while there is nothing."""
    step = run.last("step") if run and run.alive else None
    if run is None or step is None or not _of_this_start(run, step["time"]):
        return None
    peak, before = _gib(step.get("memory_gib") or 0), run.last("estimate")
    words = text("estimate.measured", peak=peak)
    if before:
        words = text("estimate.measured_compared", peak=peak, estimated=_gib(before["memory_gib"]))
    return f'<p class="td-estimate" role="status">{escape(words)}</p>'


def _of_this_start(run: Run, when: float) -> bool:
    starting = next((event for event in reversed(run.events) if event.get("stage") == "starting"), None)
    return starting is None or when >= starting["time"]


def _gib(value: float) -> str:
    return f"{value:.1f} GiB" if value >= 10 else f"{value:.2f} GiB"
