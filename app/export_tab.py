"""The Export tab: makes one model of the chosen model and checkpoint. Layout and wiring; exports.py does the work."""

from pathlib import Path
from typing import Any

import gradio as gr

from app import exports, fragments
from app.chat_tab import ChatTab
from app.chat_words import problem_html
from app.device_holders import free_place
from app.devices import seen
from app.exports import Export
from app.models import as_chosen
from app.monitor import duration, number
from app.page import Page
from app.server_controls import LOCAL
from app.top_bar import QUIET, TopBar
from trainer.export_settings import ExportSettings, choices, default_text, label, parse, shown
from trainer.launch import Launch
from trainer.problems import Problem, Problems, sentence

KEYS = ("export_dir", "export_size", "export_device", "infer_dtype")
# Where an export is looked for that another browser has started.
PLACE = Path("models")
MOST_NAME_BYTES = 200


class ExportTab:
    """`followed`: what `view` fills in, every second."""

    def __init__(self, page: Page, top_bar: TopBar, target: gr.Textbox, tabs: gr.Tabs, chat: ChatTab) -> None:
        """`target`: the folder of the export that this browser follows. `tabs`: the page's; `chat` loads what it made."""
        self._page, self._text, self._target, self._top_bar = page, page.text, target, top_bar
        self._tabs, self._chat = tabs, chat
        text = page.text
        gr.HTML(f'<p class="td-estimate">{text("export.about")}</p>', elem_id="export_about", apply_default_css=False)
        with gr.Group(elem_classes="td-panel"), gr.Row():
            self.fields = {key: self._widget(key) for key in KEYS}
        with gr.Row(elem_id="export_actions"):
            self.start_button = gr.Button(
                text("export.start"), variant="primary", elem_id="export_start", min_width=100
            )
            self.cancel_button = gr.Button(
                text("export.cancel"), variant="stop", elem_id="export_cancel", min_width=100
            )
        self.messages = gr.HTML(elem_id="export_messages", apply_default_css=False)
        self.status = gr.HTML(elem_id="export_status", apply_default_css=False)
        with gr.Row(elem_id="export_ended"):
            self.chat_button = gr.Button(text("export.chat"), visible=False, variant="primary", size="sm", scale=0,
                                         min_width=160, elem_id="export_chat")  # fmt: skip
            self.dismiss_button = gr.Button(text("export.dismiss"), visible=False, size="sm", scale=0, min_width=100,
                                            elem_id="export_dismiss")  # fmt: skip
        self.followed = [self.status, self.chat_button, self.dismiss_button]
        self._wire()

    def _widget(self, key: str) -> Any:
        about, language = shown(key), self._text.language
        common = {"label": about.label(language), "info": about.help(language),
                  "elem_id": key if key != "infer_dtype" else "export_dtype"}  # fmt: skip
        if found := choices(key):
            return gr.Dropdown(found, value=default_text(key), min_width=140, **common)
        if key == "export_dir":
            return gr.Textbox("", max_lines=1, placeholder=about.example, scale=2, **common)
        return gr.Textbox(default_text(key), max_lines=1, min_width=140, **common)

    def _wire(self) -> None:
        fields = self._top_bar.fields
        chosen = [fields[key] for key in ("model_name_or_path", "adapter_name_or_path", "template")]
        shown = [self.messages, self._target, *self.followed]
        self.start_button.click(self._on_start, [self._target, *chosen, *self.fields.values()], shown, **QUIET)
        self.cancel_button.click(self._on_cancel, self._target, [self.messages, *self.followed], **QUIET)
        self.dismiss_button.click(self._on_dismiss, self._target, shown, **QUIET)
        filled = [fields["model_name_or_path"], fields["adapter_name_or_path"], self._chat.server.engine, self._tabs]
        self.chat_button.click(self._on_chat, self._target, filled, **QUIET).then(**self._chat.loading)

    def kept(self) -> dict[str, Any]:
        """The components whose values outlive a reload, by name."""
        return {one.elem_id: one for one in self.fields.values()}

    def opened(self, values: dict[str, Any]) -> list[Any]:
        """The components of `kept` for a page that opens with `values`."""
        return [gr.update(value=values[name]) if name in values else gr.skip() for name in self.kept()]

    def running(self) -> str:
        """The export that runs now in the usual place, for a browser that follows none; "" when there is none."""
        for target in exports.find(PLACE.absolute()):
            found = exports.read(target)
            if found and found.alive:
                return str(target)
        return ""

    def view(self, target: Any) -> list[Any]:
        """The status, and whether it can be talked to and put away."""
        found = exports.read(Path(path)) if (path := self._path(target)) else None
        done, ended = found is not None and found.status == "completed", found is not None and not found.alive
        return [export_html(found, self._text), gr.update(visible=done), gr.update(visible=ended)]

    def _on_start(self, before: Any, model: str, checkpoint: str, template: str, *values: str) -> list[Any]:
        given = dict(zip(KEYS, values, strict=True))
        try:
            if followed := self._path(before):
                exports.check_ended(Path(followed))
            for path, about in ((model, "model_name_or_path"), (checkpoint, "adapter_name_or_path")):
                if path:
                    self._page.roots.check(path, label(about))
            folder, adapter = as_chosen(model, checkpoint)
            settings = parse(
                {"model_name_or_path": folder, "adapter_name_or_path": adapter, "template": template, **given}
            )
            self._page.roots.check_export(settings)
            target = str(exports.start(settings, self._place(settings)))
        except Problem as problem:
            return [problem_html(problem, self._text), gr.skip(), *self.view(before)]
        except Problems as several:
            said = [problem.sentence(self._text.language) for problem in several.problems]
            return [fragments.problems_html(self._text("problems.title"), said), gr.skip(), *self.view(before)]
        return ["", target, *self.view(target)]

    def _place(self, settings: ExportSettings) -> Launch:
        """A device that nobody uses, for an export on an accelerator."""
        found = [] if settings.export_device == "cpu" else seen()
        return free_place(found, self._page.runs_dir, self._page.chat.status)

    def _path(self, target: Any) -> str:
        """The folder that the browser kept; "" for none, and for one that this page may not touch."""
        path = target if isinstance(target, str) else ""
        # Beside it lies its working folder, whose name is longer.
        return path if path and path in self._page.roots and len(Path(path).name.encode()) < MOST_NAME_BYTES else ""

    def _on_cancel(self, target: Any) -> list[Any]:
        asked = (path := self._path(target)) and exports.cancel(Path(path))
        return ["" if asked else fragments.notice_html(self._text("export.none")), *self.view(target)]

    def _on_chat(self, target: Any) -> list[Any]:
        """The form with the exported model, which needs no checkpoint."""
        return [self._path(target), "", LOCAL, gr.update(selected="chat")]

    def _on_dismiss(self, target: Any) -> list[Any]:
        """Removes what a failed export left; a finished model stays, and is only no longer shown."""
        if path := self._path(target):
            exports.discard(Path(path))
        return ["", "", *self.view("")]


def export_html(found: Export | None, text: Any) -> str:
    """How far it is, what came out of it, or why nothing did."""
    if found is None:
        return fragments.status_html(text("export.idle"), text("export.idle.text"), None, "idle")
    warnings = "".join(fragments.notice_html(sentence(event["code"], event, text.language)) for event in found.warnings)
    if found.alive:
        known = found.stage == "saving" and found.total
        words = (
            text("export.written", written=_gb(found.written), total=_gb(found.total)) if known else str(found.target)
        )
        bar = min(found.written / found.total, 1.0) if known else None
        return fragments.status_html(text(f"export.stage.{found.stage}"), words, bar) + warnings
    if found.status == "completed":
        return fragments.status_html(text("export.completed"), _completed(found, text), 1.0, "completed") + warnings
    if found.status == "stopped":
        return fragments.status_html(text("export.stopped"), text("export.stopped.text"), 0.0, "stopped")
    why = found.problem.sentence(text.language) if isinstance(found.problem, Problem) else (
        sentence(*found.problem, text.language) if found.problem else "")  # fmt: skip
    return fragments.status_html(text("export.failed"), why, None, "failed") + warnings


def _completed(found: Export, text: Any) -> str:
    record = found.record or {}
    parts = [text("completed.path", path=found.target)]
    if "difference" in record:
        parts.append(text("export.compared", difference=number(record["difference"]), tolerance=number(record.get("tolerance"))))  # fmt: skip
    if record.get("effect") is not None:
        parts.append(text("export.effect", effect=number(record["effect"])))
    parts.append(text("export.size", size=_gb(record.get("bytes", 0)), files=_count(record.get("files")), dtype=record.get("dtype")))  # fmt: skip
    parts.append(text("completed.seconds", seconds=duration(record.get("seconds") or 0)))
    return " · ".join(parts)


def _count(files: Any) -> Any:
    return len(files) if isinstance(files, list) else files


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
