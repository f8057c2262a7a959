"""The fields of the Train tab that ask for what stands in the place of {{name}} in the chosen datasets.

They are there while a chosen dataset has such names. What is typed goes, as JSON, into the setting `placeholders`, whose
own field nobody sees unless there are more names than fields.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

import gradio as gr

from app.looked import state_of
from app.page import Page
from app.top_bar import QUIET
from trainer import placeholders, records
from trainer.dataset_files import find_source
from trainer.problems import Problem
from trainer.settings import label

MOST_FIELDS = 12
# Of a large dataset its beginning tells which names there are; should it lack one, preparation says so.
MOST_ROWS = 5000

# Not the boxes' own input event: that comes with the keys of a keyboard only, not with pasted or composed text.
WRITE = """(written, names, ...values) => {
  let found = {};
  try { found = JSON.parse(written || "{}"); } catch { }
  if (typeof found !== "object" || found === null || Array.isArray(found)) found = {};
  JSON.parse(names || "[]").forEach((name, place) => {
    if (values[place]) found[name] = values[place]; else delete found[name];
  });
  return Object.keys(found).length ? JSON.stringify(found) : "";
}"""


class PlaceholderFields:
    def __init__(self, page: Page, add: Callable[..., None]) -> None:
        """`add`: lays out the field of a setting here."""
        self._page, self._text = page, page.text
        text = page.text
        # A group that comes later stands there twice: Gradio's own fault.
        with gr.Column(visible=False, elem_id="placeholder_fields") as self.group, gr.Group(elem_classes="td-panel"):
            gr.HTML(f'<p class="td-check-note">{escape(text("placeholders.about"))}</p>', apply_default_css=False)
            with gr.Row():
                self.boxes = [
                    gr.Textbox(
                        visible=False, max_lines=1, interactive=True, min_width=220, elem_id=f"placeholder_{place}"
                    )
                    for place in range(MOST_FIELDS)
                ]
                add("placeholders", visible="hidden")
                add("literal_placeholders", min_width=220)
        self.names = gr.Textbox("", visible="hidden", max_lines=1)

    def wire(self, fields: dict[str, Any]) -> None:
        written, datasets, data_dir = fields["placeholders"], fields["dataset"], fields["dataset_dir"]
        inputs = [data_dir, datasets, written, self.names, *self.boxes]
        shown = [self.group, written, self.names, *self.boxes]
        gr.on([datasets.change, data_dir.change, written.change], self._show, inputs, shown,
              trigger_mode="always_last", **QUIET)  # fmt: skip
        # The dataset that a page opens with has not changed.
        opening = gr.Timer(0.2)
        opening.tick(lambda *values: [*self._show(*values), gr.Timer(active=False)], inputs, [*shown, opening], **QUIET)
        for box in self.boxes:
            box.change(None, [written, self.names, *self.boxes], written, js=WRITE, **QUIET)

    def _show(self, data_dir: str, datasets: list[str], written: str, names: str, *values: str) -> list[Any]:
        counts = self._counts(data_dir, datasets if isinstance(datasets, list) else [])
        texts, found = _texts(written), sorted(counts)
        now = json.dumps(found[:MOST_FIELDS])
        boxes = [self._box(place, found, counts, texts, value, now == names) for place, value in enumerate(values)]
        return [
            gr.update(visible=bool(found)),
            gr.update(visible=True if len(found) > MOST_FIELDS else "hidden"),
            now,
            *boxes,
        ]

    def _box(
        self, place: int, names: list[str], counts: Counter[str], texts: dict[str, str], value: str, same: bool
    ) -> Any:
        if place >= len(names):
            return gr.update(visible=False)
        text = texts.get(names[place], "")
        if same and text == (value or ""):
            return gr.skip()
        words = self._text("placeholders.label", name=f"{{{{{names[place]}}}}}", rows=counts[names[place]])
        return gr.update(visible=True, label=words, value=text)

    def _counts(self, data_dir: str, datasets: list[str]) -> Counter[str]:
        """How many rows of `datasets` hold each name."""
        found: Counter[str] = Counter()
        for name in datasets:
            # What is wrong with a dataset is said by the preview and by Start.
            with contextlib.suppress(Problem, OSError):
                folder = self._page.roots.check(data_dir, label("dataset_dir"))
                found += counted(folder, name, state_of(folder, name))
        return found


@lru_cache(maxsize=32)
def counted(folder: Path, name: str, state: str) -> Counter[str]:
    """How many rows hold each name, of the first MOST_ROWS. `state` stands for the files. Raises Problem."""
    found: Counter[str] = Counter()
    for row in islice(records.iterate(find_source(folder, name)), MOST_ROWS):
        if isinstance(row, records.Record):
            found.update(set(placeholders.find([row])))
    return found


def _texts(written: str) -> dict[str, str]:
    try:
        found = json.loads(written or "{}")
    except (ValueError, RecursionError):
        return {}
    return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else {}
