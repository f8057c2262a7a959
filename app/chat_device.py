"""The Chat tab's choice of a device, there where there is more than one: what the chat process is started on."""

import gradio as gr

from app import runs
from app.device_holders import free_place, holders
from app.device_panel import choices
from app.devices import devices, known, seen
from app.page import Page
from app.top_bar import QUIET
from trainer.accelerators import Accelerator
from trainer.launch import Launch

AUTO = "auto"


class ChatDevice:
    """`field` chooses; it says at once who trains on the device that is chosen."""

    def __init__(self, page: Page) -> None:
        self._page, text = page, page.text
        self.several = devices().kind != "cpu" and devices().count > 1
        self.field = gr.Dropdown(self._choices(seen() if self.several else []), value=AUTO, visible=self.several,
                                 label=text("device.choose"), info=text("device.choose.help"), scale=2, min_width=160,
                                 elem_id="chat_device")  # fmt: skip

    def wire(self) -> None:
        # What is free changes, unlike the devices.
        self.field.focus(lambda: gr.update(choices=self._choices(seen())), None, self.field, **QUIET)
        self.field.change(lambda chosen: gr.update(info=self._info(chosen)), self.field, self.field, **QUIET)

    def place(self, chosen: str) -> Launch:
        """The one device that the chat process is to see; all where there is no choice.

        "auto": where the model is already, else the first that nobody uses, else the first.
        """
        found = seen() if self.several else []
        if len(found) < 2:
            return Launch()
        known = [one.index for one in found]
        status = self._page.chat.status
        if chosen not in known:
            if not (status.pid and status.index in known):
                return free_place(found, self._page.runs_dir, status)
            chosen = status.index
        return Launch(devices=(chosen,), kind=found[0].kind)

    def trained_on_by(self, place: Launch) -> str:
        """The run that trains on the device of `place`, where another could be chosen; "" for none."""
        training = runs.training_on(self._page.runs_dir, place.devices) if place.devices else []
        return training[0].name if training else ""

    def _choices(self, found: list[Accelerator]) -> list[tuple[str, str]]:
        held = holders(found, self._page.runs_dir, self._page.chat.status)
        return [(self._page.text("device.auto"), AUTO), *choices(found, held, self._page.text)]

    def _info(self, chosen: str) -> str:
        text, one = self._page.text, next((one for one in known() if one.index == chosen), None)
        run = self.trained_on_by(Launch(devices=(chosen,), kind=one.kind)) if one else ""
        return text("device.choose.held", run=run) if run else text("device.choose.help")
