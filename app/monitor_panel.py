"""What the Train tab shows of a run: state, warnings, figures, curve, log. How each is said is in monitor.py."""

from typing import Any

import gradio as gr

from app import fragments, monitor, runs
from app.charts import LastChart
from app.estimate_words import measured_html
from app.loss_chart import loss_chart
from app.page import Page


class Monitor:
    def __init__(self, page: Page, estimate: gr.HTML) -> None:
        """`estimate`: where the estimate stands, beside which what a run measured is said."""
        self._page, self._text, self._chart = page, page.text, LastChart()
        text = page.text
        with gr.Row(elem_id="shown_row", elem_classes="td-shown"):
            self.shown = gr.HTML(elem_id="shown_run", apply_default_css=False)
            self.follow_latest = gr.Button(
                text("follow_latest"), visible=False, size="sm", elem_id="follow_latest", scale=0
            )
        self.status = gr.HTML(elem_id="status", apply_default_css=False)
        self.resume = gr.Button(text("resume"), visible=False, size="sm", elem_id="resume")
        self.warnings = gr.HTML(elem_id="warnings", apply_default_css=False)
        self.metrics = gr.HTML(elem_id="metrics", apply_default_css=False)
        self.chart = loss_chart(text.group("chart"))
        with gr.Accordion(text("log"), open=False, elem_id="log_fold"):
            self.log = gr.HTML(elem_id="log", apply_default_css=False)
        # What `view` fills, in its order.
        self.parts = [self.shown, self.follow_latest, self.status, self.warnings, self.metrics, self.chart, self.log,
                      self.resume, estimate]  # fmt: skip

    def run(self, shown: str) -> runs.Run | None:
        """The run that a tab looks at, the newest where it has chosen none or its choice is gone."""
        folder = self._page.runs_dir / shown
        return runs.read(folder) if shown and folder.is_dir() else runs.latest(self._page.runs_dir)

    def view(self, shown: str = "") -> list[Any]:
        """The values of `parts` now. `shown`: the run that the tab looks at."""
        run = self.run(shown)
        chosen = run is not None and run.name == shown and runs.find(self._page.runs_dir)[:1] != [run.folder]
        return [
            fragments.notice_html(self._text("shown_run", run=shown)) if chosen else "",
            gr.update(visible=chosen),
            monitor.status(run, self._text),
            monitor.warnings(run, self._text),
            monitor.metrics(run, self._text),
            self._chart(run.events if run else []),
            fragments.log_html(runs.log_tail(run.folder)) if run else "",
            gr.update(visible=run is not None and run.resumable),
            measured if (measured := measured_html(run, self._text)) else gr.skip(),
        ]
