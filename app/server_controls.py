"""The Chat tab's controls for another server that speaks OpenAI's protocol: address, key, and a model of its list."""

from typing import Any

import gradio as gr

from app import fragments
from app.remote_chat import RemoteChat
from app.text import Text
from app.top_bar import QUIET
from trainer.problems import Problem

LOCAL, SERVER = "local", "server"


class ServerControls:
    """`engine` chooses between this machine and the server; the key is in its field only, and in no file."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self.engine = gr.Dropdown([(text("engine.local"), LOCAL), (text("engine.server"), SERVER)], value=LOCAL,
                                  label=text("engine"), info=text("engine.help"), elem_id="infer_backend",
                                  min_width=160)  # fmt: skip

    def lay_out(self) -> None:
        """In the row of `engine`."""
        text = self._text
        self.url = gr.Textbox(label=text("server.url"), info=text("server.url.help"), max_lines=1, visible=False,
                              placeholder="http://10.0.0.5:8000/v1", scale=2, elem_id="server_url")  # fmt: skip
        self.key = gr.Textbox(label=text("server.key"), info=text("server.key.help"), type="password", max_lines=1,
                              visible=False, elem_id="server_key", html_attributes=gr.InputHTMLAttributes(autocomplete="new-password"))  # fmt: skip
        self.model = gr.Dropdown([], label=text("server.model"), info=text("server.model.help"), visible=False,
                                 allow_custom_value=True, elem_id="server_model")  # fmt: skip
        self.connect = gr.Button(text("server.connect"), visible=False, min_width=100, elem_id="server_connect")

    @property
    def components(self) -> list[Any]:
        return [self.url, self.key, self.model, self.connect]

    def wire(self, messages: gr.HTML, columns: list[gr.Dropdown]) -> None:
        """`columns`: the lists of what is compared, which offer the server's models."""
        outputs = [messages, self.model, *columns]
        asked = [self.url, self.key, self.model]
        # Queued: the answer of a server may take seconds, and plain requests are few at a time.
        self.connect.click(self._on_connect, asked, outputs, **{**QUIET, "queue": True})

    def _on_connect(self, url: str, key: str, model: str) -> list[Any]:
        text = self._text
        try:
            names = RemoteChat(url, key, text.language).models()
        except Problem as problem:
            words = fragments.problems_html("", [problem.sentence(text.language)])
            return [words, gr.skip(), *(gr.skip() for _ in range(3))]
        said = fragments.notice_html(text("server.connected", count=len(names)))
        offered = gr.update(choices=column_choices([(name, name) for name in names], text))
        return [said, gr.update(choices=names, value=model if model in names else names[0]), *([offered] * 3)]


UNUSED = "-"


def column_choices(choices: list[tuple[str, str]], text: Text) -> list[tuple[str, str]]:
    """What a column of the comparison can be."""
    return [(text("compare.unused"), UNUSED), *choices]
