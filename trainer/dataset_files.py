"""Which datasets a folder holds, and their files: the entries of a dataset_info.json, or every file and folder in it.

Light: no torch. How rows are read is the business of row_files, what they mean that of layouts and records.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import hub_datasets
from trainer.layouts import COLUMNS, MEDIA, TAGS, Layout, declared
from trainer.plain_file import read_plain
from trainer.problems import Problem, quoted
from trainer.settings import label
from trainer.text_files import json_words

INFO = "dataset_info.json"
FORMATS = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".txt")
_PACKED = ".gz"
_MOST_SHOWN, _MOST_NAMED, _MOST_FILES = 300, 20, 10_000
# What makes a folder a model, an adapter or a run; and texts that lie about everywhere.
_OTHER_FOLDERS = ("config.json", "adapter_config.json", "events.jsonl", "pyproject.toml")
_OTHER_TEXTS = ("readme.txt", "license.txt", "requirements.txt", "constraints.txt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_KEYS = ("file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "formatting", "ranking", "subset", "split", "folder", "revision",
         "num_samples", "columns", "tags")  # fmt: skip
_FILES_REMEDY = {"en": "Use json, jsonl, csv, tsv, parquet, arrow or txt files.",
                 "zh": "请使用 json、jsonl、csv、tsv、parquet、arrow 或 txt 文件。"}  # fmt: skip
_TEXT_REMEDY = {"en": "Only text is trained on: choose another dataset, or remove the column from the entry.",
                "zh": "只支持文字：请换一个数据集，或从条目中删去该列。"}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A dataset that can be served: its files in order. `layout` None: recognised from the first rows."""

    name: str
    files: tuple[Path, ...]
    layout: Layout | None = None
    num_samples: int | None = None

    @property
    def path(self) -> Path:
        """The first file, for those who name one."""
        return self.files[0]

    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)


def format_of(path: Path) -> str:
    """The ending that says how `path` is read, .gz aside; "" for files that are no data."""
    name = path.name.lower()
    inner = Path(name.removesuffix(_PACKED)).suffix
    packable = inner not in (".parquet", ".arrow")
    return inner if inner in FORMATS and (packable or not name.endswith(_PACKED)) else ""


def list_datasets(data_dir: Path) -> list[str]:
    """Names of the datasets that can be served, sorted. Raises Problem when the folder or its list is unreadable.

    With a dataset_info.json: its entries, less those of a kind not served (images) and those of a hub that are in no
    cache. Without: every data file by its stem, or its full name where stems collide, and every folder of data files.
    """
    entries = _info(data_dir)
    if entries is None:
        return sorted(_bare(data_dir))
    return sorted(name for name, entry in entries.items() if _is_served(data_dir, name, entry))


def find_source(data_dir: Path, name: str) -> Source:
    """The dataset `name`, its files known to be in `data_dir` or in a hub's cache. Raises Problem.

    A name of the form org/name that the folder has not is looked for in the caches.
    """
    entries = _info(data_dir)
    bare = _bare(data_dir) if entries is None else {}
    if entries is not None and name in entries:
        return _entry(data_dir, name, entries[name])
    if name in bare:
        source = Source(name, bare[name])
        _check_places(data_dir, source)
        return source
    if _HUB_ID.fullmatch(name):
        return Source(name, hub_datasets.files(name, hub_datasets.Wanted(name, name)))
    found = _listed(list_datasets(data_dir)) or "–"
    raise Problem("dataset_unknown", label=label("dataset"), name=quoted(name), path=str(data_dir), found=found)


def _check_places(data_dir: Path, source: Source) -> None:
    """Raises Problem for a file outside the data folder, missing, or none: a pipe would be waited for, for ever."""
    for path in source.files:
        if _is_outside(data_dir, path):
            raise Problem("dataset_outside", name=source.name, path=_shown(path))
        if not os.path.isfile(path):  # also of a name too long to ask for
            raise Problem("dataset_file_missing", name=source.name, path=_shown(path))


def _is_outside(data_dir: Path, path: Path) -> bool:
    try:
        return not path.resolve().is_relative_to(data_dir.resolve())
    except ValueError:  # a null byte, half of a surrogate pair: no file is called so
        return True
    except RuntimeError:  # links in a circle, which lead nowhere: there is no such file
        return False


def _shown(path: Path) -> str:
    return str(path).encode(errors="replace").decode().replace("\0", "?")[-_MOST_SHOWN:]


# ---- dataset_info.json ----


def _info(data_dir: Path) -> dict[str, Any] | None:
    """The entries of dataset_info.json; None when there is none, or one that `datasets` wrote for a single dataset."""
    if not _is_folder(data_dir):
        raise Problem("data_dir_missing", label=label("dataset_dir"), path=str(data_dir)[:_MOST_SHOWN])
    if _is_outside(data_dir, data_dir / INFO):
        raise Problem("dataset_outside", name=INFO, path=str((data_dir / INFO).resolve()))
    if _saved_files(data_dir):
        return None
    try:
        info = json.loads(read_plain(data_dir / INFO).removeprefix("\ufeff"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _info_broken(data_dir, error.strerror) from None
    except json.JSONDecodeError as error:
        said = json_words(error.msg)
        where = {"en": f"line {error.lineno}: {said['en']}", "zh": f"第 {error.lineno} 行：{said['zh']}"}
        raise _info_broken(data_dir, where) from None
    except UnicodeDecodeError as error:
        byte = error.start + 1
        where = {
            "en": f"its byte {byte} is not UTF-8; save it as UTF-8",
            "zh": f"第 {byte} 字节不是 UTF-8，请另存为 UTF-8",
        }
        raise _info_broken(data_dir, where) from None
    except RecursionError:
        raise _info_broken(data_dir, {"en": "it is nested too deeply", "zh": "嵌套过深"}) from None
    except ValueError as error:  # a number of thousands of digits
        raise _info_broken(data_dir, json_words(str(error))) from None
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


def _is_served(data_dir: Path, name: str, entry: Any) -> bool:
    try:
        found = _Entry(data_dir, name, entry)
        wanted, _, _ = found.hub, found.layout, found.num_samples
        return hub_datasets.are_here(wanted) if wanted else bool(found.files)
    except Problem as problem:
        return problem.code == "dataset_outside"  # whoever misses it is to be told why


def _unsupported(name: str, en: str, zh: str, remedy: Any = None) -> Problem:
    return Problem("dataset_unsupported", name=name, detail={"en": en, "zh": zh}, remedy=remedy or _FILES_REMEDY)


class _Entry:
    """One entry of dataset_info.json. Its properties raise Problem for what is broken or of a kind not served."""

    def __init__(self, data_dir: Path, name: str, entry: Any) -> None:
        self._data_dir, self._name = data_dir, name
        if not isinstance(entry, dict):
            raise self._broken(f"is {kind_of(entry)}, not an object", f"是 {kind_of(entry)}，不是对象")
        self._entry = entry
        for key in entry:
            if key not in _KEYS:
                remedy = {"en": "Remove it from the entry.", "zh": "请从条目中删去。"}
                raise _unsupported(name, quoted(key), quoted(key), remedy)
        for key in ("hf_hub_url", "ms_hub_url", "formatting", "subset", "split", "folder", "revision"):
            if not isinstance(entry.get(key), str | None):
                raise self._broken(
                    f"{key} is {quoted(entry[key])}, not text", f"{key} 为 {quoted(entry[key])}，不是文字"
                )

    def _broken(self, en: str, zh: str) -> Problem:
        shown = quoted(self._name)
        return _info_broken(self._data_dir, {"en": f"{shown}: {en}", "zh": f"{shown}：{zh}"})

    @property
    def num_samples(self) -> int | None:
        count = self._entry.get("num_samples")
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise self._broken(
                f"num_samples is {quoted(count)}, not a positive whole number",
                f"num_samples 为 {quoted(count)}，须为正整数",
            )
        return count

    @property
    def layout(self) -> Layout | None:
        """None when the entry says nothing of it: then the rows tell."""
        entry = self._entry
        columns, tags = entry.get("columns", {}), entry.get("tags", {})
        for key, value in (("columns", columns), ("tags", tags)):
            if not isinstance(value, dict) or not all(isinstance(item, str | None) for item in value.values()):
                raise self._broken(f"{key} must map names to names", f"{key} 须为名称到名称的对象")
        for key in tags:
            if key not in TAGS:
                raise self._broken(f"tags has {quoted(key)}; known are {', '.join(TAGS)}",
                                   f"tags 里有 {quoted(key)}；可用的是 {', '.join(TAGS)}")  # fmt: skip
        for key in columns:
            if key in MEDIA and columns[key]:
                raise _unsupported(self._name, f"the column `{key}`", f"列 `{key}`", _TEXT_REMEDY)
            if key not in (*COLUMNS, *MEDIA):
                raise self._broken(f"columns has {quoted(key)}; known are {', '.join(COLUMNS)}",
                                   f"columns 里有 {quoted(key)}；可用的是 {', '.join(COLUMNS)}")  # fmt: skip
        if not any(entry.get(key) for key in ("formatting", "columns", "tags", "ranking")):
            return None
        formatting, ranking = entry.get("formatting") or "alpaca", entry.get("ranking", False)
        if formatting not in ("alpaca", "sharegpt", "openai"):
            remedy = {"en": "Write alpaca, sharegpt or openai.", "zh": "请写 alpaca、sharegpt 或 openai。"}
            raise _unsupported(self._name, f"`formatting: {formatting}`", f"`formatting: {formatting}`", remedy)
        if not isinstance(ranking, bool):
            raise self._broken(f"ranking is {quoted(ranking)}, not true or false",
                               f"ranking 为 {quoted(ranking)}，须为 true 或 false")  # fmt: skip
        return declared(formatting, columns, tags, ranking)

    @property
    def hub(self) -> hub_datasets.Wanted | None:
        """Where it is on the hubs, None for one in the data folder."""
        given = self._entry.get
        if not given("hf_hub_url") and not given("ms_hub_url"):
            return None
        return hub_datasets.Wanted(given("hf_hub_url"), given("ms_hub_url"), given("subset"), given("folder"),
                                   given("revision"), given("split") or "train")  # fmt: skip

    @property
    def files(self) -> tuple[Path, ...]:
        """Those in the data folder, of one that is there."""
        names = self._entry.get("file_name")
        names = names if isinstance(names, list) else [names]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise self._broken("file_name is missing", "缺少 file_name")
        found: list[Path] = []
        for name in names:
            found += self._file_or_folder(self._data_dir / name, self._entry.get("split") or "train")
        return tuple(found)

    def _file_or_folder(self, path: Path, split: str) -> Iterable[Path]:
        if _is_outside(self._data_dir, path):
            raise Problem("dataset_outside", name=self._name, path=_shown(path))
        shown = quoted(path.name)
        if not os.path.isdir(path):
            if not format_of(path):
                raise _unsupported(self._name, f"the file {shown}", f"文件 {shown}")
            return [path]
        found = _saved_files(path, split) or _data_files(path)
        if not found:
            raise _unsupported(self._name, f"the folder {shown}, which holds no data files,",
                               f"没有数据文件的文件夹 {shown}")  # fmt: skip
        return found


def _entry(data_dir: Path, name: str, entry: Any) -> Source:
    """Its files known to be in `data_dir` or in a hub's cache."""
    found = _Entry(data_dir, name, entry)
    layout, count = found.layout, found.num_samples
    if found.hub:
        return Source(name, hub_datasets.files(name, found.hub), layout, count)
    source = Source(name, found.files, layout, count)
    _check_places(data_dir, source)
    return source


# ---- files and folders that nothing describes ----


def _bare(data_dir: Path) -> dict[str, tuple[Path, ...]]:
    """Every data file, and every folder of them as one dataset; the folder itself where `datasets` has saved it."""
    if saved := _saved_files(data_dir):
        return {data_dir.resolve().name: saved}
    try:
        paths = sorted(path for path in data_dir.iterdir() if path.name[0] != ".")
    except OSError as error:
        detail = error.strerror
        raise Problem("file_unreadable", label=label("dataset_dir"), path=str(data_dir), detail=detail) from None
    files = {path: _stem(path) for path in paths if _is_data(path)}
    stems = list(files.values())
    found: dict[str, tuple[Path, ...]] = {}
    found |= {stem if stems.count(stem) == 1 else path.name: (path,) for path, stem in files.items()}
    for path in paths:
        if path.name not in found and path.is_dir() and not any((path / name).is_file() for name in _OTHER_FOLDERS):
            inside = _saved_files(path) or _data_files(path)
            found |= {path.name: inside} if inside else {}
    return found


def _is_data(path: Path) -> bool:
    name = path.name.lower()
    return bool(format_of(path)) and name[0] != "." and name not in (*_OTHER_TEXTS, INFO) and path.is_file()


def _stem(path: Path) -> str:
    return Path(path.name[: -len(_PACKED)] if path.name.lower().endswith(_PACKED) else path.name).stem


def _data_files(folder: Path) -> tuple[Path, ...]:
    """The data files of a folder, by name; what is hidden, and what is no data, is left out."""
    try:
        return tuple(sorted(path for path in folder.iterdir() if _is_data(path)))[:_MOST_FILES]
    except OSError:  # not ours to read: no dataset of ours
        return ()


def _saved_files(folder: Path, split: str = "train") -> tuple[Path, ...]:
    """The files of a folder that the `datasets` library has saved, in their order; none for other folders."""
    if (folder / "dataset_dict.json").is_file():
        folder = folder / split
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [item["filename"] for item in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return tuple(folder / name for name in names if isinstance(name, str))


def row_problem(name: str, number: int, row: Any, en: str, zh: str, code: str = "dataset_row") -> Problem:
    columns = _listed(list(row)) if isinstance(row, dict) and row else "–"
    return Problem(code, name=name, row=number, detail={"en": en, "zh": zh}, columns=columns)


def _listed(names: list[Any]) -> str:
    """The first of `names`, each as far as a sentence has room for it."""
    shown = [quoted(str(name))[1:-1] for name in names[:_MOST_NAMED]]
    return ", ".join(shown) + (", …" if len(names) > _MOST_NAMED else "")


def kind_of(value: Any) -> str:
    """The JSON type of `value`, as a sentence names it in either language."""
    names = {dict: "`object`", list: "`list`", str: "`string`", bool: "`boolean`", int: "`number`", float: "`number`",
             bytes: "`binary`"}  # fmt: skip
    return names.get(type(value), "`null`")
