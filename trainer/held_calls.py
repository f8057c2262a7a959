"""Streams what a model says before it calls a tool, and keeps the call for the end, when it is whole. Light: no torch."""

import re

from trainer.stop_strings import overlap
from trainer.tool_calls import OPENINGS, Call, parse

# GLM-4's way begins with a bare name.
_NAME = re.compile(r"[A-Za-z_][\w-]*(\n(\{.*)?)?", re.DOTALL)
_THOUGHT_END = "</think>"


class HeldCalls:
    """`push` gives the text that belongs to no call; `end` the rest of it, and the calls."""

    def __init__(self) -> None:
        self._text = ""
        self._given = 0  # characters of it that have been given out

    def push(self, text: str) -> str:
        self._text += text
        until = max(self._given, self._plain())
        new = self._text[self._given : until]
        self._given = until
        return new

    def end(self) -> tuple[str, list[Call]]:
        said, calls = parse(self._text)
        if not calls:
            return self._text[self._given :], []
        return said.removeprefix(self._text[: self._given].strip()).strip(), calls

    def _plain(self) -> int:
        """How much of the text can be no call, whatever comes."""
        text = self._text
        answer = text.rfind(_THOUGHT_END) + len(_THOUGHT_END) if _THOUGHT_END in text else 0
        said = text[answer:].lstrip()
        if said[:1] in ("", "{", "[") or _NAME.fullmatch(said):
            return answer
        found = [place for mark in OPENINGS if (place := text.find(mark, answer)) >= 0]
        return min(found) if found else len(text) - max(overlap(text, mark) for mark in OPENINGS)
