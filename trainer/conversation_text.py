"""Where each message stands in a rendered conversation: comparisons of texts, no templates, no tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

Message = dict[str, str]


@dataclass(frozen=True)
class Shape:
    """A template's own text around the messages `order` (indexes, as they appear): one more text than messages."""

    order: tuple[int, ...]
    around: tuple[str, ...]


class Span(NamedTuple):
    """Where a message's content stands in a rendering."""

    start: int
    end: int
    answer: bool


def stripped(content: str) -> list[str]:
    """`content` as templates write it, trimmed or not, longest first."""
    return list(dict.fromkeys((content, content.rstrip(), content.lstrip(), content.strip())))


def variants(content: str) -> list[str]:
    """As `stripped`, and without the reasoning that templates drop from earlier answers."""
    return stripped(content) + (stripped(content.split("</think>")[-1]) if "</think>" in content else [])


def by_shape(text: str, messages: Sequence[Message], shape: Shape) -> list[Span] | None:
    """The messages in `text` when it differs from the probe in nothing but them; else None.

    What stands before the first message is not compared: a template may write the time of day there.
    """
    spans: list[Span] = []
    end = len(text)
    for position in reversed(range(len(shape.order))):
        after, before = shape.around[position + 1], shape.around[position]
        if not text.endswith(after, 0, end):
            return None
        end -= len(after)
        message = messages[shape.order[position]]
        for shown in variants(message["content"]):
            start = end - len(shown)
            if text.endswith(shown, 0, end) and (not position or text.endswith(before, 0, start)):
                break
        else:
            return None
        spans.append(Span(start, end, message["role"] == "assistant"))
        end = start
    return spans[::-1]


def between(text: str, contents: Sequence[tuple[str, str]], begun: int, end: int) -> list[Span]:
    """Where `contents`, each with the template's text before it, stand; the last may have been rewritten."""
    spans: list[Span] = []
    for before, content in contents[:-1]:
        begun += len(before)
        length = next((len(shown) for shown in stripped(content) if text.startswith(shown, begun)), len(content))
        spans.append(Span(begun, begun + length, False))
        begun += length
    return [*spans, Span(begun + len(contents[-1][0]), end, False)] if contents else spans
