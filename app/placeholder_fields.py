"""The fields of the Train tab that ask for what stands in the place of {{name}} in the chosen datasets.

They are there while a chosen dataset has such names. What is typed goes, as JSON, into the setting `placeholders`, whose
own field nobody sees unless there are more names than fields.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from app.looked import LOOKED, looked_at, state_of
from app.page import Page
from app.top_bar import QUIET
from trainer import placeholders, records
from trainer.dataset_files import find_source
from trainer.problems import Problem, Problems
from trainer.settings import label

MOST_FIELDS = 12
POLL_S = 1.0
# Smaller files are read here and now; of larger ones app/look.py knows the names when it has checked them.
SMALL_BYTES = 4 * 2**20

# Escaped, for the form reads full-width signs as the plain ones, which these texts are not to suffer.
WRITE = """(written, names, ...values) => {
  let found = {};
  try { found = JSON.parse(written || "{}"); } catch { }
  if (typeof found !== "object" || found === null || Array.isArray(found)) found = {};
  JSON.parse(names || "[]").forEach((name, place) => {
    if (values[place]) found[name] = values[place]; else delete found[name];
  });
  const text = JSON.stringify(found);
  return Object.keys(found).length
    ? text.replace(/[\\u007f-\\uffff]/g, (sign) => "\\\\u" + sign.charCodeAt(0).toString(16).padStart(4, "0")) : "";
}"""


class PlaceholderFields:
    def __init__(self, page: Page, add: Callable[..., None]) -> None:
        """`add`: lays out the field of a setting here."""
        self._page, self._text = page, page.text
        text = page.text
        with gr.Group(visible=False, elem_id="placeholder_fields", elem_classes="td-panel") as self.group:
            self.about = gr.HTML(elem_id="placeholders_about", apply_default_css=False)
            with gr.Row():
                self.boxes = [
                    gr.Textbox(visible=False, max_lines=1, interactive=True, min_width=220, elem_id=f"placeholder_{place}")
                    for place in range(MOST_FIELDS)
                ]
                add("placeholders", visible="hidden")
                add("literal_placeholders", min_width=220)
        self.names = gr.Textbox("", visible="hidden", max_lines=1)
        self.timer = gr.Timer(POLL_S, active=False)
        self.title = text("placeholders.about")

    def wire(self, fields: dict[str, Any]) -> None:
        written, datasets = fields["placeholders"], fields["dataset"]
        inputs = [datasets, written, self.names, *self.boxes, *(fields[key] for key in LOOKED)]
        outputs = [self.group, self.about, written, self.names, self.timer, *self.boxes]
        # A literal name needs no text, but may have one all the same.
        gr.on([datasets.change, fields["dataset_dir"].change, written.change, self.timer.tick], self._show, inputs, outputs,
              trigger_mode="always_last", **QUIET)  # fmt: skip
        for box in self.boxes:
            box.input(None, [written, self.names, *self.boxes], written, js=WRITE, **QUIET)

    def _show(self, datasets: list[str], written: str, names: str, *values: Any) -> list[Any]:
        typed = dict(zip(LOOKED, values[MOST_FIELDS:], strict=True))
        counts, pending = self._counts(datasets if isinstance(datasets, list) else [], typed)
        texts = _texts(written)
        found = sorted(counts)
        shown = found[:MOST_FIELDS]
        now = json.dumps(shown)
        boxes = [
            self._box(place, shown, counts, texts, values[place], now == names) for place in range(MOST_FIELDS)
        ]
        about = f'<p class="td-check-note">{self.title}</p>'
        raw = gr.update(visible=True if len(found) > MOST_FIELDS else "hidden")
        return [gr.update(visible=bool(found)), about, raw, now, gr.Timer(active=pending), *boxes]

    def _box(self, place: int, names: list[str], counts: Counter[str], texts: dict[str, str], value: str, same: bool) -> Any:
        if place >= len(names):
            return gr.update(visible=False)
        text = texts.get(names[place], "")
        if same and text == (value or ""):
            return gr.skip()
        words = self._text("placeholders.label", name=f"{{{{{names[place]}}}}}", rows=counts[names[place]])
        return gr.update(visible=True, label=words, value=text)

    def _counts(self, datasets: list[str], typed: dict[str, Any]) -> tuple[Counter[str], bool]:
        """How many rows of `datasets` hold each name, and whether some are still being counted."""
        found: Counter[str] = Counter()
        pending = False
        for name in datasets:
            try:
                folder = self._page.roots.check(typed["dataset_dir"], label("dataset_dir"))
                if is_small(folder, name):
                    found += counted(folder, name)
                    continue
                answer = self._page.look.check(looked_at(typed, self._page.roots), name, state_of(folder, name))
                pending = pending or not answer.ended
                found += Counter(answer.values.get("placeholders") or {})
            except (Problem, Problems, OSError):
                continue  # said by the preview and by Start
        return found, pending


def is_small(folder: Path, name: str) -> bool:
    return find_source(folder, name).path.stat().st_size <= SMALL_BYTES


def counted(folder: Path, name: str) -> Counter[str]:
    """How many rows hold each name. Raises Problem for a dataset that cannot be read."""
    rows = records.iterate(find_source(folder, name))
    return placeholders.find(row for row in rows if isinstance(row, records.Record))


def _texts(written: str) -> dict[str, str]:
    try:
        found = json.loads(written or "{}")
    except (ValueError, RecursionError):
        return {}
    return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else {}
