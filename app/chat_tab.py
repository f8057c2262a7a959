"""The Chat tab: layout and wiring. The model lives in the chat process; the conversation lives in the browser."""

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from app import conversation, fragments
from app.chat import Done
from app.conversation import Message
from app.devices import devices
from app.form import typed
from app.models import as_chosen
from app.page import Page
from app.top_bar import QUIET, TopBar
from trainer import sampling
from trainer.problems import Problem

SAMPLING = ("max_new_tokens", "top_p", "temperature", "seed")
# The browser renders the whole reply again each time: rarer as it grows, so that the page stays quick.
REDRAW_S, REDRAW_S_PER_CHARACTER = 0.04, 1e-4


class ChatTab:
    def __init__(self, page: Page, top_bar: TopBar, kept: gr.BrowserState) -> None:
        """`kept`: the conversation, in the browser. It stands outside the tabs, whose contents do not exist unseen."""
        self._page, self._text, self._top_bar, self.conversation = page, page.text, top_bar, kept
        text = page.text
        with gr.Group(elem_classes="td-panel"), gr.Row():
            self.dtype = gr.Dropdown(["auto", *devices().compute_types[:3]], value="auto", label=text("chat.dtype"), info=text("chat.dtype.help"),
                                     elem_id="infer_dtype")  # fmt: skip
            self.load_button = gr.Button(text("chat.load"), variant="primary", elem_id="load_model", min_width=120)
            self.unload_button = gr.Button(text("chat.unload"), elem_id="unload_model", min_width=120)
        self.status = gr.HTML(self.status_html(), elem_id="chat_status", apply_default_css=False)
        self.messages = gr.HTML(elem_id="chat_messages", apply_default_css=False)
        with gr.Row():
            self._lay_out_conversation()
            self._lay_out_options()
        self._wire()

    # ---- layout ----

    def _lay_out_conversation(self) -> None:
        text = self._text
        with gr.Column(scale=3, min_width=320):
            self.chatbot = gr.Chatbot(
                label=text("chat.conversation"),
                placeholder=text("chat.placeholder"),
                height=480,
                buttons=["copy"],
                allow_tags=False,
                feedback_options=None,
                elem_id="chatbot",
            )
            self.speed = gr.HTML(elem_id="chat_speed", apply_default_css=False)
            with gr.Row(elem_classes="td-compose"):
                # One line: Enter sends and Shift+Enter breaks the line; the box grows with the text.
                self.input = gr.Textbox(placeholder=text("chat.input"), label=text("chat.input"), show_label=False, lines=1,
                                        max_lines=8, container=False, scale=6, elem_id="chat_input")  # fmt: skip
                self.submit_button = gr.Button(text("chat.submit"), variant="primary", scale=1, min_width=70,
                                               elem_id="chat_submit")  # fmt: skip
                self.stop_button = gr.Button(
                    text("chat.stop"), variant="stop", scale=1, min_width=70, elem_id="chat_stop"
                )

    def _lay_out_options(self) -> None:
        text = self._text
        with gr.Column(scale=1, min_width=240):
            self.system = gr.Textbox(
                "", label=text("chat.system"), info=text("chat.system.help"), lines=2, max_lines=6, elem_id="system"
            )
            self.sampling = {
                key: gr.Textbox(
                    str(sampling.default(key)),
                    label=sampling.shown(key).label(text.language),
                    info=sampling.shown(key).help(text.language),
                    max_lines=1,
                    elem_id=key if key != "seed" else "generation_seed",
                )
                for key in SAMPLING
            }
            self.skip_special = gr.Checkbox(
                True,
                label=text("chat.skip_special_tokens"),
                info=text("chat.skip_special_tokens.help"),
                elem_id="skip_special_tokens",
            )
            self.escape = gr.Checkbox(
                True, label=text("chat.escape_html"), info=text("chat.escape_html.help"), elem_id="escape_html"
            )
            self.thinking = gr.Checkbox(
                True,
                label=text("chat.enable_thinking"),
                info=text("chat.enable_thinking.help"),
                elem_id="enable_thinking",
            )
            self.clear_button = gr.Button(text("chat.clear"), elem_id="clear_history")

    # ---- wiring ----

    def _wire(self) -> None:
        fields = self._top_bar.fields
        where = [fields["model_name_or_path"], fields["adapter_name_or_path"], fields["template"], self.dtype]
        self.load_button.click(self._on_load, where, [self.messages, self.status], **QUIET)
        self.unload_button.click(self._on_unload, None, [self.messages, self.status], **QUIET)
        options = [*self.sampling.values(), self.system, self.skip_special, self.escape, self.thinking]
        inputs = [self.input, self.conversation, *options]
        outputs = [self.chatbot, self.conversation, self.input, self.messages, self.speed]
        # "multiple": a question sent while a reply streams is answered (by a refusal), not swallowed.
        streaming = {**QUIET, "queue": True, "concurrency_limit": 16, "trigger_mode": "multiple"}
        gr.on([self.input.submit, self.submit_button.click], self._on_submit, inputs, outputs, **streaming)
        self.stop_button.click(self._page.chat.stop, None, None, **QUIET)
        self.clear_button.click(self._on_clear, None, outputs, **QUIET)
        self.escape.change(self._reshown, [self.conversation, self.escape], self.chatbot, **QUIET)

    def kept(self) -> dict[str, Any]:
        """The components whose values outlive a reload, by name; the conversation is kept for all tabs."""
        options = [self.dtype, self.system, *self.sampling.values(), self.skip_special, self.escape, self.thinking]
        return {one.elem_id: one for one in options}

    def opened(self, values: dict[str, Any]) -> list[Any]:
        """The components of `kept` for a page that opens with `values`."""
        return [gr.update(value=values[name]) if name in values else gr.skip() for name in self.kept()]

    def restored(self, kept: Any, escape: bool) -> list[dict[str, Any]]:
        """The chat box of a page that opens, from what its browser kept."""
        return self._reshown(kept, escape)

    def _reshown(self, kept: Any, escape: bool) -> list[dict[str, Any]]:
        return self._shown(conversation.restored(kept), escape)

    def _shown(self, messages: list[Message], escape: bool) -> list[dict[str, Any]]:
        return conversation.shown(messages, escape, self._text("chat.thought"))

    # ---- handlers ----

    def _problem(self, problem: Problem) -> str:
        return fragments.problems_html("", [problem.sentence(self._text.language)])

    def _on_load(self, model: str, checkpoint: str, template: str, dtype: str) -> list[Any]:
        try:
            folder, adapter = as_chosen(model, checkpoint)
            self._page.chat.begin_load(folder, adapter, template, dtype)
        except Problem as problem:
            # A second click while it loads needs no answer: the status line says that it loads.
            return ["" if problem.code == "chat_loading" else self._problem(problem), self.status_html()]
        return ["", self.status_html()]

    def _on_unload(self) -> list[Any]:
        self._page.chat.unload()
        return ["", self.status_html()]

    def _on_clear(self) -> list[Any]:
        self._page.chat.stop()
        return [[], [], gr.skip(), "", ""]

    def _on_submit(self, message: str, kept: Any, *options: Any) -> Iterator[list[Any]]:
        """Streams the reply. What the user typed stays in the field until it is really being answered."""
        *numbers, system, skip_special, escape, thinking = options
        history = conversation.restored(kept)
        messages: list[Message] = [*history, {"role": "user", "content": message.strip()}]
        values = {key: typed(value) for key, value in zip(SAMPLING, numbers, strict=True)}
        reply, drawn, asked = "", 0.0, False
        try:
            if not message.strip():
                raise Problem("chat_empty")
            parts = self._page.chat.generate(
                conversation.asked(messages, system),
                **values,
                skip_special_tokens=skip_special,
                enable_thinking=thinking,
            )
            for part in parts:
                if isinstance(part, Done):
                    done = [*messages, {"role": "assistant", "content": reply}]
                    yield [self._shown(done, escape), done, gr.skip() if asked else "", "", self._speed(part)]
                    return
                reply += part
                if time.monotonic() - drawn > REDRAW_S + REDRAW_S_PER_CHARACTER * len(reply):
                    drawn = time.monotonic()
                    now = [*messages, {"role": "assistant", "content": reply}]
                    # The field is emptied once: what is typed meanwhile is the next question.
                    unchanged = gr.skip() if asked else ""
                    yield [self._shown(now, escape), gr.skip(), unchanged, unchanged, unchanged]
                    asked = True
        except Problem as problem:
            if reply:  # the process died on the way: what it had said stays
                now = [*messages, {"role": "assistant", "content": reply}]
                yield [self._shown(now, escape), now, gr.skip(), self._problem(problem), ""]
            else:
                yield [gr.skip(), gr.skip(), gr.skip(), self._problem(problem), gr.skip()]

    def _speed(self, done: Done) -> str:
        if done.first_token_s is None:
            return ""
        rate = f"{done.tokens_per_second:.0f}" if done.tokens_per_second else "–"
        words = self._text("chat.speed", tokens=done.tokens, rate=rate, first=f"{done.first_token_s:.2f}")
        return f'<p class="td-speed">{words}</p>'

    def status_html(self) -> str:
        """The chat process now: one line, the same in every tab."""
        status, text = self._page.chat.status, self._text
        if status.problem is not None and status.state in ("unloaded", "dead", "ready"):
            return self._problem(status.problem)
        state = "unloaded" if status.state == "dead" else status.state
        words = text(f"chat.status.{state}", seconds=f"{status.seconds:.0f}")
        if status.state not in ("ready", "generating"):
            return fragments.status_html(words, "", None, None if status.state != "unloaded" else "idle")
        name = status.model.name if status.model else ""
        if status.adapter:
            name += f" + {status.adapter.parent.name}/{status.adapter.name}"
        detail = text("chat.status.detail", model=name, device=status.device, dtype=status.dtype,
                      seconds=f"{status.seconds:.1f}")  # fmt: skip
        return fragments.status_html(words, detail, None, "completed")
