"""Datasets of a hub that are on this machine: which files of which cache a hub id means. Nothing is downloaded here.

Light: no torch; `datasets` is imported when a cached repository is looked into. It runs no code of a repository's.
"""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from trainer.problems import Problem

log = logging.getLogger("trainer")


@dataclass(frozen=True)
class Wanted:
    """A dataset by its ids on the hubs, and the part of it, as dataset_info.json names them."""

    hugging_face: str | None = None
    modelscope: str | None = None
    subset: str | None = None
    folder: str | None = None
    revision: str | None = None
    split: str = "train"

    def __str__(self) -> str:
        return self.hugging_face or self.modelscope or ""


def files(name: str, wanted: Wanted) -> tuple[Path, ...]:
    """The data files of `wanted` in a hub's cache. Raises Problem: how to download it when it is in none."""
    if repositories := _repositories(wanted):
        return _of_repository(name, wanted, repositories[0])
    if prepared := _prepared(wanted):
        return prepared
    if wanted.hugging_face:
        command = f"`hf download --repo-type dataset {wanted.hugging_face}`"
    else:
        command = f"`modelscope download --dataset {wanted.modelscope}`"
    raise Problem("dataset_not_here", name=name, id=str(wanted), command=command)


def are_here(wanted: Wanted) -> bool:
    """Whether a cache has it, as far as can be seen without looking into it."""
    return bool(_repositories(wanted) or _prepared(wanted))


def cached() -> list[str]:
    """The ids of the datasets that the hubs' caches hold, sorted."""
    cache = _hugging_face_cache()
    found = {path.name.removeprefix("datasets--").replace("--", "/", 1)
             for path in cache.glob("datasets--*") if _snapshot(path, None)}  # fmt: skip
    for place in _modelscope_caches():
        found |= {"/".join(path.relative_to(place).parts) for path in place.glob("*/*") if path.is_dir()}
    return sorted(filter(_is_id, found))


def _hugging_face_cache() -> Path:
    return Path(os.environ.get("HF_HUB_CACHE") or _folder("HF_HOME", "~/.cache/huggingface") / "hub")


def _modelscope_caches() -> list[Path]:
    cache = _folder("MODELSCOPE_CACHE", "~/.cache/modelscope")
    return [cache / "datasets", cache / "hub" / "datasets"]


def _folder(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or os.path.expanduser(default))


def _repositories(wanted: Wanted) -> list[Path]:
    """Folders that hold a copy of the repository, Hugging Face's first."""
    found = []
    if wanted.hugging_face and _is_id(wanted.hugging_face):
        name = f"datasets--{wanted.hugging_face.replace('/', '--')}"
        found.append(_snapshot(_hugging_face_cache() / name, wanted.revision))
    if wanted.modelscope and _is_id(wanted.modelscope):
        found += [place / wanted.modelscope for place in _modelscope_caches()]
    return [path for path in found if path and path.is_dir()]


def _is_id(text: str) -> bool:
    return re.fullmatch(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}", text, re.ASCII) is not None


def _snapshot(repository: Path, revision: str | None) -> Path | None:
    """The snapshot of `revision`, else of main, else the newest."""
    wanted = revision or "main"
    if "/" in wanted or not _is_id(wanted):
        return None
    try:
        commit = (repository / "refs" / wanted).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        commit = wanted
    if re.fullmatch(r"\w{1,96}", commit, re.ASCII) and (repository / "snapshots" / commit).is_dir():
        return repository / "snapshots" / commit
    if revision or not (repository / "snapshots").is_dir():
        return None
    newest = sorted((path for path in (repository / "snapshots").iterdir()), key=lambda path: path.stat().st_mtime)
    return newest[-1] if newest else None


def _of_repository(name: str, wanted: Wanted, repository: Path) -> tuple[Path, ...]:
    """Those of `repository` that `datasets` takes for the wanted subset and split: it knows the hub's conventions."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(str(repository), wanted.subset, data_dir=wanted.folder)
    except Exception as error:  # whatever it makes of a folder that it cannot take for a dataset
        raise _no_split(name, wanted, _subsets(repository) or _first_line(error)) from error
    splits = builder.config.data_files or {}
    if wanted.split not in splits:
        raise _no_split(name, wanted, ", ".join(map(str, splits)) or "–")
    inside = repository.parent.parent.resolve() if repository.parent.name == "snapshots" else repository.resolve()
    paths = tuple(Path(str(item)) for item in splits[wanted.split])
    for path in paths:
        if not path.resolve().is_relative_to(inside):
            raise Problem("dataset_outside", name=name, path=str(path))
    return paths


def _subsets(repository: Path) -> str:
    """Those of `repository`, one of which must be named where there are several; "" where that cannot be told."""
    import datasets

    try:
        return ", ".join(f"subset {subset}" for subset in datasets.get_dataset_config_names(str(repository)))
    except Exception as error:  # the same as before
        log.info("no subsets in %s: %s", repository, error)
        return ""


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__


def _no_split(name: str, wanted: Wanted, found: str) -> Problem:
    parts = [part for part in (wanted.subset, wanted.folder, wanted.split) if part]
    return Problem("dataset_no_split", name=name, id=str(wanted), wanted=" / ".join(parts), found=found)


def _prepared(wanted: Wanted) -> tuple[Path, ...]:
    """The arrow files that `datasets` has made of it before: <cache>/org___name/subset/version/hash/name-train*.arrow."""
    subset = wanted.subset or "default"
    if not wanted.hugging_face or wanted.folder or not all(map(_is_id, (wanted.hugging_face, subset, wanted.split))):
        return ()
    home = _folder("HF_HOME", "~/.cache/huggingface")
    cached = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets")
    organisation, _, short = wanted.hugging_face.rpartition("/")
    short = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", short)).lower()
    folder = cached / (f"{organisation}___{short}" if organisation else short) / subset
    if "/" in subset or not folder.is_dir():
        return ()
    pattern = re.compile(rf".*-{re.escape(wanted.split)}(-\d+-of-\d+)?\.arrow")
    made = [path for path in folder.glob("*/*") if any(pattern.fullmatch(file.name) for file in path.iterdir())]
    newest = sorted(made, key=lambda path: path.stat().st_mtime)[-1:]
    return tuple(sorted(file for path in newest for file in path.iterdir() if pattern.fullmatch(file.name)))
