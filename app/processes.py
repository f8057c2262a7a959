"""Which devices and machines a run takes: controls that show only where there is a choice, and what they mean."""

import os
import socket
from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.device_holders import Holder, holders, usable
from app.device_panel import choices
from app.devices import devices, known, seen
from app.form import typed
from app.page import Page
from app.text import both
from app.top_bar import QUIET
from trainer.accelerators import Accelerator
from trainer.launch import DEFAULT_PORT, MOST_NODES, Launch
from trainer.problems import Problem, quoted


class ProcessControls:
    """`inputs`: the components whose values `launch_of` takes, in that order."""

    def __init__(self, page: Page) -> None:
        self._page, self._text = page, page.text
        text, found = page.text, seen() if devices().kind != "cpu" else []
        count = str(Launch.of(os.environ).processes or len(found) or 1)
        self.count = gr.Textbox(count, label=text("device_count"), info=devices().words(text), interactive=False,
                                elem_id="device_count")  # fmt: skip
        self.devices = gr.Dropdown(self._choices(found), value=[one.index for one in found], multiselect=True,
                                   visible=len(found) > 1, label=text("devices"), info=text("devices.help"), scale=2,
                                   elem_id="devices")  # fmt: skip
        # What is free changes, unlike the devices.
        self.devices.focus(lambda: gr.update(choices=self._choices(seen())), None, self.devices, **QUIET)
        self.devices.change(lambda chosen: str(len(chosen) or len(found)), self.devices, self.count, **QUIET)
        self.inputs: list[Any] = [self.devices]

    def proposed(self) -> list[str]:
        """The devices that a new form begins with: those that nobody uses, or all where that is none of them."""
        found = known()
        everything, held = [one.index for one in found], self._holders(found)
        if Launch.of(os.environ).processes:  # NPROC_PER_NODE says how many
            return everything
        return [one.index for one in found if usable(one, held[one.index])] or everything

    def defaults(self) -> list[Any]:
        """The values of `inputs` in a new form."""
        return [self.proposed(), *(one.value for one in self.inputs[1:])]

    def _choices(self, found: Sequence[Accelerator]) -> list[tuple[str, str]]:
        return choices(found, self._holders(found), self._text)

    def _holders(self, found: Sequence[Accelerator]) -> dict[str, list[Holder]]:
        return holders(found, self._page.runs_dir, self._page.chat.status)

    def lay_out_machines(self) -> None:
        """The part for several machines, folded away."""
        text, given = self._text, Launch.of(os.environ)
        with gr.Accordion(text("machines"), open=given.nodes > 1, elem_id="machines"), gr.Row():
            self.inputs += [
                gr.Textbox(str(given.nodes), label=text("nodes"), info=text("nodes.help"), max_lines=1,
                           elem_id="nodes", min_width=140),
                gr.Textbox(given.master_addr or socket.gethostname(), label=text("master_addr"),
                           info=text("master_addr.help"), max_lines=1, elem_id="master_addr", min_width=140),
                gr.Textbox(str(given.master_port), label=text("master_port"), info=text("master_port.help"),
                           max_lines=1, elem_id="master_port", min_width=140),
            ]  # fmt: skip


def launch_of(values: Sequence[Any]) -> Launch:
    """What the values of `ProcessControls.inputs` ask for. Raises Problem."""
    chosen, nodes, address, port = values
    given = Launch.of(os.environ)
    count = _whole("nodes", nodes, 1, MOST_NODES)
    some = bool(chosen) and set(chosen) != {one.index for one in known()}
    return Launch(
        devices=tuple(chosen) if some else (),
        kind=devices().kind,
        # The run inherits the page's NPROC_PER_NODE, which is not about these devices.
        processes=len(chosen) if some and given.processes else given.processes,
        nodes=count,
        node_rank=given.node_rank if given.node_rank < count else 0,
        master_addr=_address(address) if count > 1 else "",
        master_port=_whole("master_port", port, DEFAULT_PORT, 65535) if count > 1 else DEFAULT_PORT,
        meet_timeout_s=given.meet_timeout_s,
        heartbeat_timeout_s=given.heartbeat_timeout_s,
    )


def _address(value: str) -> str:
    address = str(typed(value))
    if any(char.isspace() or char in "/,\"'" for char in address):
        raise Problem("address_bad", label=both("master_addr"), value=quoted(value))
    return address


def _whole(key: str, value: str, default: int, most: int) -> int:
    text = str(typed(value))
    if not text.isdecimal():
        raise Problem("setting_not_integer", label=both(key), value=quoted(value), example=str(default))
    if len(text) > 9 or not 1 <= int(text) <= most:  # Python refuses to read numbers of thousands of digits
        limits = {"en": f"at least 1 and at most {most}", "zh": f"≥ 1 且 ≤ {most}"}
        raise Problem("setting_range", label=both(key), value=quoted(value), range=limits)
    return int(text)
