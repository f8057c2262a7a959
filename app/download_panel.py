"""The folded panel below the model's path: fetches a model from a hub. Layout and wiring; downloads.py does the work."""

from typing import Any

import gradio as gr

from app import downloads, fragments
from app.downloads import Download
from app.monitor import duration
from app.page import Page
from app.quiet import QUIET
from app.text import Text
from trainer.download import EXAMPLE, FOLDER, LABELS, size_words, wanted
from trainer.download_reach import HUBS
from trainer.problems import Problem, sentence

TICK_S = 1.0
# What one may do with a download, by its status.
ACTIONS = {
    "running": ("pause", "cancel"),
    "stopped": ("resume", "cancel"),
    "failed": ("resume", "cancel"),
    "died": ("resume", "cancel"),
    "completed": ("use", "dismiss"),
}
BUTTONS = ("use", "resume", "pause", "cancel", "dismiss")


class DownloadPanel:
    """`path`: the field that takes a downloaded model."""

    def __init__(self, page: Page, path: Any) -> None:
        self._page, self._text, self._path = page, page.text, path
        text = page.text
        with gr.Accordion(text("download"), open=False, elem_id="download") as self._fold:
            with gr.Row():
                self._hub = self._typed("hub", text, gr.Dropdown, "huggingface",
                                        choices=[(hub.name, key) for key, hub in HUBS.items()])  # fmt: skip
                self._model = self._typed("model", text, gr.Textbox, "", placeholder=EXAMPLE, scale=2)
                self._revision = self._typed("revision", text, gr.Textbox, "")
                self._endpoint = self._typed(
                    "endpoint", text, gr.Textbox, "", placeholder=HUBS["huggingface"].address()
                )
                self._start = gr.Button(text("download.start"), variant="primary", elem_id="download_start",
                                        min_width=100, scale=0)  # fmt: skip
            self._messages = gr.HTML(elem_id="download_messages", apply_default_css=False)
            self._which = gr.Dropdown([], visible=False, label=text("download.which"), elem_id="download_which")
            self._status = gr.HTML(elem_id="download_status", apply_default_css=False)
            with gr.Row(elem_id="download_actions"):
                self._buttons = {name: gr.Button(text(f"download.{name}"), size="sm", scale=0, min_width=90, visible=False,
                                                 elem_id=f"download_{name}") for name in BUTTONS}  # fmt: skip
        # It looks once after the page has opened, and goes on only while something is on its way.
        self._timer = gr.Timer(TICK_S)
        self._shown = [self._which, self._status, *self._buttons.values(), self._timer]
        self._wire()

    def _typed(self, key: str, text: Text, kind: Any, value: str, **more: Any) -> Any:
        return kind(value=value, label=LABELS[key][text.language], info=text(f"download.{key}.help"),
                    elem_id=f"download_{key}", min_width=150, **({} if kind is gr.Dropdown else {"max_lines": 1}), **more)  # fmt: skip

    def _wire(self) -> None:
        said = [self._messages, *self._shown]
        typed = [self._hub, self._model, self._revision, self._endpoint, self._which]
        self._start.click(self._on_start, typed, said, **QUIET)
        self._model.submit(self._on_start, typed, said, **QUIET)
        self._hub.change(lambda hub: gr.update(placeholder=HUBS[hub].address() if hub in HUBS else ""), self._hub,
                         self._endpoint, **QUIET)  # fmt: skip
        for event in (self._timer.tick, self._fold.expand, self._which.input):
            event(self.view, self._which, self._shown, **QUIET)
        for name in BUTTONS:
            if name != "use":
                self._buttons[name].click(getattr(self, f"_on_{name}"), self._which, said, **QUIET)
        self._buttons["use"].click(self._on_use, self._which, self._path, **QUIET)

    def view(self, which: Any) -> list[Any]:
        """The list of downloads, the chosen one's status, its buttons, and whether to look again in a second."""
        return self._view(which, which)

    def _view(self, which: Any, kept: Any) -> list[Any]:
        """`view` of the download `which`; `kept`: the one that the list has chosen now."""
        found = [one for folder in downloads.find(self._page.runs_dir) if (one := downloads.read(folder))]
        names = [one.folder.name for one in found]
        name = which if which in names else names[0] if names else None
        one = next((one for one in found if one.folder.name == name), None)
        possible = ACTIONS[one.status] if one else ()
        choices = [(f"{_name(one)} · {self._text(f'download.status.{one.status}')}", one.folder.name) for one in found]
        return [
            # What is chosen stays: a click may have chosen another while this answer was under way.
            gr.update(choices=choices, visible=len(found) > 1, **({} if name == kept else {"value": name})),
            status_html(one, self._text),
            *(gr.update(visible=button in possible) for button in BUTTONS),
            gr.update(active=any(one.alive for one in found)),
        ]

    def _on_start(self, hub: str, model: str, revision: str, endpoint: str, which: Any) -> list[Any]:
        try:
            asked = wanted(hub or "", model or "", revision or "", endpoint or "")
            folder = downloads.start(asked, self._page.runs_dir)
        except Problem as problem:
            return [self._problem(problem), *self.view(which)]
        return ["", *self._view(folder.name, None)]

    def _on_resume(self, which: Any) -> list[Any]:
        if (found := self._read(which)) is None:
            return ["", *self.view(which)]
        try:
            downloads.start(found.asked, self._page.runs_dir)
        except Problem as problem:
            return [self._problem(problem), *self.view(which)]
        return ["", *self.view(which)]

    def _on_pause(self, which: Any) -> list[Any]:
        if found := self._read(which):
            downloads.pause(found.folder)
        return ["", *self.view(which)]

    def _on_cancel(self, which: Any) -> list[Any]:
        try:
            if found := self._read(which):
                downloads.cancel(found.folder)
        except Problem as problem:
            return [self._problem(problem), *self.view(which)]
        return ["", *self.view(which)]

    def _on_dismiss(self, which: Any) -> list[Any]:
        if found := self._read(which):
            downloads.dismiss(found.folder)
        return ["", *self.view(which)]

    def _on_use(self, which: Any) -> Any:
        found = self._read(which)
        return found.path if found and found.path else gr.skip()

    def _read(self, which: Any) -> Download | None:
        """The download that a browser names; None of what is no name in the folder of downloads."""
        place = self._page.runs_dir / FOLDER
        known = {folder.name: folder for folder in downloads.find(self._page.runs_dir)}
        return downloads.read(place / which) if isinstance(which, str) and which in known else None

    def _problem(self, problem: Problem) -> str:
        return fragments.problems_html("", [problem.sentence(self._text.language)])


def status_html(found: Download | None, text: Text) -> str:
    """How far it is, where it is, or why it is not going on; nothing where there is no download."""
    if found is None:
        return ""
    label = text(f"download.status.{found.status}")
    fraction = min(found.here / found.total, 1.0) if found.total else None
    if found.alive:
        return fragments.status_html(label, f"{_name(found)} · {_progress(found, text)}", fraction)
    if found.status == "completed":
        words = text("download.arrived", model=_name(found), size=size_words(found.total), path=found.path)
        return fragments.status_html(label, words, 1.0, "completed")
    if found.status == "stopped":
        words = text("download.kept", model=_name(found), here=size_words(found.here), total=_total(found))
        return fragments.status_html(label, words, fraction or 0.0, "stopped")
    why = found.problem.sentence(text.language) if isinstance(found.problem, Problem) else (
        sentence(*found.problem, text.language) if found.problem else "")  # fmt: skip
    return fragments.status_html(label, why, fraction, "failed")


def _name(found: Download) -> str:
    return f"{found.asked.model} @ {found.asked.revision}" if found.asked.revision else found.asked.model


def _progress(found: Download, text: Text) -> str:
    if not found.total:
        return text("download.asking", address=found.asked.address)
    speed = found.bytes_per_second
    left = duration((found.total - found.here) / speed) if speed else "?"
    return text("download.progress", here=size_words(found.here), total=size_words(found.total),
                speed=size_words(speed), left=left)  # fmt: skip


def _total(found: Download) -> str:
    return size_words(found.total) if found.total else "?"
