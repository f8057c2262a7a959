"""What the accelerators do, as a table below the choice of devices; looked up only while somebody looks at it."""

from collections.abc import Sequence
from html import escape

import gradio as gr

from app import fragments
from app.device_holders import Holder, holders
from app.devices import EVERY_S, devices, watch
from app.page import Page
from app.text import Text
from app.top_bar import QUIET
from trainer.accelerators import Accelerator, Reading

# Who unfolds the panel after hours does not want the figures of then.
FIRST_S = 1.5
# The panel is in sight, and so is the page.
LOOKED_AT = """() => {
  const panel = document.querySelector("#device_table");
  return [panel && panel.offsetParent && !document.hidden ? "yes" : ""];
}"""


class DevicePanel:
    """Nothing where there is no accelerator: the page's head says so."""

    def __init__(self, page: Page) -> None:
        self._page, text = page, page.text
        visible = devices().kind != "cpu" or watch().now().trouble is not None
        with gr.Accordion(text("device.panel"), open=False, visible=visible, elem_id="device_panel") as panel:
            self.table = gr.HTML(elem_id="device_table", apply_default_css=False)
        looked_at, timer = gr.Textbox(visible=False), gr.Timer(EVERY_S, active=False)
        panel.expand(lambda: [self.html(FIRST_S), gr.Timer(active=True)], None, [self.table, timer], **QUIET)
        panel.collapse(lambda: gr.Timer(active=False), None, timer, **QUIET)
        timer.tick(
            lambda seen: self.html() if seen else gr.skip(), looked_at, self.table, js=LOOKED_AT,
            concurrency_limit=None, **QUIET,
        )  # fmt: skip

    def html(self, patience_s: float = 0.0) -> str:
        """The table now; figures that are old are waited for so long."""
        page, found = self._page, watch().soon(patience_s)
        held = holders(found.devices, page.runs_dir, page.chat.status)
        return table_html(found, held, page.text)


def table_html(known: Reading, held: dict[str, list[Holder]], text: Text) -> str:
    """The reading with who holds each device, and in a sentence what went wrong with it."""
    said = ""
    if known.trouble:
        sentence = text(f"device.{known.trouble.code}", **known.trouble.values)
        said = fragments.notice_html(sentence + (text("device.older") if known.devices else ""))
    if not known.devices:
        return said or fragments.notice_html(text("device.asking"))
    words = text.group("device.column")
    heads = "".join(f"<th>{escape(words[name])}</th>" for name in ("device", "use", "memory", "heat", "holder"))
    rows = "".join(_row(one, held.get(one.index, []), words, text) for one in known.devices)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'{said}<div class="td-devices">{table}</div>'


def _row(one: Accelerator, held: Sequence[Holder], words: dict[str, str], text: Text) -> str:
    ill = f"<em>{escape(text('device.health', health=one.health))}</em>" if one.health else ""
    place = f"<small>{escape(text('device.place', place=one.place))}</small>" if one.place else ""
    heat = [f"{one.temperature_c} °C" if one.temperature_c is not None else "",
            f"{one.power_w:.0f} W" if one.power_w is not None else ""]  # fmt: skip
    cells = {
        "device": f"<b>{escape(one.index)}</b> {escape(one.name)} {place}{ill}",
        "use": _share(one.utilization, "" if one.utilization is None else f"{one.utilization} %"),
        "memory": _share(
            round(100 * one.used_gib / one.total_gib) if one.total_gib else None,
            f"{one.used_gib:.1f} / {one.total_gib:.1f} GiB" if one.total_gib else "",
        ),
        "heat": escape(" · ".join(filter(None, heat))) or "–",
        "holder": escape(" · ".join(holder.words(text) for holder in held))
        or f"<span data-free>{escape(text('device.free'))}</span>",
    }
    inner = "".join(
        f'<td data-cell="{name}" data-label="{escape(words[name])}">{cell}</td>' for name, cell in cells.items()
    )
    return f"<tr{' data-ill' if one.health else ''}>{inner}</tr>"


def _share(percent: int | None, shown: str) -> str:
    """A figure with a small bar; – where the tool does not say."""
    if percent is None:
        return "–"
    width = min(max(percent, 0), 100)
    return f'<span class="td-share"><i style="width: {width}%"></i></span>{escape(shown)}'


def choices(found: Sequence[Accelerator], held: dict[str, list[Holder]], text: Text) -> list[tuple[str, str]]:
    """Devices to choose from: what is free on each, and who holds it."""
    return [(_choice(one, held.get(one.index, []), text), one.index) for one in found]


def _choice(one: Accelerator, held: Sequence[Holder], text: Text) -> str:
    words = text("devices.one", index=one.index, name=one.name, free=round(one.free_gib))
    if not one.total_gib:
        words = text("device.named", index=one.index, name=one.name)
    notes = [text("device.health", health=one.health)] if one.health else []
    return " · ".join([words, *notes, *(holder.words(text) for holder in held)])
