"""Datasets that come through the page: kept apart until they are checked, then added to a data folder. No Gradio here.

What is sent lies in runs/_uploads/<id>/ as a data folder of its own. Nothing is unpacked, nothing is ever overwritten.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.dataset_entry import entry_for, inserted
from app.text import both
from trainer.dataset_files import INFO, list_datasets
from trainer.plain_file import read_plain
from trainer.problems import Problem, quoted
from trainer.settings import label

FOLDER = "_uploads"
LOCK = ".dataset_info.lock"
MOST_BYTES = 4 * 2**30
MOST_NAME_BYTES = 100
RESERVE_BYTES = 100 * 2**20
KEPT_S = 24 * 3600
# The last suffix decides how rows are read; those that are text may be compressed.
PLAIN, TEXTS = ("json", "jsonl", "csv", "tsv", "txt", "parquet", "arrow"), ("json", "jsonl", "csv", "tsv", "txt")
ARCHIVES = re.compile(r"\.(?:zip|tar|tgz|tbz2?|txz|7z|rar|tar\.\w+)$", re.IGNORECASE)
SUFFIX = re.compile(rf"\.(?:(?:{'|'.join(TEXTS)})\.gz|{'|'.join(PLAIN)})$", re.IGNORECASE)
ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Staged:
    """A file that was sent. `folder` is a data folder that holds this one dataset, `name`."""

    id: str
    folder: Path
    path: Path

    @property
    def name(self) -> str:
        return list_datasets(self.folder)[0]

    @property
    def proposed(self) -> str:
        """The name that it may have as a dataset."""
        return SUFFIX.sub("", self.path.name)


# ---- what was sent ----


def file_name(name: str) -> str:
    """`name` as a file may be called here, whatever the browser says. Raises Problem for a type that is no dataset's."""
    last = re.split(r"[/\\]", name)[-1]
    if ARCHIVES.search(last):
        raise Problem("upload_archive", name=quoted(safe_name(last)))
    found = SUFFIX.search(last)
    if found is None:
        known = ", ".join(f".{suffix}" for suffix in PLAIN) + ", .json.gz …"
        raise Problem("upload_type", name=quoted(safe_name(last)), known=known)
    stem = _shortened(safe_name(last[: found.start()])) or "dataset"
    return (f"{stem}-data" if f"{stem}.json" == INFO else stem) + found.group().lower()


def safe_name(name: str) -> str:
    """Letters of any script, digits and harmless signs; nothing that a path, a list or a shell would trip over."""
    text = unicodedata.normalize("NFC", name.encode("utf-8", "ignore").decode())
    kept = "".join(char if char.isprintable() and char not in '/\\:*?"<>|,[]{}`$' else "_" for char in text)
    return kept.strip(" ").lstrip(".-~").strip()


def _shortened(stem: str) -> str:
    return stem.encode()[:MOST_NAME_BYTES].decode("utf-8", "ignore").rstrip(" .")


def begin(runs_dir: Path, name: str, size: int) -> tuple[str, Path]:
    """An id and the file to write what comes into. `size` in bytes as announced, 0 if it was not. Raises Problem."""
    plain = file_name(name)
    check_size(plain, size)
    folder = runs_dir / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < size + RESERVE_BYTES:
            raise Problem("upload_no_space", name=quoted(plain), needed=gigabytes(size), path=str(folder),
                          free=gigabytes(max(free - RESERVE_BYTES, 0)))  # fmt: skip
        number = secrets.token_hex(8)
        (folder / number).mkdir()
    except OSError as error:
        raise Problem("upload_unwritable", path=str(folder), detail=error.strerror) from None
    return number, folder / number / plain


def check_size(name: str, size: int) -> None:
    if size > MOST_BYTES:
        raise Problem("upload_too_large", name=quoted(name), most=gigabytes(MOST_BYTES))


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def pasted(runs_dir: Path, text: str) -> str:
    """The id of rows that were pasted: a list, an object, or an object a line. Raises Problem."""
    if not text.strip():
        raise Problem("paste_empty", label=both("upload.paste"))
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    rows = json.dumps(whole, ensure_ascii=False) + "\n" if isinstance(whole, dict) else text
    name = f"pasted-{time.strftime('%m%d-%H%M%S')}" + (".json" if isinstance(whole, list) else ".jsonl")
    number, path = begin(runs_dir, name, len(rows.encode("utf-8", "replace")))
    path.write_text(rows, encoding="utf-8", errors="replace", newline="\n")
    return number


def staged(runs_dir: Path, number: str) -> Staged:
    """What was sent under that id. Raises Problem when it is not there any more."""
    folder = runs_dir / FOLDER / number
    if ID.fullmatch(number or "") and folder.is_dir():
        files = [path for path in folder.iterdir() if path.is_file() and SUFFIX.search(path.name) and path.name != INFO]
        if len(files) == 1:
            return Staged(number, folder, files[0])
    raise Problem("upload_gone")


def remove(runs_dir: Path, number: str) -> None:
    if ID.fullmatch(number or ""):
        shutil.rmtree(runs_dir / FOLDER / number, ignore_errors=True)


def remove_old(runs_dir: Path) -> None:
    """What nobody has added within a day."""
    for folder in (runs_dir / FOLDER).glob("*"):
        with contextlib.suppress(OSError):
            if ID.fullmatch(folder.name) and time.time() - folder.stat().st_mtime > KEPT_S:
                shutil.rmtree(folder, ignore_errors=True)


# ---- into a data folder ----


def add(found: Staged, data_dir: Path, name: str) -> str:
    """Puts the file into `data_dir` and names it in its dataset_info.json, if there is one: without, each file is a
    dataset. Returns the name of the new dataset. Raises Problem; then nothing has changed."""
    plain = _checked_name(name)
    suffix = SUFFIX.search(found.path.name)
    assert suffix is not None
    target = data_dir / f"{plain}{suffix.group()}"
    try:
        with _locked(data_dir):
            before = list_datasets(data_dir)  # raises Problem for a list that is broken, which is then left alone
            info = data_dir / INFO
            written = read_plain(info) if info.exists() else None
            taken = [*before, *(json.loads(written.removeprefix("\ufeff")) if written else ())]
            if plain in taken or os.path.lexists(target):
                raise Problem("upload_name_taken", label=both("upload.name"), value=quoted(plain), path=str(data_dir))
            entry = entry_for(found.folder, found.name, target.name) if written is not None else {}
            _place(found.path, target)
            if written is None:
                return next((one for one in list_datasets(data_dir) if one not in before), plain)
            try:
                _replace(info, inserted(written, plain, entry))
            except BaseException:
                target.unlink()
                raise
            return plain
    except OSError as error:
        raise Problem("upload_unwritable", path=str(data_dir), detail=error.strerror) from None


def _checked_name(name: str) -> str:
    plain = safe_name(name)
    if not plain or plain != name.strip() or len(plain.encode()) > MOST_NAME_BYTES or f"{plain}.json" == INFO:
        raise Problem("upload_name_bad", label=both("upload.name"), value=quoted(name), most=MOST_NAME_BYTES)
    return plain


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """One writer at a time, of whatever process. Raises OSError where nothing can be written."""
    if not data_dir.is_dir():
        raise Problem("data_dir_missing", label=label("dataset_dir"), path=str(data_dir))
    # Not the list itself: it is replaced.
    with (data_dir / LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _place(source: Path, target: Path) -> None:
    """`target` with all of `source`, or not at all. Raises FileExistsError rather than overwrite anything."""
    try:
        os.link(source, target)
        return
    except FileExistsError:
        raise
    except OSError:  # another disk, or one without links
        pass
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        shutil.copyfile(source, beside)
        try:
            os.link(beside, target)
        except FileExistsError:
            raise
        except OSError:
            beside.rename(target)
    finally:
        beside.unlink(missing_ok=True)


def _replace(info: Path, text: str) -> None:
    """`info` as it was, or with all of `text`; who may read it stays the same."""
    real = info.resolve()
    with tempfile.NamedTemporaryFile("w", dir=real.parent, prefix=f".{real.name}.", suffix=".tmp", delete=False,
                                     encoding="utf-8", newline="") as file:  # fmt: skip
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), real.stat().st_mode & 0o777)
            os.replace(file.name, real)
        except BaseException:
            os.unlink(file.name)
            raise


def first_rows(found: Staged, count: int) -> list[Any]:
    """The first rows of what was sent, as trainer.records has them. Raises Problem for a file that cannot be read."""
    from trainer import records

    return records.preview(found.folder, found.name, 1, count)[0]
