"""The models on this machine: found in folders and in the hubs' caches, with size, parameters and what they lack.

Light: no torch. Reads names, sizes, configs and the headers of safetensors, once a file: a page asks often.
"""

import json
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer import hub_caches
from trainer.model_folder import INDEX, LONGEST_HEADER, missing_files, model_name, resolve
from trainer.model_size import BITS
from trainer.plain_file import open_plain, read_plain
from trainer.template_family import has_own_template

State = tuple[tuple[str, int, int], ...]

# Enough for every model of a machine; a folder that nobody asks for any more falls out.
MOST_KEPT = 4096
# Numbers of another use than as weights: scales and zero points of quantized ones.
_SCALES = ("scales", "scale", "scale_inv", "zeros", "g_idx", "absmax", "quant_map")
_PACKED = {"I32", "U8", "I8"}


@dataclass(frozen=True)
class Model:
    """A model as a list shows it.

    `path`: what to type for it, of a hub's cache the folder that stays when the model is updated. `size_bytes`: of the
    weights that are there. `parameters`: None where the headers do not tell, as of packed weights. `chat`: it brings a
    chat template. `missing`: the files that it lacks to be whole.
    """

    name: str
    path: Path
    size_bytes: int
    parameters: int | None
    model_type: str
    chat: bool
    missing: tuple[str, ...] = ()


class Known:
    """What was read of folders, until a file in them changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[Path, tuple[State, Model | None]] = {}

    def model(self, path: Path) -> Model | None:
        """The model that `path` means; None when it is none. `path` is a folder, maybe a cache's."""
        try:
            folder = resolve(path)
            state = _state(folder)
        except OSError:
            return None
        with self._lock:
            known = self._models.pop(path, None)
            if known is None or known[0] != state:
                known = state, _read(path, folder)
            self._models[path] = known
            if len(self._models) > MOST_KEPT:
                self._models.pop(next(iter(self._models)))
        return known[1]


_known = Known()


def find(near: Iterable[Path] = (), allowed: Callable[[Path], bool] = lambda path: True) -> list[Model]:
    """The models at the paths `near` and beside them, in the working folder, in ./models and in the hubs' caches.

    `allowed`: which folders may be looked into at all. A folder is listed once, under the first of its places.
    """
    found: dict[Path, Model] = {}
    for path in dict.fromkeys(_candidates(list(near), allowed)):
        if _can_be_shown(path) and allowed(path) and (model := _known.model(path)):
            found.setdefault(model.path.resolve(), model)
    return list(found.values())


def _can_be_shown(path: Path) -> bool:
    """A name in another encoding than the system's cannot be sent to a browser, nor typed."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _candidates(near: list[Path], allowed: Callable[[Path], bool]) -> Iterator[Path]:
    """Folders that may be models, nearest first."""
    yield from near
    for path in near:
        if path.parent.name != "snapshots":  # its other revisions are no other models
            yield from _inside(path.parent, allowed)
    here = Path.cwd()
    yield here
    yield from _inside(here, allowed)
    for folder in _inside(here / "models", allowed):
        yield folder
        if not (folder / "config.json").exists():  # models/org/name
            yield from _inside(folder, allowed)
    yield from (path for _, path in hub_caches.repositories() if allowed(path.parent))


def _inside(place: Path, allowed: Callable[[Path], bool]) -> list[Path]:
    try:
        with os.scandir(place) if allowed(place) else os.scandir(os.devnull) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.name[0] != "." and entry.is_dir())
    except OSError:
        return []  # not there, or not ours to read


def _state(folder: Path) -> State:
    """Changes with whatever a list shows of `folder`."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((".json", ".safetensors", ".jinja", ".model", ".txt")):
                try:
                    stat = entry.stat()
                except OSError:  # a link to a file that is gone
                    continue
                found.append((entry.name, stat.st_mtime_ns, stat.st_size))
    return tuple(sorted(found))


def _weights(folder: Path) -> list[Path]:
    """The files that are loaded, of those that are there: Mistral's folders hold the same weights twice."""
    files = sorted(folder.glob("*.safetensors"))
    return [file for file in files if file.name.startswith("model")] or files


def _read(path: Path, folder: Path) -> Model | None:
    files = _weights(folder)
    cached = folder != path or folder.parent.name == "snapshots"
    if not (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
        return None
    # A config alone is a model that lacks its weights only where a download has begun.
    if not (files or (folder / INDEX).is_file() or cached):
        return None
    try:
        config = json.loads(read_plain(folder / "config.json"))
        missing = missing_files(folder)
        model_type = config["model_type"]
        if not isinstance(model_type, str):
            return None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    counted: float = 0
    size, quantized = 0, bool(config.get("quantization_config"))
    for file in files:
        try:
            size += file.stat().st_size
            counted += _parameters(file, quantized)
        except (OSError, ValueError, AttributeError, TypeError, LookupError, RecursionError):
            missing = [*missing, file.name] if file.name not in missing else missing
    return Model(model_name(path, folder), path, size, None if missing or not counted else _whole(counted), model_type,
                 has_own_template(folder), tuple(missing))  # fmt: skip


def _whole(counted: float) -> int | None:
    return None if math.isinf(counted) else int(counted)


def _parameters(file: Path, quantized: bool) -> float:
    """Numbers in `file`, infinite where they are packed. Raises ValueError for a file that is cut short."""
    size = file.stat().st_size
    with open_plain(file) as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length)) if length <= min(size - 8, LONGEST_HEADER) else {}
    header.pop("__metadata__", None)
    total, last = 0.0, 0
    for name, tensor in header.items():
        begun, end = tensor["data_offsets"]
        kind = tensor["dtype"]
        last = max(last, end)
        if not 0 <= begun <= end:
            raise ValueError(f"{file} holds a tensor of less than nothing")
        if quantized and name.rsplit(".", 1)[-1].endswith(_SCALES):
            continue
        if quantized and kind in _PACKED:
            total = math.inf
        elif bits := BITS.get(kind):  # quicker than by the shape, and there may be 100,000 tensors
            total += (end - begun) * 8 // bits
        else:
            total += math.prod(tensor["shape"])
    if not header or last != size - 8 - length:
        raise ValueError(f"{file} is cut short")
    return total
