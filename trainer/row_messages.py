"""A row → its messages, each checked: what a conversation may hold, in which order, and what is wrong otherwise.

Light: no torch. Nothing is mended in silence: no turns are joined, none dropped.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from trainer import tool_calls
from trainer.dataset_files import kind_of
from trainer.layouts import CALL, MEDIA, Layout
from trainer.problems import Problem, quoted
from trainer.text_files import MOST_ROW_BYTES
from trainer.tool_list import checked_tools, parse_tools

# {"role": system | user | assistant | tool, "content": str}, and of assistants also "tool_calls".
Message = dict[str, Any]

_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_FOLLOWS = {"": ("user",), "system": ("user",), "user": ("assistant",), "assistant": ("user", "tool"),
            "tool": ("assistant", "tool")}  # fmt: skip


class BadRow(Exception):
    """What is wrong with a row: (en, zh)."""


def prompt_and_answers(row: dict[str, Any], layout: Layout) -> tuple[list[Message], list[Message]]:
    """The messages of `row`, and for a preference pair the rejected answer's. Raises BadRow.

    An optional system message, then user (or tools' results) and assistant in turn, ending with assistant.
    """
    for column in MEDIA:
        if row.get(column):
            raise BadRow(f"it has `{column}`; only text is trained on", f"含有 `{column}`；只支持文字")
    before, chosen, rejected = _parts(row, layout)
    system = layout.columns.get("system")
    if system and row.get(system) is not None and (not before or before[0]["role"] != "system"):
        before.insert(0, {"role": "system", "content": checked_text(row[system], f"`{system}`")})
    if before and before[0]["role"] == "system" and not before[0]["content"].strip():
        before.pop(0)
    messages = [*before, *chosen]
    _check_order([message["role"] for message in messages])
    _check_contents(messages)
    if layout.kind == "preference":
        _check_order([message["role"] for message in [*before, *rejected]])
        _check_contents(rejected, len(before))
        if chosen == rejected:
            raise BadRow("the chosen and the rejected answer are the same", "选中与拒绝的回答相同")
    return messages, rejected


def _parts(row: dict[str, Any], layout: Layout) -> tuple[list[Message], list[Message], list[Message]]:
    """What was said before, the answer, and the rejected one; the answer is part of the first but for pairs."""
    columns = layout.columns
    if layout.kind == "preference":
        chosen, rejected = (_answer(_column(row, columns[key]), columns[key], layout) for key in ("chosen", "rejected"))
        shared = _shared(chosen, rejected)
        if len(chosen) > 1 and shared and chosen[0]["role"] in ("user", "system"):  # whole conversations
            return chosen[:shared], chosen[shared:], rejected[shared:]
        return _before(row, layout), chosen, rejected
    if layout.formatting == "messages":
        return list(_turns(_column(row, columns["messages"]), columns["messages"], layout)), [], []
    answer = _answer(_column(row, columns["response"]), columns["response"], layout)
    return [*_before(row, layout), *answer], [], []


def _before(row: dict[str, Any], layout: Layout) -> list[Message]:
    """What stands before the answer: history, then prompt and query, or the prompt's messages."""
    columns = layout.columns
    if layout.formatting == "messages":
        return list(_turns(_column(row, columns["messages"]), columns["messages"], layout))
    found = list(_history(row, columns.get("history", "")))
    prompt = _column(row, columns["prompt"]) if "prompt" in columns else ""
    if layout.formatting == "prompt" and isinstance(prompt, list):
        return [*found, *_turns(prompt, columns["prompt"], layout)]
    parts = [checked_text(prompt, f"`{columns.get('prompt')}`")]
    if (query := columns.get("query")) and row.get(query) is not None:
        parts.append(checked_text(row[query], f"`{query}`"))
    return [*found, {"role": "user", "content": "\n".join(part for part in parts if part)}]


def _answer(value: Any, column: str, layout: Layout) -> list[Message]:
    """A text, a message, or a list of messages."""
    if isinstance(value, dict | list) and layout.formatting != "alpaca":
        return list(_turns([value] if isinstance(value, dict) else value, column, layout))
    return [{"role": "assistant", "content": checked_text(value, f"`{column}`")}]


def _shared(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """With how many messages both begin."""
    count = 0
    for first, second in zip(chosen, rejected, strict=False):
        if first != second:
            break
        count += 1
    return min(count, len(chosen) - 1)


def _history(row: dict[str, Any], column: str) -> Iterator[Message]:
    history = _listed(row.get(column)) or []
    where = f"`{column}`"
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise BadRow(f"{where} is not a list of [question, answer] pairs", f"{where} 不是 [提问, 回答] 的列表")
    for question, answer in history:
        yield {"role": "user", "content": checked_text(question, where)}
        yield {"role": "assistant", "content": checked_text(answer, where)}


def _column(row: dict[str, Any], column: str) -> Any:
    if column not in row:
        raise BadRow(f"the column `{column}` is missing", f"缺少列 `{column}`")
    return row[column]


def _listed(value: Any) -> Any:
    """A list that a table's cell holds as JSON; other values as they are."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return None if value == "" else value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def checked_text(value: Any, where: str) -> str:
    """`value`, which is text that a tokenizer takes. Raises BadRow."""
    if not isinstance(value, str):
        if isinstance(value, float) and math.isnan(value):
            raise BadRow(f"{where} is `{value}`, an empty cell of a table, not text; write text or leave the row out",
                         f"{where} 是 `{value}`（表格的空单元格），不是文字")  # fmt: skip
        raise BadRow(
            f"{where} is {kind_of(value)} ({quoted(value)}), not text",
            f"{where} 是 {kind_of(value)}（{quoted(value)}），不是文字",
        )
    if len(value) > MOST_ROW_BYTES:
        raise BadRow(f"{where} has {len(value):,} characters; split it into several rows",
                     f"{where} 有 {len(value):,} 个字符，请拆成多行")  # fmt: skip
    if "\0" in value:
        raise BadRow(f"{where} holds a NUL character (\\u0000); remove it", f"{where} 含有 NUL 字符（\\u0000），请删去")
    if not value.isascii():
        _check_characters(value, where)
    return value


def _check_characters(value: str, where: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        broken = f"\\u{ord(value[error.start]):04x}"
        raise BadRow(f"{where} holds half a character ({broken})", f"{where} 含有半个字符（{broken}）") from None


# ---- lists of messages ----


def _turns(turns: Any, column: str, layout: Layout) -> Iterator[Message]:
    listed = _listed(turns)
    if not isinstance(listed, list):
        hint = isinstance(turns, str) and turns.lstrip()[:2] in ("[{", "['")
        said = (
            ("; it is Python's way of writing a list, not JSON", "；这是 Python 的写法，不是 JSON")
            if hint
            else ("", "")
        )
        raise BadRow(
            f"`{column}` is {kind_of(turns)}, not a list of messages{said[0]}",
            f"`{column}` 是 {kind_of(turns)}，不是消息列表{said[1]}",
        )
    if not listed:
        raise BadRow(f"`{column}` is an empty conversation", f"`{column}` 是空的对话")
    for number, turn in enumerate(listed, 1):
        yield _plain_message(turn, layout) or _message(turn, f"`{column}`[{number}]", layout)


def _plain_message(turn: Any, layout: Layout) -> Message | None:
    """The message of a turn that is nothing but a role and a text, as nearly all are; None for the others: three times as
    fast as checking what they have not."""
    if type(turn) is not dict or len(turn) != 2:
        return None
    given, content = turn.get(layout.role_tag), turn.get(layout.content_tag)
    role = layout.roles.get(given) if type(given) is str else None
    if role in (None, CALL) or type(content) is not str or not _is_clean(content):
        return None
    return {"role": role, "content": content}


def _is_clean(text: str) -> bool:
    """Whether checked_text has nothing against it."""
    if len(text) > MOST_ROW_BYTES or "\0" in text:
        return False
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _message(turn: Any, where: str, layout: Layout) -> Message:
    role_tag, content_tag = layout.role_tag, layout.content_tag
    if not isinstance(turn, dict) or role_tag not in turn or not (content_tag in turn or turn.get("tool_calls")):
        raise BadRow(
            f"{where} must have `{role_tag}` and `{content_tag}`", f"{where} 须有 `{role_tag}` 和 `{content_tag}`"
        )
    given = turn[role_tag]
    if not isinstance(given, str) or given not in layout.roles:
        known = layout.known_roles()
        raise BadRow(
            f"{where} has the role {quoted(given)}; known are {known}",
            f"{where} 的角色是 {quoted(given)}；应为 {known}",
        )
    role, inside = layout.roles[given], f"{where}.{content_tag}"
    if role == CALL:
        return _written_call(checked_text(turn[content_tag], inside), inside)
    calls = _calls(turn, where) if role == "assistant" else []
    content = _content(turn.get(content_tag), inside, empty=bool(calls))
    if role == "assistant":
        content = _with_thoughts(turn, content, where)
    return {"role": role, "content": content, **({"tool_calls": calls} if calls else {})}


def _content(value: Any, where: str, empty: bool) -> str:
    """A text, or parts that are text; None where there are calls instead."""
    if value is None and empty:
        return ""
    if not isinstance(value, list):
        return checked_text(value, where)
    texts = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", None) or not isinstance(part, dict):
            raise BadRow(f"{where} has a part of the type {quoted(kind or part)}; only text is trained on",
                         f"{where} 含有类型为 {quoted(kind or part)} 的内容；只支持文字")  # fmt: skip
        texts.append(checked_text(part.get("text"), f"{where}.text"))
    return "".join(texts)


def _with_thoughts(turn: dict[str, Any], content: str, where: str) -> str:
    """`content` behind what the message thinks in a key of its own, as reasoning models write it."""
    for key in _THOUGHTS:
        if turn.get(key):
            thought = checked_text(turn[key], f"{where}.{key}")
            return f"<think>\n{thought.strip()}\n</think>\n\n{content}"
    return content


def _written_call(text: str, where: str) -> Message:
    """ShareGPT's message of calls: {"name": …, "arguments": …}, a list of them, or marked as models do."""
    rest, calls = tool_calls.parse(text)
    if not calls:
        raise BadRow(f'{where} ({quoted(text)}) is no call; write {{"name": …, "arguments": {{…}}}} as JSON',
                     f'{where}（{quoted(text)}）不是函数调用；请写 JSON：{{"name": …, "arguments": {{…}}}}')  # fmt: skip
    return {"role": "assistant", "content": rest, "tool_calls": [call.as_message_part() for call in calls]}


def _calls(turn: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """OpenAI's `tool_calls`, and the `function_call` that they had before."""
    given = _listed(turn.get("tool_calls"))
    if given is None and turn.get("function_call"):
        given = [{"function": turn["function_call"]}]
    if given is not None and not isinstance(given, list):
        raise BadRow(
            f"{where}.tool_calls is {kind_of(given)}, not a list", f"{where}.tool_calls 是 {kind_of(given)}，不是列表"
        )
    return [_call(item, f"{where}.tool_calls[{number}]") for number, item in enumerate(given or [], 1)]


def _call(item: Any, where: str) -> dict[str, Any]:
    inner = item.get("function", item) if isinstance(item, dict) else None
    arguments = inner.get("arguments") if isinstance(inner, dict) else None
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            raise BadRow(f"{where}: its arguments ({quoted(arguments)}) are not JSON",
                         f"{where} 的参数（{quoted(arguments)}）不是 JSON") from None  # fmt: skip
    arguments = {} if arguments is None else without_nulls(arguments)
    name = inner.get("name") if isinstance(inner, dict) else None
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        raise BadRow(f'{where} must have a name and arguments: {{"function": {{"name": …, "arguments": {{…}}}}}}',
                     f'{where} 须有 name 和 arguments：{{"function": {{"name": …, "arguments": {{…}}}}}}')  # fmt: skip
    return tool_calls.Call(name, arguments).as_message_part()


def without_nulls(value: Any) -> Any:
    """`value` less the keys without a value: tables give every row the keys of all."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def tools(row: dict[str, Any], layout: Layout) -> tuple[dict[str, Any], ...]:
    """The tools of the row's column of them, as JSON text or as they are; () for none. Raises BadRow."""
    column = layout.columns.get("tools", "")
    value = row.get(column)
    try:
        if isinstance(value, str):
            return _parsed_tools(value)
        return tuple(checked_tools(without_nulls(value)) or ())
    except Problem as problem:
        said = [re.sub(r"[.。]$", "", problem.sentence(language)) for language in ("en", "zh")]
        raise BadRow(f"`{column}`: {said[0]}", f"`{column}`：{said[1]}") from None


@lru_cache(maxsize=1024)  # rows of a dataset share their tools
def _parsed_tools(text: str) -> tuple[dict[str, Any], ...]:
    return tuple(parse_tools(text) or ())


# ---- the whole conversation ----


def _check_order(roles: Sequence[str]) -> None:
    """Raises BadRow unless: an optional system message, then user or tool and assistant in turn, assistant last."""
    before = ""
    for number, role in enumerate(roles, 1):
        expected = _FOLLOWS[before]
        if role not in expected and not (role == "system" and number == 1):
            raise BadRow(
                f"message {number} is of the role {role} where {' or '.join(expected)} must follow",
                f"第 {number} 条消息的角色是 {role}，此处应为 {' 或 '.join(expected)}",
            )
        before = role
    if before != "assistant":
        raise BadRow(
            "the conversation ends without an answer: its last message must be the assistant's",
            "对话没有以回答结束：最后一条消息须是助手的回答",
        )


def _check_contents(messages: Sequence[Message], before: int = 0) -> None:
    """Raises BadRow for a message that says nothing; an empty result of a tool is one."""
    for number, message in enumerate(messages, before + 1):
        if not message["content"].strip() and not message.get("tool_calls") and message["role"] != "tool":
            en, zh = ("answer", "回答") if message["role"] == "assistant" else ("prompt", "提问")
            raise BadRow(f"the {en} (message {number}) is empty", f"{zh}（第 {number} 条消息）为空")
