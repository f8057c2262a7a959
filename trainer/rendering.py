"""A Jinja chat template over messages → text: compiled once, with the environment and helpers of transformers.

What apply_chat_template adds to that for each conversation takes longer than the rendering of a short one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]
Tools = Sequence[dict[str, Any]] | None


class Renderer:
    """`source` with the tokenizer's special tokens. Its texts are those of tokenizer.apply_chat_template.

    Some templates take a content in parts only, as multimodal models have it: these are given parts.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", source: str) -> None:
        self._source = source
        self._tokens = dict(tokenizer.special_tokens_map)
        self._in_parts = False
        self._in_parts = not self._shows("9070") and self._shows_parts("9070")

    def render(self, messages: Sequence[Message], *, prompt: bool, thinking: bool, tools: Tools = None) -> str:
        """The text, with the opening of the next answer for a `prompt`. Raises whatever the template does.

        `messages` and `tools`: plain JSON values; contents are text, no value of a message is None.
        """
        from transformers.utils import (
            chat_template_utils,
        )  # most of a second, which this module's importers may not need

        template = chat_template_utils._compile_jinja_template(self._source)  # kept by source there
        shown = [_parted(message) for message in messages] if self._in_parts else list(messages)
        return template.render(
            messages=shown,
            tools=list(tools) if tools else None,
            documents=None,
            add_generation_prompt=prompt,
            **self._tokens,
            enable_thinking=thinking,
        )

    def _shows(self, words: str) -> bool:
        try:
            return words in self.render([{"role": "user", "content": words}], prompt=True, thinking=True)
        except Exception:  # a foreign program; what it says will be heard when it is needed
            return False

    def _shows_parts(self, words: str) -> bool:
        self._in_parts = True
        return self._shows(words)


def plain(message: Message) -> Message:
    """`message` with its content as one text, and without what is None. Raises ValueError for parts that are no text."""
    content = message.get("content")
    if isinstance(content, str) and None not in message.values():
        return message
    if content is None:
        content = ""
    elif not isinstance(content, str):
        content = "".join(_text_of(part) for part in content)
    return {**{key: value for key, value in message.items() if value is not None}, "content": content}


def _text_of(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise NotText(str(kind))


class NotText(ValueError):
    """A part of a content that is no text: an image, say. Its only argument: the kind."""


def _parted(message: Message) -> Message:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}
