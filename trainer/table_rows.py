"""Rows of csv, tsv, parquet, arrow and txt files, one by one in bounded memory.

Light: no torch; pyarrow is imported when a parquet or arrow file is opened. A txt file's rows are its lines that are
not blank, each a `text`, as LLaMA-Factory has them.
"""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.json_rows import Item
from trainer.plain_file import open_plain
from trainer.text_files import (
    MOST_ROW_BYTES,
    Content,
    Fault,
    FileFault,
    Words,
    check_kind,
    check_text,
    decoded,
    encoding_fault,
    lines,
    too_long,
)

_BATCH = 256
_MAGIC = {"parquet": b"PAR1", "arrow": b"ARROW1"}
_CSV_WORDS = {
    "unexpected end of data": ("a quotation mark is opened and never closed", "有引号没有闭合"),
    "',' expected after '\"'": ('something stands behind a closing quotation mark; write " inside quotes twice',
                                '结束引号之后还有内容；引号内的 " 须写两次'),
    "new-line character seen in unquoted field": (
        "its lines end with CR alone; save it with LF or CRLF at the ends of lines",
        "行尾只有回车符（CR）；请另存为以 LF 或 CRLF 换行的文件"),
    "field larger than field limit": ("a quotation mark is opened and never closed, or a cell is longer than 8 MB",
                                      "有引号没有闭合，或有单元格超过 8 MB"),
}  # fmt: skip


def text_rows(path: Path, offset: int = 0, line: int = 0, skim: bool = False) -> Iterator[Item]:
    """A `text` for each line of `path` that is not blank."""
    check_text(path)
    with Content(path, offset) as file:
        for found, behind, number in lines(file, offset, line):
            if found is None:
                yield too_long(), behind, number
            elif skim and found.strip():
                yield None, behind, number
            elif (text := decoded(found.rstrip(b"\r\n"))) and (isinstance(text, Fault) or text.strip()):
                yield text if isinstance(text, Fault) else {"text": text}, behind, number


def delimited_rows(path: Path, offset: int = 0, line: int = 0, skim: bool = False) -> Iterator[Item]:
    """The rows of a table with a head, by its columns; cells are text. Raises FileFault.

    The delimiter is the one that cuts the head into most columns: comma, tab, or the semicolon of some spreadsheets.
    A column without a name is called as pandas does, `Unnamed: 0` for the first.
    """
    check_text(path)
    csv.field_size_limit(MOST_ROW_BYTES)
    table = _Table(path)
    with Content(path, offset or table.begin) as file:
        yield from table.rows(file, offset or table.begin, line or table.first_line)


class _Table:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.columns: list[str] = []
        self.delimiter = ","
        self.begin = self.first_line = 0
        for delimiter in ("\t", ",", ";") if ".tsv" in path.name.lower() else (",", "\t", ";"):
            with Content(path) as file:
                source = _Decoded(path, file, 0, 0)
                head = _head(source, delimiter)
            if len(head) > len(self.columns):
                self.columns, self.delimiter = head, delimiter
                self.begin, self.first_line = source.offset, source.number
        for column in self.columns:
            if self.columns.count(column) > 1:
                raise _broken(1, {"en": f"two columns are called `{column[:80]}`",
                                  "zh": f"有两列都叫 `{column[:80]}`"})  # fmt: skip

    def rows(self, file: Content, offset: int, line: int) -> Iterator[Item]:
        source = _Decoded(self._path, file, offset, line)
        for cells in _parsed(source, self.delimiter) if self.columns else ():
            if any(cells):  # a blank line, or the row of commas that spreadsheets leave
                yield self._row(cells), source.offset, source.number

    def _row(self, cells: list[str]) -> Any:
        found, wanted = len(cells), len(self.columns)
        if found != wanted:
            return Fault({"en": f"it has {found} cells and the head {wanted}; put cells that hold a comma or line "
                                "break into quotation marks",
                          "zh": f"有 {found} 个单元格，而表头有 {wanted} 列；含逗号或换行的单元格要加引号"},
                         self.delimiter.join(cells)[:400])  # fmt: skip
        return dict(zip(self.columns, cells, strict=True))


def _head(source: "_Decoded", delimiter: str) -> list[str]:
    """The names of the columns, which stand on the first line that is not blank; a spreadsheet's `sep=;` is none."""
    for cells in _parsed(source, delimiter, strict=False):  # of another delimiter it may be no table
        names = [cell.strip() for cell in cells]
        if any(name.strip(",;\t") for name in names) and not re.fullmatch(
            r"sep=[,;\t]?", delimiter.join(cells).strip(" \r\n")
        ):
            return [name or f"Unnamed: {number}" for number, name in enumerate(names)]
    return []


class _Decoded:
    """Lines as text for the csv module, which takes one at a time; `offset` and `number` of the last."""

    def __init__(self, path: Path, file: Content, offset: int, number: int) -> None:
        self._path, self._lines = path, lines(file, offset, number)
        self.offset, self.number = offset, number

    def __iter__(self) -> "_Decoded":
        return self

    def __next__(self) -> str:
        line, offset, self.number = next(self._lines)
        if line is None:
            raise _broken(self.number, too_long().reason)
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise encoding_fault(self._path, self.offset + error.start + 1) from None
        self.offset = offset
        return text.removeprefix("\ufeff")


def _parsed(source: _Decoded, delimiter: str, strict: bool = True) -> Iterator[list[str]]:
    begun = source.number + 1
    try:
        for cells in csv.reader(source, delimiter=delimiter, strict=strict):
            begun = source.number + 1
            yield cells
    except csv.Error as error:
        words = next((both for known, both in _CSV_WORDS.items() if known in str(error).replace(delimiter, ",")), None)
        raise _broken(begun, {"en": words[0], "zh": words[1]} if words else str(error)) from None


def _broken(line: int, detail: Words | str) -> FileFault:
    return FileFault("dataset_table_broken", line=line, detail=detail)


# ---- parquet and arrow ----


def parquet_rows(path: Path, offset: int = 0, line: int = 0, skim: bool = False) -> Iterator[Item]:
    """The rows of `path` from the row `offset` on; columns of no use to JSON as text."""
    import pyarrow.parquet as pq

    # Buffered beforehand, a row group would be read as a whole: half a gigabyte where a file is one group.
    with _arrow_told("parquet", path), pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
        group = row = 0
        while group < file.num_row_groups and row + file.metadata.row_group(group).num_rows <= offset:
            row += file.metadata.row_group(group).num_rows
            group += 1
        wanted = list(range(group, file.num_row_groups))
        for batch in file.iter_batches(batch_size=_BATCH, row_groups=wanted, use_threads=False):
            if row + batch.num_rows > offset:
                yield from _cells(batch, row, offset)
            row += batch.num_rows


def arrow_rows(path: Path, offset: int = 0, line: int = 0, skim: bool = False) -> Iterator[Item]:
    """The same of an arrow file, of either layout: as `datasets` writes them, or with a footer."""
    import pyarrow as pa

    with _arrow_told("arrow", path), pa.OSFile(str(path)) as file:
        row = 0
        for batch in _batches(file):
            if skim:
                yield from ((None, number, number) for number in range(max(row, offset) + 1, row + batch.num_rows + 1))
            elif row + batch.num_rows > offset:
                for begin in range(0, batch.num_rows, _BATCH):
                    yield from _cells(batch.slice(begin, _BATCH), row + begin, offset)
            row += batch.num_rows


def row_count(path: Path) -> int | None:
    """How many rows a parquet file says it has; None for other files."""
    if path.suffix.lower() != ".parquet":
        return None
    import pyarrow.parquet as pq

    with _arrow_told("parquet", path), pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def _batches(file: Any) -> Iterator[Any]:
    from pyarrow import ipc

    magic = file.read(6)
    file.seek(0)
    if magic != b"ARROW1":
        yield from ipc.open_stream(file)
        return
    reader = ipc.open_file(file)
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _cells(batch: Any, row: int, first: int) -> Iterator[Item]:
    if row < first:
        batch, row = batch.slice(first - row), first
    batch.validate(full=True)  # damaged offsets would lead anywhere in memory
    for number, cells in enumerate(batch.to_pylist(), row + 1):
        yield {key: _plain(value) for key, value in cells.items()}, number, number


def _plain(value: Any) -> Any:
    """`value` as JSON has it: dates, decimals and bytes that are text as text; other bytes stay."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value if value is None or isinstance(value, str | int | float) else str(value)


@contextmanager
def _arrow_told(kind: str, path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        with open_plain(path) as file:
            check_kind(file.read(512), _MAGIC[kind])
        said = re.sub(r"\s+", " ", str(error))[:120].rstrip(". ")
        raise FileFault("dataset_file_broken", detail={"en": f"it is no complete {kind} file ({said})",
                                                       "zh": f"不是完整的 {kind} 文件（{said}）"}) from None  # fmt: skip
