"""The dataset preview: a panel over the page that shows the samples of the chosen datasets and what is in all of them.

Rows are read here, at once; tokens and figures come from app/look.py, asked for by a timer while they are on their way.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from app import dataset_view, form
from app.dataset_words import check_html
from app.fragments import notice_html
from app.look import Answer, Values
from app.looked import LOOKED, checked, looked_at, state_of, steer
from app.page import Page
from app.problem_words import refused_html
from app.theme import ASSETS
from app.top_bar import QUIET
from trainer import records
from trainer.dataset_files import find_source
from trainer.problems import Problem, Problems
from trainer.settings import label

PAGE_SIZE = 4
POLL_S = 0.5
VIEWS = ("conversation", "tokens", "raw")
NUMBER = "(page) => String(Math.max(1, (parseInt(page) || 1){by}))"
# Controls of the form that stand in the panel once more: what is changed here is changed there.
MIRRORED = ("template", "cutoff_len", "train_on_prompt", "mask_history", "skip_bad_rows")


# What Gradio's updates look like in the browser.
CLOSED = "() => [{__type__: 'update', visible: false}, {__type__: 'update', active: false}]"


@dataclass(frozen=True)
class Asked:
    """What a tab looks at. `typed`: the fields of the form that tokens depend on, by key."""

    name: str
    page: int
    view: str
    typed: dict[str, Any]


@dataclass(frozen=True)
class Samples:
    """A page of samples as HTML; `total` None as long as nobody has counted; `pending`: better ones are on their way."""

    page: int
    total: int | None
    html: str
    pending: bool = False


class DatasetPreview:
    def __init__(self, page: Page) -> None:
        self._page, self._text, self._look = page, page.text, page.look
        self._mirrors: dict[str, Any] = {}
        with gr.Column(visible=False, elem_id="preview", elem_classes="td-modal") as self.panel:
            self._lay_out()
        self.timer = gr.Timer(POLL_S, active=False)
        # Of what the tab shows: what is the same is not sent again.
        self.seen = gr.State([])
        self._read = lru_cache(maxsize=8)(_rows_of)
        self._unfit = lru_cache(maxsize=8)(self._unfit_html)

    def _lay_out(self) -> None:
        text = self._text
        with gr.Row(elem_id="preview_head"):
            self.dataset = gr.Dropdown(
                [],
                label=label("dataset")[text.language],
                interactive=True,
                elem_id="preview_dataset_name",
                min_width=160,
            )
            self.count = gr.Textbox(
                label=text("preview.count"), interactive=False, min_width=80, elem_id="preview_count"
            )
            self.page = gr.Textbox("1", label=text("preview.page"), min_width=80, elem_id="preview_page")
            self.view = gr.Radio([(text(f"view.{view}"), view) for view in VIEWS], value=VIEWS[0],
                                 label=text("preview.view"), elem_id="preview_view", scale=2, min_width=320)  # fmt: skip
        with gr.Row(elem_id="preview_settings"):
            for key in MIRRORED:
                self._mirrors[key] = form.widget(key, text, elem_id=f"preview_{key}", info=None, min_width=110)
        self.stats = gr.HTML(elem_id="preview_stats", apply_default_css=False)
        with gr.Row(elem_id="preview_check"):
            # One button that stays: the focus of a keyboard would be lost with it.
            self.steer = gr.Button(text("check.stop"), size="sm", elem_id="preview_steer", scale=0, min_width=90)
        self.samples = gr.HTML(
            elem_id="samples",
            apply_default_css=False,
            js_on_load=(ASSETS / "tokens.js").read_text(encoding="utf-8"),
        )
        with gr.Row(elem_id="preview_buttons"):
            self.previous = gr.Button(text("preview.prev"), size="sm", min_width=60, elem_id="preview_prev")
            self.next = gr.Button(text("preview.next"), size="sm", min_width=60, elem_id="preview_next")
            self.close = gr.Button(text("preview.close"), size="sm", min_width=60, elem_id="preview_close",
                                   elem_classes="td-close")  # fmt: skip

    # ---- wiring ----

    def wire(self, button: gr.Button, fields: dict[str, Any], messages: gr.HTML) -> None:
        """`fields`: the form's, by key. `messages`: where it is said why there is no preview."""
        typed = {key: self._mirrors.get(key, fields[key]) for key in LOOKED}
        self._keys = list(typed)
        inputs = [self.dataset, self.page, self.view, self.seen, *typed.values()]
        shown = [self.count, self.page, self.samples, self.stats, self.steer, self.timer, self.seen]
        button.click(
            self._open,
            [fields["dataset"], *(fields[key] for key in typed)],
            [messages, self.panel, self.dataset, self.view, *self._mirrors.values(), *shown],
            **QUIET,
        )
        for key, mirror in self._mirrors.items():
            mirror.change(None, mirror, fields[key], js="(value) => value", **QUIET)
        changes = [mirror.change for mirror in self._mirrors.values()]
        # Answered when the timer ticks: who types is not followed letter by letter.
        gr.on(changes, lambda: gr.Timer(active=True), None, self.timer, **QUIET)
        # The number is turned in the browser, and one event answers whatever has changed: one answer at a time, and after
        # it another one to what has changed meanwhile. Two that cross would show the page that was left.
        for turn, by in ((self.previous, -1), (self.next, 1)):
            turn.click(None, self.page, self.page, js=NUMBER.format(by=f" + {by}"), **QUIET)
        self.page.blur(None, self.page, self.page, js=NUMBER.format(by=""), **QUIET)
        self.dataset.input(None, None, self.page, js="() => '1'", **QUIET)
        changed = [self.timer.tick, self.page.change, self.page.submit, self.view.input, self.dataset.input]
        gr.on(changed, self._show, inputs, shown, trigger_mode="always_last", **QUIET)
        self.steer.click(self._steer, inputs, self.timer, **QUIET)
        # In the browser, at once: until the dialog is gone, a click on what is behind it only closes it.
        self.close.click(None, None, [self.panel, self.timer], js=CLOSED, **QUIET)

    # ---- handlers ----

    def _open(self, datasets: list[str], *values: Any) -> list[Any]:
        typed = dict(zip(self._keys, values, strict=True))
        try:
            if not datasets or not isinstance(datasets, list) or not all(isinstance(name, str) for name in datasets):
                if not records.list_datasets(self._folder(typed)):
                    raise Problem("data_dir_empty", label=label("dataset_dir"), path=typed["dataset_dir"])
                raise Problem("dataset_missing", label=label("dataset"))
            shown = self._shown(Asked(datasets[0], 1, VIEWS[0], typed), [])
        except Problem as problem:
            unopened = (gr.skip() for _ in range(len(self._mirrors) + 9))
            return [refused_html(problem, self._text), gr.update(visible=False), *unopened]
        shown[1] = gr.update(**{**shown[1], "value": "1"})
        chosen = gr.update(choices=datasets, value=datasets[0])
        return ["", gr.update(visible=True), chosen, VIEWS[0], *(typed[key] for key in self._mirrors), *shown]

    def _show(self, name: str, page: str | int, view: str, seen: list[int], *values: Any) -> list[Any]:
        """What is asked for, or why it cannot be shown: then the page number stays, so that one can turn on."""
        number = max(_number(page), 1)
        typed = dict(zip(self._keys, values, strict=True))
        try:
            return self._shown(Asked(name, number, view if view in VIEWS else VIEWS[0], typed), seen)
        except Problem as problem:
            still = gr.Timer(active=False)
            return [gr.skip(), gr.skip(), refused_html(problem, self._text), "", gr.skip(), still, []]

    def _steer(self, name: str | None, *values: Any) -> gr.Timer:
        """Stops the check, or begins it anew where it has ended; what comes of it is shown when the timer ticks."""
        typed = dict(zip(self._keys, values[3:], strict=True))
        with contextlib.suppress(Problem, Problems):  # said by what follows
            if isinstance(name, str):
                steer(self._look, looked_at(typed, self._page.roots), name, state_of(self._folder(typed), name))
        return gr.Timer(active=True)

    # ---- what is shown ----

    def _folder(self, typed: dict[str, Any]) -> Path:
        return self._page.roots.check(typed["dataset_dir"], label("dataset_dir"))

    def _shown(self, asked: Asked, seen: Sequence[int]) -> list[Any]:
        """Count, page, samples, figures, buttons, timer, and what is seen of it. Raises Problem for a dataset that
        cannot be read."""
        folder = self._folder(asked.typed)
        state = state_of(folder, asked.name)
        settings, check, stats = None, Answer("failed"), ""
        try:
            settings = looked_at(asked.typed, self._page.roots)
            check, tokenless = checked(self._look, settings, asked.name, state)
            skipping = bool(asked.typed["skip_bad_rows"])
            stats = self._unfit(folder, asked.name, settings["stage"], state)
            stats += check_html(check, tokenless, settings["cutoff_len"], skipping, self._text)
        except (Problem, Problems) as error:
            stats = refused_html(error, self._text)
        rows = check.values.get("rows") if check.state == "done" else None
        if asked.view == "tokens":
            samples = self._tokens(asked, settings, state, rows)
        else:
            samples = self._rows(folder, asked, state, rows)
        last = None if samples.total is None else max(-(-samples.total // PAGE_SIZE), 1)
        # Else it is left alone: it may have been turned meanwhile.
        clamped = {} if samples.page == asked.page else {"value": str(samples.page)}
        values = [
            "…" if samples.total is None else str(samples.total),
            gr.update(info="" if last is None else f"/ {last}", **clamped),
            samples.html,
            stats,
            self._text("check.again" if settings is None or check.ended else "check.stop"),
            gr.Timer(active=samples.pending or not (settings is None or check.ended)),
        ]
        now = [hash(repr(value)) for value in values[:5]]
        same = [one == told for one, told in zip(now, seen or [0] * len(now), strict=True)]
        return [*(gr.skip() if known else value for value, known in zip(values, same, strict=False)), *values[5:], now]

    def _unfit_html(self, folder: Path, name: str, stage: str, state: str) -> str:
        """Why the stage trains on nothing of the dataset, which Start would say too; "" where it does. Raises Problem."""
        try:
            records.check_stage(find_source(folder, name), stage)
        except Problem as problem:
            if problem.code != "dataset_stage":
                raise
            return refused_html(problem, self._text)
        return ""

    def _rows(self, folder: Path, asked: Asked, state: str, rows: int | None) -> Samples:
        """The rows as their file has them; of pages outside the dataset its first or last."""
        page = asked.page
        found, total = self._read(folder, asked.name, page, state)
        total = rows if total is None else total
        if not found and page > 1:
            page = page - 1 if total is None else max(-(-total // PAGE_SIZE), 1)
            found, _ = self._read(folder, asked.name, page, state)
        show = dataset_view.raw_rows_html if asked.view == "raw" else dataset_view.conversations_html
        return Samples(page, total, show(found, self._text))

    def _tokens(self, asked: Asked, settings: Values | None, state: str, rows: int | None) -> Samples:
        if settings is None:
            return Samples(asked.page, rows, "")
        last = asked.page if rows is None else max(-(-rows // PAGE_SIZE), 1)
        page = min(asked.page, last)
        answer = self._look.page(settings, asked.name, page, PAGE_SIZE, state)
        if answer.problem is not None:
            return Samples(page, rows, refused_html(answer.problem, self._text, ""))
        if answer.state != "done":
            return Samples(page, rows, notice_html(self._text("tokens.pending")), pending=True)
        total = rows if answer.values.get("total") is None else answer.values["total"]
        return Samples(page, total, dataset_view.tokens_html(answer.values["samples"], self._text))


def _rows_of(folder: Path, name: str, page: int, state: str) -> tuple[list[Any], int | None]:
    """`state` stands for the files, which are read once as long as they are the same."""
    return records.preview(folder, name, page, PAGE_SIZE)


def _number(page: Any) -> int:
    text = str(page).strip()
    return int(text) if text.isdecimal() and len(text) < 10 else 1
