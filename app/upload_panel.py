"""The panel by which a dataset is added: a file or pasted rows, checked, then put into the data folder. Layout and wiring."""

from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from app import dataset_upload, dataset_view
from app.dataset_words import check_html
from app.fragments import notice_html
from app.looked import LOOKED, checked, looked_at
from app.loss_chart import literal
from app.page import Page
from app.problem_words import refused_html
from app.theme import ASSETS
from app.top_bar import QUIET
from app.upload_routes import examples
from trainer import records
from trainer.problems import Problem, Problems, quoted
from trainer.settings import label

POLL_S = 0.5
FIRST_ROWS = 3
SENT = "(_, ...others) => [tunedesk.uploaded ?? '', ...others]"


class UploadPanel:
    def __init__(self, page: Page) -> None:
        self._page, self._text, self._runs_dir = page, page.text, page.runs_dir
        with gr.Column(visible=False, elem_id="upload", elem_classes="td-modal") as self.panel:
            self._lay_out()
        self.timer = gr.Timer(POLL_S, active=False)
        # The id of what was sent last, and what is seen of it.
        self.sent, self.seen = gr.State(""), gr.State(0)

    def _lay_out(self) -> None:
        text = self._text
        gr.HTML(html_template=_drop_zone(self._page), js_on_load=(ASSETS / "upload.js").read_text(encoding="utf-8"),
                apply_default_css=False, elem_id="upload_file")  # fmt: skip
        with gr.Row(elem_id="upload_pasted"):
            self.paste = gr.Textbox(label=text("upload.paste"), info=text("upload.paste.help"), lines=4, max_lines=12,
                                    elem_id="upload_paste", scale=4)  # fmt: skip
            self.check = gr.Button(text("upload.check"), elem_id="upload_check", scale=0, min_width=80)
        self.result = gr.HTML(elem_id="upload_result", apply_default_css=False)
        self.arrived = gr.Button("", elem_id="upload_sent", elem_classes="td-again")
        with gr.Row(elem_id="upload_buttons"):
            self.name = gr.Textbox(label=text("upload.name"), max_lines=1, elem_id="upload_name", scale=3)
            self.add = gr.Button(text("upload.add"), variant="primary", size="sm", interactive=False, min_width=60,
                                 elem_id="upload_add")  # fmt: skip
            self.close = gr.Button(text("preview.close"), size="sm", min_width=60, elem_id="upload_close",
                                   elem_classes="td-close")  # fmt: skip

    # ---- wiring ----

    def wire(self, button: gr.Button, fields: dict[str, Any], messages: gr.HTML) -> None:
        """`fields`: the form's, by key: the data folder that is added to, the datasets that are chosen there."""
        typed = [fields[key] for key in LOOKED]
        shown = [self.result, self.add, self.timer, self.seen]
        begun = [self.sent, self.name, *shown]
        button.click(self._open, fields["dataset_dir"], [messages, self.panel], **QUIET)
        self.arrived.click(self._begin, [self.result, *typed], begun, js=SENT, **QUIET)
        self.check.click(self._paste, [self.paste, *typed], begun, **QUIET)
        self.timer.tick(self._follow, [self.sent, self.seen, *typed], shown, **QUIET)
        self.add.click(self._add, [self.sent, self.name, fields["dataset"], fields["dataset_dir"]],
                       [messages, self.panel, fields["dataset"], *begun], **QUIET)  # fmt: skip
        self.close.click(self._closed, self.sent, [self.panel, *begun], **QUIET)

    # ---- handlers ----

    def _open(self, data_dir: str) -> list[Any]:
        try:
            records.list_datasets(self._page.roots.check(data_dir, label("dataset_dir")))
        except Problem as problem:
            return [refused_html(problem, self._text), gr.update(visible=False)]
        return ["", gr.update(visible=True)]

    def _paste(self, rows: str, *typed: Any) -> list[Any]:
        try:
            number = dataset_upload.pasted(self._runs_dir, rows or "")
        except (Problem, OSError) as error:
            return ["", gr.skip(), *self._refused(error)]
        return self._begin(number, *typed)

    def _begin(self, number: str, *typed: Any) -> list[Any]:
        try:
            name = dataset_upload.staged(self._runs_dir, number).proposed
        except Problem as problem:
            return ["", gr.skip(), *self._refused(problem)]
        return [number, name, *self._follow(number, 0, *typed)]

    def _follow(self, number: str, seen: int, *values: Any) -> list[Any]:
        """What the check has found so far, and the first rows."""
        try:
            found = dataset_upload.staged(self._runs_dir, number)
            rows = dataset_upload.first_rows(found, FIRST_ROWS)
            typed = dict(zip(LOOKED, values, strict=True)) | {"dataset_dir": str(found.folder)}
            settings = looked_at(typed, self._page.roots)
            answer, tokenless = checked(self._page.look, settings, found.name, found.id)
        except (Problem, Problems) as error:
            return self._refused(error)
        words = check_html(answer, tokenless, settings["cutoff_len"], bool(typed["skip_bad_rows"]), self._text)
        if answer.state == "done" and not answer.values["samples"]:
            words += notice_html(self._text("upload.nothing"))
        html = words + f'<div class="td-upload-rows">{dataset_view.conversations_html(rows, self._text)}</div>'
        usable = answer.state == "done" and answer.values["samples"] > 0
        now = hash(html)
        return [
            gr.skip() if now == seen else html,
            gr.update(interactive=usable),
            gr.Timer(active=not answer.ended),
            now,
        ]

    def _refused(self, error: Problem | Problems | OSError) -> list[Any]:
        if isinstance(error, OSError):
            error = Problem("upload_unwritable", path=str(self._runs_dir), detail=error.strerror or str(error))
        return [refused_html(error, self._text, ""), gr.update(interactive=False), gr.Timer(active=False), 0]

    def _add(self, number: str, name: str, chosen: list[str], data_dir: str) -> list[Any]:
        try:
            folder = self._page.roots.check(data_dir, label("dataset_dir"))
            added = dataset_upload.add(dataset_upload.staged(self._runs_dir, number), folder, name)
        except Problem as problem:
            kept = [gr.skip(), gr.skip(), gr.skip(), number, gr.skip()]
            return [*kept, refused_html(problem, self._text, ""), gr.skip(), gr.skip(), 0]
        proposed = [self._page.dataset] == chosen and folder == self._page.data_dir
        both = [added] if proposed or not isinstance(chosen, list) else [*chosen, added]
        words = notice_html(self._text("upload.added", name=quoted(added), path=folder))
        dataset = gr.update(choices=records.list_datasets(folder), value=both)
        return [words, *self._closed(number)[:1], dataset, *self._closed(number)[1:]]

    def _closed(self, number: str) -> list[Any]:
        dataset_upload.remove(self._runs_dir, number)
        return [gr.update(visible=False), "", "", "", gr.update(interactive=False), gr.Timer(active=False), 0]


def _drop_zone(page: Page) -> str:
    text = page.text
    data = {"sending": text("upload.sending", name="{name}", percent="{percent}"), "stopped": text("upload.stopped"),
            "lost": text("upload.lost"), "language": text.language}  # fmt: skip
    attributes = "".join(f' data-{key}="{literal(value)}"' for key, value in data.items())
    links = " ".join(_link(path) for path in examples())
    accepted = ",".join([*(f".{suffix}" for suffix in dataset_upload.PLAIN), ".gz"])
    return (
        f'<h3>{literal(text("upload_dataset"))}</h3><label class="td-drop"{attributes}>'
        f'<input type="file" accept="{accepted}" aria-label="{literal(text("upload.choose"))}"><span class="td-drop-choose">'
        f"{literal(text('upload.choose'))}</span><span>{literal(text('upload.drop'))}</span>"
        f'<small>{literal(text("upload.kinds"))}</small></label><div class="td-drop-state"><output class="td-drop-said"></output>'
        f'<button type="button" hidden>{literal(text("upload.stop"))}</button></div><div class="td-bar" role="progressbar"'
        f' aria-label="{literal(text("upload.choose"))}" aria-valuemin="0" aria-valuemax="100" hidden><span></span></div>'
        f'<p class="td-examples">{literal(text("upload.examples"))} {links}</p>'
    )


def _link(path: Path) -> str:
    return f'<a href="../files/example/{quote(path.name)}" download>{escape(path.name)}</a>'
