"""Forty broken files as people have them, each answered by one sentence: which file, which row or line, what to do."""

import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer import text_files
from trainer.dataset_files import find_source
from trainer.problems import Problem
from trainer.records import BadRow, iterate, preview, read_dataset

GOOD = {"instruction": "问", "output": "答"}
LINE = json.dumps(GOOD, ensure_ascii=False).encode()
# What a sentence tells people to do.
REMEDIES = re.compile(r"\b(Correct|Save|Copy|Rename|Choose|Use|Give|Unpack|Write|Check)\b")


def lines(*rows: Any) -> bytes:
    return b"\n".join(row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows)


def turns(*pairs: tuple[str, Any]) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": text} for role, text in pairs]}


def messages(*found: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "q"}, *found]}


def parquet(table: dict[str, Any], cut: int | None = None) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer)
    return buffer.getvalue()[:cut]


def workbook() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("xl/workbook.xml", "<x/>")
    return buffer.getvalue()


TALK = turns(("human", "q"), ("gpt", "a"))
TEXT = lines(*[{"instruction": f"第{n}题", "output": "答案在此"} for n in range(200)])
CALL = {"id": "1", "function": {"name": "f", "arguments": "{not json"}}

# name → the file, its content, the problem's code, its row, and what both sentences say.
GALLERY: dict[str, tuple[str, bytes | Callable[[], bytes], str, int | None, str, str]] = {
    "utf-16 with a byte order mark": ("x.jsonl", TEXT.decode().encode("utf-16"), "dataset_encoding", None,
        "looks like UTF-16", "iconv -f UTF-16 -t UTF-8 x.jsonl"),
    "utf-16 without one": ("x.jsonl", TEXT.decode().encode("utf-16-le"), "dataset_encoding", None, "UTF-16LE", "UTF-16LE"),
    "utf-32": ("x.json", TEXT.decode().encode("utf-32"), "dataset_encoding", None, "UTF-32", "UTF-32"),
    "gbk": ("x.csv", "instruction,output\n你好,世界\n".encode("gbk"), "dataset_encoding", None, "(byte 20); it looks like GB18030",
        "看起来是 GB18030"),
    "big5 text": ("x.txt", "今天天氣很好，我們去爬山。\n".encode("big5"), "dataset_encoding", None, "byte 1", "第 1 字节"),
    "a line of latin-1": ("x.jsonl", LINE + b"\n" + '{"instruction": "caf\xe9"}'.encode("latin-1"), "dataset_row_broken", 2,
        "its byte 21 is not UTF-8", "不是 UTF-8"),
    "a list with a broken character": ("x.json", b'[{"instruction": "a", "output": "\xff"}]', "dataset_encoding", None,
        "byte 34", "第 34 字节"),
    "zeros in a json text": ("x.jsonl", LINE + b'\n{"instruction": "a\0b", "output": "c"}', "dataset_row_broken", 2,
        "line 2 is not valid JSON", "控制字符"),
    "an escaped zero": ("x.jsonl", lines(GOOD, {**GOOD, "output": "a\0b"}), "dataset_row", 2, "NUL", "NUL"),
    "nothing but zeros": ("x.txt", b"\0" * 4096, "dataset_file_broken", None, "nothing but zero bytes", "零字节"),
    "json cut short": ("x.json", json.dumps([GOOD] * 9).encode()[:-20], "dataset_json_broken", None,
        "at line 1: the file ends in the middle of a row", "第 1 行"),
    "jsonl cut short": ("x.jsonl", lines(*[GOOD] * 3)[:-5], "dataset_row_broken", 3, "line 3 is not valid JSON", "第 3 行"),
    "a comma is missing": ("x.json", b'[\n{"instruction": "a", "output": "b"}\n{"instruction": "a", "output": "b"}]',
        "dataset_json_broken", None, "line 3", "逗号"),
    "a comma too many": ("x.json", b'[\n{"instruction": "a", "output": "b"},\n]', "dataset_json_broken", None, "line 3", "第 3 行"),
    "single quotes": ("x.jsonl", LINE + b"\n{'instruction': 'a', 'output': 'b'}", "dataset_row_broken", 2, "double quotes", "双引号"),
    "text behind the list": ("x.json", b'[{"instruction": "a", "output": "b"}] and more', "dataset_json_broken", None,
        "Extra data", "结尾之后还有内容"),
    "one object, not a list": ("x.json", json.dumps({"data": [GOOD]}, indent=1).encode(), "dataset_json_broken", None,
        "holds `object` instead of a list", "不是由行组成的列表"),
    "a hundred thousand brackets": ("x.json", b"[" * 100_000, "dataset_json_broken", None, "nested too deeply", "嵌套过深"),
    "a number of five thousand digits": ("x.jsonl", lines(GOOD, b'{"output": ' + b"1" * 5000 + b"}"), "dataset_row_broken", 2,
        "thousands of digits", "几千位"),
    "rows of mixed types": ("x.json", json.dumps([GOOD, "a", 3]).encode(), "dataset_row", 2, "it is `string`", "不是含有列的对象"),
    "a number as the answer": ("x.jsonl", lines(GOOD, {**GOOD, "output": 42}), "dataset_row", 2, "`number` (`42`)", "不是文字"),
    "nan from a table": ("x.jsonl", LINE + b'\n{"instruction": "a", "input": NaN, "output": "b"}', "dataset_row", 2,
        "`input` is `nan`", "空单元格"),
    "nulls inside": ("x.jsonl", lines(TALK, turns(("human", "q"), ("gpt", None))), "dataset_row", 2, "[2].value is `null`",
        "不是文字"),
    "a key twice": ("x.jsonl", LINE + b'\n{"instruction": "a", "output": "b", "output": "c"}', "dataset_row_broken", 2,
        "`output` is there twice", "`output` 出现了两次"),
    "an unknown role": ("x.jsonl", lines(TALK, turns(("human", "q"), ("narrator", "a"))), "dataset_row", 2,
        "the role `narrator`", "角色是 `narrator`"),
    "two user turns in a row": ("x.jsonl", lines(TALK, turns(("human", "q"), ("human", "r"), ("gpt", "a"))), "dataset_row", 2,
        "message 2 is of the role user where assistant must follow", "此处应为 assistant"),
    "a system message in the middle": ("x.jsonl", lines(TALK, turns(("human", "q"), ("gpt", "a"), ("system", "s"))),
        "dataset_row", 2, "message 3 is of the role system", "第 3 条消息"),
    "no answer at the end": ("x.jsonl", lines(TALK, turns(("human", "q"))), "dataset_row", 2, "without an answer", "没有以回答结束"),
    "an empty answer": ("x.jsonl", lines(GOOD, {**GOOD, "output": " \n"}), "dataset_row", 2, "answer (message 2) is empty", "为空"),
    "half a character": ("x.jsonl", lines(GOOD, b'{"instruction": "a", "output": "\\ud83d"}'), "dataset_row", 2,
        "half a character", "半个字符"),
    "ten megabytes in a field": ("x.jsonl", lambda: lines(GOOD, {**GOOD, "output": "字" * 3_500_000}), "dataset_row_broken", 2,
        "longer than 8 MB", "超过 8 MB"),
    "the same in parquet": ("x.parquet", lambda: parquet({"text": ["ok", "a" * 10_000_000]}), "dataset_row", 2,
        "10,000,000 characters", "10,000,000 个字符"),
    "an image among the parts": ("x.jsonl", lines(messages({"role": "assistant", "content": "a"}), messages(
        {"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "x"}}]})), "dataset_row", 2,
        "the type `image_url`", "`image_url`"),
    "a call without arguments that can be read": ("x.jsonl", lines(messages({"role": "assistant", "content": "a"}), messages(
        {"role": "assistant", "content": None, "tool_calls": [CALL]})), "dataset_row", 2, "are not JSON", "不是 JSON"),
    "equal answers to prefer": ("x.jsonl", lines({"prompt": "q", "chosen": "a", "rejected": "a"}), "dataset_row", 1,
        "are the same", "相同"),
    "csv with an open quotation mark": ("x.csv", b'instruction,output\na,b\n"c,d\ne,f\n', "dataset_table_broken", None,
        "at line 3: a quotation mark is opened", "第 3 行"),
    "csv with unquoted commas": ("x.csv", b"instruction,output\na,b\nc,d,e\n", "dataset_row_broken", 2, "3 cells and the head 2",
        "3 个单元格"),
    "csv with a column twice": ("x.csv", b"instruction,output,output\na,b,c\n", "dataset_table_broken", None, "`output`", "`output`"),
    "python lists in a csv": ("x.csv", b"conversations,id\n\"[{'from': 'human', 'value': 'q'}]\",1\n", "dataset_row", 1,
        "Python's way", "Python"),
    "a workbook called csv": ("x.csv", workbook(), "dataset_other_file", None, "an Excel workbook", "Excel 工作簿"),
    "parquet called json": ("x.json", parquet({"text": ["a"]}), "dataset_other_file", None, "a parquet file", "parquet"),
    "parquet of a wrong schema": ("x.parquet", parquet({"q": ["a"], "a": [1]}), "dataset_layout", 1, "Columns found: q, a",
        "现有的列：q, a"),
    "parquet cut short": ("x.parquet", parquet({"text": ["a"] * 99}, -40), "dataset_file_broken", None, "no complete parquet",
        "不是完整的 parquet"),
    "arrow that is none": ("x.arrow", b"ARROW1\0\0" + b"junk" * 99, "dataset_file_broken", None, "no complete arrow", "arrow"),
    "gz cut short": ("x.jsonl.gz", gzip.compress(LINE * 99)[:-20], "dataset_file_broken", None, "cut short", "不完整"),
    "gz damaged": ("x.jsonl.gz", gzip.compress(LINE * 99)[:30] + b"\0" * 30, "dataset_file_broken", None, "damaged", "损坏"),
    "a bomb of gz": ("x.txt.gz", lambda: gzip.compress(b"a" * 8_000_000), "dataset_file_broken", None, "times its size",
        "不会是正常文本"),
    "an empty file": ("x.json", b"", "dataset_empty", None, "has no rows", "没有数据"),
    "columns nobody knows": ("x.jsonl", lines({"q": "a", "a": "b"}), "dataset_layout", 1, "not recognised", "无法识别"),
}  # fmt: skip


def broken(folder: Path, name: str) -> tuple[Path, tuple[Any, ...]]:
    """The file of the gallery's `name` in `folder`, and what is to be said of it."""
    file, content, *said = GALLERY[name]
    (folder / file).write_bytes(content if isinstance(content, bytes) else content())
    return folder / file, (*said,)


@pytest.fixture(autouse=True)
def smaller_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one is made in no time."""
    monkeypatch.setattr(text_files, "_MOST_UNPACKED", 2**21)


def test_the_gallery_has_forty_files() -> None:
    assert len(GALLERY) >= 40


@pytest.mark.parametrize("name", GALLERY)
def test_a_broken_file_is_answered_by_one_sentence(tmp_path: Path, name: str) -> None:
    path, (code, row, en, zh) = broken(tmp_path, name)
    with pytest.raises(Problem) as caught:
        read_dataset(tmp_path, "x")
    problem = caught.value
    assert (problem.code, problem.values.get("row")) == (code, row)
    english, chinese = problem.sentence("en"), problem.sentence("zh")
    assert en in english
    assert zh in chinese
    assert "Dataset x" in english
    assert "数据集 x" in chinese
    assert (
        (f"row {row}" in english and f"第 {row} 行" in chinese)
        if row
        else str(path) in english and str(path) in chinese
    )
    assert REMEDIES.search(english), english
    assert "请" in chinese
    assert "\n" not in english + chinese
    assert len(english) < 700


ROWS = [name for name, item in GALLERY.items() if item[2].startswith("dataset_row") and item[0] in ("x.jsonl", "x.csv")]


@pytest.mark.parametrize("name", ROWS)
def test_the_rows_beside_a_bad_one_can_be_used(tmp_path: Path, name: str) -> None:
    """Every bad row is counted by its number, and none of them hides what comes after it."""
    path, (_, row, _, _) = broken(tmp_path, name)
    again = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*again, again[0] if path.suffix == ".jsonl" else again[1]]))
    found = list(iterate(find_source(tmp_path, "x")))
    bad = [item for item in found if isinstance(item, BadRow)]
    assert bad[0].row == row
    assert all(item.reason["en"] and item.reason["zh"] and item.reason["en"] != item.reason["zh"] for item in bad)
    assert [item.row for item in found] == list(range(1, len(found) + 1))
    assert len(found) == row + 1
    assert len(bad) == (1 if row > 1 else 2)  # where the only row is bad, so is its copy


def shown(folder: Path) -> Problem | list[Any]:
    """The first page of `x`, or why there is none."""
    try:
        return list(preview(folder, "x", 1, 4)[0])
    except Problem as problem:
        return problem


@pytest.mark.parametrize("name", GALLERY)
def test_the_preview_tells_the_same_or_shows_the_rows_before(tmp_path: Path, name: str) -> None:
    _, (code, row, en, _) = broken(tmp_path, name)
    found = shown(tmp_path)
    if isinstance(found, list) and row is None:  # what is wrong stands further down
        assert found
        assert not any(isinstance(item, BadRow) for item in found)
        return
    problem = next(item.problem for item in found if isinstance(item, BadRow)) if isinstance(found, list) else found
    assert (problem.code, problem.values.get("row")) == (code, row)
    assert en in problem.sentence("en")


GOOD_FILES: dict[str, tuple[str, bytes]] = {
    "a byte order mark": ("x.csv", b"\xef\xbb\xbfinstruction,output\na,b\n"),
    "quotes, commas and line breaks in csv": ("x.csv", b'instruction,output\n"a, ""x""",b\n"c\r\nd","e\nf"\n'),
    "a semicolon as some spreadsheets have it": ("x.csv", b"instruction;output\na;b\n"),
    "windows line ends": ("x.jsonl", LINE + b"\r\n" + LINE + b"\r\n"),
    "a row of commas at the end": ("x.csv", b"instruction,output\na,b\n,\n"),
    "gz by another name": ("x.jsonl", gzip.compress(LINE)),
    "repeated text in gz": ("x.txt.gz", gzip.compress(b"the same line again\n" * 1000)),
    "nan where nobody looks": ("x.jsonl", b'{"instruction": "a", "output": "b", "score": NaN}'),
    "a list on one long line": ("x.json", json.dumps([{"instruction": "q" * 300_000, "output": "a"}] * 9).encode()),
}


@pytest.mark.parametrize("name", GOOD_FILES)
def test_what_only_looks_broken_is_read(tmp_path: Path, name: str) -> None:
    file, content = GOOD_FILES[name]
    (tmp_path / file).write_bytes(content)
    assert read_dataset(tmp_path, "x")
