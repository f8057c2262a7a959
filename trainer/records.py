"""Datasets → records, every row checked: conversations, texts, preference pairs and labelled answers.

Light: no torch. What a chat template makes of a conversation is not its business.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from trainer import row_files, row_messages
from trainer.dataset_files import Source, find_source, kind_of, row_problem
from trainer.dataset_files import list_datasets as list_datasets
from trainer.layouts import Kind, Layout, recognised
from trainer.problems import Problem
from trainer.row_files import count_rows as count_rows
from trainer.row_messages import Message
from trainer.settings import label
from trainer.text_files import Fault, Words

_MOST_LOOKED_AT = 20
_TOLD_EVERY = 1024
_EXCERPT = 400


@dataclass(frozen=True)
class Record:
    """One sample. `row`: 1-based, as the dataset has it over all its files; `raw`: the row itself.

    `messages`: {"role": system | user | assistant | tool, "content": str}, those of assistants with `tool_calls` where
    they call tools: an optional system message, then user (or tools' results) and assistant in turn, ending with
    assistant. kind text: one message of the role "text". kind preference: they end with the chosen answer, and `rejected`
    is the other one. kind kto: `desirable` says whether the answer is wanted. `tools`: as chat templates take them.
    """

    dataset: str
    row: int
    kind: Kind
    messages: tuple[Message, ...]
    raw: Any
    tools: tuple[dict[str, Any], ...] = ()
    rejected: tuple[Message, ...] = ()
    desirable: bool | None = None


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used. `reason`: why, as a part of a sentence; `raw_excerpt`: how it begins."""

    row: int
    reason: Words
    raw_excerpt: str
    problem: Problem


def read_dataset(data_dir: Path, name: str, max_samples: int | None = None) -> list[Record]:
    """The first `max_samples` rows; rows after them are not checked.

    An entry's num_samples takes that many first, beginning again where the file has fewer, so that it
    weighs datasets as in LLaMA-Factory (which draws them at random). Raises Problem at the first bad row.
    """
    return [_good(record) for record in samples(find_source(data_dir, name), max_samples)]


def samples(source: Source, max_samples: int | None = None) -> Iterator[Record | BadRow]:
    """What read_dataset reads, one by one, bad rows among them. Raises Problem for a file that cannot be read."""
    wanted = min((n for n in (max_samples, source.num_samples) if n is not None), default=None)
    given = 0
    while wanted is None or given < wanted:
        before = given
        for record in islice(iterate(source), None if wanted is None else wanted - given):
            given += 1
            yield record
        if given == before:
            raise Problem("dataset_empty", name=source.name, path=str(source.path))
        if source.num_samples is None:
            return


def preview(data_dir: Path, name: str, page: int, page_size: int) -> tuple[list[Record | BadRow], int | None]:
    """The rows of `page` (from 1) and the number of rows, None while nobody has counted those of a large file.

    Only those rows are checked. A page past the end is empty. Raises Problem for what is wrong with the whole dataset.
    """
    source = find_source(data_dir, name)
    layout = layout_of(source)
    found = row_files.page(source, (max(page, 1) - 1) * page_size, page_size)
    try:
        total = row_files.known_total(source)
    except Problem:  # further down; whoever turns the pages comes to it
        total = None
    return [_record(source, layout, row, place) for row, place in found], total


# How many rows and about how many bytes have been read, and how many bytes there are.
Progress = Callable[[int, int, int], None]


def iterate(source: Source, first: int = 0, progress: Progress | None = None) -> Iterator[Record | BadRow]:
    """Every row behind the first `first`, in bounded memory. Raises Problem for what cannot be read on at all.

    `progress` is called before each row.
    """
    layout = layout_of(source)
    done, total = 0, source.bytes() if progress else 0
    for row, place in row_files.rows_from(source, first):
        if progress:
            done = row_files.bytes_before(source, place.rows) if place.rows % _TOLD_EVERY == 0 else done
            progress(place.rows, done, total)
        yield _record(source, layout, row, place)


def layout_of(source: Source) -> Layout:
    """How rows hold what is trained on: as declared, else by the first of them that can be recognised. Raises Problem."""
    if source.layout:
        return source.layout
    looked_at: list[tuple[Any, row_files.Place]] = []
    for row, place in islice(row_files.rows_from(source), _MOST_LOOKED_AT):
        if found := recognised(row):
            return found
        looked_at.append((row, place))
    if not looked_at:
        raise Problem("dataset_empty", name=source.name, path=str(source.path))
    row, place = looked_at[0]
    if not isinstance(row, dict):
        raise _bad(source, row, place, *_no_object(row)).problem
    raise row_problem(
        source.name, 1, row,
        "the format is not recognised; expected instruction + output, prompt + completion, conversations (from, value), "
        "messages (role, content), chosen + rejected, or text",
        "无法识别格式；应为 instruction + output、prompt + completion、conversations（from、value）、"
        "messages（role、content）、chosen + rejected 或 text",
        "dataset_layout",
    )  # fmt: skip


def check_stage(source: Source, stage: str) -> None:
    """Raises Problem for a dataset of which the stage trains nothing."""
    kind = layout_of(source).kind
    if kind == {"sft": "conversation", "pt": "text"}[stage]:
        return
    wanted, remedy = _STAGES[stage]
    if (stage, kind) == ("sft", "text"):
        remedy = {"en": "Set the stage to pt, or choose conversations.", "zh": "请把训练阶段设为 pt，或选择对话数据。"}
    raise Problem("dataset_stage", name=source.name, label=label("stage"), stage=stage, kind=_KINDS[kind], wanted=wanted,
                  remedy=remedy)  # fmt: skip


_KINDS: dict[Kind, Words] = {
    "conversation": {"en": "conversations", "zh": "对话"},
    "text": {"en": "plain texts", "zh": "纯文本"},
    "preference": {"en": "preference pairs (chosen, rejected)", "zh": "偏好数据（chosen、rejected）"},
    "kto": {"en": "labelled answers (KTO)", "zh": "带标签的回答（KTO）"},
}
_STAGES: dict[str, tuple[Words, Words]] = {
    "sft": (_KINDS["conversation"], {"en": "Choose conversations: training on preferences is not there yet.",
                                     "zh": "请选择对话数据：暂不支持偏好训练。"}),
    "pt": (_KINDS["text"], {"en": "Set the stage to sft, or choose texts (a column text, or txt files).",
                            "zh": "请把训练阶段设为 sft，或选择文本数据（text 列或 txt 文件）。"}),
}  # fmt: skip


# ---- one row ----


def _good(record: Record | BadRow) -> Record:
    if isinstance(record, BadRow):
        raise record.problem
    return record


def _record(source: Source, layout: Layout, row: Any, place: row_files.Place) -> Record | BadRow:
    if not isinstance(row, dict):
        return _bad(source, row, place, *_no_object(row))
    try:
        return _checked(source.name, layout, place.rows, row)
    except row_messages.BadRow as bad:
        return _bad(source, row, place, *bad.args)


def _no_object(row: Any) -> tuple[str, str]:
    if isinstance(row, Fault):
        return row.reason["en"], row.reason["zh"]
    return f"it is {kind_of(row)}, not an object with columns", f"它是 {kind_of(row)}，不是含有列的对象"


def _bad(source: Source, row: Any, place: row_files.Place, en: str, zh: str) -> BadRow:
    if len(source.files) > 1:
        file, number = source.files[place.file].name, place.rows - place.begun
        en, zh = f"{en} ({file}, row {number} there)", f"{zh}（{file} 的第 {number} 行）"
    excerpt = row.excerpt if isinstance(row, Fault) else json.dumps(row, ensure_ascii=False, default=str)[:_EXCERPT]
    code = "dataset_row_broken" if isinstance(row, Fault) else "dataset_row"
    return BadRow(place.rows, {"en": en, "zh": zh}, excerpt, row_problem(source.name, place.rows, row, en, zh, code))


def _checked(name: str, layout: Layout, number: int, row: dict[str, Any]) -> Record:
    if layout.kind == "text":
        return Record(name, number, "text", (_text(row, layout.columns["text"]),), row)
    messages, rejected = row_messages.prompt_and_answers(row, layout)
    found = Record(name, number, layout.kind, tuple(messages), row, row_messages.tools(row, layout), tuple(rejected))
    return replace(found, desirable=_label(row, layout.columns["kto_tag"])) if layout.kind == "kto" else found


def _text(row: dict[str, Any], column: str) -> Message:
    if column not in row:
        raise row_messages.BadRow(f"the column `{column}` is missing", f"缺少列 `{column}`")
    text = row_messages.checked_text(row[column], f"`{column}`")
    if not text.strip():
        raise row_messages.BadRow(f"`{column}` is empty", f"`{column}` 为空")
    return {"role": "text", "content": text}


def _label(row: dict[str, Any], column: str) -> bool:
    value = row.get(column)
    known = {"true": True, "false": False, "1": True, "0": False}
    label_text = str(value).lower()
    if label_text not in known or isinstance(value, float):
        raise row_messages.BadRow(f"`{column}` is {kind_of(value)} ({json.dumps(value, default=str)[:80]}), not true or false",
                                  f"`{column}` 是 {kind_of(value)}（{json.dumps(value, default=str)[:80]}），"
                                  "须为 true 或 false")  # fmt: skip
    return known[label_text]
