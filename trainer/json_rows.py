"""Rows of json and jsonl files, one by one in bounded memory: a list of a gigabyte is never held as a whole.

Light: no torch. A row whose object names a key twice is refused: a parser that keeps the last one hides data.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.text_files import (
    BOM,
    MOST_ROW_BYTES,
    Content,
    Fault,
    FileFault,
    Words,
    check_text,
    decoded,
    encoding_fault,
    json_words,
    lines,
    too_long,
)

# A value, the offset behind it, and the number of lines begun before that.
Item = tuple[Any, int, int]
_SPACE = re.compile(r"[ \t\r\n]*")
_CHUNK = 2**20
# Errors nearer to the end of what has been read may be the end's.
_MARGIN = 64
_TOO_DEEP = {"en": "nested too deeply", "zh": "嵌套过深"}
_ZEROS = {"en": "it is nothing but zero bytes, as a crash leaves them", "zh": "全是零字节，多因写入中断"}
_CUT = {"en": "the file ends in the middle of a row", "zh": "文件在一行中间就结束了"}


class Decoder:
    """JSON to values; `repeated` names a key that the last value had twice, else None."""

    def __init__(self) -> None:
        self.repeated: str | None = None
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [key for key, _ in pairs]
            self.repeated = next(key for key in names if names.count(key) > 1)
        return found

    def value(self, text: str, begin: int = 0) -> tuple[Any, int]:
        """The value at `begin` and where it ends. Raises ValueError, RecursionError as json does."""
        self.repeated = None
        return self._decoder.raw_decode(text, begin)

    def checked(self, value: Any, excerpt: str) -> Any:
        """`value`, or a Fault when a key was there twice."""
        if self.repeated is None:
            return value
        key = self.repeated[:80]
        return Fault({"en": f"the key `{key}` is there twice", "zh": f"键 `{key}` 出现了两次"}, excerpt[:400])


def rows(path: Path, offset: int = 0, line: int = 0, skim: bool = False) -> Iterator[Item]:
    """The rows of `path`, whichever of both it holds; bad ones as Fault. Raises FileFault and what reading raises.

    `offset`, `line`: behind an item, from which to go on. `skim`: lines are counted, not parsed.
    """
    sample = check_text(path)
    with Content(path, offset) as file:
        if sample.removeprefix(BOM).lstrip().startswith(b"["):
            yield from _Listed(path, file, offset, line).rows()
        elif _is_lines(path, sample):
            yield from _lines(file, offset, line, skim)
        else:
            raise _one_value(file)


def _is_lines(path: Path, sample: bytes) -> bool:
    """Whether rows are lines: a .json file often holds jsonl."""
    first, mark, _ = sample.removeprefix(BOM).lstrip().partition(b"\n")
    if ".jsonl" in path.name.lower() or not first.strip():
        return True
    if not mark and len(sample) > MOST_ROW_BYTES // 64:  # a first line that is longer than the sample
        return True
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _one_value(file: Content) -> FileFault:
    """What is wrong with a .json file that begins with neither a list nor a row on a line."""
    text = decoded(file.read(MOST_ROW_BYTES))
    begun = text.lstrip()[:1] if isinstance(text, str) else "{"
    kind = {"{": "`object`", '"': "`string`"}.get(begun, "`number`")
    whole = {"en": f"the file holds {kind} instead of a list of rows", "zh": f"文件内容是 {kind}，不是由行组成的列表"}
    try:
        json.loads(text if isinstance(text, str) else "{}")
    except json.JSONDecodeError as error:
        if len(str(text)) < MOST_ROW_BYTES // 4:
            return FileFault("dataset_json_broken", line=error.lineno, detail=json_words(error.msg))
    except RecursionError:
        return FileFault("dataset_json_broken", line=1, detail=_TOO_DEEP)
    except ValueError as error:
        return FileFault("dataset_json_broken", line=1, detail=json_words(str(error)))
    return FileFault("dataset_json_broken", line=1, detail=whole)


def _lines(file: Content, offset: int, number: int, skim: bool) -> Iterator[Item]:
    decoder = Decoder()
    for line, behind, at in lines(file, offset, number):
        if line is None:
            yield too_long(), behind, at
        elif line.removeprefix(BOM).strip():
            yield None if skim else _row(decoder, line, at), behind, at


def _row(decoder: Decoder, line: bytes, number: int) -> Any:
    text = decoded(line.strip())
    if isinstance(text, Fault):
        return text

    def broken(detail: Words) -> Fault:
        reason = {"en": f"line {number} is not valid JSON: {detail['en']}",
                  "zh": f"第 {number} 行不是有效的 JSON：{detail['zh']}"}  # fmt: skip
        return Fault(reason, text[:400])

    try:
        value, end = decoder.value(text)
    except json.JSONDecodeError as error:
        return broken(json_words(error.msg) if text.strip("\0") else _ZEROS)
    except RecursionError:
        return broken(_TOO_DEEP)
    except ValueError as error:  # a number of thousands of digits
        return broken(json_words(str(error)))
    if end < len(text) and text[end:].strip():
        return broken(json_words("Extra data"))
    return decoder.checked(value, text)


class _Listed:
    """The values of a JSON list, decoded as they come; of the text only what is being decoded is kept."""

    def __init__(self, path: Path, file: Content, offset: int, line: int) -> None:
        self._path, self._file, self._first = path, file, offset == 0
        self._decoder = Decoder()
        self._characters = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at, self._ended = "", 0, False
        self._offset, self._line = offset, max(line, 1)  # of self._at
        self._read = offset

    def rows(self) -> Iterator[Item]:
        if self._first:
            if self._next() == "\ufeff":
                self._pass(1)
                self._next()
            self._pass(1)  # the bracket
        elif not self._separated():
            return
        if self._next() != "]":
            while True:
                value = self._value()
                yield value, self._offset, self._line
                if not self._separated():
                    return
        self._end()

    def _separated(self) -> bool:
        """Passes the comma after a value; False after the last, when the list is closed and nothing follows."""
        found = self._next()
        if found == ",":
            self._pass(1)
            return True
        if not found:
            raise FileFault("dataset_json_broken", line=self._line, detail=_CUT)
        if found != "]":
            raise self._broken("Expecting ',' delimiter")
        self._end()
        return False

    def _end(self) -> None:
        self._pass(1)
        if self._next():
            raise self._broken("Extra data")

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self._decoder.value(self._text, self._at)
            except json.JSONDecodeError as error:
                self._refuse_unless_cut(error)
            except RecursionError:
                raise FileFault("dataset_json_broken", line=self._line, detail=_TOO_DEEP) from None
            except ValueError as error:
                raise FileFault("dataset_json_broken", line=self._line, detail=json_words(str(error))) from None
            else:
                if end < len(self._text) or self._ended:  # else a number may go on
                    found = self._decoder.checked(value, self._text[self._at : self._at + 400])
                    self._pass(end - self._at)
                    return found
            self._more()

    def _refuse_unless_cut(self, error: json.JSONDecodeError) -> None:
        """Raises FileFault unless more text may mend the `error`."""
        unfinished = error.pos > len(self._text) - _MARGIN or error.msg.startswith("Unterminated")
        if unfinished and len(self._text) - self._at > MOST_ROW_BYTES:
            raise FileFault("dataset_json_broken", line=self._line, detail=too_long().reason)
        if self._ended and (error.msg.startswith("Unterminated") or error.pos >= len(self._text.rstrip())):
            raise FileFault("dataset_json_broken", line=self._line, detail=_CUT)
        if self._ended or not unfinished:
            raise self._broken(error.msg, error.pos)

    def _broken(self, message: str, at: int | None = None) -> FileFault:
        line = self._line + self._text.count("\n", self._at, self._at if at is None else at)
        return FileFault("dataset_json_broken", line=line, detail=json_words(message))

    def _next(self) -> str:
        """The next character that is no white space, which stays; "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._pass(match.end() - self._at)
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def _pass(self, count: int) -> None:
        passed = self._text[self._at : self._at + count]
        self._at += count
        self._offset += count if passed.isascii() else len(passed.encode())
        self._line += passed.count("\n")

    def _more(self) -> None:
        """Reads on; as much again as is kept, so that a long value is not begun too often."""
        data = self._file.read(max(_CHUNK, len(self._text) - self._at))
        try:
            text = self._characters.decode(data, not data)
        except UnicodeDecodeError as error:
            raise encoding_fault(self._path, self._read - self._undecoded() + error.start + 1) from None
        self._read += len(data)
        self._ended = not data
        self._text, self._at = self._text[self._at :] + text, 0

    def _undecoded(self) -> int:
        """Bytes of a character that was cut, which the decoder keeps and counts its error from."""
        return len(self._characters.getstate()[0])
