"""Which datasets a folder holds, and the rows of their files: json and jsonl, declared or recognised by looking.

Light: no torch. What a row means is the business of records.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from trainer.problems import Problem, quoted
from trainer.settings import label

T = TypeVar("T")

INFO = "dataset_info.json"
SUFFIXES = (".json", ".jsonl")
_MOST_SHOWN = 300

_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
_SHAREGPT_TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
_OPENAI_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
_UNSERVED_KEYS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_UNSERVED_COLUMNS = ("images", "videos", "audios", "tools", "chosen", "rejected", "kto_tag")


@dataclass(frozen=True)
class Layout:
    """How a row holds its conversation. `columns`: LLaMA-Factory's names → the row's; `roles`: the row's → ours."""

    formatting: str
    columns: dict[str, str]
    role_tag: str = ""
    content_tag: str = ""
    roles: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A dataset that can be served. `layout` None: recognised from the first row."""

    name: str
    path: Path
    layout: Layout | None = None
    num_samples: int | None = None


def list_datasets(data_dir: Path) -> list[str]:
    """Names of the datasets that can be served, sorted. Raises Problem when the folder or its list is unreadable.

    With a dataset_info.json: its entries, less those of a kind not served (hub, ranking, images, other
    file types). Without: every json and jsonl file by its stem, or by its full name where stems collide.
    """
    entries = _info(data_dir)
    if entries is None:
        return sorted(_bare_files(data_dir))
    return sorted(name for name, entry in entries.items() if _is_served(data_dir, name, entry))


def _info(data_dir: Path) -> dict[str, Any] | None:
    """The entries of dataset_info.json; None when there is none."""
    if not _is_folder(data_dir):
        raise Problem("data_dir_missing", label=label("dataset_dir"), path=str(data_dir)[:_MOST_SHOWN])
    if not (data_dir / INFO).resolve().is_relative_to(data_dir.resolve()):
        raise Problem("dataset_outside", name=INFO, path=str((data_dir / INFO).resolve()))
    try:
        info = json.loads((data_dir / INFO).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _info_broken(data_dir, error.strerror) from None
    except json.JSONDecodeError as error:
        where = {"en": f"line {error.lineno}: {error.msg}", "zh": f"第 {error.lineno} 行：{error.msg}"}
        raise _info_broken(data_dir, where) from None
    except (ValueError, RecursionError) as error:
        raise _info_broken(data_dir, str(error)) from None
    if not isinstance(info, dict):
        kind = {"en": f"it holds {kind_of(info)}, not an object", "zh": f"内容是 {kind_of(info)}，不是对象"}
        raise _info_broken(data_dir, kind)
    return info


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long
        return False


def _info_broken(data_dir: Path, detail: Any) -> Problem:
    return Problem("dataset_info_broken", path=str(data_dir), detail=detail)


def _bare_files(data_dir: Path) -> dict[str, Path]:
    try:
        files = [path for path in data_dir.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != "."]
    except OSError as error:
        detail = error.strerror
        raise Problem("file_unreadable", label=label("dataset_dir"), path=str(data_dir), detail=detail) from None
    stems = [path.stem for path in files]
    return {path.stem if stems.count(path.stem) == 1 else path.name: path for path in files if path.is_file()}


def find_source(data_dir: Path, name: str) -> Source:
    """The dataset `name`, its file known to be in `data_dir`. Raises Problem."""
    entries = _info(data_dir)
    files = _bare_files(data_dir) if entries is None else {}
    if name not in (files if entries is None else entries):
        found = list_datasets(data_dir)
        shown = ", ".join(found[:20]) + (", …" if len(found) > 20 else "")
        raise Problem(
            "dataset_unknown", label=label("dataset"), name=quoted(name), path=str(data_dir), found=shown or "–"
        )
    source = Source(name, files[name]) if entries is None else _entry(data_dir, name, entries[name])
    if "\0" in str(source.path) or not source.path.resolve().is_relative_to(data_dir.resolve()):
        raise Problem("dataset_outside", name=name, path=str(source.path))
    if not os.path.isfile(source.path):  # also of a name too long to ask for; a pipe would be waited for, for ever
        raise Problem("dataset_file_missing", name=name, path=str(source.path))
    return source


def _is_served(data_dir: Path, name: str, entry: Any) -> bool:
    try:
        _entry(data_dir, name, entry)
    except Problem:
        return False
    return True


def _unsupported(name: str, en: str, zh: str) -> Problem:
    return Problem("dataset_unsupported", name=name, detail={"en": en, "zh": zh})


def _entry(data_dir: Path, name: str, entry: Any) -> Source:
    """One entry of dataset_info.json. Raises Problem when it is broken or of a kind not served."""

    def broken(en: str, zh: str) -> Problem:
        return _info_broken(data_dir, {"en": f"{quoted(name)}: {en}", "zh": f"{quoted(name)}：{zh}"})

    if not isinstance(entry, dict):
        raise broken(f"is {kind_of(entry)}, not an object", f"是 {kind_of(entry)}，不是对象")
    for key in _UNSERVED_KEYS:
        if key in entry:
            raise _unsupported(name, f"`{key}`", f"`{key}`")
    if entry.get("ranking"):
        raise _unsupported(name, "`ranking: true` (preference pairs)", "`ranking: true`（偏好数据）")
    file_name, count = entry.get("file_name"), entry.get("num_samples")
    if not isinstance(file_name, str) or not file_name:
        raise broken("file_name is missing", "缺少 file_name")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise broken(
            f"num_samples is {quoted(count)}, not a positive whole number",
            f"num_samples 为 {quoted(count)}，须为正整数",
        )
    columns, tags = entry.get("columns", {}), entry.get("tags", {})
    for key, value in (("columns", columns), ("tags", tags)):
        if not isinstance(value, dict) or not all(isinstance(item, str | None) for item in value.values()):
            raise broken(f"{key} must map names to names", f"{key} 须为名称到名称的对象")
    for key in _UNSERVED_COLUMNS:
        if columns.get(key):
            raise _unsupported(name, f"the column `{key}`", f"列 `{key}`")
    path = data_dir / file_name
    if path.suffix.lower() not in SUFFIXES or os.path.isdir(path):
        raise _unsupported(name, f"the file {quoted(file_name)}", f"文件 {quoted(file_name)}")
    return Source(name, path, _declared(name, entry.get("formatting", "alpaca"), columns, tags), count)


def _declared(name: str, formatting: Any, columns: dict[str, str | None], tags: dict[str, str | None]) -> Layout:
    """The layout that an entry declares. As in LLaMA-Factory, naming any column unsets those not named."""
    named = {key: value for key, value in columns.items() if value}
    if formatting == "alpaca":
        if columns and "response" not in named:
            raise _unsupported(name, "text without a `response` column", "没有 `response` 列的文本")
        return Layout("alpaca", {"prompt": "instruction", **named} if columns else _ALPACA)
    if formatting not in ("sharegpt", "openai"):
        raise _unsupported(name, f"`formatting: {formatting}`", f"`formatting: {formatting}`")
    defaults = _SHAREGPT_TAGS if formatting == "sharegpt" else _OPENAI_TAGS
    all_tags = {**defaults, "system_tag": "system", **{key: value for key, value in tags.items() if value}}
    roles = {all_tags[f"{role}_tag"]: role for role in ("system", "user", "assistant")}
    default_column = "conversations" if formatting == "sharegpt" else "messages"
    return Layout(
        "messages", {"messages": default_column, **named}, all_tags["role_tag"], all_tags["content_tag"], roles
    )


def recognised(name: str, row: Any) -> Layout:
    """The layout of a file that nothing describes, by its first row."""
    keys = set(row) if isinstance(row, dict) else set()
    optional = {"system": "system", "history": "history"}
    if {"instruction", "output"} <= keys:
        return Layout("alpaca", {**_ALPACA, **optional})
    for answer in ("completion", "response"):
        if {"prompt", answer} <= keys:
            return Layout("alpaca", {"prompt": "prompt", "response": answer, **optional})
    for column in ("messages", "conversations"):
        turns = row[column] if column in keys else None
        if isinstance(turns, list) and turns and isinstance(turns[0], dict):
            tags = _OPENAI_TAGS if "role" in turns[0] else _SHAREGPT_TAGS
            roles = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
            columns = {"messages": column, "system": "system"}
            return Layout("messages", columns, tags["role_tag"], tags["content_tag"], roles)
    raise row_problem(
        name, 1, row,
        "the format is not recognised; expected instruction + output, prompt + completion, "
        "conversations (from, value) or messages (role, content)",
        "无法识别格式；应为 instruction + output、prompt + completion、"
        "conversations（from、value）或 messages（role、content）",
    )  # fmt: skip


# ---- files → rows ----


def _opened(source: Source, read: Callable[[], T]) -> T:
    """What `read` returns, its operating system errors told as a Problem."""
    try:
        return read()
    except OSError as error:
        detail = error.strerror
        raise Problem("file_unreadable", label=label("dataset"), path=str(source.path), detail=detail) from None


def rows_of(source: Source) -> Iterator[tuple[int, Any]]:
    """(row number from 1, row). Line by line where the file is jsonl, whatever its ending says."""
    if not _is_jsonl(source):
        yield from enumerate(_parsed_list(source), 1)
        return
    with _opened(source, lambda: source.path.open("rb")) as file:
        row = offset = 0
        for number, line in enumerate(file, 1):
            if _bare(line):
                row += 1
                yield row, _parsed(source, _text(source, line, offset), number)
            offset += len(line)


def _is_jsonl(source: Source) -> bool:
    """Whether rows are lines: a .json file often holds jsonl, and the other way round."""
    with _opened(source, lambda: source.path.open("rb")) as file:
        first = next((line for raw in file if (line := _bare(raw))), b"")
    if first.startswith(b"["):
        return False
    if source.path.suffix.lower() == ".jsonl" or not first:
        return True
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _bare(line: bytes) -> bytes:
    """`line` without a byte order mark and white space; nothing is left of a blank line."""
    return line.removeprefix(b"\xef\xbb\xbf").strip()


def _text(source: Source, data: bytes, offset: int = 0) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        byte = offset + error.start + 1
        raise Problem("dataset_encoding", name=source.name, path=str(source.path), byte=byte) from None


def _parsed(source: Source, text: str, line: int = 0) -> Any:
    """`text` as JSON; `line` is where it stands when it is a line of a file."""

    def broken(number: int, detail: Any) -> Problem:
        return Problem("dataset_json_broken", name=source.name, path=str(source.path), line=number, detail=detail)

    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise broken(line or error.lineno, error.msg) from None
    except RecursionError:
        raise broken(line or 1, {"en": "nested too deeply", "zh": "嵌套过深"}) from None
    except ValueError as error:  # a number of thousands of digits
        raise broken(line or 1, str(error)) from None


def _parsed_list(source: Source) -> list[Any]:
    rows = _parsed(source, _text(source, _opened(source, source.path.read_bytes)))
    if isinstance(rows, list):
        return rows
    detail = {
        "en": f"the file holds {kind_of(rows)} instead of a list of rows",
        "zh": f"文件内容是 {kind_of(rows)}，不是由行组成的列表",
    }
    raise Problem("dataset_json_broken", name=source.name, path=str(source.path), line=1, detail=detail)


class _Lines:
    """The rows of a jsonl file, parsed when asked for: of a large file only where its lines begin is kept."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.places: list[tuple[int, int]] = []  # (line number, byte offset)
        offset = 0
        with _opened(source, lambda: source.path.open("rb")) as file:
            for number, line in enumerate(file, 1):
                if _bare(line):
                    self.places.append((number, offset))
                offset += len(line)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Any:
        number, offset = self.places[index]
        with _opened(self.source, lambda: self.source.path.open("rb")) as file:
            file.seek(offset)
            return _parsed(self.source, _text(self.source, file.readline(), offset), number)


@lru_cache(maxsize=4)
def _read_once(source_name: str, path: Path, modified_ns: int, size: int) -> "list[Any] | _Lines":
    source = Source(source_name, path)
    return _Lines(source) if _is_jsonl(source) else _parsed_list(source)


def rows_for_paging(source: Source) -> "list[Any] | _Lines":
    """The file's rows, kept while the file is unchanged, so that turning a page does not read it again."""
    stat = _opened(source, source.path.stat)
    return _read_once(source.name, source.path, stat.st_mtime_ns, stat.st_size)


def row_problem(name: str, number: int, row: Any, en: str, zh: str) -> Problem:
    columns = ", ".join(row) if isinstance(row, dict) and row else "–"
    return Problem("dataset_row", name=name, row=number, detail={"en": en, "zh": zh}, columns=columns)


def kind_of(value: Any) -> str:
    """The JSON type of `value`, as a sentence names it in either language."""
    names = {dict: "`object`", list: "`list`", str: "`string`", bool: "`boolean`", int: "`number`", float: "`number`"}
    return names.get(type(value), "`null`")
