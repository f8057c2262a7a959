"""Conversations → token ids and labels for training, and prompts for chat, through one code path.

A template says nothing about which part of its text is the answer. We find out by rendering a probe of
the same shape (roles in the same order) with known contents: what stands around them is the template's
own, so a real rendering is taken apart by comparing texts, from its end to its beginning, and no word
in a message can be mistaken for a role or another message.

Text of a control token inside a message (a user who types <|im_end|>) is cut in two before tokenizing,
so that it stays text and nobody forges a turn. Reasoning marks (<think>) stay tokens: answers hold them.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from trainer.conversation_text import Message, Shape, Span, between, by_shape, stripped, variants
from trainer.problems import Problem, quoted
from trainer.settings import TEMPLATES_DIR, label, template_names
from trainer.tool_list import LABEL as TOOLS_LABEL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Of each message: its role, whether it has content, and what else it has (tool calls) as JSON.
Roles = tuple[tuple[str, bool, str], ...]
Tools = Sequence[dict[str, Any]] | None

IGNORED = -100
# Conversations tokenized in one call: enough for the tokenizer's threads, few enough to bound memory.
_AT_ONCE = 4096
# Tokens that answers hold on purpose, also where a tokenizer marks them as special.
_MARKUP = re.compile(r"</?(think|tool_call|tool_response)>")


@dataclass(frozen=True)
class Segment:
    """A piece of a rendered conversation. `turn`: number of the answer, from 0, that it holds or leads to."""

    text: str
    trained: bool
    turn: int


@dataclass(frozen=True)
class Sample:
    """`labels` is as long as `input_ids`, IGNORED where nothing is learnt; not shifted."""

    input_ids: list[int]
    labels: list[int]


class _Chunk(NamedTuple):
    """Text that is tokenized on its own. "end": begins with the end token, the only one that is learnt."""

    text: str
    kind: Literal["plain", "answer", "end"]
    turn: int


# Texts of a conversation whose token ids are remembered.
MOST_KNOWN = 1000


class ChatTemplate:
    """A tokenizer with the Jinja template `source`. Make it with `ChatTemplate.of`.

    `end_token`: what closes an answer; the tokenizer's own end of text where the template marks none,
    and then it is put after each answer, in training and in prompts alike; "" when there is no such token.
    `stop_token_ids`: the tokens after which generation stops.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", source: str, name: str, generation_eos: Sequence[int] = ()
    ) -> None:
        self.tokenizer = tokenizer
        self.source = source
        self.name = name
        self._known: dict[str, list[int]] = {}  # a conversation's texts: the next turn has them again
        self._shapes: dict[tuple[Roles, bool, bool], Shape] = {}
        self._knows_tools: bool | None = None
        self._added = _added_tokens(tokenizer)
        self.end_token = self._find_end_token()
        self._control = self._control_pattern()
        self._prefix = self._probe_prefix()
        ends = [text for text in (self.end_token, str(tokenizer.eos_token or "")) if text]
        self.stop_token_ids = sorted({*self._ids_of_tokens(ends), *generation_eos})

    @classmethod
    def of(
        cls,
        tokenizer: "PreTrainedTokenizerBase",
        name: str = "auto",
        model_path: str = "",
        generation_eos: int | Sequence[int] | None = None,
    ) -> "ChatTemplate":
        """The named template, or with "auto" the tokenizer's own; Problem template_missing when it has none.

        `generation_eos`: eos_token_id of the model's generation config.
        """
        if name != "auto":
            if name not in template_names():
                choices = ", ".join(["auto", *template_names()])
                raise Problem("setting_choice", label=label("template"), value=quoted(name), choices=choices)
            source = (TEMPLATES_DIR / f"{name}.jinja").read_text(encoding="utf-8")
        else:
            try:
                source = tokenizer.get_chat_template()
            except ValueError:  # none, or several and no default among them
                raise Problem("template_missing", label=label("template"), path=model_path) from None
        eos = [generation_eos] if isinstance(generation_eos, int) else list(generation_eos or ())
        return cls(tokenizer, source, name, eos)

    def prompt(self, messages: Sequence[Message], enable_thinking: bool = True, tools: Tools = None) -> str:
        """The text after which the model writes the next answer."""
        return "".join(
            chunk.text for chunk in self._chunks(messages, prompt=True, thinking=enable_thinking, tools=tools)
        )

    def prompt_ids(self, messages: Sequence[Message], enable_thinking: bool = True, tools: Tools = None) -> list[int]:
        """`prompt` as token ids: those that a training sample of the same messages begins with.

        `tools`: as tool_list has them; Problem tools_unsupported when the template leaves them out.
        """
        if tools and not self.knows_tools:
            raise Problem("tools_unsupported", label=TOOLS_LABEL, template=self.name)
        chunks = self._chunks(messages, prompt=True, thinking=enable_thinking, tools=tools)
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        return [token for tokens in self._tokenized([chunks], self._known)[0] for token in tokens]

    @property
    def knows_tools(self) -> bool:
        """Whether the template writes a tool into a prompt."""
        if self._knows_tools is None:
            name = "f9070"
            tool = {
                "type": "function",
                "function": {"name": name, "description": "", "parameters": {"type": "object", "properties": {}}},
            }
            asked = [{"role": "user", "content": "9070"}]
            try:
                self._knows_tools = name in self._rendered(asked, prompt=True, thinking=True, row="–", tools=[tool])
            except Problem:
                self._knows_tools = False
        return self._knows_tools

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """The rendered conversation; trained pieces are each answer with its end token and nothing after it."""
        found: list[Segment] = []

        def add(text: str, trained: bool, turn: int) -> None:
            if not text:
                return
            if found and found[-1].trained == trained and found[-1].turn == turn:
                text = found.pop().text + text
            found.append(Segment(text, trained, turn))

        for chunk in self._chunks(messages):
            closing = len(self.end_token) if chunk.kind == "end" else 0
            add(chunk.text[:closing], True, chunk.turn - 1)
            add(chunk.text[closing:], chunk.kind == "answer", chunk.turn)
        return found

    def encode(
        self,
        messages: Sequence[Message],
        *,
        cutoff_len: int,
        train_on_prompt: bool = False,
        mask_history: bool = False,
    ) -> Sample:
        """As `encode_all`, of one conversation."""
        return self.encode_all(
            [messages], cutoff_len=cutoff_len, train_on_prompt=train_on_prompt, mask_history=mask_history
        )[0]

    def encode_all(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        cutoff_len: int,
        train_on_prompt: bool = False,
        mask_history: bool = False,
        rows: Sequence[int] | None = None,
    ) -> list[Sample]:
        """A sample for each conversation, at most `cutoff_len` tokens, cut on the right.

        A sample may be left without labels: whoever trains counts those. `mask_history`: only the last
        answer is learnt; `train_on_prompt`: every token is, and `mask_history` has no say. Raises Problem
        template_failed with the number from `rows` (default: counted from 1) of the conversation.
        """
        samples: list[Sample] = []
        for first in range(0, len(conversations), _AT_ONCE):
            part = range(first, min(first + _AT_ONCE, len(conversations)))
            chunked = [self._chunks(conversations[i], row=rows[i] if rows else i + 1) for i in part]
            for chunks, tokens in zip(chunked, self._tokenized(chunked), strict=True):
                samples.append(self._sample(chunks, tokens, cutoff_len, train_on_prompt, mask_history))
        return samples

    def _sample(
        self, chunks: list[_Chunk], tokens: list[list[int]], cutoff_len: int, everything: bool, last_only: bool
    ) -> Sample:
        input_ids: list[int] = []
        labels: list[int] = []
        last = max((chunk.turn for chunk in chunks if chunk.kind == "answer"), default=0)
        for chunk, ids in zip(chunks, tokens, strict=True):
            input_ids += ids
            turn = chunk.turn - 1 if chunk.kind == "end" else chunk.turn
            learnt = {"plain": 0, "answer": len(ids), "end": 1 if self.end_token else 0}[chunk.kind]
            if everything:
                learnt = len(ids)
            elif last_only and turn != last:
                learnt = 0
            labels += ids[:learnt] + [IGNORED] * (len(ids) - learnt)
        return Sample(input_ids[:cutoff_len], labels[:cutoff_len])

    # ---- rendering, and what is whose in it ----

    def _rendered(
        self, messages: Sequence[Message], *, prompt: bool, thinking: bool, row: int | str, tools: Tools = None
    ) -> str:
        given: dict[str, Any] = {"tools": list(tools)} if tools else {}
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages),
                chat_template=self.source,
                tokenize=False,
                add_generation_prompt=prompt,
                enable_thinking=thinking,
                **given,
            )
        except Exception as error:  # a template is a foreign program: it may raise anything
            raise self._failed(row, str(error) or type(error).__name__) from error
        assert isinstance(text, str)
        return text

    def _failed(self, row: int | str, detail: Any) -> Problem:
        return Problem("template_failed", label=label("template"), template=self.name, row=row, detail=detail)

    def _chunks(
        self,
        messages: Sequence[Message],
        *,
        prompt: bool = False,
        thinking: bool = True,
        row: int | str = "–",
        tools: Tools = None,
    ) -> list[_Chunk]:
        """The rendering, cut where tokens must not reach across: around answers and in control tokens of messages."""
        text = self._rendered(messages, prompt=prompt, thinking=thinking, row=row, tools=tools)
        spans = self._spans(text, messages, prompt=prompt, thinking=thinking, row=row, tools=tools)
        chunks: list[_Chunk] = []
        kind: Literal["plain", "end"] = "plain"
        begun, turn, plain, cuts = 0, 0, "", [0]

        def flush(until: int) -> None:
            bounds = [*cuts, until]
            parts = [text[a:b] for a, b in pairwise(bounds)]
            parts[0] = plain + parts[0]
            chunks.extend(_Chunk(part, kind if not n else "plain", turn) for n, part in enumerate(parts) if part)

        for span in spans:
            inside = self._cuts(text, span)
            if not span.answer:
                cuts += inside
                continue
            flush(span.start)
            bounds = [span.start, *inside, span.end]
            chunks += [_Chunk(text[a:b], "answer", turn) for a, b in pairwise(bounds) if b > a]
            begun, turn, kind = span.end, turn + 1, "end"
            plain = "" if text.startswith(self.end_token, begun) else self.end_token
            cuts = [begun]
        flush(len(text))
        return chunks

    def _cuts(self, text: str, span: Span) -> list[int]:
        """After the first character of each control token's text in a message."""
        return [match.end() for match in self._control.finditer(text, span.start, span.end)]

    def _spans(
        self, text: str, messages: Sequence[Message], *, prompt: bool, thinking: bool, row: int | str, tools: Tools
    ) -> list[Span]:
        """The messages that `text` holds, in the order of the text; every answer is among them."""
        roles = _roles(messages)
        shape = self._shape(roles, prompt, thinking, tools)
        spans = by_shape(text, messages, shape)
        if spans is not None:
            leads = self._leads(roles, shape, tools)
            spans = [span._replace(start=span.start - lead) for span, lead in zip(spans, leads, strict=True)]
        else:
            spans = self._by_prompts(text, messages, shape, thinking=thinking, row=row, tools=tools)
        last = max((n for n, (role, filled, _) in enumerate(roles) if role == "assistant" and filled), default=None)
        if spans is None or last not in (None, *shape.order):
            raise self._failed(row, {"en": "it does not show where the answers begin", "zh": "无法确定回答从何处开始"})
        return [span._replace(end=span.end + self._gap(text, span.end)) if span.answer else span for span in spans]

    def _gap(self, text: str, end: int) -> int:
        """White space between an answer and its end token: the model writes it, so it is learnt with the answer."""
        rest = end
        while rest < len(text) and text[rest].isspace():
            rest += 1
        return rest - end if self.end_token and text.startswith(self.end_token, rest) else 0

    def _by_prompts(
        self, text: str, messages: Sequence[Message], shape: Shape, *, thinking: bool, row: int | str, tools: Tools
    ) -> list[Span] | None:
        """For templates that rewrite contents (reasoning, say): an answer begins where the prompt for it ends."""
        spans: list[Span] = []
        asked: list[int] = []  # positions since the last answer

        def contents() -> list[tuple[str, str]]:
            return [(shape.around[p], messages[shape.order[p]]["content"]) for p in asked]

        for position, index in enumerate(shape.order):
            content, after = messages[index]["content"], shape.around[position + 1]
            if messages[index]["role"] != "assistant":
                asked.append(position)
                continue
            head = self._rendered(messages[:index], prompt=True, thinking=thinking, row=row, tools=tools)
            closing = self._shape(_roles(messages[:index]), True, thinking, tools).around[-1]
            if not text.startswith(head) or not head.endswith(closing):
                return None
            begun, start = spans[-1].end if spans else 0, len(head)
            spans += between(text, contents(), begun, start - len(closing))
            if position == len(shape.order) - 1 and text.endswith(after):
                end = len(text) - len(after)
            else:
                whole = (v for v in variants(content) if text.startswith(v + after, start))
                end = start + len(v) if (v := next(whole, None)) is not None else text.find(after, start)
            if end < start:
                return None
            shown = next((v for v in stripped(content) if v and text.endswith(v, start, end)), "")
            if shown and text[start : end - len(shown)].strip():
                start = end - len(shown)  # what stands before it is the template's, not the model's
            spans.append(Span(start, end, True))
            asked = []
        return spans + between(text, contents(), spans[-1].end if spans else 0, len(text) - len(shape.around[-1]))

    def _shape(self, roles: Roles, prompt: bool, thinking: bool, tools: Tools = None) -> Shape:
        if tools or any(rest for _, _, rest in roles):
            return self._probed(roles, prompt, thinking, tools)  # there is no end to what calls may say
        key = (roles, prompt, thinking)
        if key not in self._shapes:
            self._shapes[key] = self._probed(roles, prompt, thinking)
        return self._shapes[key]

    def _probed(self, roles: Roles, prompt: bool, thinking: bool, tools: Tools = None) -> Shape:
        # Digits only: a template may change the case of letters.
        marks = [f"9070{index:05}0709" if filled else "" for index, (_, filled, _) in enumerate(roles)]
        messages: list[Any] = [
            {"role": role, "content": mark, **(json.loads(rest) if rest else {})}
            for (role, _, rest), mark in zip(roles, marks, strict=True)
        ]
        text = self._rendered(messages, prompt=prompt, thinking=thinking, row="–", tools=tools)
        order = sorted((i for i, mark in enumerate(marks) if mark and mark in text), key=lambda i: text.index(marks[i]))
        around, begun = [], 0
        for index in order:
            start = text.index(marks[index])
            around.append(text[begun:start])
            begun = start + len(marks[index])
        return Shape(tuple(order), (*around, text[begun:]))

    def _leads(self, roles: Roles, shape: Shape, tools: Tools = None) -> list[int]:
        """For each message of `shape`, the white space before it that the model has to write: 0 but for answers.

        A prompt may end before it: "Assistant:", after which the model writes " Hello".
        """
        known: dict[str, int] = {}
        for index, before in zip(shape.order, shape.around, strict=False):
            if roles[index][0] == "assistant" and before not in known:
                asked = self._shape(roles[:index], True, True, tools).around[-1] if before[-1:].isspace() else before
                rest = before.removeprefix(asked) if before.startswith(asked) else ""
                known[before] = len(rest) if rest.isspace() else 0
        answers = [roles[index][0] == "assistant" for index in shape.order]
        return [known[before] if answer else 0 for answer, before in zip(answers, shape.around, strict=False)]

    # ---- tokens ----

    def _find_end_token(self) -> str:
        """The added token that follows an answer, after the last one or else between two turns; else end of text."""
        turn: Roles = (("user", True, ""), ("assistant", True, ""))
        shape = self._shape(turn * 2, False, True)
        first = re.compile(rf"\s*({'|'.join(map(re.escape, self._added)) or '(?!)'})")
        between = shape.around[shape.order.index(1) + 1] if 1 in shape.order else ""
        for scaffold in (shape.around[-1], between):
            if match := first.match(scaffold):
                return match.group(1)
        return str(self.tokenizer.eos_token or "")

    def _control_pattern(self) -> re.Pattern[str]:
        """Finds the first character of each control token's text: of tokens that only the template may write."""
        shape = self._shape((("user", True, ""), ("assistant", True, "")), True, True)
        written = "".join(shape.around) + "".join(self._shape((("user", True, ""),), True, True).around)
        rests: dict[str, list[str]] = {}
        for token, special in self._added.items():
            if len(token) > 1 and (special or token in written) and not _MARKUP.fullmatch(token):
                rests.setdefault(token[0], []).append(re.escape(token[1:]))
        # Branches that begin with one character each let the search skip all others: 20 times faster on long texts.
        return re.compile("|".join(f"{re.escape(a)}(?={'|'.join(rest)})" for a, rest in rests.items()) or r"(?!)")

    def _probe_prefix(self) -> str:
        """What to put before a text that goes on from another, for a tokenizer that begins every text with a space."""
        ids = self._ids(["\na", "\n", "a"])
        return "" if ids[0] == ids[1] + ids[2] else "\n"

    def _ids_of_tokens(self, tokens: list[str]) -> list[int]:
        ids = self.tokenizer.convert_tokens_to_ids(tokens)
        assert isinstance(ids, list)
        return ids

    def _ids(self, texts: list[str], known: dict[str, list[int]] | None = None) -> list[list[int]]:
        if known is not None:
            missing = [text for text in texts if text not in known]
            known.update(zip(missing, self._ids(missing), strict=True))
            return [known[text] for text in texts]
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]

    def _tokenized(
        self, chunked: Sequence[Sequence[_Chunk]], known: dict[str, list[int]] | None = None
    ) -> list[list[list[int]]]:
        """The token ids of each chunk. All are tokenized in one call, but those `known`, to which the others go."""
        begins_anew = tuple(self._added)  # a text after an added token is one of its own to the tokenizer
        goes_on = [
            bool(self._prefix) and n > 0 and not chunks[n - 1].text.endswith(begins_anew)
            for chunks in chunked
            for n in range(len(chunks))
        ]
        texts = [chunk.text for chunks in chunked for chunk in chunks]
        ids = self._ids([self._prefix + text if on else text for text, on in zip(texts, goes_on, strict=True)], known)
        if any(goes_on):
            prefix = self._ids([self._prefix])[0]
            for position, on in enumerate(goes_on):
                if on and ids[position][: len(prefix)] == prefix:
                    ids[position] = ids[position][len(prefix) :]
                elif on:  # the prefix grew together with the text
                    ids[position] = self._ids([texts[position]])[0]
        remaining = iter(ids)
        return [[next(remaining) for _ in chunks] for chunks in chunked]


def _roles(messages: Sequence[Message]) -> Roles:
    return tuple((message["role"], bool(message["content"].strip()), _rest(message)) for message in messages)


def _rest(message: Message) -> str:
    if len(message) == 2:
        return ""
    return json.dumps({key: value for key, value in message.items() if key not in ("role", "content")})


def _added_tokens(tokenizer: "PreTrainedTokenizerBase") -> dict[str, bool]:
    """Text → whether it is special, of every token outside the tokenizer's own vocabulary; longest first."""
    found = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
    found |= dict.fromkeys(tokenizer.all_special_tokens, True)
    return dict(sorted(((text, special) for text, special in found.items() if text.strip()), key=lambda i: -len(i[0])))
