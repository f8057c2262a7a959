"""One more entry for a dataset_info.json: how a file's rows are described there, and how it is written between others."""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer import records
from trainer.dataset_files import INFO
from trainer.layouts import ALPACA, Layout, recognised
from trainer.problems import Problem
from trainer.records import Record

Entry = dict[str, Any]
# Rows that decide how all are described.
LOOKED_AT = 50
# What LLaMA-Factory calls the sender of each role, where it is not the usual name.
_USUAL = {
    "sharegpt": {"user_tag": "human", "assistant_tag": "gpt"},
    "openai": {"user_tag": "user", "assistant_tag": "assistant"},
}
_TAGS = {"system": "system_tag", "user": "user_tag", "assistant": "assistant_tag", "tool": "observation_tag"}


def entry_for(folder: Path, name: str, file_name: str) -> Entry:
    """The entry by which the only file of `folder`, the dataset `name`, is read as it is by looking at it.

    `file_name`: what the entry calls it. LLaMA-Factory reads the entry too, where it can describe such rows at all.
    """
    rows = [row for row in records.preview(folder, name, 1, LOOKED_AT)[0] if isinstance(row, Record)]
    source = next(path for path in folder.iterdir() if path.is_file())
    wanted = [_told(row) for row in rows]
    for entry in _candidates([row.raw for row in rows]):
        if _read_by({**entry, "file_name": source.name}, source) == wanted:
            return {"file_name": file_name, **entry}
    return {"file_name": file_name}  # then rows are looked at again


def _told(row: Any) -> tuple[Any, ...]:
    return row.row, row.kind, row.messages, row.rejected, row.tools, row.desirable


def _read_by(entry: Entry, source: Path) -> list[tuple[Any, ...]]:
    """What the first rows are when the file stands beside a list that has `entry` alone."""
    with tempfile.TemporaryDirectory(dir=source.parent.parent, prefix=".entry-") as folder:
        os.link(source, Path(folder) / source.name)
        (Path(folder) / INFO).write_text(json.dumps({"x": entry}), encoding="utf-8")
        try:
            rows = records.preview(Path(folder), "x", 1, LOOKED_AT)[0]
        except Problem:
            return []
        return [_told(row) for row in rows if isinstance(row, Record)]


def _candidates(rows: Sequence[Any]) -> Iterator[Entry]:
    """What an entry may say of `rows` beside their file, from the plainest on."""
    layout = recognised(rows[0]) if rows else None
    if layout is None:
        return
    there = {key for row in rows if isinstance(row, dict) for key in row}
    columns = {key: column for key, column in layout.columns.items() if column in there}
    kind = {"ranking": True} if layout.kind == "preference" else {}
    if layout.formatting == "text":
        yield {"columns": {"prompt": columns["text"]}}
    elif layout.formatting == "messages":
        formatting = "openai" if layout.role_tag == "role" else "sharegpt"
        tags = _tags(rows, layout, formatting)
        if formatting == "openai" and not tags:
            # Older versions of LLaMA-Factory do not know the short form.
            tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
                    "system_tag": "system"}  # fmt: skip
            yield {"formatting": "sharegpt", "columns": columns, "tags": tags, **kind}
            tags = {}
        yield {"formatting": formatting, "columns": columns, **({"tags": tags} if tags else {}), **kind}
    else:
        usual = columns.items() <= ALPACA.items()
        yield kind if usual else {"columns": columns, **kind}
        yield {"formatting": "sharegpt", "columns": columns, **kind}


def _tags(rows: Sequence[Any], layout: Layout, formatting: str) -> dict[str, str]:
    """The names of senders in `rows`, if they are not those of `formatting`."""
    found: dict[str, str] = {}
    for row in rows:
        for turn in row.get(layout.columns["messages"]) or () if isinstance(row, dict) else ():
            name = turn.get(layout.role_tag) if isinstance(turn, dict) else None
            role = layout.roles.get(name, "") if isinstance(name, str) else ""
            if role in _TAGS and isinstance(name, str):
                found.setdefault(_TAGS[role], name)
    usual = _USUAL[formatting]
    return {} if all(found.get(tag, name) == name for tag, name in usual.items()) else found


def inserted(text: str, name: str, entry: Entry) -> str:
    """`text`, a dataset_info.json, with one more entry at its end and all else as it is written."""
    before = json.loads(text.removeprefix("\ufeff"))
    body = text.rstrip()
    head, tail = body[:-1].rstrip(), text[len(body) :]
    ending = "\r\n" if "\r\n" in text else "\n"
    found = re.search(r"\n([ \t]+)\"", text)
    indent = found.group(1) if found else "  "
    lines = json.dumps(entry, ensure_ascii=False, indent=indent).splitlines()
    block = (ending + indent).join(lines)
    comma = "" if head.endswith("{") else ","
    written = f"{head}{comma}{ending}{indent}{json.dumps(name, ensure_ascii=False)}: {block}{ending}}}{tail}"
    wanted = {**before, name: entry}
    if json.loads(written.removeprefix("\ufeff")) == wanted:
        return written
    return json.dumps(wanted, ensure_ascii=False, indent=2) + "\n"
