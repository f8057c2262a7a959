"""What the preview shows of samples, as HTML: as conversations, as tokens, as they are in the file.

Light: records and answers of trainer.look in, escaped HTML out. What the whole dataset holds is in dataset_words.py.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from app.text import Text
from trainer.records import BadRow, Record

# Of one message, of one sample's tokens, of one raw row: what a browser can show without waiting.
MOST_CHARACTERS = 20_000
MOST_TOKENS = 2000

# A character may be several tokens: its text stands with the first of them.
PART = "‧"

Message = Mapping[str, Any]
Row = Record | BadRow


def conversations_html(rows: Sequence[Row], text: Text) -> str:
    """Records and bad rows of trainer.records, one below the other."""
    return "".join(_sample(row, _conversation(row, text), text) for row in rows)


def raw_rows_html(rows: Sequence[Row], text: Text) -> str:
    """The rows as their files have them."""
    return "".join(
        _sample(row, f'<pre class="td-row">{_limited(_as_json(_raw(row)), text)}</pre>', text) for row in rows
    )


def tokens_html(samples: Sequence[Mapping[str, Any]], text: Text) -> str:
    """`samples`: those of a page event of trainer.look."""
    kinds = (("trained", " data-on"), ("masked", ""), ("cut", " data-out"))
    marks = "".join(f"<span{state}>{escape(text(f'tokens.{kind}'))}</span>" for kind, state in kinds)
    about = f'<output class="td-token-about">{escape(text("tokens.hint"))}</output>'
    legend = f'<p class="td-tokens-legend">{marks}{about}</p>'
    return legend + "".join(_tokenized(sample, text) for sample in samples)


# ---- conversations ----


def _sample(row: Row, body: str, text: Text) -> str:
    return f"<h4>{escape(text('preview.sample', row=row.row))}</h4>{_bad(row, text)}{body}"


def _bad(row: Row, text: Text) -> str:
    return bad_row_html(row.reason, text) if isinstance(row, BadRow) else ""


def bad_row_html(reason: Mapping[str, str], text: Text) -> str:
    words = text("preview.bad_row", reason=reason[text.language])
    return f'<p class="td-bad-row">{escape(words)}</p>'


def _raw(row: Row) -> Any:
    return row.raw_excerpt if isinstance(row, BadRow) else row.raw


def _as_json(raw: Any) -> str:
    return raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False, indent=2, default=str)


def _conversation(row: Row, text: Text) -> str:
    if isinstance(row, BadRow):
        return f'<pre class="td-row">{_limited(row.raw_excerpt, text)}</pre>'
    messages = list(row.messages)
    rejected = list(row.rejected)
    shared = messages[: -len(rejected)] if rejected else messages
    turns = _tools(row.tools, text) + "".join(_turn(message, text) for message in shared)
    if rejected:
        turns += _pair(messages[len(shared) :], rejected, text)
    if row.desirable is not None:
        key = "preview.desirable" if row.desirable else "preview.undesirable"
        turns += f'<p class="td-verdict" data-good="{str(row.desirable).lower()}">{escape(text(key))}</p>'
    return (
        f'<article class="td-conversation">{turns}<details class="td-raw"><summary>{escape(text("preview.raw"))}</summary>'
        f"<pre>{_limited(_as_json(row.raw), text)}</pre></details></article>"
    )


def _turn(message: Message, text: Text) -> str:
    role = str(message.get("role", ""))
    content = str(message.get("content") or "")
    words = f'<div class="td-text">{_limited(content, text)}</div>' if content else ""
    calls = "".join(_call(call, text) for call in message.get("tool_calls") or ())
    return (
        f'<div class="td-turn" data-role="{escape(role)}"><span class="td-role">'
        f"{escape(text.group('role').get(role, role))}</span>{words}{calls}</div>"
    )


def _call(call: Mapping[str, Any], text: Text) -> str:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    name = escape(text("preview.call", name=function.get("name", "")))
    return f'<div class="td-text td-call"><b>{name}</b><pre>{_limited(_as_json(arguments), text)}</pre></div>'


def _tools(tools: Sequence[Any], text: Text) -> str:
    if not tools:
        return ""
    names = [
        str((tool.get("function") or tool).get("name", "?")) if isinstance(tool, Mapping) else "?" for tool in tools
    ]
    title = escape(text("preview.tools", names=", ".join(names)))
    return f'<details class="td-raw"><summary>{title}</summary><pre>{_limited(_as_json(list(tools)), text)}</pre></details>'


def _pair(chosen: Sequence[Message], rejected: Sequence[Message], text: Text) -> str:
    sides = [
        f'<section data-side="{side}"><h5>{escape(text(f"preview.{side}"))}</h5>'
        f"{''.join(_turn(message, text) for message in messages)}</section>"
        for side, messages in (("chosen", chosen), ("rejected", rejected))
    ]
    return f'<div class="td-pair">{"".join(sides)}</div>'


def _limited(content: str, text: Text) -> str:
    """Escaped, its end left out where there is too much of it."""
    if len(content) <= MOST_CHARACTERS:
        return escape(content)
    more = escape(text("preview.more_characters", count=f"{len(content) - MOST_CHARACTERS:,}"))
    return f'{escape(content[:MOST_CHARACTERS])}<span class="td-more">{more}</span>'


# ---- tokens ----


def _tokenized(sample: Mapping[str, Any], text: Text) -> str:
    head = escape(text("preview.sample", row=sample["row"]))
    if sample.get("bad"):
        return f"<h4>{head}</h4>{bad_row_html(sample['bad'], text)}"
    tokens, cut_at = sample["tokens"], sample.get("cut_at")
    counts = text("tokens.counts", length=f"{sample['length']:,}", trained=f"{sample['trained']:,}")
    if cut_at is not None:
        counts += text("tokens.counts_cut", cut=f"{cut_at:,}")
    if not sample["trained"]:
        counts += text("tokens.counts_nothing")
    spans = [_token(token) for token in tokens[:MOST_TOKENS]]
    if cut_at is not None and cut_at <= len(spans):
        spans.insert(cut_at, f'<span class="td-cut">{escape(text("tokens.cut_here", cut=f"{cut_at:,}"))}</span>')
    if more := sample["length"] - min(len(tokens), MOST_TOKENS):
        spans.append(f'<span class="td-more">{escape(text("tokens.more", count=f"{more:,}"))}</span>')
    label = escape(text("tokens.label", row=sample["row"]))
    return (
        f'<h4>{head}<small>{escape(counts)}</small></h4><div class="td-tokens" tabindex="0" role="group"'
        f' aria-label="{label}">{"".join(spans)}</div>'
    )


def _token(token: Sequence[Any]) -> str:
    number, words, trained, kept = token
    state = (" data-on" if trained else "") + ("" if kept else " data-out") + ("" if words else " data-part")
    return f'<span{state} title="{int(number)}">{escape(_visible(str(words)))}</span>'


def _visible(words: str) -> str:
    """White space that a browser would not show, with a sign for it; a token that goes on with a character too."""
    return words.replace("\t", "⇥").replace("\r", "␍").replace("\n", "↵\n") or PART
