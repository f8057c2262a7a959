"""Where each message stands in a rendered conversation: comparisons of texts, no templates, no tokens."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Message = dict[str, Any]

_REASONING = re.compile(r"(</?think>)")
_PLAIN = ("", "")


class Field(NamedTuple):
    """Words of a message: the `number`-th of Words.cores, or of its calls where `of_calls`."""

    message: int
    number: int
    of_calls: bool = False


@dataclass(frozen=True)
class Shape:
    """A template's own text around the `fields`, as they appear: one more text than fields."""

    fields: tuple[Field, ...]
    around: tuple[str, ...]


class Span(NamedTuple):
    """Where a message stands in a rendering. `words`: from where to where it shows what somebody wrote."""

    start: int
    end: int
    answer: bool
    words: tuple[tuple[int, int], ...]


class Words(NamedTuple):
    """A content in parts: its `cores` neither begin nor end with white space and are never empty; around them, one
    more, the `literals`: white space, and the marks of reasoning, at which templates take an answer apart."""

    literals: tuple[str, ...]
    cores: tuple[str, ...]

    @classmethod
    def of(cls, message: Message) -> "Words":
        content: str = message["content"]
        if message["role"] != "assistant" or "</think>" not in content:
            core = content.strip()
            if len(core) == len(content) and core:
                return cls(_PLAIN, (core,))
            at = content.find(core)
            return cls((content[:at], content[at + len(core) :]), (core,)) if core else cls((content,), ())
        literals, cores = [""], []
        for part in _REASONING.split(content):
            core = part.strip() if part not in ("<think>", "</think>") else ""
            at = part.find(core) if core else len(part)
            literals[-1] += part[:at]
            if core:
                cores.append(core)
                literals.append(part[at + len(core) :])
        return cls(tuple(literals), tuple(cores))

    def filled(self, marks: Iterator[str]) -> str:
        """The content with the next of `marks` instead of each core."""
        return self.literals[0] + "".join(next(marks) + literal for literal in self.literals[1:])


def places(text: str, cores: Sequence[str], around: Sequence[str]) -> list[tuple[int, int]] | None:
    """From where to where each of `cores` stands in `text`, as it is or as JSON has it, when `text` differs from the
    probe in nothing but them; else None.

    What stands before the first one is not compared: a template may write the time of day there.
    """
    found: list[tuple[int, int]] = []
    end = len(text)
    for position in reversed(range(len(cores))):
        after, core = around[position + 1], cores[position]
        if not text.endswith(after, 0, end):
            return None
        end -= len(after)
        before = around[position] if position else ""
        if not text.endswith(before + core, 0, end):
            # A backslash that begins it is the end of the two that JSON writes: what stands before decides.
            core = next((words for words in as_json(core) if text.endswith(before + words, 0, end)), "")
            if not core:
                return None
        found.append((end - len(core), end))
        end -= len(core)
    return found[::-1]


def as_json(words: str) -> tuple[str, str]:
    """`words` inside a text of JSON: with its other alphabets as they are, and escaped."""
    return json.dumps(words, ensure_ascii=False)[1:-1], json.dumps(words)[1:-1]


def stripped(content: str) -> list[str]:
    """`content` as templates write it, trimmed or not, longest first."""
    return list(dict.fromkeys((content, content.rstrip(), content.lstrip(), content.strip())))


def variants(content: str) -> list[str]:
    """As `stripped`, and without the reasoning that templates drop from earlier answers."""
    return stripped(content) + (stripped(content.split("</think>")[-1]) if "</think>" in content else [])


def between(text: str, contents: Sequence[tuple[str, str]], begun: int, end: int) -> list[Span]:
    """Where `contents`, each with the template's text before it, stand; the last may have been rewritten."""
    spans: list[Span] = []
    for before, content in contents[:-1]:
        begun += len(before)
        length = next((len(shown) for shown in stripped(content) if text.startswith(shown, begun)), len(content))
        spans.append(Span(begun, begun + length, False, ((begun, begun + length),)))
        begun += length
    if contents and (start := begun + len(contents[-1][0])) < end:
        spans.append(Span(start, end, False, ((start, end),)))
    return spans


def written_at(text: str, words: str, spans: Sequence[Span]) -> list[tuple[int, int]]:
    """From where to where `words` of a call or a tool stand: in quotes, as JSON has them, else as they are. What spells
    the same between two messages is the template's own."""
    quoted = [(at + 1, at + 1 + len(one)) for one in dict.fromkeys(as_json(words))
              for at in _all_of(text, f'"{one}"', 0, len(text))]  # fmt: skip
    if quoted:
        return quoted
    head = spans[0].start if spans else len(text)
    places = [(0, head), *((span.start, span.end) for span in spans if span.answer)]
    return [(at, at + len(one)) for one in dict.fromkeys((words, *as_json(words)))
            for start, end in places for at in _all_of(text, one, start, end)]  # fmt: skip


def _all_of(text: str, words: str, start: int, end: int) -> Iterator[int]:
    at = text.find(words, start, end)
    while at >= 0:
        yield at
        at = text.find(words, at + 1, end)
