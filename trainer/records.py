"""Dataset files → conversations: LLaMA-Factory's dataset_info.json, or a bare folder of json and jsonl files.

Light: no torch. Reads and checks; what a chat template makes of a conversation is not its business.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from trainer.problems import Problem, quoted
from trainer.settings import label

INFO = "dataset_info.json"
SUFFIXES = (".json", ".jsonl")

_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
_SHAREGPT_TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
_OPENAI_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
_UNSERVED_KEYS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_UNSERVED_COLUMNS = ("images", "videos", "audios", "tools", "chosen", "rejected", "kto_tag")


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


@dataclass(frozen=True)
class _Layout:
    """How a row holds its conversation. `columns`: LLaMA-Factory's names → the row's; `roles`: the row's → ours."""

    formatting: str
    columns: dict[str, str]
    role_tag: str = ""
    content_tag: str = ""
    roles: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Source:
    """A dataset that can be served. `layout` None: recognised from the first row."""

    name: str
    path: Path
    layout: _Layout | None = None
    num_samples: int | None = None


def list_datasets(data_dir: Path) -> list[str]:
    """Names of the datasets that can be served, sorted. Raises Problem when the folder or its list is unreadable.

    With a dataset_info.json: its entries, less those of a kind not served (hub, ranking, images, other
    file types). Without: every json and jsonl file by its stem, or by its full name where stems collide.
    """
    info = _info(data_dir)
    if info is None:
        return sorted(_bare_files(data_dir))
    return sorted(name for name, entry in info.items() if _is_served(name, entry))


def read_dataset(data_dir: Path, name: str, max_samples: int | None = None) -> list[Record]:
    """The first `max_samples` rows as conversations; rows after them are not checked.

    An entry's num_samples takes that many first, beginning again where the file has fewer, so that it
    weighs datasets as in LLaMA-Factory (which draws them at random). Raises Problem at the first bad row.
    """
    source = _source(data_dir, name)
    wanted = min((n for n in (max_samples, source.num_samples) if n is not None), default=None)
    records = list(_records(source, islice(_rows(source), wanted)))
    if not records:
        raise Problem("dataset_empty", name=name, path=str(source.path))
    if wanted is not None and source.num_samples is not None:
        records = (records * (wanted // len(records) + 1))[:wanted]
    return records


def preview(data_dir: Path, name: str, page: int, page_size: int) -> tuple[list[Record], int]:
    """The rows of `page` (from 1) and the number of rows in the file. Only those rows are checked.

    A page past the end is empty. Raises Problem as read_dataset does.
    """
    source = _source(data_dir, name)
    stat = _checked(source, source.path.stat)
    rows = _cached(source, stat.st_mtime_ns, stat.st_size)
    if not len(rows):
        raise Problem("dataset_empty", name=name, path=str(source.path))
    first = (max(page, 1) - 1) * page_size
    numbered = ((index + 1, rows[index]) for index in range(first, min(first + page_size, len(rows))))
    if source.layout is None and first:
        source = _Source(name, source.path, _recognised(name, rows[0]))
    return list(_records(source, numbered)), len(rows)


# ---- which datasets there are ----


def _info(data_dir: Path) -> dict[str, Any] | None:
    """The entries of dataset_info.json; None when there is none."""
    if not data_dir.is_dir():
        raise Problem("data_dir_missing", label=label("dataset_dir"), path=str(data_dir))
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
        kind = {"en": f"a {_kind(info)}, not an object of datasets", "zh": f"{_kind(info)}，不是数据集的对象"}
        raise _info_broken(data_dir, kind)
    return info


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


def _source(data_dir: Path, name: str) -> _Source:
    info = _info(data_dir)
    files = _bare_files(data_dir) if info is None else {}
    if name not in (files if info is None else info):
        found = list_datasets(data_dir)
        shown = ", ".join(found[:20]) + (", …" if len(found) > 20 else "")
        raise Problem(
            "dataset_unknown", label=label("dataset"), name=quoted(name), path=str(data_dir), found=shown or "–"
        )
    source = _Source(name, files[name]) if info is None else _entry(data_dir, name, info[name])
    if not source.path.resolve().is_relative_to(data_dir.resolve()):
        raise Problem("dataset_outside", name=name, path=str(source.path))
    if not source.path.exists():
        raise Problem("dataset_file_missing", name=name, path=str(source.path))
    if source.path.is_dir():
        raise _unsupported(name, "a folder as file_name", "以文件夹作为 file_name")
    return source


def _is_served(name: str, entry: Any) -> bool:
    try:
        _entry(Path(), name, entry)
    except Problem:
        return False
    return True


def _unsupported(name: str, en: str, zh: str) -> Problem:
    return Problem("dataset_unsupported", name=name, detail={"en": en, "zh": zh})


def _entry(data_dir: Path, name: str, entry: Any) -> _Source:
    """One entry of dataset_info.json. Raises Problem when it is broken or of a kind not served."""

    def broken(en: str, zh: str) -> Problem:
        return _info_broken(data_dir, {"en": f"{quoted(name)}: {en}", "zh": f"{quoted(name)}：{zh}"})

    if not isinstance(entry, dict):
        raise broken(f"is a {_kind(entry)}, not an object", f"是 {_kind(entry)}，不是对象")
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
    if path.suffix.lower() not in SUFFIXES and not path.is_dir():
        raise _unsupported(name, f"the file {quoted(file_name)}", f"文件 {quoted(file_name)}")
    return _Source(name, path, _declared(name, entry.get("formatting", "alpaca"), columns, tags), count)


def _declared(name: str, formatting: Any, columns: dict[str, str | None], tags: dict[str, str | None]) -> _Layout:
    """The layout that an entry declares. As in LLaMA-Factory, naming any column unsets those not named."""
    named = {key: value for key, value in columns.items() if value}
    if formatting == "alpaca":
        if columns and "response" not in named:
            raise _unsupported(name, "text without a `response` column", "没有 `response` 列的文本")
        return _Layout("alpaca", {"prompt": "instruction", **named} if columns else _ALPACA)
    if formatting not in ("sharegpt", "openai"):
        raise _unsupported(name, f"`formatting: {formatting}`", f"`formatting: {formatting}`")
    defaults = _SHAREGPT_TAGS if formatting == "sharegpt" else _OPENAI_TAGS
    all_tags = {**defaults, "system_tag": "system", **{key: value for key, value in tags.items() if value}}
    roles = {all_tags[f"{role}_tag"]: role for role in ("system", "user", "assistant")}
    default_column = "conversations" if formatting == "sharegpt" else "messages"
    return _Layout(
        "messages", {"messages": default_column, **named}, all_tags["role_tag"], all_tags["content_tag"], roles
    )


def _recognised(name: str, row: Any) -> _Layout:
    """The layout of a file that nothing describes, by its first row."""
    keys = set(row) if isinstance(row, dict) else set()
    optional = {"system": "system", "history": "history"}
    if {"instruction", "output"} <= keys:
        return _Layout("alpaca", {**_ALPACA, **optional})
    for answer in ("completion", "response"):
        if {"prompt", answer} <= keys:
            return _Layout("alpaca", {"prompt": "prompt", "response": answer, **optional})
    for column in ("messages", "conversations"):
        turns = row[column] if column in keys else None
        if isinstance(turns, list) and turns and isinstance(turns[0], dict):
            tags = _OPENAI_TAGS if "role" in turns[0] else _SHAREGPT_TAGS
            roles = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
            columns = {"messages": column, "system": "system"}
            return _Layout("messages", columns, tags["role_tag"], tags["content_tag"], roles)
    raise _row_problem(
        name, 1, row,
        "the format is not recognised; expected instruction + output, prompt + completion, "
        "conversations (from, value) or messages (role, content)",
        "无法识别格式；应为 instruction + output、prompt + completion、"
        "conversations（from、value）或 messages（role、content）",
    )  # fmt: skip


# ---- files → rows ----


def _checked(source: _Source, read: Any) -> Any:
    """What `read` returns, its operating system errors told as a Problem."""
    try:
        return read()
    except OSError as error:
        detail = error.strerror
        raise Problem("file_unreadable", label=label("dataset"), path=str(source.path), detail=detail) from None


def _rows(source: _Source) -> Iterator[tuple[int, Any]]:
    """(row number from 1, row). Line by line where the file is jsonl, whatever its ending says."""
    if not _is_jsonl(source):
        yield from enumerate(_parsed_list(source), 1)
        return
    with _checked(source, lambda: source.path.open("rb")) as file:
        row = offset = 0
        for number, line in enumerate(file, 1):
            if text := _text(source, line, offset).strip():
                row += 1
                yield row, _parsed(source, text, number)
            offset += len(line)


def _is_jsonl(source: _Source) -> bool:
    """Whether rows are lines: a .json file often holds jsonl, and the other way round."""
    with _checked(source, lambda: source.path.open("rb")) as file:
        first = next((line for raw in file if (line := raw.removeprefix(b"\xef\xbb\xbf").strip())), b"")
    if first.startswith(b"["):
        return False
    if source.path.suffix.lower() == ".jsonl" or not first:
        return True
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _text(source: _Source, data: bytes, offset: int = 0) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        byte = offset + error.start + 1
        raise Problem("dataset_encoding", name=source.name, path=str(source.path), byte=byte) from None


def _parsed(source: _Source, text: str, line: int = 0) -> Any:
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


def _parsed_list(source: _Source) -> list[Any]:
    rows = _parsed(source, _text(source, _checked(source, source.path.read_bytes)))
    if isinstance(rows, list):
        return rows
    detail = {
        "en": f"the file holds one {_kind(rows)} instead of a list of rows",
        "zh": f"文件内容是一个 {_kind(rows)}，不是由行组成的列表",
    }
    raise Problem("dataset_json_broken", name=source.name, path=str(source.path), line=1, detail=detail)


class _Lines:
    """The rows of a jsonl file, parsed when asked for: of a large file only where its lines begin is kept."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        self.places: list[tuple[int, int]] = []  # (line number, byte offset)
        offset = 0
        with _checked(source, lambda: source.path.open("rb")) as file:
            for number, line in enumerate(file, 1):
                if line.removeprefix(b"\xef\xbb\xbf").strip():
                    self.places.append((number, offset))
                offset += len(line)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Any:
        number, offset = self.places[index]
        with _checked(self.source, lambda: self.source.path.open("rb")) as file:
            file.seek(offset)
            return _parsed(self.source, _text(self.source, file.readline(), offset).strip(), number)


@lru_cache(maxsize=4)
def _read_once(source_name: str, path: Path, modified_ns: int, size: int) -> "list[Any] | _Lines":
    source = _Source(source_name, path)
    return _Lines(source) if _is_jsonl(source) else _parsed_list(source)


def _cached(source: _Source, modified_ns: int, size: int) -> "list[Any] | _Lines":
    """The file's rows, kept while the file is unchanged, so that turning a page does not read it again."""
    return _read_once(source.name, source.path, modified_ns, size)


# ---- rows → conversations ----


def _records(source: _Source, rows: Any) -> Iterator[Record]:
    layout = source.layout
    for number, row in rows:
        layout = layout or _recognised(source.name, row)
        try:
            messages = _messages(row, layout)
        except _BadRow as bad:
            raise _row_problem(source.name, number, row, *bad.args) from None
        yield Record(source.name, number, messages, row)


class _BadRow(Exception):
    """What is wrong with a row: (en, zh)."""


def _row_problem(name: str, number: int, row: Any, en: str, zh: str) -> Problem:
    columns = ", ".join(row) if isinstance(row, dict) and row else "–"
    return Problem("dataset_row", name=name, row=number, detail={"en": en, "zh": zh}, columns=columns)


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def _messages(row: Any, layout: _Layout) -> tuple[dict[str, str], ...]:
    if not isinstance(row, dict):
        raise _BadRow(f"it is a {_kind(row)}, not an object with columns", f"它是 {_kind(row)}，不是含有列的对象")
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
            f"{where} is a {_kind(value)} ({quoted(value)}), not text",
            f"{where} 是 {_kind(value)}（{quoted(value)}），不是文字",
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        broken = f"\\u{ord(value[error.start]):04x}"
        raise _BadRow(f"{where} holds half a character ({broken})", f"{where} 含有半个字符（{broken}）") from None
    return value


def _alpaca(row: dict[str, Any], layout: _Layout) -> Iterator[tuple[str, str]]:
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


def _turns(row: dict[str, Any], layout: _Layout) -> Iterator[tuple[str, str]]:
    column = layout.columns["messages"]
    turns = _column(row, column)
    if not isinstance(turns, list):
        raise _BadRow(
            f"`{column}` is a {_kind(turns)}, not a list of messages", f"`{column}` 是 {_kind(turns)}，不是消息列表"
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
