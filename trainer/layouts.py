"""How a dataset's rows hold what is trained on: declared in dataset_info.json, or recognised by looking at them.

Light: no torch. Names of columns and tags are LLaMA-Factory's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["conversation", "text", "preference", "kto"]
# How the row is built: columns of texts; one list of messages; a prompt and an answer, each text or messages; a text.
Formatting = Literal["alpaca", "messages", "prompt", "text"]

ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag", "observation_tag", "function_tag")
COLUMNS = ("prompt", "query", "response", "history", "messages", "system", "tools", "chosen", "rejected", "kto_tag")
MEDIA = ("images", "videos", "audios")
_SHAREGPT = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
_OPENAI = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
_COMMON = {"system_tag": "system", "observation_tag": "observation", "function_tag": "function_call"}
# The role of a message that is nothing but calls of tools, as ShareGPT has it.
CALL = "call"
_ROLES = {"system_tag": "system", "user_tag": "user", "assistant_tag": "assistant", "observation_tag": "tool",
          "function_tag": CALL}  # fmt: skip
# What files in the wild call them.
_KNOWN_ROLES = {
    "system": "system", "developer": "system", "human": "user", "user": "user", "gpt": "assistant",
    "assistant": "assistant", "chatgpt": "assistant", "model": "assistant", "observation": "tool", "tool": "tool",
    "function": "tool", "function_response": "tool", "function_call": CALL, "tool_call": CALL,
}  # fmt: skip
# Later rows may have them where the first has not.
_OPTIONAL = {"system": "system", "history": "history", "tools": "tools"}


@dataclass(frozen=True)
class Layout:
    """`columns`: LLaMA-Factory's names → the row's; `roles`: the row's → system, user, assistant, tool and CALL."""

    formatting: Formatting
    kind: Kind
    columns: dict[str, str]
    role_tag: str = "role"
    content_tag: str = "content"
    roles: dict[str, str] = field(default_factory=lambda: dict(_KNOWN_ROLES))

    def known_roles(self) -> str:
        """The names of roles that a sentence offers: those declared, else the usual ones."""
        if self.roles != _KNOWN_ROLES:
            return ", ".join(self.roles)
        usual = "system, user, assistant, tool"
        return usual if self.role_tag == "role" else "system, human, gpt, function_call, observation"


def declared(
    formatting: str, columns: Mapping[str, str | None], tags: Mapping[str, str | None], ranking: bool
) -> Layout:
    """The layout that an entry declares. As in LLaMA-Factory, naming any column unsets those not named.

    `formatting`: alpaca, sharegpt or openai. No `response`, and no pairs: text for pre-training.
    """
    named = {key: value for key, value in columns.items() if value}
    kind: Kind = "preference" if ranking else "kto" if named.get("kto_tag") else "conversation"
    if ranking:
        named = {"chosen": "chosen", "rejected": "rejected", **named}
    if formatting == "alpaca":
        own = {"prompt": "instruction", **named} if columns else {**ALPACA, **named}
        if kind != "preference" and "response" not in own:
            return Layout("text", "text", {"text": own["prompt"]})
        return Layout("alpaca", kind, own)
    defaults = _SHAREGPT if formatting == "sharegpt" else _OPENAI
    all_tags = {**defaults, **_COMMON, **{key: value for key, value in tags.items() if value}}
    roles = {all_tags[tag]: role for tag, role in _ROLES.items()}
    if all_tags["role_tag"] == "role":
        roles.setdefault("tool", "tool")
    own = {"messages": "conversations" if formatting == "sharegpt" else "messages", **named}
    return Layout("messages", kind, own, all_tags["role_tag"], all_tags["content_tag"], roles)


def recognised(row: Any) -> Layout | None:
    """The layout of rows like `row`, which nothing describes; None when it is none of those known."""
    if not isinstance(row, dict):
        return None
    keys = set(row)
    kind, extra = _kind(row, keys)
    for column in ("messages", "conversations", "conversation"):
        whole = kind == "preference" and isinstance(row["chosen"], list)  # both answers with what was said before
        if column in keys and not whole and (tags := _tags(row[column])) is not None:
            return Layout("messages", kind, {"system": "system", "tools": "tools", "messages": column, **extra}, *tags)
    if {"instruction", "output"} <= keys and kind != "preference":
        return Layout("alpaca", kind, {**ALPACA, **_OPTIONAL, **extra})
    prompt = next((key for key in ("prompt", "instruction", "question") if key in keys), None)
    if kind == "preference":
        own = {**_OPTIONAL, **({"prompt": prompt} if prompt else {}), **extra}
        own |= {"query": "input"} if "input" in keys or prompt == "instruction" else {}
        return Layout("prompt", kind, own, *(_tags(row["chosen"]) or ("role", "content")))
    for answer in ("completion", "response"):
        if {"prompt", answer} <= keys:
            own = {**_OPTIONAL, "prompt": "prompt", "response": answer, **extra}
            return Layout("prompt", kind, own, *(_tags(row["prompt"]) or _tags(row[answer]) or ("role", "content")))
    if "text" in keys:
        return Layout("text", "text", {"text": "text"})
    return None


def _kind(row: Mapping[str, Any], keys: set[str]) -> tuple[Kind, dict[str, str]]:
    """What the row is besides a conversation, and the columns that say so. A label must be a truth to be one."""
    if {"chosen", "rejected"} <= keys:
        return "preference", {"chosen": "chosen", "rejected": "rejected"}
    if "kto_tag" in keys:
        return "kto", {"kto_tag": "kto_tag"}
    label = row.get("label")
    if isinstance(label, bool) or (isinstance(label, str) and label.lower() in ("true", "false")):
        return "kto", {"kto_tag": "label"}
    return "conversation", {}


def _tags(turns: Any) -> tuple[str, str] | None:
    """The keys of role and content in a list of messages; ("", "") of a list written as text, None for no list."""
    if isinstance(turns, str):
        return ("from", "value") if '"from"' in turns[:400] else ("role", "content") if turns[:1] == "[" else None
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], dict):
        return None
    return ("role", "content") if "role" in turns[0] else ("from", "value")
