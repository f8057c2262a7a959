"""The Chat tab: layout and wiring. The model lives in the chat process or on another server; conversations live in
the browser tab."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from app import chat_memory, conversation, fragments
from app.chat_device import ChatDevice
from app.chat_words import is_over, problem_html, status_html
from app.conversation import COLUMNS, CONVERSATIONS, Message
from app.devices import devices
from app.models import as_chosen, knows_thinking
from app.page import Page
from app.questions import SAMPLING, Asked, Drawn, Questions
from app.server_controls import LOCAL, SERVER, UNUSED, ServerControls, column_choices
from app.top_bar import QUIET, TopBar
from trainer import sampling
from trainer.launch import Launch
from trainer.problems import Problem
from trainer.settings import label

# As models write formulas.
LATEX: list[dict[str, str | bool]] = [
    {"left": left, "right": right, "display": display}
    for left, right, display in (("$$", "$$", True), ("\\[", "\\]", True), ("\\(", "\\)", False))
]


class ChatTab:
    def __init__(self, page: Page, top_bar: TopBar, kept: gr.Textbox) -> None:
        """`kept`: the conversations. It stands outside the tabs, whose contents do not exist unseen."""
        self._page, self._text, self._top_bar, self.conversation = page, page.text, top_bar, kept
        self._questions = Questions(page)
        self._lay_out_loading()
        self.messages = gr.HTML(elem_id="chat_messages", apply_default_css=False)
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                self._lay_out_conversations()
                self._lay_out_input()
            with gr.Column(scale=1, min_width=240):
                self._lay_out_options()
        self._wire()

    # ---- layout ----

    def _lay_out_loading(self) -> None:
        text = self._text
        with gr.Group(elem_classes="td-panel"), gr.Row():
            self.server = ServerControls(text)
            self.dtype = gr.Dropdown(["auto", *(one for one in devices().compute_types if one != "pure_bf16")], value="auto", label=text("chat.dtype"), info=text("chat.dtype.help"),
                                     elem_id="infer_dtype")  # fmt: skip
            self.device = ChatDevice(self._page)
            self.load_button = gr.Button(text("chat.load"), variant="primary", elem_id="load_model", min_width=120)
            self.unload_button = gr.Button(text("chat.unload"), elem_id="unload_model", min_width=120)
            self.server.lay_out()
        self.status = gr.HTML(self.status_html(), elem_id="chat_status", apply_default_css=False)
        with gr.Row(visible=False, elem_id="memory_offer") as self.memory_offer:
            self.memory_words = gr.HTML(elem_id="memory_words", apply_default_css=False, min_width=300)
            self.anyway_button = gr.Button(text("memory.anyway"), elem_id="load_anyway", min_width=110, scale=0)
            self.not_now_button = gr.Button(text("memory.cancel"), elem_id="load_not", min_width=70, scale=0)

    def _lay_out_conversations(self) -> None:
        """Chat box 0 is the one conversation; the others are the columns of the comparison."""
        text = self._text
        self.compare = gr.Checkbox(False, label=text("compare"), info=text("compare.help"), elem_id="compare")
        with gr.Column(elem_id="single") as self.single:
            self.chatbots = [self._chatbot("chatbot", text("chat.conversation"), 480)]
        self.column_choices: list[gr.Dropdown] = []
        self.column_notes: list[gr.HTML] = []
        with gr.Row(visible=False, elem_id="columns") as self.columns_row:
            for number in range(1, COLUMNS + 1):
                with gr.Column(min_width=220, elem_classes="td-column"):
                    self.column_choices.append(
                        gr.Dropdown(self._column_choices(self._page.model), value="" if number == 1 else UNUSED,
                                    label=text("compare.column", number=number), allow_custom_value=True,
                                    elem_id=f"column_{number}"))  # fmt: skip
                    self.chatbots.append(self._chatbot(f"chatbot_{number}", text("compare.column", number=number), 430))
                    self.column_notes.append(gr.HTML(elem_id=f"column_note_{number}", apply_default_css=False))

    def _chatbot(self, elem_id: str, label: str, height: int) -> gr.Chatbot:
        return gr.Chatbot(
            label=label,
            show_label=False,  # it would stand in the way of what scrolls
            placeholder=self._text("chat.placeholder" if elem_id == "chatbot" else "compare.placeholder"),
            height=height,
            buttons=["copy"],
            allow_tags=False,
            latex_delimiters=LATEX,
            feedback_options=None,
            elem_id=elem_id,
            elem_classes="td-chatbot",
        )

    def _lay_out_input(self) -> None:
        text = self._text
        with gr.Row(elem_classes="td-compose"):
            roles = [(text(f"role.{role}"), role) for role in ("user", "observation")]
            self.role = gr.Dropdown(roles, value="user", label=text("chat.role"), show_label=False, container=False,
                                    scale=0, min_width=110, elem_id="chat_role")  # fmt: skip
            # One line: Enter sends and Shift+Enter breaks the line; the box grows with the text.
            self.input = gr.Textbox(placeholder=text("chat.input"), label=text("chat.input"), show_label=False, lines=1,
                                    max_lines=8, container=False, scale=6, elem_id="chat_input")  # fmt: skip
            self.submit_button = gr.Button(text("chat.submit"), variant="primary", scale=1, min_width=70,
                                           elem_id="chat_submit")  # fmt: skip
            self.stop_button = gr.Button(text("chat.stop"), variant="stop", scale=1, min_width=70, elem_id="chat_stop")

    def _lay_out_options(self) -> None:
        text = self._text
        self.system = gr.Textbox(
            "", label=text("chat.system"), info=text("chat.system.help"), lines=2, max_lines=6, elem_id="system"
        )
        self.tools = gr.Textbox(
            "", label=text("chat.tools"), info=text("chat.tools.help"), lines=2, max_lines=12, elem_id="tools"
        )
        first, *drawn, last = SAMPLING
        self.sampling = {first: self._number(first)}
        with gr.Row():  # two by two
            self.sampling |= {key: self._number(key) for key in drawn}
        self.sampling[last] = self._number(last)
        self.skip_special = self._option("skip_special_tokens")
        self.escape = self._option("escape_html")
        self.thinking = self._option("enable_thinking", **self._thinking_state(self._page.model, "auto", LOCAL))
        self.clear_button = gr.Button(text("chat.clear"), elem_id="clear_history")

    def _number(self, key: str) -> gr.Textbox:
        shown, language = sampling.shown(key), self._text.language
        return gr.Textbox(str(sampling.default(key)), label=shown.label(language), info=shown.help(language), max_lines=1,
                          min_width=110, elem_id=key if key != "seed" else "generation_seed")  # fmt: skip

    def _option(self, key: str, **options: Any) -> gr.Checkbox:
        words = {"label": self._text(f"chat.{key}"), "info": self._text(f"chat.{key}.help")} | options
        return gr.Checkbox(True, elem_id=key, **words)

    # ---- wiring ----

    def _wire(self) -> None:
        fields, server = self._top_bar.fields, self.server
        self.device.wire()
        where = [fields["model_name_or_path"], fields["adapter_name_or_path"], fields["template"], self.dtype,
                 self.device.field]  # fmt: skip
        loading = [self.messages, self.status, self.memory_offer, self.memory_words]
        # What the Load button does.
        self.loading: dict[str, Any] = {"fn": self._on_load, "inputs": where, "outputs": loading, **QUIET}
        self.load_button.click(**self.loading)
        self.anyway_button.click(self._on_load_anyway, where, loading, **QUIET)
        self.not_now_button.click(lambda: gr.update(visible=False), None, self.memory_offer, **QUIET)
        self.unload_button.click(self._on_unload, None, loading, **QUIET)
        self.status.change(self._on_status, self.messages, self.messages, **QUIET)
        server.wire(self.messages, self.column_choices)
        local = [self.dtype, self.load_button, self.unload_button, self.status]
        engine = [self.device.field, *local, *server.components, self.memory_offer, self.messages, *self.column_choices]
        server.engine.change(self._on_engine, [server.engine, fields["model_name_or_path"]], engine, **QUIET)
        knowing = [fields["model_name_or_path"], fields["template"], server.engine]
        gr.on(
            [field.change for field in knowing],
            lambda *chosen: gr.update(**self._thinking_state(*chosen)),
            knowing,
            self.thinking,
            **QUIET,
        )
        shown = [self.single, self.columns_row, *self.column_choices]
        self.compare.change(
            self._on_compare,
            [self.compare, server.engine, fields["model_name_or_path"], *self.column_choices],
            shown,
            **QUIET,
        )
        self._wire_asking()

    def _wire_asking(self) -> None:
        inputs = [self.input, self.conversation, *self.server_inputs, self.compare, *self.column_choices, self.role,
                  self.tools, *self.sampling.values(), self.system, self.skip_special, self.escape, self.thinking]  # fmt: skip
        self._outputs = [*self.chatbots, self.conversation, self.input, self.messages, *self.column_notes]
        # "multiple": a question sent while a reply streams is answered (by a refusal), not swallowed.
        streaming = {**QUIET, "queue": True, "concurrency_limit": 16, "trigger_mode": "multiple"}
        gr.on([self.input.submit, self.submit_button.click], self._on_submit, inputs, self._outputs, **streaming)
        self.stop_button.click(self._on_stop, None, None, **QUIET)
        # In the browser, at once: a question that is sent right after it is one of an empty conversation.
        cleared = [self.conversation, *self.chatbots]
        self.clear_button.click(None, [self.compare, *cleared], [*cleared, self.messages, *self.column_notes],
                                js="(...seen) => tunedesk.cleared(...seen)", **QUIET)  # fmt: skip
        self.clear_button.click(self._on_clear, self.compare, None, **QUIET)
        self.escape.change(self.restored, [self.conversation, self.escape], self.chatbots, **QUIET)

    @property
    def server_inputs(self) -> list[Any]:
        return [self.server.engine, self.server.url, self.server.key, self.server.model]

    def kept(self) -> dict[str, Any]:
        """The components whose values outlive a reload, by name; the key of a server never does."""
        server = [self.server.engine, self.server.url, self.server.model]
        options = [self.dtype, self.device.field, self.system, self.tools, *self.sampling.values(), self.skip_special, self.escape,
                   self.thinking, self.compare, *self.column_choices, *server]  # fmt: skip
        return {one.elem_id: one for one in options}

    def opened(self, values: dict[str, Any]) -> list[Any]:
        """The components of `kept` for a page that opens with `values`."""
        return [gr.update(value=values[name]) if name in values else gr.skip() for name in self.kept()]

    def restored(self, kept: Any, escape: bool) -> list[Any]:
        """The chat boxes of a page that opens, from what its browser kept."""
        return self._shown(conversation.restored(kept), escape)

    def _shown(self, conversations: list[list[Message]], escape: bool) -> list[Any]:
        return [conversation.shown(one, escape, self._text) for one in conversations]

    # ---- what a timer follows ----

    def status_html(self) -> str:
        return status_html(self._page.chat.status, self._text)

    def columns_offered(self, engine: str, model: str) -> list[Any]:
        """The lists of the columns now: checkpoints appear while a run trains."""
        if engine == SERVER:
            return [gr.skip()] * COLUMNS
        return [gr.update(choices=self._column_choices(model))] * COLUMNS

    def _column_choices(self, model: str) -> list[tuple[str, str]]:
        return column_choices(self._top_bar.checkpoints(model), self._text)

    # ---- handlers ----

    def _thinking_state(self, model: str, template: str, engine: str) -> dict[str, Any]:
        known = engine == SERVER or (model in self._page.roots and knows_thinking(model, template))
        return {"interactive": known, "info": self._text(f"chat.enable_thinking.{'help' if known else 'unknown'}")}

    def _on_engine(self, engine: str, model: str) -> list[Any]:
        local, there = gr.update(visible=engine == LOCAL), gr.update(visible=engine == SERVER)
        choices = column_choices([] if engine == SERVER else self._top_bar.checkpoints(model), self._text)
        columns = [gr.update(choices=choices)] * COLUMNS
        device = gr.update(visible=engine == LOCAL and self.device.several)
        return [device, *([local] * 4), *([there] * 4), gr.update(visible=False), "", *columns]

    def _on_compare(self, compare: bool, engine: str, model: str, *columns: str) -> list[Any]:
        values: list[Any] = [gr.skip()] * COLUMNS
        if compare and engine == LOCAL and columns[1:] == (UNUSED, UNUSED):
            # Before and after: the model itself beside what was trained last.
            newest = next((path for _, path in self._top_bar.checkpoints(model) if path), UNUSED)
            values = [gr.skip(), gr.update(value=newest), gr.skip()]
        return [gr.update(visible=not compare), gr.update(visible=compare), *values]

    def _on_load_anyway(
        self, request: gr.Request, model: str, checkpoint: str, template: str, dtype: str, device: str
    ) -> list[Any]:
        return self._on_load(request, model, checkpoint, template, dtype, device, sure=True)

    def _on_load(
        self,
        request: gr.Request,
        model: str,
        checkpoint: str,
        template: str,
        dtype: str,
        device: str,
        sure: bool = False,
    ) -> list[Any]:
        hidden, chat = gr.update(visible=False), self._page.chat
        try:
            self._check_paths(model, checkpoint)
            folder, adapter = as_chosen(model, checkpoint)
            place = self.device.place(device)
            if warning := "" if sure else self._warning(folder, adapter, dtype, place):
                return ["", self.status_html(), gr.update(visible=True), fragments.notice_html(warning)]
            chat.begin_load(folder, adapter, template, dtype, place)
        except Problem as problem:
            if problem.code == "chat_busy" and not self._questions.has(request.session_hash or ""):
                problem = Problem("chat_busy_elsewhere")
            # A second click while it loads needs no answer: the status line says that it loads.
            words = "" if problem.code == "chat_loading" else problem_html(problem, self._text)
            return [words, self.status_html(), hidden, ""]
        return ["", self.status_html(), hidden, ""]

    def _check_paths(self, model: str, *checkpoints: str) -> None:
        """Raises Problem for a folder that the page may not use; "" is none."""
        for key, path in (("model_name_or_path", model), *(("adapter_name_or_path", one) for one in checkpoints)):
            if path and path.strip():
                self._page.roots.check(path, label(key))

    def _warning(self, model: str, adapter: str | None, dtype: str, place: Launch) -> str:
        """What speaks against loading there now; "" for nothing."""
        status, text = self._page.chat.status, self._text
        try:
            short = chat_memory.shortage(model, adapter, dtype, status, self._page.runs_dir, place)
        except OSError:
            return ""  # loading says what is wrong with the folder
        if short:
            return short.words(text)
        index = ",".join(place.devices)
        run = "" if status.pid and status.index == index else self.device.trained_on_by(place)
        return text("device.held", run=run, index=index) if run else ""

    def _on_unload(self) -> list[Any]:
        self._page.chat.unload()
        return ["", self.status_html(), gr.update(visible=False), ""]

    def _on_status(self, words: str) -> Any:
        """What stands above the conversation goes when the process does no longer what it speaks of."""
        return "" if is_over(words or "", self._page.chat.status, self._text) else gr.skip()

    def _on_stop(self, request: gr.Request) -> None:
        self._questions.stop(request.session_hash or "")

    def _on_clear(self, compare: bool, request: gr.Request) -> None:
        """Of what the browser has emptied already."""
        self._questions.clear(request.session_hash or "", range(1, CONVERSATIONS) if compare else (0,))

    # ---- asking ----

    def _on_submit(self, request: gr.Request, message: str, kept: Any, *rest: Any) -> Iterator[list[Any]]:
        """Streams the answers. What the user typed stays in the field until it is really being answered."""
        (engine, url, key, server_model, compare), rest = rest[:5], rest[5:]
        (columns, role, tools), rest = (rest[:COLUMNS], rest[COLUMNS], rest[COLUMNS + 1]), rest[COLUMNS + 2 :]
        numbers, (system, skip_special, escape, thinking) = rest[: len(SAMPLING)], rest[len(SAMPLING) :]
        asked = Asked(message, kept, engine, url, key, server_model, compare, columns, role, tools, numbers, system,
                      skip_special, escape, thinking)  # fmt: skip
        for drawn in self._questions.ask(asked, request.session_hash or ""):
            yield self._outputs_of(drawn)

    def _outputs_of(self, drawn: Drawn) -> list[Any]:
        boxes = [gr.skip() if box is None else box for box in drawn.boxes]
        kept, words = (gr.skip() if one is None else one for one in (drawn.kept, drawn.words))
        return [*boxes, kept, "" if drawn.answered else gr.skip(), words, *(drawn.notes or [gr.skip()] * COLUMNS)]
