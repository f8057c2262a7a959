"""Where Hugging Face's and ModelScope's own tools keep the models they have downloaded. Light: looks up names only.

ModelScope has had three layouts: models/org--name/snapshots/REVISION since 1.38, before that models/org/name and, at
first, org/name, both also below hub/ and with `.` written `___`.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

# A hub's id: an organisation and a name.
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_NO_OWNERS = {"models", "datasets", "hub", "studios", "skills"}


def hugging_face_cache() -> Path:
    """Where huggingface_hub keeps models: HF_HUB_CACHE, else hub/ below HF_HOME."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    above = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(given or Path(os.environ.get("HF_HOME") or f"{above}/huggingface") / "hub")


def model_scope_cache() -> Path:
    """Where modelscope keeps models: MODELSCOPE_CACHE, else its folder below ~/.cache."""
    return _expanded(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope")


def hub_caches() -> list[Path]:
    """The caches of both hubs, whether they are there or not."""
    return [hugging_face_cache(), model_scope_cache()]


def is_id(text: str) -> bool:
    """Whether `text` can be a hub's id, org/name."""
    return ID.fullmatch(text) is not None and "--" not in text and ".." not in text


def folders_of(model_id: str) -> list[Path]:
    """The folders of the caches that hold `model_id` (org/name), those of today's layouts first."""
    if not is_id(model_id):
        return []
    owner, name = model_id.split("/")
    scope, joined = model_scope_cache(), f"{owner}--{name}"
    places = [hugging_face_cache() / f"models--{joined}", scope / "models" / joined]
    for base in (scope / "models", scope / "hub" / "models", scope / "hub", scope):
        places += [base / owner / name.replace(".", "___"), base / owner / name]
    return [place for place in dict.fromkeys(places) if os.path.isdir(place)]


def repositories() -> Iterator[tuple[str, Path]]:
    """(id, folder) of every model in the caches, whole or not."""
    for entry in _folders(hugging_face_cache()):
        if entry.name.startswith("models--"):
            yield id_of(entry), entry
    scope = model_scope_cache()
    for base in (scope / "models", scope / "hub" / "models", scope / "hub", scope):
        for owner in _folders(base):
            if "--" in owner.name and (owner / "snapshots").is_dir():
                yield id_of(owner), owner
            elif owner.name not in _NO_OWNERS and not owner.name.startswith("models--"):
                yield from ((id_of(model), model) for model in _folders(owner) if (model / "config.json").is_file())


def id_of(folder: Path) -> str:
    """The id of the model that a cache keeps in `folder`, as far as the folder's name tells."""
    if "--" in folder.name:
        owner, _, name = folder.name.removeprefix("models--").partition("--")
        return f"{owner}/{name.replace('--', '/')}" if name else owner
    return f"{folder.parent.name}/{folder.name.replace('___', '.')}"


def in_root(folder: Path) -> list[Path]:
    """The models of a cache whose own folder, or the one above it, is `folder`."""
    places = (folder, folder / "hub", folder / "models")
    return [entry for place in places for entry in _folders(place)
            if "--" in entry.name and (entry / "snapshots").is_dir()]  # fmt: skip


def _folders(place: Path) -> list[Path]:
    try:
        with os.scandir(place) as entries:
            return sorted(place / entry.name for entry in entries if entry.name[0] not in "._" and entry.is_dir())
    except OSError:
        return []  # not there, or not ours to read


def _expanded(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # a user without a home
        return Path(path)
