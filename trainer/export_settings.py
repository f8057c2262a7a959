"""The settings of an export, declared once; the keys are LLaMA-Factory's. Light: no torch."""

import difflib
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from trainer import settings
from trainer.field_types import Finite, No, OptionalText, Shown, setting
from trainer.model_folder import located
from trainer.problems import Problem, Problems, quoted

Dtype = Literal["bfloat16", "float16", "float32"]


def _as_in_training(key: str, default: Any) -> Any:
    return Field(default, json_schema_extra={"shown": settings.shown(key)})  # type: ignore[dict-item]


class ExportSettings(BaseModel):
    """One export. Frozen; invalid values raise pydantic.ValidationError: use `parse`."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    # fmt: off
    model_name_or_path: str = _as_in_training("model_name_or_path", "")
    adapter_name_or_path: OptionalText = setting(None, "model", "检查点路径", "Checkpoint path",
        "要合并到模型中的检查点或训练文件夹", "The checkpoint or run folder that is merged into the model")
    template: str = setting("auto", "model", "对话模板", "Chat template",
        "auto 使用训练时的模板", "auto: the one that was trained with")
    export_dir: str = setting("", "output", "导出目录", "Export dir",
        "写入合并后模型的新文件夹", "The new folder that the merged model is written to", "models/my-model")
    export_size: Finite = setting(5.0, "output", "分块大小（GB）", "Shard size (GB)",
        "每个权重文件的最大大小", "Most GB of one file of weights", "5", gt=0)
    export_device: Literal["cpu", "auto"] = setting("cpu", "output", "导出设备", "Export device",
        "auto 在放得下时使用加速卡，更快", "auto: the accelerator where the model fits it, which is faster")
    infer_dtype: Literal["auto", "bfloat16", "float16", "float32"] = setting("auto", "output", "数据类型", "Data type",
        "导出权重的数据类型；auto 与原模型相同", "Of the exported weights; auto: that of the original model")

    # Keys of LLaMA-Factory files of which we implement one value, or that decide nothing here.
    export_legacy_format: No = setting(False, "file", "旧格式", "Legacy format",
        "须为 false：只写 safetensors", "Must be false: only safetensors are written")
    trust_remote_code: No = setting(False, "file", "信任远程代码", "Trust remote code",
        "须为 false：导出从不运行模型文件夹里的代码", "Must be false: an export never runs code in a model's folder")
    finetuning_type: Literal["lora", "full", "freeze"] | None = setting(None, "file", "微调方法", "Finetuning method",
        "在这里不起作用：由检查点文件夹决定", "Has no effect here: the checkpoint's folder tells")
    # fmt: on


def keys() -> list[str]:
    return list(ExportSettings.model_fields)


def shown(key: str) -> Shown:
    """Labels, help and group of the setting `key`."""
    extra = ExportSettings.model_fields[key].json_schema_extra
    assert isinstance(extra, dict)
    value = extra["shown"]
    assert isinstance(value, Shown)
    return value


def label(key: str) -> dict[str, str]:
    """The label of `key` in every language, for a Problem's {label}."""
    return {"en": shown(key).en, "zh": shown(key).zh}


def choices(key: str) -> list[str]:
    """What a setting of few values accepts; empty when it is free."""
    if key == "template":
        return settings.choices(key)
    return [value for value in get_args(ExportSettings.model_fields[key].annotation) if isinstance(value, str)]


def default_text(key: str) -> str:
    """The default as a person would type it."""
    value = ExportSettings.model_fields[key].default
    return f"{value:g}" if isinstance(value, float) else settings.as_text(value)


def parse(values: dict[str, Any]) -> ExportSettings:
    """Settings from text or YAML values, with absolute paths. Raises Problem or Problems."""
    try:
        found = ExportSettings.model_validate(values)
    except ValidationError as error:
        raise Problems([_translated(item) for item in error.errors()]) from None
    if found.template not in choices("template"):
        raise Problem("setting_choice", label=label("template"), value=quoted(found.template),
                      choices=", ".join(choices("template")))  # fmt: skip
    paths = ("model_name_or_path", "adapter_name_or_path", "export_dir")
    full = {key: _full(value) for key in paths if (value := getattr(found, key))}
    return found.model_copy(
        update=full | ({"model_name_or_path": located(model)} if (model := found.model_name_or_path) else {})
    )


def to_flags(chosen: ExportSettings) -> list[str]:
    """The command-line flags that give `chosen` back: paths always, the others where they are changed."""
    flags = []
    for key, field in ExportSettings.model_fields.items():
        value = getattr(chosen, key)
        if value != field.default:
            text = f"{value:g}" if isinstance(value, float) else settings.as_text(value)
            flags += [f"--{key}={text}"] if text.startswith("-") else [f"--{key}", text]
    return flags


def _full(path: str) -> str:
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError:  # ~name of nobody here: a folder of that name, as shells take it
        return str(Path(path).absolute())


def _translated(error: ErrorDetails) -> Problem:
    """A pydantic error as a labelled Problem."""
    key, kind, value = str(error["loc"][0]), error["type"], error["input"]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(key, keys(), n=1, cutoff=0.7)
        suggestion = {"en": f", or use `{near[0]}`", "zh": f"，或改用 `{near[0]}`"} if near else {"en": "", "zh": ""}
        return Problem("setting_unknown", key=quoted(key), value=quoted(value), suggestion=suggestion)
    about = {"label": label(key), "key": key, "value": quoted(value)}
    if value is None or (isinstance(value, str) and not value.strip()):
        return Problem("setting_missing", **about)
    if kind == "literal_error" and (allowed := choices(key)):
        return Problem("setting_choice", **about, choices=", ".join(allowed))
    if kind == "literal_error":
        return Problem("setting_fixed", **about, reason={"en": shown(key).help_en, "zh": shown(key).help_zh})
    if kind == "greater_than":
        return Problem("setting_range", **about, range={"en": "above 0", "zh": "> 0"})
    number = kind.startswith(("float", "finite"))
    return Problem("setting_not_number" if number else "setting_not_text", **about, example=shown(key).example)
