"""Settings in files and on command lines: YAML read and written, flags and shell text. Light: no torch."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer.plain_file import read_plain
from trainer.problems import Problem
from trainer.settings import TrainSettings, as_text, shown

# A settings file has some fifty.
MOST_VALUES = 10_000


def read_yaml(path: Path) -> dict[str, Any]:
    """The key-value pairs of a settings file. Raises Problem when it is none."""
    try:
        # A shell's <(…) is no plain file; what lies in a folder must be one, or it could be waited for without end.
        text = path.read_text(encoding="utf-8") if path.parts[:2] == ("/", "dev") else read_plain(path)
        if text.count("[") + text.count("{") > MOST_VALUES // 10:  # nests cost the square of their depth
            raise _too_large(path)
        values = yaml.safe_load(text)
    except OSError as error:
        code = "file_missing" if isinstance(error, FileNotFoundError) else "file_unreadable"
        what = {"en": "Settings file", "zh": "设置文件"}
        raise Problem(code, label=what, path=str(path), detail=error.strerror) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also a date that is none, or too deep a nest
        mark = getattr(error, "problem_mark", None)
        detail = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise Problem("yaml_broken", path=str(path), line=mark.line + 1 if mark else 1, detail=detail) from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise Problem("yaml_not_mapping", path=str(path), kind=type(values).__name__)
    if _weight(values, {}) > MOST_VALUES:
        raise _too_large(path)
    return values


def _too_large(path: Path) -> Problem:
    detail = {"en": f"more than {MOST_VALUES} values", "zh": f"超过 {MOST_VALUES} 个值"}
    return Problem("yaml_broken", path=str(path), line=1, detail=detail)


def _weight(value: Any, known: dict[int, float]) -> float:
    """How many values `value` would be if it were written out: a few lines of anchors stand for billions."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf  # until it is known: what holds itself has no end
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_weight(item, known) for item in inner)
    return known[id(value)]


class _AsTyped(str):
    """A number's own text, which YAML takes without quotes."""


class _Dumper(yaml.SafeDumper):
    pass


def _plain(dumper: yaml.SafeDumper, text: _AsTyped) -> yaml.ScalarNode:
    """A scalar whose tag is the one that its text implies needs neither quotes nor a tag."""
    return dumper.represent_scalar(dumper.resolve(yaml.ScalarNode, str(text), (True, False)), str(text))


_Dumper.add_representer(_AsTyped, _plain)


def to_yaml(settings: TrainSettings, typed: Mapping[str, Any] | None = None) -> str:
    """Every setting that is not at its default or has a control, as YAML in declared order.

    `typed`: numbers as a person wrote them (3e-4, not 0.0003), which are kept where they are given.
    """
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in _written(settings).items()}
    for key, value in values.items():
        if isinstance(value, float) and isinstance(text := (typed or {}).get(key), str) and float(text) == value:
            values[key] = _AsTyped(text.strip())
    return yaml.dump(values, Dumper=_Dumper, allow_unicode=True, sort_keys=False)


def to_flags(settings: TrainSettings) -> list[str]:
    """The command-line flags that give `settings` back."""
    flags = []
    for key, value in _written(settings).items():
        text = as_text(value)
        flags += [f"--{key}={text}"] if text.startswith("-") else [f"--{key}", text]
    return flags


def to_shell(argv: list[str]) -> str:
    """`argv` as one shell-quoted command, a flag a line."""
    lines: list[str] = []
    words: list[str] = []
    for word in argv:
        if word.startswith("--") and words:
            lines.append(" ".join(words))
            words = []
        words.append(shlex.quote(word))
    return " \\\n    ".join([*lines, " ".join(words)])


def _written(settings: TrainSettings) -> dict[str, Any]:
    """What a file or command needs: no unset values, and settings without a control, or of another method, only
    where changed."""
    others = {"lora", "freeze"} - {settings.finetuning_type}
    return {
        key: value
        for key in TrainSettings.model_fields
        if (value := getattr(settings, key)) is not None
        and (shown(key).group not in ("file", *others) or value != TrainSettings.model_fields[key].default)
    }
