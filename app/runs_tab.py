"""The Runs tab: layout and wiring. What a run is, how it is queued, compared and deleted is in modules of their own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from app import comparison, continuation, removal, runs
from app.page import Page
from app.problem_words import refused_html
from app.run_list import RunList
from app.run_queue import Queue
from app.runs_table import compare_chart, runs_table, value
from app.top_bar import QUIET
from app.train_tab import TrainTab
from trainer.problems import Problem, Problems, quoted

# What assets/runs_list.js has been asked to do comes with the click on one of the buttons that nobody sees.
ASKED = "(_, ...others) => [tunedesk.runsAsked ?? '', ...others]"
MOST_CHARACTERS = 1_000_000


class RunsTab:
    """`tabs`: the page's, whose Train tab shows a run that is opened."""

    def __init__(self, page: Page, train: TrainTab, tabs: gr.Tabs) -> None:
        self._page, self._text, self._train, self._tabs = page, page.text, train, tabs
        self._list, self._queue = RunList(page.runs_dir), Queue(page.runs_dir)
        self._lay_out()
        self._wire()

    def _lay_out(self) -> None:
        text = self._text
        self.messages = gr.HTML(elem_id="runs_messages", apply_default_css=False)
        with gr.Group(visible=False, elem_id="compare_panel", elem_classes="td-closable") as self.panel:
            self.chart = compare_chart(text)
            self.differences = gr.HTML(elem_id="compare_table", apply_default_css=False)
            self.close = gr.Button(text("preview.close"), size="sm", elem_id="compare_close", elem_classes="td-close")
        self.table = runs_table(text, [])
        self._carrier, self._seen = gr.Textbox(visible=False), gr.State(0)

    def _wire(self) -> None:
        train, shown = self._train, self._train.shown
        processes = train.processes.inputs
        listed = [self.messages, self.table, self._seen]
        self._on("refresh", lambda _, seen: self._refreshed(seen), [self._seen], [self.table, self._seen])
        self._on("act", self._act, [], listed)
        compared = [self.messages, self.panel, self.chart, self.differences]
        self._on("compare", self._compare, [], compared).then(None, js=_in_sight("#compare_panel"))
        self._on("continue", self._continue, [], [self.messages, *train.filled, self._tabs])
        opened = [self.messages, *train.answer, self._tabs]
        self._on("open", self._open, [], opened).then(None, js=_in_sight("#shown_row"))
        self._on("resume", self._resume, [*processes, shown], opened).then(None, js=_in_sight("#shown_row"))
        self.close.click(lambda: gr.update(visible=False), None, self.panel, **QUIET)

    def _on(self, name: str, handler: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> Any:
        button = gr.Button("", elem_id=f"runs_{name}", elem_classes="td-again")
        return button.click(handler, [self._carrier, *inputs], outputs, js=ASKED, **QUIET)

    # ---- handlers ----

    def _value(self) -> list[dict[str, Any]]:
        return value(self._list.rows(), self._queue.entries(), self._text)

    def _refreshed(self, seen: int) -> list[Any]:
        """The list, if it is not what this tab has got."""
        rows = self._value()
        now = hash(repr(rows))
        return [gr.skip() if now == seen else rows, now]

    def _act(self, asked: str) -> list[Any]:
        """What changes the list: `action` on each of `names`."""
        action, names = _read(asked)
        acts = {"abort": self._abort, "delete": self._delete, "up": self._up, "down": self._down,
                "cancel": self._cancel}  # fmt: skip
        problems: list[Problem] = []
        for name in names if action in acts else []:
            try:
                acts[action](name)
            except Problem as problem:
                problems.append(problem)
            except OSError as error:
                folder = str(self._queue.folder)
                problems.append(Problem("queue_unwritable", path=folder, detail=error.strerror))
        self._list.forget()
        return [refused_html(Problems(problems), self._text, "") if problems else "", *self._refreshed(0)]

    def _abort(self, name: str) -> None:
        runs.stop(self._folder(name))

    def _delete(self, name: str) -> None:
        removal.remove(self._page.runs_dir, name)

    def _up(self, name: str) -> None:
        self._queue.move(name, -1)

    def _down(self, name: str) -> None:
        self._queue.move(name, 1)

    def _cancel(self, name: str) -> None:
        self._queue.cancel(name)

    def _folder(self, name: str) -> Path:
        folder = runs.named(self._page.runs_dir, name)
        if folder is None:
            raise Problem("run_gone", name=quoted(name))
        return folder

    def _compare(self, asked: str) -> list[Any]:
        _, names = _read(asked)
        try:
            comparison.check_count(names)
            folders = [self._folder(name) for name in names]
        except Problem as problem:
            return [refused_html(problem, self._text, ""), gr.skip(), gr.skip(), gr.skip()]
        rows = {row.name: row for row in self._list.rows()}
        chosen = [rows[name] for name in names if name in rows]
        table = comparison.table(folders, chosen, self._text)
        return ["", gr.update(visible=True), comparison.curves(folders), table]

    def _continue(self, asked: str) -> list[Any]:
        name = _first(asked)
        try:
            values, checkpoint = continuation.values(self._folder(name))
        except (Problem, Problems) as error:
            return [refused_html(error, self._text, ""), *(gr.skip() for _ in self._train.filled), gr.skip()]
        key = "continue.filled" if checkpoint else "continue.filled_new"
        words = self._text(key, run=name, checkpoint=checkpoint)
        return ["", *self._train.fill(values, words), gr.update(selected="train")]

    def _open(self, asked: str) -> list[Any]:
        try:
            name = self._folder(_first(asked)).name
        except Problem as problem:
            return [refused_html(problem, self._text, ""), *(gr.skip() for _ in self._train.answer), gr.skip()]
        return ["", *self._train.show(name), gr.update(selected="train")]

    def _resume(self, asked: str, *values: Any) -> list[Any]:
        return ["", *self._train.on_resume(_first(asked), *values), gr.update(selected="train")]


def _in_sight(selector: str) -> str:
    """Script that scrolls to what has just been opened: it is below the form, or above what was clicked."""
    return f"""() => {{
  setTimeout(() => document.querySelector("{selector}")?.scrollIntoView({{ block: "start" }}), 200);
  return [];
}}"""


def _read(asked: str) -> tuple[str, list[str]]:
    """The action and the names of runs that the browser sends; nothing for what is no such thing."""
    try:
        found = json.loads(asked or "") if len(asked or "") <= MOST_CHARACTERS else None
    except (ValueError, RecursionError):
        return "", []
    if not isinstance(found, dict) or not isinstance(found.get("names"), list):
        return "", []
    names = [name for name in found["names"] if isinstance(name, str)]
    return str(found.get("action", "")), names


def _first(asked: str) -> str:
    names = _read(asked)[1]
    return names[0] if names else ""
