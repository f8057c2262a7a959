"""Encoded samples between runs, by content: a second start maps them into memory instead of encoding again.

An entry is a folder of flat arrays, renamed into place when it is whole, so that any process may read any entry at
any time. All of it may be deleted at any time, too. Light: numpy, no torch.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from trainer.packed import IDS, OFFSETS, TRAINED, Part, Writer

log = logging.getLogger("trainer")

# What all entries together may take; the least recently used ones go first.
MOST_BYTES = 10 * 2**30
# Of a dataset's files: less is encoded as fast as it is found.
LEAST_BYTES = 2**20
# Remains of processes that died.
_STALE_S = 24 * 3600
_INFO = "info.json"
_FILES: tuple[tuple[str, "np.dtype[Any]"], ...] = (("ids", IDS), ("trained", TRAINED), ("offsets", OFFSETS))
# Libraries whose versions decide what text becomes.
_LIBRARIES = ("tokenizers", "transformers", "jinja2", "sentencepiece", "tiktoken")
# Files of a model folder that do: of its tokenizer, and its code.
_TOKENIZER_FILES = ("*token*", "vocab*", "merges*", "*.model", "*.tiktoken", "*.py", "config.json", "*.jinja")


def folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where entries lie: $XDG_CACHE_HOME/tunedesk, else beside the hub's cache on the data disk ($HF_HOME/tunedesk),
    else ~/.cache/tunedesk."""
    for name in ("XDG_CACHE_HOME", "HF_HOME"):
        if (value := environment.get(name, "")) and os.path.isabs(value):
            return Path(value) / "tunedesk" / "samples"
    return Path.home() / ".cache" / "tunedesk" / "samples"


@dataclass(frozen=True)
class Entry:
    """`info`: what whoever stored the samples wants to know again, as JSON has it."""

    part: Part
    info: dict[str, Any] = field(default_factory=dict)


# ---- keys ----


def key(**parts: Any) -> str:
    """The name of what `parts` give, with our own code and the versions of the libraries among them."""
    told = {**parts, "code": _code(), "libraries": {name: _version(name) for name in _LIBRARIES}}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:40]


def content(path: Path) -> str:
    """A hash of the file's bytes: a copy has the same, whatever its name and times. Raises OSError."""
    stat = path.stat()
    return _hashed(path, (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev))


@lru_cache(maxsize=256)
def _hashed(path: Path, _: tuple[int, ...]) -> str:
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while data := file.read(2**20):
            found.update(data)
    return found.hexdigest()


def tokenizer_content(model: Path) -> list[str]:
    """Hashes of the files of a model folder that its tokenizer may be made of."""
    found = {path for pattern in _TOKENIZER_FILES for path in model.glob(pattern) if path.is_file()}
    return [f"{path.name} {content(path)}" for path in sorted(found)]


@lru_cache(maxsize=1)
def _code() -> str:
    """Of the whole package: an update never meets samples that another version made."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


# ---- entries ----


def find(name: str) -> Entry | None:
    """The entry `name`, mapped into memory; None when there is none, or none that is whole."""
    place = folder() / name
    try:
        info = json.loads((place / _INFO).read_text(encoding="utf-8"))
        sizes = {"ids": info["tokens"], "trained": info["tokens"], "offsets": info["samples"] + 1}
        arrays = [_mapped(place / file, dtype, sizes[file]) for file, dtype in _FILES]
        entry = Entry(Part(*arrays), info["told"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with contextlib.suppress(OSError):  # a cache that can only be read has no order
        os.utime(place / _INFO)
    return entry


def _mapped(path: Path, dtype: "np.dtype[Any]", count: int) -> Any:
    if path.stat().st_size != count * dtype.itemsize:
        raise ValueError(f"{path} is cut short")
    return np.memmap(path, dtype, "r", shape=(count,)) if count else np.zeros(0, dtype)


class Draft:
    """An entry in the making. `writer` takes the samples; whoever is done calls `store`."""

    def __init__(self, name: str, place: Path) -> None:
        self._name, self._place = name, place
        self._files = [(place / file).open("wb") for file in ("ids", "trained")]
        self.writer = Writer(*self._files)

    def store(self, told: dict[str, Any]) -> Entry | None:
        """The entry, in its place and mapped; others make room for it. Raises OSError."""
        offsets = self.writer.offsets()
        (self._place / "offsets").write_bytes(offsets.tobytes())
        info = {"samples": len(offsets) - 1, "tokens": int(offsets[-1]), "told": told}
        (self._place / _INFO).write_text(json.dumps(info, ensure_ascii=False), encoding="utf-8")
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())  # or a loss of power could leave a whole entry of zeros
        self.close()
        _make_room(sum(path.stat().st_size for path in self._place.iterdir()))
        if find(self._name) is None:
            _remove(folder() / self._name)  # what is left of one that is broken
        with contextlib.suppress(OSError):  # another process was quicker: its entry is as good
            self._place.rename(folder() / self._name)
        return find(self._name)

    def close(self) -> None:
        for file in self._files:
            file.close()


@contextlib.contextmanager
def draft(name: str) -> Iterator[Draft]:
    """A new entry, which is nothing until it is stored. Raises OSError where the cache cannot be written."""
    place = Path(tempfile.mkdtemp(suffix=".tmp", dir=_made(folder())))
    made = Draft(name, place)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Waits while another process makes the entry `name`; processes of a run that start together make it once."""
    try:
        file = (_made(folder()) / f"{name}.lock").open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:  # a cache that cannot be written, or a file system without locks
        log.info("preparing without the cache: %s", error)
        yield
        return
    with file:
        yield


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _make_room(wanted: int) -> None:
    """Deletes what was used least recently, and what dead processes left, until `wanted` bytes fit the limit."""
    found: list[tuple[float, int, Path]] = []
    for path in folder().iterdir():
        with contextlib.suppress(OSError):  # it has just been deleted
            if path.suffix in (".tmp", ".lock"):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    _remove(path)
                continue
            bytes_held = sum(file.stat().st_size for file in path.iterdir())
            found.append(((path / _INFO).stat().st_mtime, bytes_held, path))
    total = wanted + sum(bytes_held for _, bytes_held, _ in found)
    for _, bytes_held, path in sorted(found):
        if total <= MOST_BYTES:
            break
        _remove(path)
        total -= bytes_held


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
