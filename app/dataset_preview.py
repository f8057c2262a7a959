"""The dataset preview: a panel over the page that shows the samples of the chosen datasets, page by page."""

from pathlib import Path
from typing import Any

import gradio as gr

from app import fragments
from app.page import Page
from app.problem_words import refused_html
from app.top_bar import QUIET
from trainer import records
from trainer.problems import Problem
from trainer.settings import label

PAGE_SIZE = 4


class DatasetPreview:
    def __init__(self, page: Page) -> None:
        self._text, self._roots = page.text, page.roots
        text = page.text
        with gr.Column(visible=False, elem_id="preview", elem_classes="td-modal") as self.panel:
            with gr.Row(elem_id="preview_head"):
                self.dataset = gr.Dropdown(
                    [], label=label("dataset")[text.language], interactive=True, elem_id="preview_dataset_name"
                )
                self.count = gr.Textbox(
                    label=text("preview.count"), interactive=False, min_width=80, elem_id="preview_count"
                )
                self.page = gr.Textbox("1", label=text("preview.page"), min_width=80, elem_id="preview_page")
            self.samples = gr.HTML(elem_id="samples", apply_default_css=False)
            with gr.Row(elem_id="preview_buttons"):
                self.previous = gr.Button(text("preview.prev"), size="sm", min_width=60, elem_id="preview_prev")
                self.next = gr.Button(text("preview.next"), size="sm", min_width=60, elem_id="preview_next")
                self.close = gr.Button(text("preview.close"), size="sm", min_width=60, elem_id="preview_close",
                                       elem_classes="td-close")  # fmt: skip

    def wire(self, button: gr.Button, data_dir: gr.Textbox, datasets: gr.Dropdown, messages: gr.HTML) -> None:
        shown = [self.count, self.page, self.samples]
        button.click(self._open, [data_dir, datasets], [messages, self.panel, self.dataset, *shown], **QUIET)
        self.dataset.input(lambda folder, name: self._show(folder, name, 1), [data_dir, self.dataset], shown, **QUIET)
        inputs = [data_dir, self.dataset, self.page]
        gr.on(
            [self.page.submit, self.page.blur],
            lambda folder, name, page: self._turn(folder, name, page, 0),
            inputs,
            shown,
            **QUIET,
        )
        self.previous.click(lambda folder, name, page: self._turn(folder, name, page, -1), inputs, shown, **QUIET)
        self.next.click(lambda folder, name, page: self._turn(folder, name, page, 1), inputs, shown, **QUIET)
        self.close.click(lambda: gr.update(visible=False), None, self.panel, **QUIET)

    def _open(self, data_dir: str, datasets: list[str]) -> list[Any]:
        unopened = [gr.update(visible=False), *(gr.skip() for _ in range(4))]
        try:
            if not datasets or not isinstance(datasets, list):
                if not records.list_datasets(self._folder(data_dir)):
                    raise Problem("data_dir_empty", label=label("dataset_dir"), path=data_dir)
                raise Problem("dataset_missing", label=label("dataset"))
            shown = self._page_of(data_dir, datasets[0], 1)
        except Problem as problem:
            return [refused_html(problem, self._text), *unopened]
        return ["", gr.update(visible=True), gr.update(choices=datasets, value=datasets[0]), *shown]

    def _turn(self, data_dir: str, name: str, page: str, by: int) -> list[Any]:
        number = int(page.strip()) if page.strip().isdecimal() else 1
        return self._show(data_dir, name, number + by)

    def _show(self, data_dir: str, name: str, page: int) -> list[Any]:
        """The page, or why it cannot be shown: then the page number stays, so that one can turn on."""
        try:
            return self._page_of(data_dir, name, page)
        except Problem as problem:
            return [gr.skip(), str(max(page, 1)), refused_html(problem, self._text)]

    def _folder(self, data_dir: str) -> Path:
        return self._roots.check(data_dir, label("dataset_dir"))

    def _page_of(self, data_dir: str, name: str, page: int) -> list[Any]:
        """Count, page and samples; pages outside the dataset become its first or last. Raises Problem."""
        folder = self._folder(data_dir)
        found, total = records.preview(folder, name, max(page, 1), PAGE_SIZE)
        last = -(-total // PAGE_SIZE)
        if page > last:
            page = last
            found, total = records.preview(folder, name, page, PAGE_SIZE)
        roles = self._text.group("role")
        parts = [
            f"<h4>{self._text('preview.sample', row=record.row)}</h4>"
            + fragments.conversation_html(record.messages, roles, record.raw, self._text("preview.raw"))
            for record in found
        ]
        return [gr.update(value=str(total)), gr.update(value=str(max(page, 1)), info=f"/ {last}"), "".join(parts)]
