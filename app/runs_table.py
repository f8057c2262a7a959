"""The list of runs as a Gradio component, drawn in the browser by assets/runs_list.js.

Its value is what `value` returns. The browser filters, marks and asks before it deletes; what was marked comes with the
click that does something (app/runs_tab.py).
"""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app import monitor
from app.comparison import LEAST, MOST, best_words, state_words, steps_words
from app.loss_chart import ASSETS, literal
from app.run_list import Row, based_on
from app.run_queue import Entry
from app.text import Text
from trainer.problems import sentence

COLUMNS = ("name", "state", "model", "dataset", "method", "steps", "loss", "best", "duration", "started")
ACTIONS = ("compare", "resume", "continue", "abort", "delete")
ROW_ACTIONS = ("up", "down", "cancel")


def runs_table(text: Text, value: list[dict[str, Any]]) -> gr.HTML:
    return gr.HTML(
        value,
        html_template=_template(text),
        js_on_load=(ASSETS / "runs_list.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="runs_list",
    )


def value(rows: Sequence[Row], queued: Sequence[Entry], text: Text) -> list[dict[str, Any]]:
    """One dictionary a run: the queue in its order, then the others, newest first."""
    known = {row.name: row for row in rows}
    waiting = [_waiting(entry, place, known.get(entry.name), text) for place, entry in enumerate(queued, start=1)]
    names = {entry.name for entry in queued}
    shown = [*waiting, *(_shown(row, text) for row in rows if row.name not in names)]
    needed = _needed(rows, queued)
    return [one | {"needed_by": needed[one["name"]]} if one["name"] in needed else one for one in shown]


def _needed(rows: Sequence[Row], queued: Sequence[Entry]) -> dict[str, list[str]]:
    """By the name of a run, those that go on from what it has left."""
    folders = {row.folder: row.name for row in rows}
    given = [(row.name, path) for row in rows for path in row.based_on]
    given += [(entry.name, path) for entry in queued if entry.settings for path in based_on(entry.settings)]
    found: dict[str, list[str]] = {}
    for name, path in given:
        # A run's own folder, or one of its checkpoints.
        base = folders.get(path) or folders.get(path.rpartition("/")[0])
        if base and base != name and name not in found.setdefault(base, []):
            found[base].append(name)
    return {base: names for base, names in found.items() if names}


def _shown(row: Row, text: Text) -> dict[str, Any]:
    look = "running" if row.alive or row.status == "elsewhere" else "failed" if row.status == "died" else row.status
    return {
        "name": row.name,
        "look": look,
        "state": state_words(row, text),
        "model": row.model,
        "dataset": row.dataset,
        "method": row.method,
        "steps": steps_words(row),
        "loss": monitor.number(row.loss),
        "best": best_words(row),
        "duration": monitor.duration(row.seconds),
        "started": round(row.started),
        "alive": row.alive,
        "elsewhere": row.status == "elsewhere",
        "resumable": row.resumable,
    }


def _waiting(entry: Entry, place: int, row: Row | None, text: Text) -> dict[str, Any]:
    """A run that waits; one that is to be resumed has its figures already."""
    # What has not started has no time of it.
    shown = _shown(row, text) if row else dict.fromkeys(COLUMNS, "–") | {"name": entry.name, "started": 0}
    settings = entry.settings
    if settings and not row:
        bits = f" · {settings.quantization_bit} bit" if settings.quantization_bit else ""
        shown |= {
            "model": Path(settings.model_name_or_path).name,
            "dataset": ", ".join(settings.dataset),
            "method": f"{settings.finetuning_type}{bits}",
        }
    why = " ".join(sentence(code, values, text.language) for code, values in entry.refused)
    state = text("runs.refused") if entry.refused else text("runs.queued", place=place)
    look = "failed" if entry.refused else "queued"
    waits = {"look": look, "state": state, "why": why, "place": place, "new": row is None}
    return shown | waits | {"alive": False, "resumable": False}


def _template(text: Text) -> str:
    def words(key: str) -> str:
        # Filled in by the browser.
        return literal(text(f"runs.{key}", count="{count}", name="{name}", names="{names}"))

    buttons = "".join(f'<button type="button" data-act="{act}" title="{words(f"{act}.help")}" disabled>'
                      f"{words(act)}</button>" for act in ACTIONS)  # fmt: skip
    columns = "".join(f'<th scope="col" data-column="{name}">{words(f"column.{name}")}</th>' for name in COLUMNS)
    own = "".join(f' data-{act}="{words(act)}"' for act in ROW_ACTIONS)
    return (
        f'<section class="td-runs" data-least="{LEAST}" data-most="{MOST}" data-mark="{words("mark")}"'
        f' data-confirm="{words("confirm")}" data-needed="{words("needed")}"{own}>'
        f'<div class="td-runs-bar"><input type="search" placeholder="{words("filter")}" aria-label="{words("filter")}">'
        f"{buttons}</div>"
        f'<div class="td-runs-confirm" role="alertdialog" hidden><span></span>'
        f'<button type="button" data-confirm="yes">{words("confirm.yes")}</button>'
        f'<button type="button" data-confirm="no">{words("confirm.no")}</button></div>'
        f'<table><thead><tr><th><input type="checkbox" aria-label="{words("mark_all")}"></th>{columns}</tr></thead>'
        "<tbody></tbody></table>"
        f'<p class="td-runs-empty">{words("empty")}</p>'
        f'<button type="button" class="td-runs-more" hidden>{words("more")}</button></section>'
    )


def compare_chart(text: Text) -> gr.HTML:
    """A chart to be updated with app.comparison.curves."""
    title, empty, scale = (literal(text(key)) for key in ("chart.title", "chart.empty", "chart.log_scale"))
    template = (
        f'<figure class="td-chart td-curves" aria-label="{title}" data-empty><figcaption><span>{title}</span>'
        f'<label><input type="checkbox" name="log-scale">{scale}</label></figcaption>'
        f'<div class="td-chart-plot"><p class="td-chart-empty">{empty}</p></div>'
        f'<div class="td-chart-legend" data-eval="{html.escape(text("chart.eval_loss"))}"></div></figure>'
    )
    script = (ASSETS / "compare_chart.js").read_text(encoding="utf-8")
    return gr.HTML({"runs": []}, html_template=template, js_on_load=script, apply_default_css=False,
                   elem_id="compare_chart")  # fmt: skip
