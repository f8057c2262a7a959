"""Files that are of another kind than their name says, tables of spreadsheets, and folders that lead nowhere."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.dataset_files import list_datasets
from trainer.problems import LANGUAGES, Problem
from trainer.records import BadRow, Record, preview, read_dataset

ROW = {"instruction": "问", "output": "答"}
LINE = json.dumps(ROW, ensure_ascii=False).encode()
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123456789\n"


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        about = tarfile.TarInfo("x.jsonl")
        about.size = len(LINE)
        archive.addfile(about, io.BytesIO(LINE))
    return buffer.getvalue()


def refused(folder: Path) -> Problem:
    with pytest.raises(Problem) as caught:
        read_dataset(folder, "x")
    for language in LANGUAGES:
        assert "\n" not in caught.value.sentence(language)
        caught.value.sentence(language).encode()  # can be printed
    return caught.value


def first(folder: Path) -> Record | BadRow:
    return preview(folder, "x", 1, 4)[0][0]


# name → the file, its content, the problem's code, and what both sentences say.
OTHERS: dict[str, tuple[str, bytes, str, str, str]] = {
    "tar": ("x.json", tar(), "dataset_other_file", "a tar archive", "tar 归档文件"),
    "tar in gz": ("x.jsonl.gz", gzip.compress(tar()), "dataset_other_file", "a tar archive", "tar 归档文件"),
    "gz in gz": ("x.jsonl.gz", gzip.compress(gzip.compress(LINE)), "dataset_other_file", "inside a gz file", "两层"),
    "bz2": ("x.jsonl", b"BZh91AY&SY" + bytes(range(200)), "dataset_other_file", "a packed file", "压缩文件"),
    "an image": ("x.json", b"\x89PNG\r\n\x1a\n" + bytes(range(200)), "dataset_other_file", "an image", "图片"),
    "a database": ("x.json", b"SQLite format 3\0" + b"\0" * 200, "dataset_other_file", "SQLite", "SQLite"),
    "a web page": ("x.jsonl", b"\n<!DOCTYPE html><html>404</html>", "dataset_other_file", "a web page", "网页"),
    "a pointer": ("x.csv", LFS, "dataset_other_file", "git lfs pull", "git lfs pull"),
    "a pointer called parquet": ("x.parquet", LFS, "dataset_other_file", "git lfs pull", "git lfs pull"),
    "a pickle": ("x.json", b"\x80\x04\x95" + bytes(range(256)) * 4, "dataset_other_file", "no text", "二进制文件"),
    "japanese": ("x.txt", "こんにちは、今日は良い天気です。".encode("shift_jis"), "dataset_encoding", "SHIFT_JIS", "SHIFT_JIS"),
    "zeros at the end": ("x.jsonl", LINE + b"\n" + b"\0" * 900, "dataset_row_broken", "line 2 is not valid JSON: it is "
                         "nothing but zero bytes", "全是零字节"),
    "ends of lines of old": ("x.csv", b"instruction,output\ra,b\rc,d\r", "dataset_table_broken", "end with CR alone", "回车符"),
    "a table of nothing": ("x.csv", b" \n,,,\n", "dataset_empty", "has no rows", "没有数据"),
    "bytes in a table": ("x.parquet", b"", "dataset_row", "`output` is `binary`", "不是文字"),
    "an answer in parts": ("x.jsonl", json.dumps({**ROW, "output": {"a": 1}}).encode(), "dataset_row",
                           '`output` is `object` (`{"a": 1}`)', "不是文字"),
    "an endless number": ("x.jsonl", b'{"instruction": "a", "output": -Infinity}', "dataset_row", "`number` (`-Infinity`)",
                          "`number`"),
    "half a character as a column": ("x.jsonl", b'{"\\udc00": 1, "instruction": "a", "output": 3}', "dataset_row",
                                     "Columns found: \\udc00, instruction", "\\udc00"),
    "half a character as a role": ("x.jsonl", b'{"messages": [{"role": "\\udc00", "content": "a"}]}', "dataset_row",
                                   "role `\\udc00`", "\\udc00"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_it_is_said_what_the_file_is(tmp_path: Path, name: str) -> None:
    file, content, code, en, zh = OTHERS[name]
    (tmp_path / file).write_bytes(content)
    if name == "bytes in a table":
        pq.write_table(pa.table({"instruction": [b"a"], "output": [b"\xff\xfe"]}), tmp_path / file)
    problem = refused(tmp_path)
    assert problem.code == code
    assert en in problem.sentence("en")
    assert zh in problem.sentence("zh")


def test_a_sentence_does_not_list_ten_thousand_columns(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({f"column {n}": n for n in range(10_000)} | {"y" * 9000: 1}))
    assert len(refused(tmp_path).sentence("en")) < 700


TABLES = {
    "blank lines before the head": b"\n \ninstruction,output\na,b\n",
    "what a spreadsheet says of its separator": b"sep=;\r\ninstruction;output\r\na;b\r\n",
    "columns without a name": b"instruction,output,,\na,b,,\n",
    "the index of a frame": b",instruction,output\n0,a,b\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_spreadsheets_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.csv").write_bytes(TABLES[name])
    found = first(tmp_path)
    assert isinstance(found, Record)
    assert [message["content"] for message in found.messages] == ["a", "b"]


def test_text_that_a_table_holds_as_bytes_is_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"instruction": ["问".encode()], "output": [b"b"]}), tmp_path / "x.parquet")
    found = first(tmp_path)
    assert isinstance(found, Record)
    assert [message["content"] for message in found.messages] == ["问", "b"]


def test_a_web_page_in_a_text_is_text(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("<!DOCTYPE html>\n<p>x</p>\n")
    assert [record.messages[0]["content"] for record in read_dataset(tmp_path, "x")] == ["<!DOCTYPE html>", "<p>x</p>"]


@pytest.mark.parametrize(("column", "value"), [("system", "s"), ("tools", '[{"name": "f", "parameters": {}}]')])
def test_what_only_later_rows_have_is_not_lost(tmp_path: Path, column: str, value: str) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows: list[dict[str, Any]] = [{"messages": messages}, {"messages": messages, column: value}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    second = read_dataset(tmp_path, "x")[1]
    assert second.tools if column == "tools" else second.messages[0] == {"role": "system", "content": "s"}


# ---- places that are no files ----


def info(folder: Path, content: str | bytes) -> None:
    (folder / "dataset_info.json").write_bytes(content if isinstance(content, bytes) else content.encode())


def test_links_in_a_circle_are_a_file_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to("b.json")
    (tmp_path / "b.json").symlink_to("a.json")
    info(tmp_path, '{"x": {"file_name": "a.json"}}')
    assert list_datasets(tmp_path) == ["x"]
    assert refused(tmp_path).code == "dataset_file_missing"


INFOS: dict[str, tuple[str | bytes, str, str]] = {
    "in another encoding": ('{"x": {"file_name": "数据.json"}}'.encode("gbk"), "its byte 22 is not UTF-8", "第 22 字节"),
    "nested": (b"[" * 100_000, "nested too deeply", "嵌套过深"),
    "cut": ('{"x":', "line 1: Expecting value", "此处应为一个值"),
    "with a tag nobody knows": ('{"x": {"file_name": "a.json", "formatting": "sharegpt", "tags": {"usr_tag": "u"}}}',
                                "tags has `usr_tag`; known are role_tag", "tags 里有 `usr_tag`"),
}  # fmt: skip


@pytest.mark.parametrize("name", INFOS)
def test_a_broken_dataset_info_is_told_in_both_languages(tmp_path: Path, name: str) -> None:
    content, en, zh = INFOS[name]
    (tmp_path / "a.json").write_bytes(b"[" + LINE + b"]")
    info(tmp_path, content)
    problem = refused(tmp_path)
    assert problem.code == "dataset_info_broken"
    assert en in problem.sentence("en")
    assert zh in problem.sentence("zh")


def test_a_pipe_for_a_dataset_info_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dataset_info.json")
    assert refused(tmp_path).code == "dataset_info_broken"
