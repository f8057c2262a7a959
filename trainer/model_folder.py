"""Is this folder a model, or an adapter? Found out in milliseconds, before anything is started.

Light: no torch. Reads names, sizes and headers only; whether the weights make sense is for the loader.
"""

import errno
import json
import os
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from trainer import hub_caches, settings
from trainer.plain_file import open_plain, read_plain
from trainer.problems import Problem, Problems
from trainer.template_family import has_own_template

Text = str | dict[str, str]

MODEL_LABEL: Text = settings.label("model_name_or_path")
ADAPTER_LABEL: Text = settings.label("adapter_name_or_path")
RECOMMENDED = "recommended_settings.yaml"

INDEX, WEIGHTS, ADAPTER_WEIGHTS = "model.safetensors.index.json", "model.safetensors", "adapter_model.safetensors"
PICKLES = ("pytorch_model*.bin", "adapter_model.bin", "*.pt", "*.pth", "consolidated*.pth")
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "*.tiktoken",
)
_GIT_LFS = b"version https://git-lfs"
_LARGEST_RECOMMENDATION = 64 * 1024
# The index of a model of 100,000 tensors has 10 MB.
_LARGEST_JSON = 2**26
# safetensors itself reads no longer header.
LONGEST_HEADER = 100_000_000
# Of a cache with several models, in the sentence that asks to choose one.
MOST_NAMED = 8


@dataclass(frozen=True)
class ModelInfo:
    """What a list of models shows. `path` is the folder to load, `size_bytes` that of its weights."""

    path: Path
    name: str
    size_bytes: int
    model_type: str
    has_template: bool


def check_model_folder(path: str | Path, label: Text = MODEL_LABEL) -> Path:
    """The folder to load `path` from; a hub cache folder leads to its snapshot. Raises Problem when it is no model."""
    folder = _folder(path, label)
    try:
        _config(folder, label)
        _check_weights(folder, label)
        _check_tokenizer(folder, label)
    except OSError as error:
        raise _unreadable(error, folder, label) from None
    return folder


def check_adapter_folder(path: str | Path, label: Text = ADAPTER_LABEL) -> Path:
    """The folder to load the adapter `path` from. Raises Problem when it is none."""
    folder = _folder(path, label)
    try:
        _check_adapter(folder, label)
    except OSError as error:
        raise _unreadable(error, folder, label) from None
    return folder


def is_whole_model(path: str | Path) -> bool:
    """Whether the folder `path` holds a model of its own, as full fine-tuning writes it, and no adapter."""
    folder = Path(path).expanduser()
    return (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()


def describe(path: str | Path) -> ModelInfo:
    """What a list shows of the model `path`. Raises Problem when it is no model."""
    folder = check_model_folder(path)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    model_type = _config(folder, MODEL_LABEL)["model_type"]
    return ModelInfo(folder, model_name(Path(path).expanduser(), folder), size, model_type, has_own_template(folder))


def read_ahead(path: str | Path) -> None:
    """Has the kernel read the weights into memory while this process still imports its libraries."""
    if not hasattr(os, "posix_fadvise"):  # macOS
        return
    for file in Path(path).glob("*.safetensors"):
        with file.open("rb") as weights:
            os.posix_fadvise(weights.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def recommended(path: str | Path) -> dict[str, Any]:
    """The settings that a model's folder proposes for tuning it. Whatever is no valid hyperparameter is left out."""
    try:
        file = resolve(Path(path).expanduser()) / RECOMMENDED
        values = yaml.safe_load(read_plain(file, _LARGEST_RECOMMENDATION))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    if not isinstance(values, dict):
        return {}
    # A folder from elsewhere may propose how to train, never what to read or where to write.
    allowed = {*settings.keys("training", "extra", "lora"), "template", "finetuning_type"}
    found = ((key, _valid(key, value)) for key, value in values.items() if key in allowed and value is not None)
    return {key: value for key, value in found if value is not None}


def resolve(path: Path) -> Path:
    """The folder to load from: what a hub's cache keeps below models--org--name or for the id org/name is a snapshot.

    Of a cache's snapshots that of refs/main counts, else the newest, whole ones first. A cache's root leads to its
    model where it has but one. What means nothing of these is given back as it is. Raises OSError for what cannot be
    looked at.
    """
    if not path.is_dir():
        found = [snapshot for folder in hub_caches.folders_of(str(path)) if (snapshot := resolve(folder)) != folder
                 or (folder / "config.json").exists()]  # fmt: skip
        return next((one for one in found if not missing_files(one)), found[0] if found else path)
    if (path / "config.json").exists():
        return path
    if path.name == "snapshots" or (path / "snapshots").is_dir():
        return _snapshot(path.parent if path.name == "snapshots" else path) or path
    inside = hub_caches.in_root(path)
    return (_snapshot(inside[0]) or path) if len(inside) == 1 else path


def located(typed: str) -> str:
    """What `typed` means wherever a command is started: an absolute path; an id of a model that is not here stays."""
    try:
        path = Path(typed.strip()).expanduser()
    except RuntimeError:  # ~name of nobody here: a folder of that name, as shells take it
        path = Path(typed)
    try:
        found = resolve(path)
        return typed.strip() if hub_caches.is_id(str(path)) and not found.is_dir() else str(found.absolute())
    except (OSError, ValueError):  # no folder that anyone can open; the checks say so
        return str(path.absolute())


def missing_files(folder: Path) -> list[str]:
    """What the model in `folder` lacks to be whole, by names alone: its config, weights as the index lists them, or a
    tokenizer. Raises OSError."""
    found = [] if (folder / "config.json").is_file() else ["config.json"]
    if not (folder / WEIGHTS).is_file():
        try:
            found += [name for name in _shards(folder, MODEL_LABEL) if not (folder / name).is_file()]
        except (FileNotFoundError, Problem):
            found.append(WEIGHTS)
    return found if _tokenizers(folder) else [*found, TOKENIZERS[0]]


def _snapshot(repository: Path) -> Path | None:
    """The snapshot to use of a cache's folder for one model; None where there is none with a config.json."""
    snapshots, inside = repository / "snapshots", repository.resolve()
    found = [entry for entry in snapshots.iterdir() if (entry / "config.json").exists()
             and entry.resolve().is_relative_to(inside)]  # fmt: skip
    if len(found) < 2:
        return found[0] if found else None
    try:
        main = read_plain(repository / "refs" / "main").strip()
    except (OSError, ValueError):
        main = "master"  # ModelScope's, or a download of another revision
    return max(found, default=None, key=lambda one: (not missing_files(one), one.name == main, one.stat().st_mtime))


def _folder(path: str | Path, label: Text) -> Path:
    if not str(path).strip():
        raise Problem("model_missing", label=label)
    try:
        folder = Path(str(path).strip()).expanduser()
        found = resolve(folder)
        if not found.is_dir():
            raise _absent(folder, label)
        if found == folder and len(several := hub_caches.in_root(folder)) > 1 and not (folder / "config.json").exists():
            names = ", ".join(sorted(hub_caches.id_of(one) for one in several)[:MOST_NAMED])
            raise Problem("model_several", label=label, path=str(folder), names=names)
        return found
    except (OSError, ValueError, RuntimeError) as error:  # Unreadable parent, name too long, null byte, no such home.
        if isinstance(error, Problem):
            raise
        raise Problem("model_not_found", label=label, path=str(path).strip()[:200].replace("\0", "?")) from None


def _absent(folder: Path, label: Text) -> Problem:
    name = str(folder)
    if hub_caches.is_id(name) and not folder.exists():
        return Problem("model_not_here", label=label, name=name)
    return Problem("model_not_found", label=label, path=name[:200].replace("\0", "?"))


def _unreadable(error: OSError, folder: Path, label: Text) -> Problem:
    return Problem("file_unreadable", label=label, path=str(error.filename or folder), detail=error.strerror)


def _missing(label: Text, folder: Path, missing: Text) -> Problem:
    return Problem("model_not_a_model", label=label, path=str(folder), missing=missing)


def _config(folder: Path, label: Text) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise _missing(label, folder, file.name)
    config = _json_object(file, label)
    if not isinstance(config.get("model_type"), str):
        detail = {"en": "it names no model_type", "zh": "没有 model_type"}
        raise Problem("model_config_broken", label=label, path=str(file), detail=detail)
    return config


def _json_object(file: Path, label: Text) -> dict[str, Any]:
    try:
        value = json.loads(read_plain(file, _LARGEST_JSON))
    except (ValueError, RecursionError) as error:
        raise Problem("model_config_broken", label=label, path=str(file), detail=str(error)) from None
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        size = f"{_LARGEST_JSON // 2**20} MiB"
        detail = {"en": f"it is larger than {size}", "zh": f"超过 {size}"}
        raise Problem("model_config_broken", label=label, path=str(file), detail=detail) from None
    if not isinstance(value, dict):
        detail = {"en": "it holds no JSON object", "zh": "内容不是 JSON 对象"}
        raise Problem("model_config_broken", label=label, path=str(file), detail=detail)
    return value


def _check_weights(folder: Path, label: Text) -> None:
    """In the order in which transformers looks: one file, an index of shards, and never a pickle."""
    if (folder / WEIGHTS).is_file():
        names = [WEIGHTS]
    elif (folder / INDEX).is_file():
        names = _shards(folder, label)
    elif pickle := _pickle(folder):
        raise Problem("model_unsafe", label=label, path=str(folder), file=pickle)
    else:
        raise _missing(label, folder, WEIGHTS)
    for name in names:
        if fault := _safetensors_fault(folder / name):
            raise _missing(label, folder, fault)


def _shards(folder: Path, label: Text) -> list[str]:
    weight_map = _json_object(folder / INDEX, label).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise Problem("model_config_broken", label=label, path=str(folder / INDEX), detail="weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    if outside := [name for name in names if Path(name).name != name]:
        raise Problem("model_config_broken", label=label, path=str(folder / INDEX), detail=outside[0])
    return names


def _pickle(folder: Path) -> str | None:
    return next((file.name for pattern in PICKLES for file in sorted(folder.glob(pattern))), None)


def _safetensors_fault(file: Path) -> Text | None:
    """What is wrong with a safetensors file as far as its size and header tell; None when nothing is.

    Layout: 8 bytes little-endian header length, JSON header, data (https://huggingface.co/docs/safetensors).
    """
    if not file.is_file():
        return file.name
    size = file.stat().st_size
    with open_plain(file) as stream:
        start = stream.read(24)
        if start.startswith(_GIT_LFS):
            note = {"en": "only a Git LFS pointer; run git lfs pull", "zh": "只有 Git LFS 指针，请运行 git lfs pull"}
            return {language: f"{file.name} ({text})" for language, text in note.items()}
        header_bytes = int.from_bytes(start[:8], "little")
        if size < 8 or header_bytes > size - 8:
            return _cut_short(file, size)
        stream.seek(8)
        header = stream.read(header_bytes) if header_bytes <= LONGEST_HEADER else b""
    try:
        tensors = [value for name, value in json.loads(header).items() if name != "__metadata__"]
        data_bytes = max((tensor["data_offsets"][1] for tensor in tensors), default=0)
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError):
        return {"en": f"a readable header in {file.name}", "zh": f"{file.name} 的可读文件头"}
    return None if 8 + header_bytes + data_bytes == size else _cut_short(file, size, 8 + header_bytes + data_bytes)


def _cut_short(file: Path, size: int, whole: int | None = None) -> Text:
    amount = f"{size}" if whole is None else f"{size}/{whole}"
    return {"en": f"the whole of {file.name} ({amount} bytes)", "zh": f"完整的 {file.name}（{amount} 字节）"}


def _check_tokenizer(folder: Path, label: Text) -> None:
    found = _tokenizers(folder)
    if not found:
        raise _missing(label, folder, TOKENIZERS[0])
    file = folder / TOKENIZERS[0]
    if file in found and not _ends_with_brace(file):
        raise _missing(label, folder, {"en": f"the whole of {file.name}", "zh": f"完整的 {file.name}"})


def _tokenizers(folder: Path) -> list[Path]:
    names = [file.name for file in folder.iterdir()]
    return [folder / name for pattern in TOKENIZERS for name in names
            if fnmatch(name, pattern) and (folder / name).is_file()]  # fmt: skip


def _ends_with_brace(file: Path) -> bool:
    """Tells a cut-off JSON object without parsing it: a tokenizer's may have 17 MB."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 64))
        return stream.read().rstrip().endswith(b"}")


def _check_adapter(folder: Path, label: Text) -> None:
    def problem(missing: Text) -> Problem:
        return Problem("adapter_not_an_adapter", label=label, path=str(folder), missing=missing)

    file = folder / "adapter_config.json"
    if not file.is_file():
        raise problem(file.name)
    try:
        config = _json_object(file, label)
    except Problem:
        raise problem({"en": f"a readable {file.name}", "zh": f"可读的 {file.name}"}) from None
    if not isinstance(config.get("peft_type"), str):
        raise problem({"en": f"peft_type in {file.name}", "zh": f"{file.name} 中的 peft_type"})
    if not (folder / ADAPTER_WEIGHTS).is_file() and (pickle := _pickle(folder)):
        raise Problem("model_unsafe", label=label, path=str(folder), file=pickle)
    if fault := _safetensors_fault(folder / ADAPTER_WEIGHTS):
        raise problem(fault)


def model_name(path: Path, folder: Path) -> str:
    """What to call the model `path`, which is loaded from `folder`: a hub's id, else the folder's name."""
    caches = (path, *(folder.parents[1:2] if folder.parent.name == "snapshots" else ()))
    cache = next((place for place in caches if "--" in place.name and (place / "snapshots").is_dir()), None)
    # ModelScope's older layouts have no folder but the model's own.
    own = folder if cache is None and folder.is_relative_to(hub_caches.model_scope_cache()) else cache
    return hub_caches.id_of(own) if own else folder.resolve().name


def _valid(key: str, value: Any) -> Any:
    """The value as the settings take it, None when they do not."""
    try:
        return getattr(settings.parse({key: value}), key)
    except (Problems, Problem):
        return None
