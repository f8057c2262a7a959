"""A conversation as the page keeps it and as the chat box shows it. Pure functions."""

import re
from collections.abc import Sequence
from typing import Any

Message = dict[str, str]

# Fenced blocks, also unfinished ones while they stream, and inline code: Markdown shows those as they are.
_CODE = re.compile(r"(```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`)", re.DOTALL)
_THOUGHT = re.compile(r"^\s*<think>(.*?)(?:</think>|\Z)", re.DOTALL)


def escape_html(text: str) -> str:
    """`text` for a Markdown view that shall show HTML tags as text, and pictures as links: nothing is fetched unasked."""
    parts = _CODE.split(text)
    # Odd positions are code, which Markdown escapes itself.
    return "".join(
        part
        if index % 2
        else part.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("![", r"\![")
        for index, part in enumerate(parts)
    )


def shown(conversation: Sequence[Message], escape: bool, thought_title: str) -> list[dict[str, Any]]:
    """The chat box's value; an answer's reasoning, finished or not, is a folded message before it."""
    found: list[dict[str, Any]] = []
    for message in conversation:
        text = message["content"]
        if message["role"] == "assistant" and (thought := _THOUGHT.match(text)):
            text = text[thought.end() :].lstrip()
            if thought[1].strip():
                folded = escape_html(thought[1].strip()) if escape else thought[1].strip()
                found.append({"role": "assistant", "content": folded, "metadata": {"title": thought_title}})
            if not text:
                continue
        found.append({"role": message["role"], "content": escape_html(text) if escape else text})
    return found


def asked(conversation: Sequence[Message], system: str) -> list[Message]:
    """What the model is asked: the system prompt, when there is one, and the conversation."""
    head = [{"role": "system", "content": system.strip()}] if system.strip() else []
    return [*head, *conversation]


def restored(value: Any) -> list[Message]:
    """The conversation that a browser kept; an empty one when that is not what it kept."""
    if not isinstance(value, list):
        return []
    good = all(
        isinstance(item, dict) and item.get("role") in ("user", "assistant") and isinstance(item.get("content"), str)
        for item in value
    )
    return [{"role": item["role"], "content": item["content"]} for item in value] if good else []
