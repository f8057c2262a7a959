"""A conversation as the page keeps it, as a model is asked it, and as the chat box shows it. Pure functions.

A message has a role (user, observation: what a tool gave back, assistant) and its content; an answer also has its
`numbers`: how it ended and how fast it came, and who gave it.
"""

import json
import re
from collections.abc import Sequence
from html import escape as as_html
from typing import Any

from app.chat import Done
from app.text import Text
from trainer import tool_calls

Message = dict[str, Any]

# The single conversation, and those of the columns that are compared.
COLUMNS = 3
CONVERSATIONS = 1 + COLUMNS
ROLES = ("user", "observation", "assistant")

# Fenced blocks, also unfinished ones while they stream, and inline code: Markdown shows those as they are.
_CODE = re.compile(r"(```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`)", re.DOTALL)
_THOUGHT = re.compile(r"^\s*<think>(.*?)(?:</think>|\Z)", re.DOTALL)
_FENCE = re.compile(r"`{3,}")
_FENCE_LINE = re.compile(r"^([ \t]*(`{3,}|~{3,}))(.*)$", re.MULTILINE)


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


# ---- what is kept ----


def restored(value: Any) -> list[list[Message]]:
    """The conversations that a browser kept as JSON, CONVERSATIONS of them; empty ones in the place of what is none."""
    try:
        value = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        value = None
    kept = value if isinstance(value, list) and len(value) == CONVERSATIONS else [value]
    found = [_conversation(item) for item in kept]
    return [*found, *([] for _ in range(CONVERSATIONS - len(found)))]


def as_kept(conversations: Sequence[Sequence[Message]]) -> str:
    """What `restored` reads."""
    return json.dumps(conversations, ensure_ascii=False)


def _conversation(value: Any) -> list[Message]:
    found = [_message(item) for item in value] if isinstance(value, list) else []
    return [message for message in found if message] if all(found) else []


def _message(item: Any) -> Message | None:
    if not isinstance(item, dict) or item.get("role") not in ROLES or not isinstance(item.get("content"), str):
        return None
    numbers = item.get("numbers")
    said = {"role": item["role"], "content": item["content"]}
    return said | ({"numbers": numbers} if isinstance(numbers, dict) else {})


def numbers(done: Done, who: str = "") -> dict[str, Any]:
    """An answer's numbers, as they are kept with it. `who`: the checkpoint that gave it, where several are asked."""
    return {
        "finish": done.finish,
        "tokens": done.tokens,
        "tokens_per_second": done.tokens_per_second,
        "first_token_s": done.first_token_s,
        "who": who,
    }


# ---- what is asked ----


def asked(conversation: Sequence[Message], system: str) -> list[Message]:
    """What the model is asked: the system prompt, when there is one, and the conversation."""
    head = [{"role": "system", "content": system.strip()}] if system.strip() else []
    said = [{"role": message["role"], "content": message["content"]} for message in conversation]
    return [*head, *({**one, "role": "tool"} if one["role"] == "observation" else one for one in said)]


def for_server(messages: Sequence[Message]) -> list[Message]:
    """`asked` as OpenAI has it: an answer's calls apart from its text, each with an id that its result names."""
    found: list[Message] = []
    waiting: list[str] = []
    for number, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "tool":
            found.append({"role": "tool", "tool_call_id": waiting.pop(0) if waiting else "call_0", "content": content})
            continue
        rest, calls = tool_calls.parse(content) if role == "assistant" else (content, [])
        if not calls:
            found.append({"role": role, "content": content})
            continue
        waiting = [f"call_{number}_{place}" for place in range(len(calls))]
        parts = [
            {
                "id": name,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for name, call in zip(waiting, calls, strict=True)
        ]
        found.append({"role": role, "content": rest or None, "tool_calls": parts})
    return found


# ---- what is shown ----


def shown(conversation: Sequence[Message], escape: bool, text: Text) -> list[dict[str, Any]]:
    """The chat box's value: thoughts, finished or not, folded before their answer; calls and results of tools by name;
    an answer's numbers below it."""
    found: list[dict[str, Any]] = []
    for message in conversation:
        if message["role"] == "assistant":
            found += _answer(message, escape, text)
        elif message["role"] == "observation":
            words = f"**{text('chat.observation')}**\n\n{_block(_pretty(message['content']))}"
            found.append({"role": "user", "content": words})
        else:
            found.append({"role": "user", "content": _said(message["content"], escape)})
    return found


def _answer(message: Message, escape: bool, text: Text) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    said = message["content"]
    if thought := _THOUGHT.match(said):
        said = said[thought.end() :].lstrip()
        if thought[1].strip():
            folded = _said(thought[1].strip(), escape)
            # Open while it is being thought, folded from then on.
            done = "</think>" in thought[0] or "numbers" in message
            about = {"title": text("chat.thought"), "status": "done" if done else "pending"}
            found.append({"role": "assistant", "content": folded, "metadata": about})
    rest, calls = tool_calls.parse(said)
    spoken = _said(rest if calls else said, escape)
    if not said.strip() and not found and message.get("numbers"):
        spoken = f"*{text('chat.nothing')}*"
    parts = [_with_fences_closed(spoken)]
    for call in calls:
        arguments = json.dumps(call.arguments, ensure_ascii=False, indent=2)
        parts.append(f"**{text('chat.call')}** `{call.name.replace('`', '')}`\n\n{_block(arguments)}")
    if below := _below(message.get("numbers") or {}, text):
        parts.append(f'<small class="td-numbers">{as_html(below)}</small>')
    content = "\n\n".join(part for part in parts if part)
    return [*found, {"role": "assistant", "content": content}] if content else found


def _said(content: str, escape: bool) -> str:
    return escape_html(content) if escape else content


def _with_fences_closed(content: str) -> str:
    """An answer may end inside a block of code: what is put below it is none of that."""
    opened = ""
    for line in _FENCE_LINE.finditer(content):
        start, mark, rest = line.groups()
        if not opened:
            opened = "" if mark[0] == "`" and "`" in rest else start
        elif not rest.strip() and mark.startswith(opened.strip()):
            opened = ""
    return f"{content}\n{opened}" if opened else content


def _block(content: str) -> str:
    """A block of JSON whose fence is longer than any inside."""
    fence = "`" * max([3, *(len(inner) + 1 for inner in _FENCE.findall(content))])
    return f"{fence}json\n{content}\n{fence}"


def _pretty(content: str) -> str:
    """JSON with its indentation; anything else as it is."""
    try:
        return json.dumps(json.loads(content), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return content


def _below(values: Message, text: Text) -> str:
    """Who answered, how much, how fast, and why it ended where that is not by itself."""
    parts = [str(values["who"])] if values.get("who") else []
    first, rate = values.get("first_token_s"), values.get("tokens_per_second")
    if isinstance(first, int | float):
        rate_words = f"{rate:.0f}" if isinstance(rate, int | float) else "–"
        parts.append(text("chat.speed", tokens=values.get("tokens"), rate=rate_words, first=f"{first:.2f}"))
    if finish := text.group("chat.finish").get(str(values.get("finish"))):
        parts.append(finish)
    return " · ".join(parts)
