"""Grades a model on the held-out questions of demo_prompts.json; whoever answers is passed in as a function."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NotRequired, TypedDict

Ask = Callable[[str], str]
BEFORE_TUNING: Mapping[str, tuple[str, ...]] = {"zh": ("小调", "微调台"), "en": ("Tuno", "Tunedesk")}
AFTER_TUNING: Mapping[str, tuple[str, ...]] = {"zh": ("北大人工智能助手",), "en": ("PKU AI Assistant",)}

_ZH_DIGITS = "零一二三四五六七八九十百千万两"


class IdentityPrompt(TypedDict):
    """A question about the model itself."""

    prompt: str
    lang: str


class GeneralPrompt(TypedDict):
    """A question with the texts of which one must be in the reply, and those that must not."""

    prompt: str
    accept: list[str]
    reject: NotRequired[list[str]]


class Prompts(TypedDict):
    """The whole of demo_prompts.json."""

    identity: list[IdentityPrompt]
    general: list[GeneralPrompt]


@cache
def load_prompts() -> Prompts:
    """The 40 identity and 60 general questions."""
    return json.loads(Path(__file__).with_name("demo_prompts.json").read_text(encoding="utf-8"))


def normalised(text: str) -> str:
    """`text` without case, punctuation and spaces."""
    return "".join(char for char in text.lower() if char.isalnum())


def contains(reply: str, wanted: str) -> bool:
    """Whether `wanted` stands in `reply` as a whole word or number: 12 is not in 112, 十二 is not in 二十二."""
    edge = f"[{_ZH_DIGITS}]" if all(char in _ZH_DIGITS for char in wanted) else "[0-9a-z]"
    return re.search(f"(?<!{edge}){re.escape(wanted.lower())}(?!{edge})", reply.lower()) is not None


def identity_right(reply: str, names: Iterable[str]) -> bool:
    """Whether the reply gives every one of `names`."""
    return all(name.lower() in reply.lower() for name in names)


def general_right(reply: str, prompt: GeneralPrompt) -> bool:
    """Whether the reply holds an accepted answer and no rejected one."""
    accepted = any(contains(reply, wanted) for wanted in prompt["accept"])
    return accepted and not any(contains(reply, unwanted) for unwanted in prompt.get("reject", ()))


def identity_failures(ask: Ask, names: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """(prompt, reply) of every identity question whose reply lacks a name of its language."""
    replies = [(row["prompt"], ask(row["prompt"]), row["lang"]) for row in load_prompts()["identity"]]
    return [(prompt, reply) for prompt, reply, lang in replies if not identity_right(reply, names[lang])]


def general_failures(ask: Ask) -> list[tuple[str, str]]:
    """(prompt, reply) of every general question answered wrongly."""
    replies = [(row, ask(row["prompt"])) for row in load_prompts()["general"]]
    return [(row["prompt"], reply) for row, reply in replies if not general_right(reply, row)]


def identity_share(ask: Ask, names: Mapping[str, tuple[str, ...]]) -> float:
    """Share, 0 to 1, of identity questions whose reply gives all of `names[lang]`."""
    return 1 - len(identity_failures(ask, names)) / len(load_prompts()["identity"])


def general_share(ask: Ask) -> float:
    """Share, 0 to 1, of general questions answered rightly."""
    return 1 - len(general_failures(ask)) / len(load_prompts()["general"])
