"""Conversations → token ids and labels for training, and prompts for chat, through one code path.

Text of a control token inside a message (a user who types <|im_end|>) is cut in two before tokenizing,
so that it stays text and nobody forges a turn. Reasoning marks (<think>) stay tokens: answers hold them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from trainer import template_family
from trainer.answers import Answers, Unclear
from trainer.conversation_text import Message, Span, written_at
from trainer.pieces import Tokens
from trainer.problems import Problem, quoted
from trainer.rendering import NotText, Renderer, Tools, plain
from trainer.settings import label, template_names
from trainer.tool_list import LABEL as TOOLS_LABEL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
# Where a template comes from: it was named, it is the model's own, or it was guessed from the model's family.
Origin = Literal["named", "own", "guessed"]
# Conversations tokenized in one call: enough for the tokenizer's threads, few enough to bound memory.
_AT_ONCE = 4096
# Texts of a conversation whose token ids are remembered.
MOST_KNOWN = 1000
_UNCUT = 2**30


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


class Token(NamedTuple):
    """A token as a preview shows it. `text`: what it adds to the text; `kept`: it stands before the cutoff."""

    id: int
    text: str
    trained: bool
    kept: bool


class _Chunk(NamedTuple):
    """Text that is tokenized on its own. "end": begins with an end token, the only one that is learnt."""

    text: str
    kind: Literal["plain", "answer", "end"]
    turn: int


class ChatTemplate:
    """A tokenizer with the Jinja template `source`. Make it with `ChatTemplate.of`; it may be pickled.

    `end_token`: what closes an answer; the tokenizer's own end of text where the template marks none,
    and then it is put after each answer, in training and in prompts alike; "" when there is no such token.
    `stop_token_ids`: the tokens after which generation stops.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        source: str,
        name: str,
        generation_eos: Sequence[int] = (),
        origin: Origin = "named",
    ) -> None:
        self.tokenizer = tokenizer
        self.source = source
        self.name = name
        self.origin = origin
        self.generation_eos = generation_eos
        self._given = (tokenizer, source, name, generation_eos, origin)
        self._known: dict[str, list[int]] = {}  # a conversation's texts: the next turn has them again
        self._renderer = Renderer(tokenizer, source)
        self._tokens = Tokens(tokenizer)
        eos = str(tokenizer.eos_token or "")
        self._answers = Answers(self._probe, self._tokens.added, eos, str(tokenizer.bos_token or ""))
        self.end_token = self._answers.end_token
        self._control = self._tokens.control_pattern(self._answers.written())
        # A model that says where it stops may write what stands between two turns in the middle of an answer, too.
        turn_end = () if generation_eos else (self._answers.turn_end_token,)
        ends = [text for text in (self.end_token, self._answers.call_end_token, *turn_end, eos) if text]
        self.stop_token_ids = sorted({*self._tokens.ids_of_tokens(ends), *generation_eos})
        self._stopping = {text for text in self._answers.end_tokens if text and self._stops_at(text)}

    def __reduce__(self) -> tuple[Any, ...]:
        return ChatTemplate, self._given

    @classmethod
    def of(
        cls,
        tokenizer: "PreTrainedTokenizerBase",
        name: str = "auto",
        model_path: str = "",
        generation_eos: int | Sequence[int] | None = None,
    ) -> "ChatTemplate":
        """The named template; with "auto" the tokenizer's own, else that of the family of `model_path`.

        Raises Problem template_missing when it has none and its family is not known.
        `generation_eos`: eos_token_id of the model's generation config (default: as `model_path` has it).
        """
        eos = [generation_eos] if isinstance(generation_eos, int) else list(generation_eos or ())
        if not eos and model_path:
            eos = template_family.generation_ends(Path(model_path))
        if name != "auto":
            if name not in template_names():
                choices = ", ".join(["auto", *template_names()])
                raise Problem("setting_choice", label=label("template"), value=quoted(name), choices=choices)
            return cls(tokenizer, template_family.source(name), name, eos)
        if own := _own_source(tokenizer, model_path):
            return cls(tokenizer, own, name, eos, "own")
        guessed = template_family.guess(Path(model_path)) if model_path else None
        if guessed is None:
            raise Problem("template_missing", label=label("template"), path=model_path)
        return cls(tokenizer, template_family.source(guessed), guessed, eos, "guessed")

    def warnings(self, model_path: str) -> list[Problem]:
        """What there is to say of this template for the model of that path: that it was guessed, tokens that it lacks."""
        guessed = [template_family.guess_warning(model_path, self.name)] if self.origin == "guessed" else []
        if self.origin == "own":
            return []
        wanted = template_family.special_tokens(self.name)
        known = {*self._tokens.added, *self.tokenizer.get_vocab()}
        missing = [token for token in wanted if token not in known]
        return guessed + ([template_family.tokens_warning(model_path, self.name, missing)] if missing else [])

    def prompt(self, messages: Sequence[Message], enable_thinking: bool = True, tools: Tools = None) -> str:
        """The text after which the model writes the next answer."""
        return "".join(
            chunk.text for chunk in self._chunks(messages, prompt=True, thinking=enable_thinking, tools=tools)
        )

    def prompt_ids(self, messages: Sequence[Message], enable_thinking: bool = True, tools: Tools = None) -> list[int]:
        """`prompt` as token ids: those that a training sample of the same messages begins with.

        `tools`: as tool_list has them; Problem tools_unsupported when the template leaves them out.
        """
        chunks = self._chunks(messages, prompt=True, thinking=enable_thinking, tools=tools)
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        ids = self._tokens.of_pieces([[chunk.text for chunk in chunks]], self._known)[0]
        return [token for tokens in ids for token in tokens]

    @property
    def knows_tools(self) -> bool:
        """Whether the template writes a tool into a prompt."""
        return self._answers.knows_tools

    def segments(self, messages: Sequence[Message], tools: Tools = None) -> list[Segment]:
        """The rendered conversation; trained pieces are each answer with its end token and nothing after it."""
        found: list[Segment] = []

        def add(text: str, trained: bool, turn: int) -> None:
            if not text:
                return
            if found and found[-1].trained == trained and found[-1].turn == turn:
                text = found.pop().text + text
            found.append(Segment(text, trained, turn))

        for chunk in self._chunks(messages, tools=tools):
            closing = len(self._end_token_at(chunk.text, 0)) if chunk.kind == "end" else 0
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
        tools: Tools = None,
    ) -> Sample:
        """As `encode_all`, of one conversation."""
        return self.encode_all(
            [messages],
            cutoff_len=cutoff_len,
            train_on_prompt=train_on_prompt,
            mask_history=mask_history,
            tools=[tools],
        )[0]

    def encode_all(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        cutoff_len: int,
        train_on_prompt: bool = False,
        mask_history: bool = False,
        rows: Sequence[int] | None = None,
        tools: Sequence[Tools] | None = None,
    ) -> list[Sample]:
        """A sample for each conversation, at most `cutoff_len` tokens, cut on the right.

        A sample may be left without labels: whoever trains counts those. `mask_history`: only the last
        answer is learnt; `train_on_prompt`: every token is, and `mask_history` has no say. `tools`: of each
        conversation, as tool_list has them. Raises Problem template_failed with the number from `rows` (default:
        counted from 1) of the conversation; tools_unsupported when the template leaves out its tools.
        """
        samples: list[Sample] = []
        for first in range(0, len(conversations), _AT_ONCE):
            part = range(first, min(first + _AT_ONCE, len(conversations)))
            chunked = [
                self._chunks(conversations[i], row=rows[i] if rows else i + 1, tools=tools[i] if tools else None)
                for i in part
            ]
            ids = self._tokens.of_pieces([[chunk.text for chunk in chunks] for chunks in chunked])
            for chunks, tokens in zip(chunked, ids, strict=True):
                samples.append(self._sample(chunks, tokens, cutoff_len, train_on_prompt, mask_history))
        return samples

    def encode_text(self, texts: Sequence[str], cutoff_len: int) -> list[Sample]:
        """A sample for each plain text, all of it learnt, with what the tokenizer puts around a text and an end of text.

        A text is as the tokenizer reads it: one that spells a special token holds that token.
        """
        ends = self._tokens.ids_of_tokens([self.tokenizer.eos_token]) if self.tokenizer.eos_token else []
        samples: list[Sample] = []
        for first in range(0, len(texts), _AT_ONCE):
            for ids in self._tokens.ids(list(texts[first : first + _AT_ONCE]), special_tokens=True):
                whole = (ids if ids[-1:] == ends else ids + ends)[:cutoff_len]
                samples.append(Sample(whole, list(whole)))
        return samples

    def tokens(
        self,
        messages: Sequence[Message],
        tools: Tools = None,
        cutoff_len: int = _UNCUT,
        train_on_prompt: bool = False,
        mask_history: bool = False,
    ) -> list[Token]:
        """The tokens of a conversation, or of a text (one message of the role "text"), those past the cutoff too."""
        if [message["role"] for message in messages] == ["text"]:
            sample = self.encode_text([messages[0]["content"]], _UNCUT)[0]
        else:
            sample = self.encode(
                messages, cutoff_len=_UNCUT, train_on_prompt=train_on_prompt, mask_history=mask_history, tools=tools
            )
        texts = self._tokens.texts(sample.input_ids)
        return [
            Token(token, text, trained != IGNORED, at < cutoff_len)
            for at, (token, text, trained) in enumerate(zip(sample.input_ids, texts, sample.labels, strict=True))
        ]

    def _sample(
        self, chunks: list[_Chunk], tokens: list[list[int]], cutoff_len: int, everything: bool, last_only: bool
    ) -> Sample:
        input_ids: list[int] = []
        labels: list[int] = []
        last = max((chunk.turn for chunk in chunks if chunk.kind == "answer"), default=0)
        for (_, kind, turn), ids in zip(chunks, tokens, strict=True):
            input_ids += ids
            learnt = len(ids) if kind == "answer" else 1 if kind == "end" else 0
            if everything:
                learnt = len(ids)
            elif last_only and (turn - 1 if kind == "end" else turn) != last:
                learnt = 0
            labels += ids[:learnt] + [IGNORED] * (len(ids) - learnt)
        return Sample(input_ids[:cutoff_len], labels[:cutoff_len])

    # ---- rendering, and what is whose in it ----

    def _rendered(
        self, messages: Sequence[Message], *, prompt: bool, thinking: bool, row: int | str, tools: Tools
    ) -> str:
        try:
            return self._renderer.render(messages, prompt=prompt, thinking=thinking, tools=tools)
        except Exception as error:  # a template is a foreign program: it may raise anything
            raise self._failed(row, str(error) or type(error).__name__) from error

    def _probe(self, messages: Sequence[Message], prompt: bool, thinking: bool, tools: Tools) -> str:
        return self._rendered(messages, prompt=prompt, thinking=thinking, row="–", tools=tools)

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
        if tools and not self.knows_tools:
            raise Problem("tools_unsupported", label=TOOLS_LABEL, template=self.name)
        try:
            messages = [plain(message) for message in messages]
            text = self._rendered(messages, prompt=prompt, thinking=thinking, row=row, tools=tools)
            spans = self._answers.spans(text, messages, prompt=prompt, thinking=thinking, tools=tools)
        except NotText as error:
            kind = quoted(str(error))
            raise self._failed(row, {"en": f"a content holds {kind}, and only text can be read",
                                     "zh": f"内容中有 {kind}，只能读取文字"}) from None  # fmt: skip
        except Unclear as error:
            raise self._failed(row, error.args[0]) from None
        cuts = self._cuts(text, spans, messages, tools)
        chunks: list[_Chunk] = []
        begun, turn = 0, 0
        for span in (span for span in spans if span.answer):
            chunks += self._between(text, begun, span.start, cuts, turn)
            chunks += [_Chunk(part, "answer", turn) for part in _parts(text, span.start, span.end, cuts)]
            begun, turn = span.end, turn + 1
        return [*chunks, *self._between(text, begun, len(text), cuts, turn)]

    def _between(self, text: str, begun: int, end: int, cuts: Sequence[int], turn: int) -> Iterator[_Chunk]:
        """The chunks from the end of an answer, or the beginning of the text, to the next answer."""
        kind: Literal["plain", "end"] = "plain"
        missing = ""
        if turn:
            closing = self._end_token_at(text, begun)
            missing = "" if closing else self.end_token
            kind = "end" if (closing or missing) in self._stopping else "plain"
        for part in _parts(text, begun, end, cuts) or ([""] if missing else []):
            yield _Chunk(missing + part, kind, turn)
            kind, missing = "plain", ""

    def _stops_at(self, token: str) -> bool:
        return self._tokens.ids_of_tokens([token])[0] in self.stop_token_ids

    def _end_token_at(self, text: str, start: int) -> str:
        return next((token for token in self._answers.end_tokens if token and text.startswith(token, start)), "")

    def _cuts(self, text: str, spans: Sequence[Span], messages: Sequence[Message], tools: Tools) -> list[int]:
        """After the first character of each control token's text that somebody wrote: in contents, calls and tools."""
        found = [
            match.end() for span in spans for start, end in span.words
            for match in self._control.finditer(text, start, end)
        ]  # fmt: skip
        foreign = [message["tool_calls"] for message in messages if "tool_calls" in message] + list(tools or ())
        for words in {*self._forged(foreign)} if foreign else ():
            for start, end in written_at(text, words, spans):
                found += [match.end() for match in self._control.finditer(text, start, end)]
        return sorted(set(found)) if found else []

    def _forged(self, value: Any) -> Iterator[str]:
        """The texts inside `value` that spell a control token."""
        if isinstance(value, str) and self._control.search(value):
            yield value
        elif isinstance(value, dict):
            for item in value.items():
                yield from self._forged(list(item))
        elif isinstance(value, list | tuple):
            for item in value:
                yield from self._forged(item)


def _own_source(tokenizer: "PreTrainedTokenizerBase", model_path: str) -> str | None:
    """The template that the tokenizer or the folder that it came from brings."""
    try:
        source = tokenizer.get_chat_template()
    except ValueError:  # none, or several and no default among them
        source = ""
    return source or (template_family.own_source(Path(model_path)) if model_path else None)


def _parts(text: str, start: int, end: int, cuts: Sequence[int]) -> list[str]:
    """`text` from `start` to `end`, cut at `cuts`; no part is empty."""
    if not cuts:
        return [text[start:end]] if end > start else []
    bounds = [start, *(cut for cut in cuts if start < cut < end), end]
    return [text[a:b] for a, b in pairwise(bounds) if b > a]
