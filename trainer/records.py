"""Datasets → conversations, every row checked: Alpaca, ShareGPT, OpenAI messages, prompt and completion.

Light: no torch. What a chat template makes of a conversation is not its business.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from trainer.dataset_files import (
    Layout,
    Source,
    find_source,
    kind_of,
    recognised,
    row_problem,
    rows_for_paging,
    rows_of,
)
from trainer.dataset_files import list_datasets as list_datasets
from trainer.problems import Problem, quoted


@dataclass(frozen=True)
class Record:
    """One conversation. `row`: 1-based, as the file has it; `raw`: the row itself.

    `messages`: {"role": system | user | assistant, "content": str}, an optional system message,
    then user and assistant in turn, ending with assistant.
    """

    dataset: str
    row: int
    messages: tuple[dict[str, str], ...]
    raw: Any


def read_dataset(data_dir: Path, name: str, max_samples: int | None = None) -> list[Record]:
    """The first `max_samples` rows as conversations; rows after them are not checked.

    An entry's num_samples takes that many first, beginning again where the file has fewer, so that it
    weighs datasets as in LLaMA-Factory (which draws them at random). Raises Problem at the first bad row.
    """
    source = find_source(data_dir, name)
    wanted = min((n for n in (max_samples, source.num_samples) if n is not None), default=None)
    records = list(_records(source, islice(rows_of(source), wanted)))
    if not records:
        raise Problem("dataset_empty", name=name, path=str(source.path))
    if wanted is not None and source.num_samples is not None:
        records = (records * (wanted // len(records) + 1))[:wanted]
    return records


def preview(data_dir: Path, name: str, page: int, page_size: int) -> tuple[list[Record], int]:
    """The rows of `page` (from 1) and the number of rows in the file. Only those rows are checked.

    A page past the end is empty. Raises Problem as read_dataset does.
    """
    source = find_source(data_dir, name)
    rows = rows_for_paging(source)
    if not len(rows):
        raise Problem("dataset_empty", name=name, path=str(source.path))
    first = (max(page, 1) - 1) * page_size
    numbered = ((index + 1, rows[index]) for index in range(first, min(first + page_size, len(rows))))
    if source.layout is None and first:
        source = replace(source, layout=recognised(name, rows[0]))
    return list(_records(source, numbered)), len(rows)


def _records(source: Source, rows: Iterable[tuple[int, Any]]) -> Iterator[Record]:
    layout = source.layout
    for number, row in rows:
        layout = layout or recognised(source.name, row)
        try:
            messages = _messages(row, layout)
        except _BadRow as bad:
            raise row_problem(source.name, number, row, *bad.args) from None
        yield Record(source.name, number, messages, row)


class _BadRow(Exception):
    """What is wrong with a row: (en, zh)."""


def _messages(row: Any, layout: Layout) -> tuple[dict[str, str], ...]:
    if not isinstance(row, dict):
        raise _BadRow(f"it is {kind_of(row)}, not an object with columns", f"它是 {kind_of(row)}，不是含有列的对象")
    turns = list(_alpaca(row, layout) if layout.formatting == "alpaca" else _turns(row, layout))
    system = layout.columns.get("system")
    if system and row.get(system) is not None and turns[0][0] != "system":
        turns.insert(0, ("system", _checked_text(row[system], f"`{system}`")))
    if turns[0][0] == "system" and not turns[0][1].strip():
        turns.pop(0)
    _check_order([role for role, _ in turns])
    for number, (role, content) in enumerate(turns, 1):
        if not content.strip():
            en, zh = ("answer", "回答") if role == "assistant" else ("prompt", "提问")
            raise _BadRow(f"the {en} (message {number}) is empty", f"{zh}（第 {number} 条消息）为空")
    return tuple({"role": role, "content": content} for role, content in turns)


def _column(row: dict[str, Any], column: str) -> Any:
    if column not in row:
        raise _BadRow(f"the column `{column}` is missing", f"缺少列 `{column}`")
    return row[column]


def _checked_text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _BadRow(
            f"{where} is {kind_of(value)} ({quoted(value)}), not text",
            f"{where} 是 {kind_of(value)}（{quoted(value)}），不是文字",
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        broken = f"\\u{ord(value[error.start]):04x}"
        raise _BadRow(f"{where} holds half a character ({broken})", f"{where} 含有半个字符（{broken}）") from None
    return value


def _alpaca(row: dict[str, Any], layout: Layout) -> Iterator[tuple[str, str]]:
    columns = layout.columns
    history = row.get(columns.get("history", "")) or []
    where = f"`{columns.get('history')}`"
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise _BadRow(f"{where} is not a list of [question, answer] pairs", f"{where} 不是 [提问, 回答] 的列表")
    for question, answer in history:
        yield "user", _checked_text(question, where)
        yield "assistant", _checked_text(answer, where)
    parts = [_checked_text(_column(row, columns["prompt"]), f"`{columns['prompt']}`")]
    if (query := columns.get("query")) and row.get(query) is not None:
        parts.append(_checked_text(row[query], f"`{query}`"))
    answer = _checked_text(_column(row, columns["response"]), f"`{columns['response']}`")
    yield "user", "\n".join(part for part in parts if part)
    yield "assistant", answer


def _turns(row: dict[str, Any], layout: Layout) -> Iterator[tuple[str, str]]:
    column = layout.columns["messages"]
    turns = _column(row, column)
    if not isinstance(turns, list):
        raise _BadRow(
            f"`{column}` is {kind_of(turns)}, not a list of messages", f"`{column}` 是 {kind_of(turns)}，不是消息列表"
        )
    if not turns:
        raise _BadRow(f"`{column}` is an empty conversation", f"`{column}` 是空的对话")
    for number, turn in enumerate(turns, 1):
        where = f"`{column}`[{number}]"
        if not isinstance(turn, dict) or not {layout.role_tag, layout.content_tag} <= set(turn):
            raise _BadRow(
                f"{where} must have `{layout.role_tag}` and `{layout.content_tag}`",
                f"{where} 须有 `{layout.role_tag}` 和 `{layout.content_tag}`",
            )
        role, roles = turn[layout.role_tag], layout.roles
        if not isinstance(role, str) or role not in roles:
            known = ", ".join(roles)
            raise _BadRow(
                f"{where} has the role {quoted(role)}; known are {known}",
                f"{where} 的角色是 {quoted(role)}；应为 {known}",
            )
        yield roles[role], _checked_text(turn[layout.content_tag], f"{where}.{layout.content_tag}")


def _check_order(roles: list[str]) -> None:
    """Raises _BadRow unless: an optional system message, then user and assistant in turn, assistant last."""
    first = 1 if roles[:1] == ["system"] else 0
    for index in range(first, len(roles)):
        expected = ("user", "assistant")[(index - first) % 2]
        if roles[index] != expected:
            raise _BadRow(
                f"message {index + 1} is of the role {roles[index]} where {expected} must follow",
                f"第 {index + 1} 条消息的角色是 {roles[index]}，此处应为 {expected}",
            )
    if roles[-1:] != ["assistant"] or len(roles) == first:
        raise _BadRow(
            "the conversation ends without an answer: its last message must be the assistant's",
            "对话没有以回答结束：最后一条消息须是助手的回答",
        )
