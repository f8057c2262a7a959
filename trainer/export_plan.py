"""What an export reads and writes, and whether it can: found out before torch is imported.

.<name>.partial/   beside the export dir while it runs: the model, events.jsonl, run.json, export.log
<export_dir>/      appears at the end, complete and checked, with tunedesk_export.json
"""

import json
import math
import os
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trainer import run_folder, template_family
from trainer.events import EventLog
from trainer.export_settings import Dtype, ExportSettings, label
from trainer.model_folder import ADAPTER_WEIGHTS, check_adapter_folder, check_model_folder, resolve
from trainer.model_size import BITS, StoredTensor, stored_tensors, tensors, weight_bytes
from trainer.plain_file import read_plain
from trainer.prepare import check_writable
from trainer.problems import Problem, Problems, quoted
from trainer.settings import TEMPLATES_DIR
from trainer.settings import parse as parse_training
from trainer.settings_file import read_yaml

RECORD, LOG, MODEL = "tunedesk_export.json", "export.log", "model"
DTYPES: dict[str, Dtype] = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}  # as safetensors names them
# Beside the weights: config, tokenizer, index; a tokenizer of 150,000 words has 11 MB.
_SMALL_FILES = 32 * 10**6
_SAMPLED = 4096


@dataclass(frozen=True)
class Plan:
    """`model`: the folder that is loaded, the base or a whole checkpoint; `adapter`: what is merged into it.

    `load_dtype`: what it is merged in, the wider one of what is stored and what is written (`dtype`).
    `template`: the Jinja source that the exported tokenizer carries; None: the model's own.
    `weight_bytes`: of the exported weights, about.
    """

    settings: ExportSettings
    model: Path
    adapter: Path | None
    target: Path
    dtype: Dtype
    load_dtype: Dtype
    template: str | None
    weight_bytes: int

    @property
    def partial(self) -> Path:
        return partial(self.target)


def partial(target: Path) -> Path:
    """The folder of an export that is not finished."""
    return target.with_name(f".{target.name}.partial")


def check(settings: ExportSettings) -> Plan:
    """What `settings` ask for. Reads names, headers and samples only, writes nothing.

    Raises Problem for whatever would stop the export.
    """
    target = _target(settings)
    model = check_model_folder(settings.model_name_or_path, label("model_name_or_path"))
    adapter = _checkpoint(settings.adapter_name_or_path) if settings.adapter_name_or_path else None
    sources = [Path(settings.model_name_or_path), model, *([adapter, *_run_of(adapter)] if adapter else [])]
    if whole := adapter is not None and not run_folder.is_adapter(adapter):
        assert adapter is not None
        model, adapter = check_model_folder(adapter, label("adapter_name_or_path")), None
    template = _template(settings, adapter)
    _check_not_quantized(model)
    if adapter:
        _check_adapter(adapter, model)
    found = tensors(model)
    dtype = _dtype(settings, model, adapter)
    stored = {DTYPES[kind] for kind, _ in found.values() if kind in DTYPES}
    if not (adapter or whole or template or _run_of(model)) and stored == {dtype}:
        raise Problem("export_nothing", path=str(model), dtype=dtype)
    load_dtype = _wider({_main_dtype(model), dtype} if adapter else {*stored, dtype})
    plan = Plan(settings, model, adapter, target, dtype, load_dtype, template, _bytes(found, dtype, adapter))
    _check_target(plan, sources)
    return plan


# ---- what is read ----


def _checkpoint(path: str) -> Path:
    """The adapter's or whole model's folder that `path` means; a run without a result stands for its last checkpoint."""
    folder = Path(path)
    if not run_folder.has_weights(folder) and (saved := run_folder.checkpoints(folder)):
        folder = saved[-1]
    if (folder / "config.json").is_file() and not run_folder.is_adapter(folder):
        return check_model_folder(folder, label("adapter_name_or_path"))
    return check_adapter_folder(folder, label("adapter_name_or_path"))


def _run_of(folder: Path) -> list[Path]:
    """The run that wrote `folder`, if a training did: the folder itself or the one above a checkpoint-N."""
    for place in (folder, *([folder.parent] if folder.name.startswith("checkpoint-") else [])):
        if (place / run_folder.CONFIG).is_file() or (place / run_folder.STATE).is_file():
            return [place]
    return []


def _run_settings(folder: Path) -> Any:
    """The settings that `folder` was trained with; None where they are not known."""
    for place in (folder, folder.parent):
        if (place / run_folder.CONFIG).is_file():
            try:
                return parse_training(read_yaml(place / run_folder.CONFIG))
            except (Problem, Problems):
                return None  # of another program, or of a version with other settings
    return None


def _template(settings: ExportSettings, adapter: Path | None) -> str | None:
    """The chosen template, else the one that lies beside the adapter, else that of the adapter's run."""
    if settings.template != "auto":
        return _shipped(settings.template)
    if adapter is None:
        return None
    if source := template_family.beside(adapter):
        return source
    trained = _run_settings(adapter)
    return _shipped(trained.template) if trained and trained.template != "auto" else None


def _shipped(name: str) -> str:
    return (TEMPLATES_DIR / f"{name}.jinja").read_text(encoding="utf-8")


def _check_not_quantized(model: Path) -> None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method", "?") if isinstance(quantization, dict) else "?"
        raise Problem("export_quantized_base", label=label("model_name_or_path"), path=str(model), method=method)


def _check_adapter(adapter: Path, model: Path) -> None:
    """Raises Problem for an adapter that is no LoRA, of another base, or of other shapes."""
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    about = {"label": label("adapter_name_or_path"), "path": str(adapter)}
    if config["peft_type"] != "LORA":
        raise Problem("export_not_lora", **about, kind=config["peft_type"])
    _check_shapes(adapter, model)
    recorded = config.get("base_model_name_or_path")
    if isinstance(recorded, str) and recorded and not _is_base(recorded, model):
        raise Problem("export_other_base", **about, theirs=recorded, model=str(model), file=str(file))


def _is_base(recorded: str, model: Path) -> bool:
    """Whether `model` is the base that an adapter names: the same folder, a copy, or, where that is not here, its name."""
    theirs = resolve(Path(recorded).expanduser())
    try:
        return theirs.samefile(model) or _same_weights(theirs, model)
    except (OSError, ValueError, KeyError):  # not here, or no model that we can read
        return _model_name(recorded) == _model_name(str(model))


def _model_name(path: str) -> str:
    """The model's own name in a path, a hub's id or a hub cache, as far as the places agree on it."""
    parts = path.rstrip("/").split("/")
    name = parts[parts.index("snapshots") - 1] if "snapshots" in parts[1:] else parts[-1]
    return name.rsplit("--", 1)[-1].replace("___", ".").lower()


def _same_weights(first: Path, second: Path) -> bool:
    """Whether two folders hold the same model: names, types, shapes, and the beginning of each tensor's bytes."""
    ours, theirs = ({tensor.name: tensor for tensor in stored_tensors(folder)} for folder in (first, second))
    return ours.keys() == theirs.keys() and all(_alike(tensor, theirs[name]) for name, tensor in ours.items())


def _alike(first: StoredTensor, second: StoredTensor) -> bool:
    return (first.dtype, first.shape) == (second.dtype, second.shape) and _sample(first) == _sample(second)


def _sample(tensor: StoredTensor) -> bytes:
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        return file.read(min(tensor.size, _SAMPLED))


def _adapter_tensors(adapter: Path) -> dict[str, list[int]]:
    """The shape of every tensor of the adapter, by its name without peft's prefix."""
    with (adapter / ADAPTER_WEIGHTS).open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    return {name.removeprefix("base_model.model."): item["shape"] for name, item in header.items()}


def _check_shapes(adapter: Path, model: Path) -> None:
    """Raises Problem where the headers show that the adapter does not fit; what they do not show is for the loader."""
    known = {name: shape for name, (_, shape) in tensors(model).items()}
    kinds = {re.sub(r"\.\d+\.", ".N.", name) for name in known}
    for name, shape in _adapter_tensors(adapter).items():
        matrix = re.fullmatch(r"(.+)\.lora_([AB])\.weight", name)
        of = f"{matrix[1]}.weight" if matrix else name
        base = known.get(of)
        if name.endswith(".lora_B.bias") and name.replace("lora_B.bias", "bias") not in known:
            layer = name.removesuffix(".lora_B.bias")
            raise Problem("export_no_bias", label=label("adapter_name_or_path"), path=str(adapter), layer=layer)
        if base is None:
            # Named as one of the base's, in a layer that it has not.
            fits = re.sub(r"\.\d+\.", ".N.", of) not in kinds
        elif matrix:
            fits = shape[1 if matrix[2] == "A" else 0] in base
        else:
            fits = shape == base
        if not fits:
            detail = f"{name} {shape}, {of} {base if base else '–'}"
            raise Problem("adapter_mismatch", path=str(adapter), model=str(model), detail=detail)


# ---- what is written ----


def _main_dtype(folder: Path) -> Dtype:
    """The type in which most of the weights are stored; float32 where that is none that models compute in."""
    sizes: Counter[str] = Counter()
    for kind, shape in tensors(folder).values():
        sizes[kind] += math.prod(shape) * BITS.get(kind, 16)
    return DTYPES.get(sizes.most_common(1)[0][0], "float32")


def _dtype(settings: ExportSettings, model: Path, adapter: Path | None) -> Dtype:
    """The chosen type, else that of the base: a checkpoint of whole weights holds fp32 for the optimizer's sake."""
    if settings.infer_dtype != "auto":
        return settings.infer_dtype
    trained = None if adapter else _run_settings(model) if _run_of(model) else None
    base = Path(trained.model_name_or_path) if trained else model
    try:
        return _main_dtype(resolve(base))
    except (OSError, ValueError, KeyError):  # the base is gone
        return _main_dtype(model)


def _wider(kinds: set[Dtype]) -> Dtype:
    return kinds.pop() if len(kinds) == 1 else "float32"


def _bytes(found: dict[str, tuple[str, list[int]]], dtype: Dtype, adapter: Path | None) -> int:
    """Bytes of the exported weights; an output layer that the adapter unties from the embedding is one more matrix."""
    element = 4 if dtype == "float32" else 2
    total = weight_bytes(found, element)
    outer = any(name.startswith("lm_head") or "embed" in name for name in _adapter_tensors(adapter)) if adapter else 0
    if outer and not any(name.startswith("lm_head") for name in found):
        total += max((math.prod(shape) for _, shape in found.values()), default=0) * element
    return total


def _target(settings: ExportSettings) -> Path:
    """The folder to write, symbolic links followed. Raises Problem for a path that no folder can have here."""
    if not settings.export_dir:
        raise Problem("setting_missing", label=label("export_dir"))
    try:
        target = Path(settings.export_dir).resolve()
        for path in (target, partial(target)):
            os.path.lexists(path)
            if len(path.name.encode()) > 255:
                raise ValueError("> 240 bytes")
    except (ValueError, OSError, RuntimeError) as error:  # null bytes, not text, links in a circle
        shown = settings.export_dir.encode(errors="replace").decode().replace("\0", "?")
        raise Problem("output_bad_name", label=label("export_dir"), value=quoted(shown), detail=str(error)) from None
    return target


def _check_target(plan: Plan, sources: list[Path]) -> None:
    about = {"label": label("export_dir"), "path": str(plan.target)}
    for source in sources:
        if plan.target.is_relative_to(source.resolve()):
            raise Problem("export_inside_source", **about, source=str(source))
    try:
        if plan.target.exists() and (not plan.target.is_dir() or any(plan.target.iterdir())):
            raise Problem("export_exists", **about)
    except PermissionError as error:
        raise Problem("output_not_writable", **about, detail=error.strerror) from None
    if plan.target.is_mount():
        raise Problem("export_mount", **about)
    check_writable(plan.target.parent, about["label"])  # type: ignore[arg-type]
    existing = next(path for path in plan.target.parents if path.exists())
    free = shutil.disk_usage(existing).free + _size(plan.partial / MODEL)  # a killed export's, which will be removed
    if free < plan.weight_bytes + _SMALL_FILES:
        raise Problem("export_no_space", **about, needed=f"{(plan.weight_bytes + _SMALL_FILES) / 1e9:.2f}",
                      free=f"{free / 1e9:.2f}")  # fmt: skip


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def claim(plan: Plan, log: type[EventLog] = EventLog) -> tuple[IO[str], EventLog]:
    """Makes the partial folder this process's: the lock, run.json, the first event; what a killed export left is gone.

    Raises Problem when another process has it or it cannot be written.
    """
    about = {"label": label("export_dir"), "path": str(plan.target)}
    try:
        plan.partial.mkdir(parents=True, exist_ok=True)
        if (held := run_folder.lock(plan.partial)) is None:
            raise Problem("export_in_use", **about)
        shutil.rmtree(plan.partial / MODEL, ignore_errors=True)
        (plan.partial / run_folder.EVENTS).unlink(missing_ok=True)
        run_folder.write_identity(plan.partial, run_folder.Identity.of(os.getpid()))
        events = log(plan.partial / run_folder.EVENTS)
        events.append("stage", stage="starting", bytes=plan.weight_bytes)
    except OSError as error:
        raise Problem("output_not_writable", **about, detail=error.strerror) from None
    return held, events


def publish(plan: Plan, record: dict[str, Any]) -> None:
    """Gives the complete model its name. Raises Problem when something has come there since; then nothing is replaced."""
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    (plan.partial / MODEL / RECORD).write_text(text, encoding="utf-8")
    try:
        (plan.partial / MODEL).rename(plan.target)
    except OSError as error:
        if plan.target.exists():
            raise Problem("export_exists", label=label("export_dir"), path=str(plan.target)) from None
        raise Problem("output_not_writable", label=label("export_dir"), path=str(plan.target),
                      detail=error.strerror) from None  # fmt: skip


def read_record(target: Path) -> dict[str, Any] | None:
    """What `publish` wrote; None where no finished export is, or its record is broken."""
    try:
        found = json.loads(read_plain(target / RECORD))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("bytes", 0), int):
        return None
    seconds = found.get("seconds", 0)
    return found if isinstance(seconds, int | float) and abs(seconds) < 1e12 else None
