"""Settings as widgets and back: one widget a setting, made from its declaration; validated settings from their values."""

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from app import runs
from app.models import as_chosen
from app.text import Text, both
from trainer.prepare import absolute
from trainer.problems import Problem, Problems, quoted
from trainer.settings import (
    TrainSettings,
    choices,
    default_text,
    is_boolean,
    keys,
    label,
    parse,
    shown,
    typed_text,
    unknown_setting,
)

EXTRA_ARGS = "extra_args"
KEYS = [*keys("model", "data", "training", "extra", "lora", "freeze", "output"), EXTRA_ARGS]


def widget(key: str, text: Text, value: Any = None, **options: Any) -> gr.components.Component:
    """The control of the setting `key`: a dropdown where there are few choices, a checkbox, else a text field.

    Numbers are text fields: Gradio's own number field and slider answer bad values with messages that
    are neither labelled nor translated.
    """
    about = shown(key)
    common = {
        "label": about.label(text.language),
        "info": about.help(text.language),
        "elem_id": key,
        "interactive": True,
    } | options
    if is_boolean(key):
        return gr.Checkbox(value=bool(value), **common)
    if "choices" in common or choices(key):
        return gr.Dropdown(**({"choices": choices(key)} | common), value=default_text(key) if value is None else value)
    return gr.Textbox(value=default_text(key) if value is None else value, max_lines=1, **common)


def typed(value: Any) -> Any:
    """Text as meant: full-width digits and signs of a Chinese keyboard count as the plain ones."""
    return unicodedata.normalize("NFKC", value).strip() if isinstance(value, str) else value


def extra_arguments(value: str) -> dict[str, Any]:
    """The JSON of the extra arguments field. Raises Problem or Problems."""
    if not value.strip():
        return {}
    try:
        found = json.loads(value)
    except json.JSONDecodeError as error:
        raise Problem(
            "json_broken", label=both("extra_args"), line=error.lineno, column=error.colno, detail=error.msg
        ) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
        raise Problem("extra_not_object", label=both("extra_args"), value=quoted(value)) from None
    if not isinstance(found, dict):
        raise Problem("extra_not_object", label=both("extra_args"), value=quoted(value))
    problems = []
    for key, item in found.items():
        if key not in TrainSettings.model_fields:
            problems.append(unknown_setting(key, item))
        elif shown(key).group != "file":
            problems.append(Problem("extra_has_control", label=both("extra_args"), key=quoted(key), control=label(key)))
    if problems:
        raise Problems(problems)
    return found


def settings_from(values: Mapping[str, Any], runs_dir: Path) -> TrainSettings:
    """The settings that the form's `values` (by key, in any order) mean, paths absolute. Raises Problems."""
    problems: list[Problem] = []
    # What belongs to another method than the chosen one is not shown, and not meant.
    hidden = {key for method in ("lora", "freeze") if values["finetuning_type"] != method for key in keys(method)}
    given = {key: plain(key, value) for key, value in values.items() if key not in hidden | {EXTRA_ARGS}}
    try:
        given |= extra_arguments(values[EXTRA_ARGS])
    except Problem as problem:
        problems.append(problem)
    except Problems as several:
        problems += several.problems
    try:
        given["output_dir"] = str(runs.folder_for(runs_dir, given["output_dir"]))
    except Problem as problem:
        problems.append(problem)
    try:
        settings = absolute(parse(given))
    except Problems as several:
        raise Problems([*several.problems, *problems]) from None
    if problems:
        raise Problems(problems)
    return settings


def plain(key: str, value: Any) -> Any:
    """A widget's value as `parse` takes it; folder names and placeholders' texts stay as they were typed."""
    if isinstance(value, list):
        return tuple(value)
    if value is None:
        return ""
    as_it_is = key.endswith(("_dir", "_path")) or key == "placeholders"
    return value.strip() if as_it_is and isinstance(value, str) else typed(value)


def for_training(settings: TrainSettings) -> TrainSettings:
    """A chosen full-parameter checkpoint is the model that is trained on."""
    model, adapter = as_chosen(settings.model_name_or_path, settings.adapter_name_or_path or "")
    return settings.model_copy(update={"model_name_or_path": model, "adapter_name_or_path": adapter})


def values_from(settings: TrainSettings, written: Mapping[str, Any]) -> dict[str, Any]:
    """The form's values that show `settings`; `written`: the file that gave them, as it was typed.

    The extra arguments hold what has no control of its own.
    """
    values: dict[str, Any] = {}
    for key in KEYS[:-1]:
        value = getattr(settings, key)
        if key == "dataset":
            values[key] = list(value)
        else:
            values[key] = value if is_boolean(key) else typed_text(key, value)
        if isinstance(value, float) and isinstance(text := written.get(key), str):
            values[key] = text
    values["output_dir"] = Path(settings.output_dir).name
    extra = {key: getattr(settings, key) for key in keys("file") if key in written}
    values[EXTRA_ARGS] = json.dumps(extra, ensure_ascii=False) if extra else ""
    return values
