"""Conversations of known words, rendered to see what of a text is the template's own."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

from trainer.conversation_text import Field, Message, Shape, Words
from trainer.rendering import Tools

# render(messages, prompt, thinking, tools) -> text
Render = Callable[[Sequence[Message], bool, bool, Tools], str]
# Of a message: its role, what is around its words, and what else it has (tool calls) as JSON.
Key = tuple[tuple[tuple[str, tuple[str, ...], str], ...], bool, bool, str]

# Shapes that are remembered; most datasets have some dozens.
_MOST_SHAPES = 4096
# Digits only: a template may change the case of letters.
_MARK = re.compile(r"9070\d{5}0709")
# Some templates want an id of nine characters.
ID = "9070a0709"


class Probes:
    """Renders conversations with marks instead of words, and remembers what stood around them."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._shapes: dict[Key, Shape] = {}

    def prompt_closing(self, messages: Sequence[Message], thinking: bool, tools: Tools) -> str:
        """What a prompt that ends with the last of `messages` has after their words."""
        return self.shape(messages, True, thinking, tools).around[-1] if messages else ""

    def shape(
        self, messages: Sequence[Message], prompt: bool, thinking: bool, tools: Tools = None, fresh: bool = False
    ) -> Shape:
        """What the template writes around the words of such messages; `fresh`: now, whatever it wrote before.

        Calls are words too where they are `neutral`, else the template's.
        """
        words = [Words.of(message) for message in messages]
        key = key_of(messages, words, prompt, thinking, tools)
        if fresh or key not in self._shapes:
            make_room(self._shapes)
            self._shapes[key] = self._probed(messages, words, prompt, thinking, tools)
        return self._shapes[key]

    def _probed(
        self, messages: Sequence[Message], words: Sequence[Words], prompt: bool, thinking: bool, tools: Tools
    ) -> Shape:
        numbers = count()
        marks: dict[str, Field] = {}

        def marked(fields: Iterable[Field]) -> Iterable[str]:
            for field in fields:
                mark = f"9070{next(numbers):05}0709"
                marks[mark] = field
                yield mark

        probe: list[Message] = []
        for index, message in enumerate(messages):
            contents = marked(Field(index, number) for number in range(len(words[index].cores)))
            probe.append({**message, "content": words[index].filled(iter(contents))})
            if _is_neutral(message):
                number = len(message["tool_calls"])
                names = iter(marked(Field(index, n, of_calls=True) for n in range(2 * number)))
                probe[-1]["tool_calls"] = [call_of(next(names), next(names), call) for call in message["tool_calls"]]
        return _taken_apart(self._render(probe, prompt, thinking, tools), marks)


def key_of(messages: Sequence[Message], words: Sequence[Words], prompt: bool, thinking: bool, tools: Tools) -> Key:
    of_messages = tuple(
        (message["role"], one.literals, _rest(message)) for message, one in zip(messages, words, strict=True)
    )
    return of_messages, prompt, thinking, json.dumps(tools) if tools else ""


def _rest(message: Message) -> str:
    if len(message) == 2:
        return ""
    return json.dumps({key: value for key, value in message.items() if key not in ("role", "content")})


def neutral(message: Message) -> Message:
    """`message` with as many calls, of no particular words, so that messages of one kind share a shape."""
    calls = message.get("tool_calls")
    ids = {"tool_call_id": ID} if "tool_call_id" in message else {}
    if not calls:
        return {**message, **ids} if ids else message
    return {**message, **ids, "tool_calls": [{"id": ID} if "id" in call else {} for call in calls]}


def _is_neutral(message: Message) -> bool:
    return any("function" not in call for call in message.get("tool_calls", ()))


def call_of(name: str, argument: str, call: Mapping[str, Any]) -> dict[str, Any]:
    return {**call, "type": "function", "function": {"name": name, "arguments": {"9070": argument}}}


def _taken_apart(text: str, marks: Mapping[str, Field]) -> Shape:
    found = [match for match in _MARK.finditer(text) if match.group() in marks]
    around, begun = [], 0
    for match in found:
        around.append(text[begun : match.start()])
        begun = match.end()
    return Shape(tuple(marks[match.group()] for match in found), (*around, text[begun:]))


def make_room(known: dict[Key, Any]) -> None:
    """Empties `known` when it has grown large."""
    if len(known) >= _MOST_SHAPES:
        known.clear()
