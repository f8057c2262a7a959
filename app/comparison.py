"""Several runs side by side: their curves on one axis, and where their settings differ."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from app import monitor, runs
from app.charts import chart
from app.run_list import Row
from app.text import Text
from trainer import run_folder
from trainer.problems import Problem, Problems
from trainer.settings import TrainSettings, parse, shown, typed_text
from trainer.settings_file import read_yaml

LEAST, MOST = 2, 5
# What two runs cannot share, or that says nothing of them.
LEFT_OUT = {"output_dir", "resume_from_checkpoint"}


def check_count(names: Sequence[str]) -> None:
    if not LEAST <= len(names) <= MOST:
        raise Problem("compare_count", least=LEAST, most=MOST, count=len(names))


def curves(folders: Sequence[Path]) -> dict[str, Any]:
    """The data of assets/compare_chart.js: of each run its name, steps, smoothed losses and [step, eval loss] pairs."""
    found = []
    for folder in folders:
        data = chart(runs.read(folder).events)
        found.append({"name": folder.name, "step": data["step"], "loss": data["smoothed"], "eval": data["eval"]})
    return {"runs": found}


def differing(folders: Sequence[Path], language: Text) -> list[tuple[str, list[str]]]:
    """Label and values, a run each, of the settings that are not the same; "–" for a run whose settings are lost."""
    settings = [_settings(folder) for folder in folders]
    rows = []
    for key in TrainSettings.model_fields:
        values = [typed_text(key, getattr(one, key)) if one else None for one in settings]
        if key not in LEFT_OUT and len({value for value in values if value is not None}) > 1:
            rows.append((shown(key).label(language.language), ["–" if value is None else value for value in values]))
    return rows


def results(rows: Sequence[Row], text: Text) -> list[tuple[str, list[str]]]:
    """Label and values, a run each, of what came out."""
    return [
        (text("runs.column.state"), [state_words(row, text) for row in rows]),
        (text("runs.column.steps"), [steps_words(row) for row in rows]),
        (text("runs.column.loss"), [monitor.number(row.loss) for row in rows]),
        (text("runs.column.best"), [best_words(row) for row in rows]),
        (text("runs.column.duration"), [monitor.duration(row.seconds) for row in rows]),
    ]


def state_words(row: Row, text: Text) -> str:
    if row.alive:
        return monitor.stage_words(row.stage, text)
    if row.status == "elsewhere":
        return text("runs.elsewhere", stage=monitor.stage_words(row.stage, text), host=row.host)
    return text(f"status.{row.status}")


def steps_words(row: Row) -> str:
    return f"{row.step}/{row.total_steps}" if row.total_steps else "–"


def best_words(row: Row) -> str:
    """The lowest loss and its step, starred when it is one of validation."""
    if row.best is None:
        return "–"
    return f"{'★ ' if row.validated else ''}{monitor.number(row.best[1])} @ {row.best[0]}"


def table(folders: Sequence[Path], rows: Sequence[Row], text: Text) -> str:
    """Results, then differing settings, one column a run."""
    names = "".join(f'<th scope="col"><i data-run="{place}"></i>{escape(folder.name)}</th>'
                    for place, folder in enumerate(folders))  # fmt: skip
    differences = differing(folders, text)
    body = "".join(_line(label, values) for label, values in results(rows, text))
    body += f'<tr><th colspan="{len(folders) + 1}" class="td-part">{escape(text("runs.differing"))}</th></tr>'
    body += "".join(_line(label, values) for label, values in differences)
    unread = [folder.name for folder in folders if _settings(folder) is None]
    notes = [text("runs.unread", names=", ".join(unread))] if unread else []
    if not differences and len(folders) - len(unread) >= LEAST:
        notes.append(text("runs.same"))
    body += "".join(f'<tr><td colspan="{len(folders) + 1}">{escape(note)}</td></tr>' for note in notes)
    return (f'<div class="td-compare"><table><thead><tr><td></td>{names}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>")  # fmt: skip


def _line(label: str, values: Sequence[str]) -> str:
    cells = "".join(f"<td>{escape(value)}</td>" for value in values)
    return f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>'


def _settings(folder: Path) -> TrainSettings | None:
    """None where they cannot be read."""
    try:
        return parse(read_yaml(folder / run_folder.CONFIG))
    except (Problem, Problems):
        return None
