"""The loss chart as a Gradio component, drawn in the browser by uPlot.

Its value is what `app.charts.chart` returns. The script travels inside the component, so that the page
asks no other host, and no path of ours behind a proxy's prefix, for it.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path

import gradio as gr

from app.charts import Chart, chart

ASSETS = Path(__file__).parent.parent / "assets"

VALUES = ("step", "loss", "smoothed", "eval_loss", "best", "learning_rate")
LABELS = ("title", "empty", "log_scale", *VALUES)


def loss_chart(labels: Mapping[str, str], value: Chart | None = None, elem_id: str = "loss-chart") -> gr.HTML:
    """A chart to be updated with `chart(events)`; `labels` has a text for each of LABELS."""
    return gr.HTML(
        value if value is not None else chart([]),
        html_template=_template(labels),
        js_on_load=(ASSETS / "loss_chart.js").read_text(encoding="utf-8"),
        head=f"<script>{(ASSETS / 'vendor/uplot/uPlot.iife.min.js').read_text(encoding='utf-8')}</script>",
        apply_default_css=False,
        elem_id=elem_id,
    )


def _template(labels: Mapping[str, str]) -> str:
    text = {key: literal(labels[key]) for key in LABELS}
    cells = "".join(f'<span data-key="{key}"><i></i>{text[key]} <b></b></span>' for key in VALUES)
    return (
        f'<figure class="td-chart" aria-label="{text["title"]}" data-empty><figcaption><span>{text["title"]}</span>'
        f'<label><input type="checkbox" name="log-scale">{text["log_scale"]}</label></figcaption>'
        f'<div class="td-chart-plot"><p class="td-chart-empty">{text["empty"]}</p></div>'
        f'<div class="td-chart-legend">{cells}</div></figure>'
    )


def literal(text: str) -> str:
    """Text as Gradio's template shows it unchanged: it reads `{{` and then a JavaScript template literal."""
    return escape(text).translate({ord(c): f"&#{ord(c)};" for c in "`${}\\"})
