"""The bytes of text files, unpacked where they are gz, line by line in bounded memory; and which encoding they have.

Light: no torch. What the lines mean is the business of json_rows and table_rows.
"""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trainer.plain_file import open_plain
from trainer.problems import Problem, quoted
from trainer.settings import label
from trainer.system_words import in_chinese

MOST_ROW_BYTES = 8 * 2**20
SAMPLE_BYTES = 256 * 1024
BOM = b"\xef\xbb\xbf"
PACKED = b"\x1f\x8b"
# JSON that repeats itself is packed fifty to one; ten gigabytes of zeros a thousand to one.
_MOST_UNPACKED, _MOST_RATIO = 64 * 2**20, 200

Words = dict[str, str]


class FileFault(ValueError):
    """Why a file cannot be read any further: a Problem's code and values, less the dataset and the path."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code)
        self.code, self.values = code, values


@dataclass(frozen=True)
class Fault:
    """A row that cannot be read while those after it can: why, and how it begins."""

    reason: Words
    excerpt: str


@contextmanager
def told(name: str, path: Path) -> Iterator[None]:
    """What goes wrong with the file `path` of the dataset `name`, as a Problem."""
    try:
        yield
    except FileFault as fault:
        raise Problem(fault.code, name=name, path=str(path), **fault.values) from None
    except EOFError:
        detail = {"en": "the gz file is cut short", "zh": "gz 文件不完整"}
        raise Problem("dataset_file_broken", name=name, path=str(path), detail=detail) from None
    except (gzip.BadGzipFile, zlib.error):
        detail = {"en": "the gz file is damaged", "zh": "gz 文件已损坏"}
        raise Problem("dataset_file_broken", name=name, path=str(path), detail=detail) from None
    except OSError as error:
        raise Problem("file_unreadable", label=label("dataset"), path=str(path), detail=error.strerror) from None


class _Unpacked(io.RawIOBase):
    """A gz file's content, which must not be out of all proportion to the file."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed, self._content, self._bytes = packed, gzip.GzipFile(fileobj=packed), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._content.read(len(buffer))
        self._bytes += len(found)
        if self._bytes > _MOST_UNPACKED and self._bytes > _MOST_RATIO * self._packed.tell():
            ratio = self._bytes // self._packed.tell()
            raise FileFault("dataset_file_broken", detail={"en": f"it unpacks to {ratio} times its size, as no text does",
                                                           "zh": f"解压后是原来的 {ratio} 倍，不会是正常文本"})  # fmt: skip
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        super().close()
        self._packed.close()


class Content:
    """A file's content from the byte `offset` on (of what is unpacked); to be closed, or used with `with`."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._raw: IO[bytes] = open_plain(path)
        self.packed = self._raw.read(2) == PACKED
        self._raw.seek(0)
        self._file: IO[bytes] = self._raw
        if self.packed:
            self._file = io.BufferedReader(_Unpacked(self._raw), 2**17)
        self._forward(offset)
        self.read, self.readline = self._file.read, self._file.readline

    def _forward(self, offset: int) -> None:
        if not self.packed:
            self._raw.seek(offset)
            return
        while offset > 0 and (passed := len(self._file.read(min(offset, 2**20)))):
            offset -= passed

    def done(self) -> int:
        """How many bytes of the file have been read."""
        return self._raw.tell()

    def __enter__(self) -> "Content":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def lines(file: Content, offset: int = 0, number: int = 0) -> Iterator[tuple[bytes | None, int, int]]:
    """(line, the offset behind it, its number from 1). None for a line of more than MOST_ROW_BYTES.

    `offset`, `number`: where `file` stands, and how many lines are before.
    """
    while line := file.readline(MOST_ROW_BYTES + 1):
        number += 1
        offset += len(line)
        if len(line) <= MOST_ROW_BYTES:
            yield line, offset, number
            continue
        while line and not line.endswith(b"\n"):
            offset += len(line := file.readline(2**20))
        yield None, offset, number


def too_long(excerpt: str = "") -> Fault:
    most = MOST_ROW_BYTES // 2**20
    return Fault({"en": f"it is longer than {most} MB; split it into several rows",
                  "zh": f"它超过 {most} MB，请拆成多行"}, excerpt)  # fmt: skip


def decoded(line: bytes) -> str | Fault:
    """`line` as text, without a byte order mark, or why it is none."""
    try:
        return line.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        at = error.start + 1
        return Fault({"en": f"its byte {at} is not UTF-8; save the file as UTF-8",
                      "zh": f"其第 {at} 字节不是 UTF-8，请把文件另存为 UTF-8"},
                     line[:400].decode(errors="replace"))  # fmt: skip


def check_text(path: Path) -> bytes:
    """The first bytes of `path`. Raises FileFault when they are of another kind of file, or not UTF-8.

    UTF-16 is refused even with a byte order mark: whoever edits such a file sees lines and bytes that are not ours.
    """
    with Content(path) as file:
        sample = file.read(SAMPLE_BYTES)
    check_kind(sample, markup=".txt" in path.name.lower())
    wide = _wide_encoding(sample)
    error = _first_error(sample)
    if not wide and not error:
        return sample
    if not wide and _is_binary(sample):
        raise _other_file(*_BINARY)
    at = error.start if error else sample.index(0)
    if wide or not _some_lines_are_text(sample):
        raise encoding_fault(path, at + 1, wide or _narrow_encoding(sample))
    return sample


def encoding_fault(path: Path, byte: int, encoding: str = "") -> FileFault:
    """`byte`: the first that is not UTF-8, from 1."""
    name, ending = quoted(path.name)[1:-1], "".join(path.suffixes[-2:])
    command = f": iconv -f {encoding} -t UTF-8 {name} > utf8{ending}"
    if ending.lower().endswith(".gz"):
        command = f": gzip -dc {name} | iconv -f {encoding} -t UTF-8 | gzip > utf8{ending}"
    return FileFault("dataset_encoding", byte=byte,
                     encoding={"en": f"; it looks like {encoding}", "zh": f"，看起来是 {encoding}"} if encoding else "",
                     command={"en": command, "zh": "：" + command[2:]} if encoding else "")  # fmt: skip


_KINDS: dict[bytes, tuple[str, str, str, str]] = {
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "Unpack it, or save the sheet as CSV.",
                    " zip 压缩包或 Excel 工作簿", "请解压，或把工作表另存为 CSV。"),
    b"\xd0\xcf\x11\xe0": ("an old Office file", "Save the sheet as CSV.", "旧版 Office 文件", "请把工作表另存为 CSV。"),
    b"PAR1": ("a parquet file", "Give it the ending .parquet.", " parquet 文件", "请把扩展名改为 .parquet。"),
    b"ARROW1": ("an arrow file", "Give it the ending .arrow.", " arrow 文件", "请把扩展名改为 .arrow。"),
    b"%PDF": ("a PDF", "Save its text as txt.", " PDF 文件", "请把文字另存为 txt。"),
    b"SQLite format 3\0": ("an SQLite database", "Save its table as CSV.", " SQLite 数据库", "请把其中的表另存为 CSV。"),
    PACKED: ("a gz file inside a gz file", "Unpack it once.", "套了两层的 gz 文件", "请先解压一层。"),
    b"version https://git-lfs.": ("a Git LFS pointer, not the file itself", "Run git lfs pull, or copy the file itself.",
                                  " Git LFS 指针，不是文件本身", "请运行 git lfs pull，或复制文件本身。"),
}  # fmt: skip
_KINDS |= dict.fromkeys((b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07"), (
    "a packed file", "Unpack it; of packed files, gz is read.", "压缩文件", "请先解压；压缩文件只支持 gz。"))  # fmt: skip
_KINDS |= dict.fromkeys((b"\x89PNG", b"\xff\xd8\xff", b"GIF8"), (
    "an image", "Only text is trained on: choose another file.", "图片", "只支持文字：请换一个文件。"))  # fmt: skip
_TAR = ("a tar archive", "Unpack it.", " tar 归档文件", "请先解压。")
_WEB_PAGE = ("a web page (HTML)", "Copy the file itself: this is what a website showed in its place.",
             "网页（HTML）", "请复制文件本身：这是网站显示的页面。")  # fmt: skip
_BINARY = ("no text", "Use json, jsonl, csv, tsv, parquet, arrow or txt files.", "二进制文件，不是文字",
           "请使用 json、jsonl、csv、tsv、parquet、arrow 或 txt 文件。")  # fmt: skip
_CONTROL = bytes(code for code in range(32) if chr(code) not in "\t\n\r\f\x1b")


def check_kind(sample: bytes, own: bytes = b"", markup: bool = False) -> None:
    """Raises FileFault when a file that begins with `sample` is of another kind. `own`: what those begin with that are
    not; `markup`: HTML may stand in it."""
    if sample and not sample.strip(b"\0"):  # as a crash leaves files behind
        raise FileFault("dataset_file_broken", detail={"en": "it holds nothing but zero bytes", "zh": "内容全是零字节"})
    found = next((words for magic, words in _KINDS.items() if magic != own and sample.startswith(magic)), None)
    if sample[257:262] == b"ustar":
        found = _TAR
    if not markup and sample.removeprefix(BOM).lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        found = _WEB_PAGE
    if found:
        raise _other_file(*found)


def _other_file(kind: str, remedy: str, kind_zh: str, remedy_zh: str) -> FileFault:
    return FileFault("dataset_other_file", kind={"en": kind, "zh": kind_zh}, remedy={"en": remedy, "zh": remedy_zh})


def _is_binary(sample: bytes) -> bool:
    """Whether more of it are control characters than any text has, in whatever encoding of single bytes."""
    return 20 * (len(sample) - len(sample.translate(None, _CONTROL))) > len(sample)


def _wide_encoding(sample: bytes) -> str:
    """UTF-16 or UTF-32, by its byte order mark or its zeros; "" for others."""
    if sample.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    # Zeros of other files stand at even and odd places alike.
    if len(sample) < 8 or 5 * (even + odd) < len(sample) or max(even, odd) < 4 * min(even, odd):
        return ""
    return "UTF-16LE" if odd > even else "UTF-16BE"


def _first_error(sample: bytes) -> UnicodeDecodeError | None:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, len(sample) < SAMPLE_BYTES)
    except UnicodeDecodeError as error:
        return error
    return None


def _some_lines_are_text(sample: bytes) -> bool:
    """Whether a line of more than ASCII is UTF-8: then others are damaged, but the file is not of another encoding."""
    for line in sample.split(b"\n"):
        if not line.isascii():
            try:
                line.decode()
            except UnicodeDecodeError:
                continue
            return True
    return False


def _narrow_encoding(sample: bytes) -> str:
    """GB18030 or Big5 where they make Chinese of it, Shift_JIS or EUC-JP where kana; "" for what nobody can tell."""
    for encoding in ("shift_jis", "euc-jp", "gb18030", "big5"):
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(sample)
        except UnicodeDecodeError:
            continue
        letters = [letter for letter in text if not letter.isascii()]
        kana = sum("\u3041" <= letter <= "\u30fa" for letter in letters)
        if "j" in encoding:
            if kana > 0.3 * len(letters):
                return encoding.upper()
        elif sum("\u4e00" <= letter <= "\u9fff" or "\u3000" <= letter <= "\u30ff" or "\uff00" <= letter <= "\uffef"
               for letter in letters) > 0.7 * len(letters):  # fmt: skip
            return encoding.upper()
    return ""


def json_words(message: str) -> Words:
    """What the JSON library says, in both languages."""
    if message.startswith("Exceeds the limit"):
        return {"en": "a number has thousands of digits", "zh": "有一个数有几千位"}
    return {"en": message.removesuffix(" starting at").removesuffix(" at"), "zh": in_chinese(message)}
