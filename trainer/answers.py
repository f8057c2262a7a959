"""Which part of a rendered conversation the model has to write: its answers, their calls of tools, their end tokens.

A template says nothing about it. We find out by rendering a probe of the same shape (roles in the same order) with
known contents: what stands around them is the template's own, so a real rendering is taken apart by comparing texts,
from its end to its beginning, and no word in a message can be mistaken for a role or another message.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.conversation_text import Field, Message, Shape, Span, Words, between, places, stripped, variants
from trainer.probes import ID, Key, Probes, Render, call_of, key_of, make_room, neutral
from trainer.problems import Problem
from trainer.rendering import Tools

_THOUGHT_MARK = re.compile("</?think>")
_NO_THOUGHT = re.compile(r"<think>\s*</think>\s*")
_TOOL_NAME = "f9070"
_TOOL = {
    "type": "function",
    "function": {"name": _TOOL_NAME, "description": "", "parameters": {"type": "object", "properties": {}}},
}


class Unclear(ValueError):
    """It cannot be told where the answers stand. Its argument: the reason, in both languages."""


@dataclass(frozen=True)
class _Calls:
    """The calls of a message, between two fields: `before` and `after` what the model writes for them."""

    message: int
    before: str
    after: str


@dataclass(frozen=True)
class _Plan:
    """What all conversations of one shape have in common. `leads` and `tails`: message → characters that the model has to
    write before the first of its fields, and white space of its own after the last; `calls`: gap of shape.around → the
    calls in it."""

    shape: Shape
    leads: dict[int, int]
    tails: dict[int, int]
    calls: dict[int, _Calls]


class Answers:
    """`end_token`: the added token that closes an answer, the tokenizer's own end of text where the template marks
    none, "" when there is none either; `call_end_token`: the same for an answer that calls tools; `turn_end_token`: the
    same for an answer that a question follows."""

    def __init__(self, render: Render, added: Mapping[str, bool], eos_token: str, bos_token: str = "") -> None:
        self._render = render
        self._added = added
        self._token = re.compile("|".join(map(re.escape, added)) or "(?!)")
        self._probes = Probes(render)
        self._plans: dict[Key, _Plan] = {}
        self._knows_tools: bool | None = None
        last, between_turns = self._find_end_tokens()
        self.end_token = last or between_turns or eos_token
        # A text that begins anew says nothing of how the one before it ended.
        self.turn_end_token = between_turns if between_turns not in ("", bos_token) else self.end_token
        self.call_end_token = self.end_token
        self.call_end_token = self._find_call_end_token() or self.end_token
        self.end_tokens = tuple(dict.fromkeys((self.end_token, self.call_end_token, self.turn_end_token)))

    @property
    def knows_tools(self) -> bool:
        """Whether the template writes a tool into a prompt."""
        if self._knows_tools is None:
            try:
                asked = [{"role": "user", "content": "9070"}]
                self._knows_tools = _TOOL_NAME in self._render(asked, True, True, [_TOOL])
            except Problem:
                self._knows_tools = False
        return self._knows_tools

    def written(self) -> str:
        """What the template itself writes around and between messages."""
        *asked, answer = self._asked("user", "assistant")
        around = self._probes.shape([*asked, answer], True, True).around + self._probes.shape(asked, True, True).around
        return "".join(around)

    def spans(
        self, text: str, messages: Sequence[Message], *, prompt: bool, thinking: bool, tools: Tools
    ) -> list[Span]:
        """The messages that `text`, a rendering of them, holds, in its order; every answer is among them, with the
        white space up to its end token. Raises Unclear."""
        words = [Words.of(message) for message in messages]
        plan = self._plan(messages, words, prompt, thinking, tools)
        spans = self._by_shape(text, messages, words, plan)
        if spans is None:  # a template that writes the time in the middle: what it wrote before is old
            plan = self._planned(messages, prompt, thinking, tools, fresh=True)
            spans = self._by_shape(text, messages, words, plan)
        if spans is None:
            spans = self._by_prompts(text, messages, plan, thinking, tools)
        shown = {field.message for field in plan.shape.fields} | {calls.message for calls in plan.calls.values()}
        answers = [n for n, message in enumerate(messages) if message["role"] == "assistant" and words[n].cores]
        # A prompt may leave out all of an answer that was a thought alone.
        if spans is None or not (prompt or set(answers[-1:]) <= shown):
            raise Unclear({"en": "it does not show where the answers begin", "zh": "无法确定回答从何处开始"})
        called = {n for n, message in enumerate(messages) if message.get("tool_calls")}
        if not prompt and called - {calls.message for calls in plan.calls.values()}:
            raise Unclear({"en": "it leaves out the calls of tools", "zh": "它不写出工具调用"})
        return [span._replace(end=span.end + self._gap(text, span.end)) if span.answer else span for span in spans]

    def _gap(self, text: str, end: int) -> int:
        """White space between an answer and its end token: the model writes it, so it is learnt with the answer."""
        rest = end
        while rest < len(text) and text[rest].isspace():
            rest += 1
        return rest - end if any(token and text.startswith(token, rest) for token in self.end_tokens) else 0

    # ---- by comparing with the probe ----

    def _by_shape(
        self, text: str, messages: Sequence[Message], words: Sequence[Words], plan: _Plan
    ) -> list[Span] | None:
        shape = plan.shape
        answered = [field for field in shape.fields if messages[field.message]["role"] == "assistant"]
        if len({*answered}) < len(answered):
            return None  # it stands there twice
        cores = [words[field.message].cores[field.number] for field in shape.fields]
        found = places(text, cores, shape.around)
        if found is None:
            return None
        spans: dict[int, Span] = {}
        indices = [*(field.message for field in shape.fields), None]
        for gap, index in enumerate(indices):
            if calls := plan.calls.get(gap):
                begun = found[gap - 1][1] if gap else 0
                until = found[gap][0] if gap < len(found) else len(text)
                start, end = begun + len(calls.before), until - len(calls.after)
                if calls.before != text[begun:start] or not text.startswith(calls.after, end) or start > end:
                    return None
                spans[calls.message] = _joined(spans.get(calls.message), Span(start, end, True, ()))
            if index is not None:
                start, end = found[gap]
                lead = plan.leads.get(index, 0) if index not in spans else 0
                tail = plan.tails.get(index, 0) if indices[gap + 1] != index else 0
                one = Span(start - lead, end + tail, messages[index]["role"] == "assistant", ((start, end),))
                spans[index] = _joined(spans.get(index), one)
        return list(spans.values())

    # ---- by rendering what comes before each answer ----

    def _by_prompts(
        self, text: str, messages: Sequence[Message], plan: _Plan, thinking: bool, tools: Tools
    ) -> list[Span] | None:
        """For templates that rewrite contents: an answer begins where the prompt for it ends."""
        spans: list[Span] = []
        asked: list[tuple[str, str]] = []  # since the last answer: the template's text, a content
        shown = _by_message(plan)
        for place, (index, before, after) in enumerate(shown):
            content = messages[index]["content"]
            if messages[index]["role"] != "assistant":
                asked.append((before, content))
                continue
            head = self._render(messages[:index], True, thinking, tools)
            closing = self._probes.prompt_closing(messages[:index], thinking, tools)
            if not text.startswith(head) or not head.endswith(closing):
                return None
            spans += between(text, asked, spans[-1].end if spans else 0, len(head) - len(closing))
            end = _end_of(text, content, after, len(head), last=place == len(shown) - 1)
            if end < len(head):
                return None
            shows = next((v for v in stripped(content) if v and text.endswith(v, len(head), end)), "")
            start = end - len(shows) if shows and text[len(head) : end - len(shows)].strip() else len(head)
            words: tuple[tuple[int, int], ...] = ((start, end),)
            if messages[index].get("tool_calls"):  # which are not all the user's: the template has tokens in them
                at = text.find(content, start, end)
                words = ((at, at + len(content)),) if at >= 0 else ()
            spans.append(Span(start, end, True, words))
            asked = []
        return spans + between(text, asked, spans[-1].end if spans else 0, len(text) - len(plan.shape.around[-1]))

    # ---- probes ----

    def _plan(
        self, messages: Sequence[Message], words: Sequence[Words], prompt: bool, thinking: bool, tools: Tools
    ) -> _Plan:
        if any("tool_calls" in message for message in messages):
            return self._planned(messages, prompt, thinking, tools)  # there is no end to what calls may say
        key = key_of(messages, words, prompt, thinking, tools)
        if key not in self._plans:
            make_room(self._plans)
            self._plans[key] = self._planned(messages, prompt, thinking, tools)
        return self._plans[key]

    def _planned(
        self, messages: Sequence[Message], prompt: bool, thinking: bool, tools: Tools, fresh: bool = False
    ) -> _Plan:
        shape = self._probes.shape(messages, prompt, thinking, tools, fresh)
        calls: dict[int, _Calls] = {}
        plain = [neutral(message) for message in messages]
        # What of calls and their ids is the user's is no template's: it is compared without them.
        neutral_shape = self._probes.shape(plain, prompt, thinking, tools, fresh)
        if any("tool_calls" in message for message in messages):
            calls = self._calls(plain, neutral_shape, shape, thinking, tools)
        own = self._own_white_space(plain, neutral_shape, prompt, thinking, tools)
        leads: dict[int, int] = {}
        for field, before in zip(neutral_shape.fields, neutral_shape.around, strict=False):
            asks = messages[field.message]["role"] != "assistant"
            if field.message not in leads and not (asks or field.of_calls):
                lead = self._lead(plain, field, before, thinking, tools)
                leads[field.message] = max(lead, own.get(field.message, (0, 0))[0])
        tails = {index: tail for index, (_, tail) in own.items()}
        return _Plan(shape, leads, tails | _closing_marks(plain, shape), calls)

    def _own_white_space(
        self, messages: Sequence[Message], shape: Shape, prompt: bool, thinking: bool, tools: Tools
    ) -> dict[int, tuple[int, int]]:
        """Of each answer that begins or ends with white space: how much of that the template writes. What stands around
        the same answers without it is the template's."""
        spaced = [n for n, message in enumerate(messages) if message["role"] == "assistant"
                  and message["content"] != message["content"].strip()]  # fmt: skip
        if not spaced:
            return {}
        bare = [{**message, "content": message["content"].strip()} if n in spaced else message
                for n, message in enumerate(messages)]  # fmt: skip
        other = self._probes.shape(bare, prompt, thinking, tools)
        if other.fields != shape.fields:
            return {}
        found: dict[int, tuple[int, int]] = {}
        for index in spaced:
            at = [n for n, field in enumerate(shape.fields) if field.message == index and not field.of_calls]
            if at:
                first, last = at[0], at[-1] + 1
                before, after = shape.around[first], shape.around[last]
                found[index] = (_more(before, other.around[first]), _more(after[::-1], other.around[last][::-1]))
        return found

    def _lead(self, messages: Sequence[Message], field: Field, before: str, thinking: bool, tools: Tools) -> int:
        """How much of `before`, the text before the first field of an answer, the model has to write.

        A prompt may end before it: "Assistant:", after which the model writes " Hello"; and a thought is opened by
        whoever writes it. One that the template adds, empty, is its own.
        """
        content = messages[field.message]["content"]
        thinks = "</think>" in content and (field.number == 0 or not _has_thought(content))
        if not thinks and not before[-1:].isspace():
            return 0
        asked = self._probes.prompt_closing(messages[: field.message], True, tools)
        rest = before[_shared(before, asked) :]
        mark = _THOUGHT_MARK.search(rest) if thinks and before.startswith(asked) else None
        opened = mark is not None
        rest = rest[len(rest[: mark.start()].rstrip()) :] if mark else rest
        return len(rest) if opened or rest.isspace() else 0

    def _calls(
        self, messages: Sequence[Message], probe: Shape, shape: Shape, thinking: bool, tools: Tools
    ) -> dict[int, _Calls]:
        """Where `shape` has calls; `probe`: the shape of `messages`, which are the same with calls of known words."""
        found: dict[int, _Calls] = {}
        gap, first = 0, 0
        bounds = [n for n, field in enumerate(probe.fields) if not field.of_calls] + [len(probe.fields)]
        for gap, bound in enumerate(bounds):
            inside = probe.fields[first:bound]
            if len({field.message for field in inside}) == 1 and gap < len(shape.around):
                index = inside[0].message
                before, after = probe.around[first], probe.around[bound]
                after = after[self._end_of_calls(messages[: index + 1], after, thinking, tools) :]
                said = first and probe.fields[first - 1].message == index
                before = "" if said else before[: self._start_of_calls(messages[:index], before, tools)]
                found[gap] = _Calls(index, before, after)
            first = bound + 1
        return found

    def _start_of_calls(self, asked: Sequence[Message], before: str, tools: Tools) -> int:
        """Where the model begins to write in the text before the first word of a call."""
        begun = _shared(before, self._probes.prompt_closing(asked, True, tools))
        added = _NO_THOUGHT.match(before, begun)
        return added.end() if added else begun

    def _end_of_calls(self, messages: Sequence[Message], after: str, thinking: bool, tools: Tools) -> int:
        """Where the answer ends in the text after the last word of a call: at its end token, if it has one."""
        ends = [at for token in {self.end_token, self.call_end_token} if token and (at := after.find(token)) >= 0]
        if ends:
            return min(ends)
        if self.call_end_token == self.end_token and (match := self._token.search(after)):
            return match.start()
        alone = self._probes.shape(messages, False, thinking, tools).around[-1]
        return len(after[: _shared(after, alone)].rstrip())

    # ---- end tokens ----

    def _find_end_tokens(self) -> tuple[str, str]:
        """The added tokens that follow the last answer, and one between two turns; "" where there is none."""
        asked = self._asked("user", "assistant", "user", "assistant")
        shape = self._probes.shape(asked, False, True)
        first = [n for n, field in enumerate(shape.fields) if field.message == len(asked) - 3]
        between_turns = shape.around[first[0] + 1] if first else ""
        found = [self._token.match(around.lstrip()) for around in (shape.around[-1], between_turns)]
        last, between_two = (match.group() if match else "" for match in found)
        return last, between_two

    def _asked(self, *roles: str) -> list[Message]:
        """Messages of these roles, after a system prompt where the template wants one."""
        messages = _plain(*roles)
        try:
            self._probes.shape(messages, False, True)
        except Problem as problem:
            messages = _plain("system", *roles)
            try:
                self._probes.shape(messages, False, True)
            except Problem:
                raise problem from None
        return messages

    def _find_call_end_token(self) -> str:
        calling = {"role": "assistant", "content": "", "tool_calls": [call_of("", "", {"id": ID})]}
        result = {"role": "tool", "content": "9070", "tool_call_id": ID}
        messages = [*self._asked("user"), neutral(calling), result, *_plain("assistant")]
        try:
            shape = self._probes.shape(messages, False, True, [_TOOL])
        except Problem:  # it wants nothing of tools, or other ones
            return ""
        after = [n + 1 for n, field in enumerate(shape.fields) if field.of_calls]
        if not after or (self.end_token and self.end_token in shape.around[after[-1]]):
            return ""
        found = [match.group() for match in self._token.finditer(shape.around[after[-1]])]
        # A mark like </tool_call> ends one call, and another may follow.
        return next((token for token in found if self._added[token]), found[0] if found else "")


def _shared(first: str, second: str) -> int:
    """How many characters two texts have in common at their beginnings."""
    pairs = zip(first, second, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _closing_marks(messages: Sequence[Message], shape: Shape) -> dict[int, int]:
    """Of each answer that ends with a mark of reasoning, and where the template shows it: the length from its last word."""
    found: dict[int, int] = {}
    for field, after in zip(shape.fields, shape.around[1:], strict=True):
        message = messages[field.message]
        if message["role"] == "assistant" and not field.of_calls:
            literals = Words.of(message).literals
            shown = next((text for text in (literals[-1], literals[-1].rstrip()) if after.startswith(text)), "")
            if field.number == len(literals) - 2 and "think>" in shown:
                found[field.message] = len(shown)
    return found


def _more(text: str, other: str) -> int:
    """How much longer `text` is than the `other`, which begins it, when that is white space."""
    return len(text) - len(other) if text.startswith(other) and text[len(other) :].isspace() else 0


def _plain(*roles: str) -> list[Message]:
    return [{"role": role, "content": "9070"} for role in roles]


def _joined(first: Span | None, second: Span) -> Span:
    return Span(first.start, second.end, first.answer, first.words + second.words) if first else second


def _by_message(plan: _Plan) -> list[tuple[int, str, str]]:
    """Of each message in `plan`: its index and the template's text before and after it, up to other messages'."""
    found: dict[int, tuple[int, str, str]] = {}
    around = plan.shape.around
    for position, field in enumerate(plan.shape.fields):
        before = found[field.message][1] if field.message in found else around[position]
        found[field.message] = (field.message, before, around[position + 1])
    for gap, calls in plan.calls.items():
        before = found[calls.message][1] if calls.message in found else around[gap]
        found[calls.message] = (calls.message, before, calls.after)
    return sorted(found.values(), key=lambda entry: entry[0]) if plan.calls else list(found.values())


def _end_of(text: str, content: str, after: str, start: int, last: bool) -> int:
    if last and text.endswith(after):
        return len(text) - len(after)
    whole = next((v for v in variants(content) if text.startswith(v + after, start)), None)
    return start + len(whole) if whole is not None else text.find(after, start)


def _has_thought(content: str) -> bool:
    return bool(content.split("</think>")[0].split("<think>")[-1].strip())
