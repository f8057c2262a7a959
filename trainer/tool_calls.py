"""Calls of tools in what a model wrote, in each family's way: Hermes and Qwen, Llama 3, Mistral, GLM-4, DeepSeek-R1,
InternLM2. Light: no torch."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_DECODER = json.JSONDecoder()
_MISTRAL, _PYTHON_TAG = "[TOOL_CALLS]", "<|python_tag|>"
# What calls begin with, where it is no name and no JSON.
OPENINGS = ("<tool_call>", _MISTRAL, _PYTHON_TAG, "<|action_start|>", "<｜tool▁call", "<|assistant|>")
# All tokens around and inside calls; many tokenizers have them as special ones.
_MARK = re.compile(
    r"</?tool_call>|\[(TOOL_CALLS|ARGS|CALL_ID)\]|<\|(python_tag|action_start|action_end|plugin|interpreter|assistant)\|>"
    "|<｜tool▁.*｜>"
)
# Before and after the JSON of a call: Hermes' marks, InternLM2's.
_MARKED = (
    (re.compile(r"<tool_call>\s*"), re.compile(r"\s*</tool_call>")),
    (re.compile(r"<\|action_start\|>\s*<\|plugin\|>\s*"), re.compile(r"\s*<\|action_end\|>")),
)
# DeepSeek-R1's kind, name and fenced JSON; since V3.1 a name and its JSON. What encloses all calls says nothing more.
_DEEPSEEK = re.compile(
    r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?([^<\s]+)(?:<｜tool▁sep｜>|\s)\s*(?:```json\s)?"
)
_DEEPSEEK_END = re.compile(r"\s*(?:```)?\s*<｜tool▁call▁end｜>\s*")
_DEEPSEEK_AROUND = re.compile(r"<｜tool▁calls▁(?:begin|end)｜>")
# GLM-4: a name alone in its line, then its arguments. Its mark is a control token, which answers may come without.
_GLM = re.compile(r"(?:^|<\|assistant\|>)\s*([A-Za-z_][\w-]*)\n(?=\{)")
# What else stands alone in a line above an object.
_GLM_WORDS = {"json", "output", "result", "answer", "example", "response", "input"}
# Mistral's newer tokenizers: a name, then its arguments.
_NAMED = re.compile(r"\s*([\w.-]+)\s*(?:\[ARGS\])?\s*(?=\{)")


def is_mark(token: str) -> bool:
    """Whether the text of a token tells a call from what else a model says."""
    return bool(_MARK.fullmatch(token))


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
    for find in (_marked, _deepseek, _mistral, _bare, _glm):
        rest, calls = find(said)
        if calls:
            return (thought + mark + rest).strip(), calls
    return text, []


def _marked(text: str) -> tuple[str, list[Call]]:
    """<tool_call>{"name": …, "arguments": …}</tool_call>, as often as there are calls; or between InternLM2's marks."""
    for opening, closing in _MARKED:
        rest, calls = _between(text, opening, closing, lambda _, value: _call(value))
        if calls:
            return rest, calls
    return text, []


def _deepseek(text: str) -> tuple[str, list[Call]]:
    """<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME, then its arguments as fenced JSON, for each."""
    rest, calls = _between(text, _DEEPSEEK, _DEEPSEEK_END,
                           lambda found, value: Call(found[1], value) if isinstance(value, dict) else None)  # fmt: skip
    return (_DEEPSEEK_AROUND.sub("", rest), calls) if calls else (text, [])


def _glm(text: str) -> tuple[str, list[Call]]:
    """NAME, a line break and {…}, <|assistant|> before each but the first; nothing after them."""
    calls: list[Call] = []
    rest, place = "", 0
    while match := _GLM.search(text, place):
        found = _json_at(text, match.end())
        if found is None or not isinstance(found[0], dict) or match[1].lower() in _GLM_WORDS:
            return text, []
        rest += text[place : match.start()]
        calls.append(Call(match[1], found[0]))
        place = found[1]
    return (rest, calls) if calls and not text[place:].strip() else (text, [])


def _between(
    text: str, opening: re.Pattern[str], closing: re.Pattern[str], read: Callable[[re.Match[str], Any], Call | None]
) -> tuple[str, list[Call]]:
    """The calls whose JSON stands after an `opening`, as `read` reads it; a `closing` may be cut off."""
    calls: list[Call] = []
    rest, begun = "", 0
    for match in opening.finditer(text):
        found = _json_at(text, match.end())
        call = read(match, found[0]) if found else None
        if found is None or call is None or match.start() < begun:
            continue
        calls.append(call)
        rest += text[begun : match.start()]
        closed = closing.match(text, found[1])
        begun = closed.end() if closed else found[1]
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
