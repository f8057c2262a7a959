"""The page's own pieces of HTML: status, metrics, problems, log, command.

Light: text in, escaped HTML out; the style sheet gives them their looks.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal

from trainer.events import Outcome


def header_html(logo: str, name: str, device: str, language: str, language_href: str) -> str:
    """The page's head line; `logo` is SVG of our own and goes in as it is."""
    return (
        f'<header class="td-header"><span class="td-logo" aria-hidden="true">{logo}</span>'
        f'<h1>{escape(name)}</h1><span class="td-device">{escape(device)}</span>'
        f'<a class="td-language" href="{escape(language_href)}">{escape(language)}</a></header>'
    )


def status_html(
    stage_label: str, progress_text: str, fraction: float | None, outcome: Outcome | Literal["idle"] | None = None
) -> str:
    """The stage chip, the progress line and its bar.

    `outcome` None means that the run goes on; then `fraction` None shows a bar that moves without an end in sight.
    """
    state = outcome or "running"
    bar = "" if fraction is None and state != "running" else _bar(stage_label, fraction)
    return (
        f'<div class="td-status" data-state="{state}"><span class="td-stage" role="status">{escape(stage_label)}</span>'
        f'<span class="td-progress-text">{escape(progress_text)}</span>{bar}</div>'
    )


def _bar(label: str, fraction: float | None) -> str:
    attributes = f'class="td-bar" role="progressbar" aria-label="{escape(label)}" aria-valuemin="0" aria-valuemax="100"'
    if fraction is None:
        return f'<div {attributes} data-unknown><span style="width: 30%"></span></div>'
    percent = 100 * min(max(fraction, 0.0), 1.0)
    return f'<div {attributes} aria-valuenow="{percent:.0f}"><span style="width: {percent:.1f}%"></span></div>'


def metrics_html(pairs: Iterable[tuple[str, str]]) -> str:
    """A row of label and value."""
    cells = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in pairs)
    return f'<dl class="td-metrics">{cells}</dl>' if cells else ""


def problems_html(title: str, sentences: Sequence[str]) -> str:
    """What has to be put right, one sentence each; nothing when there is nothing."""
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    head = f"<strong>{escape(title)}</strong>" if title else ""
    return f'<section class="td-problems" role="alert">{head}<ul>{items}</ul></section>'


def notice_html(text: str) -> str:
    return f'<p class="td-notice" role="status">{escape(text)}</p>' if text else ""


def log_html(text: str) -> str:
    """The log in a box of its own, which stays at its end while lines come in (the style sheet turns it round)."""
    return f'<div class="td-log" tabindex="0"><pre>{escape(text)}</pre></div>'
