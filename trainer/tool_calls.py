"""Calls of tools in what a model wrote: Hermes' and Qwen's, Llama 3's and Mistral's ways of writing them. Light: no torch."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

_DECODER = json.JSONDecoder()
_MISTRAL, _PYTHON_TAG = "[TOOL_CALLS]", "<|python_tag|>"
_HERMES = re.compile(r"<tool_call>\s*")
_HERMES_END = re.compile(r"\s*</tool_call>")
# Mistral's newer tokenizers: a name, then its arguments.
_NAMED = re.compile(r"\s*([\w.-]+)\s*(?:\[ARGS\])?\s*(?=\{)")


@dataclass(frozen=True)
class Call:
    """A tool by its name, and what it is given."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def as_message_part(self) -> dict[str, Any]:
        """An element of an assistant message's `tool_calls`."""
        return {"type": "function", "function": {"name": self.name, "arguments": self.arguments}}


def parse(text: str) -> tuple[str, list[Call]]:
    """What the model said besides its calls, and the calls. What is no whole call stays text; so do thoughts."""
    thought, mark, said = text.rpartition("</think>")
    for find in (_hermes, _mistral, _bare):
        rest, calls = find(said)
        if calls:
            return (thought + mark + rest).strip(), calls
    return text, []


def _hermes(text: str) -> tuple[str, list[Call]]:
    """<tool_call>{"name": …, "arguments": …}</tool_call>, as often as there are calls."""
    calls: list[Call] = []
    rest, begun = "", 0
    for match in _HERMES.finditer(text):
        found = _json_at(text, match.end())
        call = _call(found[0]) if found else None
        if found is None or call is None or match.start() < begun:
            continue
        calls.append(call)
        rest += text[begun : match.start()]
        closing = _HERMES_END.match(text, found[1])
        begun = closing.end() if closing else found[1]
    return rest + text[begun:], calls


def _mistral(text: str) -> tuple[str, list[Call]]:
    """[TOOL_CALLS][{"name": …, "arguments": …}, …], or [TOOL_CALLS]name[ARGS]{…} for each."""
    said, mark, after = text.partition(_MISTRAL)
    if not mark:
        return text, []
    listed = _json_at(after, 0)
    if listed and (calls := _all_calls(listed[0])):
        return said + after[listed[1] :], calls
    found: list[Call] = []
    rest = said
    for piece in after.split(_MISTRAL):
        named = _NAMED.match(piece)
        given = _json_at(piece, named.end()) if named else None
        if named is None or given is None or not isinstance(given[0], dict):
            return text, []
        found.append(Call(named[1], given[0]))
        rest += piece[given[1] :]
    return rest, found


def _bare(text: str) -> tuple[str, list[Call]]:
    """{"name": …, "parameters": …} and nothing else, several with ";" between them; or Mistral's list, its mark skipped."""
    body = text.strip()
    tagged = body.startswith(_PYTHON_TAG)
    body = body.removeprefix(_PYTHON_TAG).strip()
    calls: list[Call] = []
    place = 0
    while place < len(body):
        found = _json_at(body, place)
        some = _all_calls(found[0]) if found and (tagged or _only_a_call(found[0])) else []
        if found is None or not some:
            return text, []
        calls += some
        place = found[1]
        while place < len(body) and body[place] in "; \n\t":
            place += 1
    return "", calls


def _only_a_call(value: Any) -> bool:
    """An answer may be JSON without being a call."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(
        isinstance(one, dict) and set(one) - {"type", "id"} in ({"name", "parameters"}, {"name", "arguments"})
        for one in values
    )


def _all_calls(value: Any) -> list[Call]:
    """The calls of an object or of a list of them; none when one of them is no call."""
    calls = [_call(one) for one in (value if isinstance(value, list) else [value])]
    return [call for call in calls if call] if all(calls) else []


def _call(value: Any) -> Call | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        return None
    given = value.get("arguments", value.get("parameters", {}))
    if isinstance(given, str):  # some models quote the object once more
        found = _json_at(given, 0)
        given = found[0] if found and not given[found[1] :].strip() else None
    return Call(value["name"], given) if isinstance(given, dict) else None


def _json_at(text: str, place: int) -> tuple[Any, int] | None:
    """The JSON value that begins there, white space before it allowed, and where it ends."""
    while place < len(text) and text[place].isspace():
        place += 1
    try:
        return _DECODER.raw_decode(text, place)
    except (ValueError, RecursionError):
        return None
