"""What the check of a whole dataset has found, as HTML: figures, the lengths with the cutoff, bad rows, how far it is.

Light: answers of app/look.py in, escaped HTML out.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from app import fragments
from app.look import Answer
from app.text import Text
from trainer.problems import Problem

HEIGHT = 64  # of the histogram, in units of its drawing
BAR = 10


def check_html(answer: Answer, tokenless: Problem | None, cutoff_len: int, skipping: bool, text: Text) -> str:
    """`tokenless`: why nothing is known of tokens. `skipping`: bad rows are skipped in training."""
    why = fragments.problems_html("", [tokenless.sentence(text.language)]) if tokenless else ""
    return why + _checked(answer, cutoff_len, skipping, text)


def _checked(answer: Answer, cutoff_len: int, skipping: bool, text: Text) -> str:
    if answer.problem is not None:
        return fragments.problems_html("", [answer.problem.sentence(text.language)])
    if answer.state == "done":
        found = answer.values
        return (fragments.metrics_html(_figures(found, text)) + _notes(found, text)
                + _histogram(found.get("histogram") or [], cutoff_len, text) + bad_rows_html(found, skipping, text))  # fmt: skip
    return _progress(answer, text)


def _progress(answer: Answer, text: Text) -> str:
    rows, whole = answer.values.get("rows", 0), answer.values.get("of_bytes") or 0
    fraction = min(answer.values.get("bytes", 0) / whole, 1.0) if whole else None
    if answer.state == "stopped":
        return fragments.notice_html(text("check.stopped", rows=f"{rows:,}"))
    percent = text("check.percent", percent=f"{100 * fraction:.0f}") if fraction is not None else ""
    words = text("check.running", rows=f"{rows:,}") + percent if rows else text("check.starting")
    return fragments.status_html(text("check.title"), words, fraction)


def _figures(found: Mapping[str, Any], text: Text) -> list[tuple[str, str]]:
    """Those of tokens where there are any: without a model nothing is known of them."""
    samples, tokens = found["samples"], found["tokens"]
    about = "≈ " if found.get("sampled") else ""
    figures = [(text("check.samples"), f"{samples:,}")]
    if tokens is not None:
        figures += [
            (text("check.tokens"), f"{about}{tokens:,}"),
            (text("check.trained"), _share(found["trained_tokens"], tokens, about)),
            (text("check.longest"), f"{found['longest']:,}"),
            (text("check.truncated"), _share(found["truncated"], samples, about)),
            (text("check.nothing_left"), _share(found["nothing_left"], samples, about)),
        ]
    figures += [(text("check.duplicates"), f"{found['duplicates']:,}"), (text("check.bad"), f"{found['bad']:,}")]
    if mix := _mix(found.get("languages") or {}, text):
        figures.append((text("check.languages"), mix))
    return figures


def _share(count: int, whole: int, about: str) -> str:
    if not whole or not count:
        return f"{count:,}"
    percent = 100 * count / whole
    shown = "< 0.1" if percent < 0.1 else f"{percent:.1f}".removesuffix(".0")
    return f"{about}{count:,} · {shown}%"


def _mix(languages: Mapping[str, float], text: Text) -> str:
    known = text.group("mix")
    parts = sorted(languages.items(), key=lambda item: -item[1])
    return " · ".join(f"{known.get(name, name)} {100 * share:.0f}%" for name, share in parts if share >= 0.005)


def _notes(found: Mapping[str, Any], text: Text) -> str:
    words = []
    if found.get("sampled"):
        words.append(text("check.sampled", count=f"{found['sampled']:,}"))
    if names := found.get("placeholders"):
        shown = ", ".join(f"{{{{{name}}}}}" for name in names)
        words.append(text("check.placeholders", names=shown))
    return "".join(f'<p class="td-check-note">{escape(word)}</p>' for word in words)


def bad_rows_html(found: Mapping[str, Any], skipping: bool, text: Text) -> str:
    """How many rows are bad, the first of them with the reason, and what can be done; nothing where there are none."""
    if not found["bad"]:
        return ""
    rows = found["bad_rows"]
    sentences = [text("check.bad_row", row=row["row"], reason=row["reason"][text.language]) for row in rows]
    if (more := found["bad"] - len(rows)) > 0:
        sentences.append(text("check.bad_more", count=f"{more:,}"))
    remedy = text("check.bad_skipped" if skipping else "check.bad_remedy")
    return fragments.problems_html(text("check.bad_title", count=f"{found['bad']:,}") + remedy, sentences)


# ---- the histogram ----


def _histogram(counts: Sequence[Sequence[int]], cutoff_len: int, text: Text) -> str:
    """Bars of [upper length, samples], as wide as each other, and a line where the cutoff falls."""
    if not counts:
        return ""
    most = max(count for _, count in counts) or 1
    width = BAR * len(counts)
    bars, lower = [], 0
    for place, (upper, count) in enumerate(counts):
        tall = max(1.5, HEIGHT * count / most) if count else 0
        title = escape(text("check.bar", lower=f"{lower + 1:,}", upper=f"{upper:,}", count=f"{count:,}"))
        # A bar of no height could not be pointed at: what can be is as tall as the drawing.
        bars.append(f'<g><title>{title}</title><rect class="td-hit" x="{place * BAR}" y="0" width="{BAR}" height="{HEIGHT}"/>'
                    f'<rect x="{place * BAR + 0.75}" y="{HEIGHT - tall:.1f}" width="{BAR - 1.5}" height="{tall:.1f}"/></g>')  # fmt: skip
        lower = upper
    at = _place(counts, cutoff_len)
    line = f'<line x1="{at * width:.1f}" x2="{at * width:.1f}" y1="0" y2="{HEIGHT}"/>' if at is not None else ""
    label = text("check.histogram", cutoff=f"{cutoff_len:,}")
    return (
        f'<figure class="td-lengths"><figcaption>{escape(text("check.lengths"))}<span{" data-within" * (at is not None)}>{escape(_cutoff(at, cutoff_len, text))}'
        f'</span></figcaption><svg viewBox="0 0 {width} {HEIGHT}" preserveAspectRatio="none" role="img"'
        f' aria-label="{escape(label)}">{"".join(bars)}{line}</svg><div class="td-lengths-axis"><span>0</span>'
        f"<span>{counts[(len(counts) - 1) // 2][0]:,}</span><span>{counts[-1][0]:,}</span></div></figure>"
    )


def _cutoff(at: float | None, cutoff_len: int, text: Text) -> str:
    return text("check.cutoff_beyond" if at is None else "check.cutoff", cutoff=f"{cutoff_len:,}")


def _place(counts: Sequence[Sequence[int]], length: int) -> float | None:
    """Where `length` stands on the axis, 0 to 1; None when it is beyond the last bar."""
    lower = 0
    for place, (upper, _) in enumerate(counts):
        if length <= upper:
            inside = (length - lower) / (upper - lower) if upper > lower else 1.0
            return (place + max(inside, 0.0)) / len(counts)
        lower = upper
    return None
