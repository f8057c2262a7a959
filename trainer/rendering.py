"""A Jinja chat template over messages → text: compiled once, with the environment and helpers of transformers.

What apply_chat_template adds to that for each conversation takes longer than the rendering of a short one.
"""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]
Tools = Sequence[dict[str, Any]] | None


class Renderer:
    """`source` with the tokenizer's special tokens. Its texts are those of tokenizer.apply_chat_template.

    Some templates take a content in parts only, as multimodal models have it: these are given parts. Some want of calls
    what others do without, an id each or arguments as a text: where one refuses a conversation, it is given these.
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

        def rendered(messages: list[Message]) -> str:
            return template.render(
                messages=messages,
                tools=list(tools) if tools else None,
                documents=None,
                add_generation_prompt=prompt,
                **self._tokens,
                enable_thinking=thinking,
            )

        try:
            return rendered(shown)
        except Exception:
            if not any(message.get("tool_calls") for message in shown):
                raise
            for helped in _HELPS:
                try:
                    return rendered(helped(shown))
                except Exception:  # noqa: S112 - the next way; the first complaint is the one that is told
                    continue
            raise

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


def _with_ids(messages: Sequence[Message]) -> list[Message]:
    """With an id of nine letters and digits for each call that has none, and for its result."""
    found: list[Message] = []
    waiting: list[str] = []
    number = 0
    for message in messages:
        if message.get("tool_calls"):
            waiting, calls = [], []
            for call in message["tool_calls"]:
                number += 1
                calls.append({**call, "id": call.get("id") or f"call{number:05}"})
                waiting.append(calls[-1]["id"])
            message = {**message, "tool_calls": calls}
        elif message["role"] == "tool" and waiting:
            message = {**message, "tool_call_id": message.get("tool_call_id") or waiting.pop(0)}
        found.append(message)
    return found


def _with_texts(messages: Sequence[Message]) -> list[Message]:
    """With the arguments of calls as a text of JSON, as OpenAI has them."""

    def told(call: dict[str, Any]) -> dict[str, Any]:
        given = call["function"].get("arguments")
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        return {**call, "function": {**call["function"], "arguments": text}}

    return [{**message, "tool_calls": [told(call) for call in message["tool_calls"]]} if message.get("tool_calls") else message
            for message in messages]  # fmt: skip


_HELPS: tuple[Callable[[Sequence[Message]], list[Message]], ...] = (
    _with_ids,
    _with_texts,
    lambda messages: _with_texts(_with_ids(messages)),
)


def _parted(message: Message) -> Message:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}
