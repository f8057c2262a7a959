"""What a setting's field is made of: its labels, and the types that read a value as people and files write it."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from trainer.problems import Language, Problem, quoted

Group = Literal["model", "data", "training", "extra", "lora", "freeze", "output", "file"]


@dataclass(frozen=True)
class Shown:
    """How people meet a setting. Group "file": it has no control of its own on the page."""

    group: Group
    zh: str
    en: str
    help_zh: str
    help_en: str
    example: str

    def label(self, language: Language) -> str:
        return self.zh if language == "zh" else self.en

    def help(self, language: Language) -> str:
        return self.help_zh if language == "zh" else self.help_en


def setting(
    default: Any, group: Group, zh: str, en: str, help_zh: str, help_en: str, example: str = "", **limits: Any
) -> Any:
    """A pydantic field that knows its labels. `limits` are pydantic's own (gt, ge, lt, le)."""
    shown = Shown(group, zh, en, help_zh, help_en, example or str(default))
    return Field(default, json_schema_extra={"shown": shown}, **limits)  # type: ignore[dict-item]


def _names(value: Any) -> Any:
    """`a,b` or [a, b] to a tuple of names, as LLaMA-Factory writes its lists."""
    if value is None:
        return ()
    if isinstance(value, str) and value.startswith("["):  # names with commas of their own
        value = json.loads(value)
    items = value.split(",") if isinstance(value, str) else value
    if isinstance(items, list | tuple) and all(isinstance(item, str) for item in items):
        return tuple(item.strip() for item in items if item.strip())
    return value


def _weights(value: Any) -> Any:
    """`0.7,0.3` to numbers; what is none stays for pydantic to refuse."""
    if isinstance(value, str):
        value = [item.strip() for item in value.strip("[] ").split(",") if item.strip()]
    return () if value is None else value


def _texts(value: Any) -> Any:
    """A mapping of names to texts, on a command line as JSON; YAML makes a number of a lone digit."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    whole = (int, float)
    return (
        {key: str(item) if type(item) in whole else item for key, item in value.items()}
        if isinstance(value, dict)
        else value
    )


def _whole_number(value: Any) -> Any:
    """A number among few choices, as a command line or a list writes it."""
    value = _none_if_blank(value)
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


def _none_if_blank(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() in ("", "none", "null") else value


def _number_as_text(value: Any) -> Any:
    """YAML and JSON make a number of a lone digit."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole else _none_if_blank(value)


def _truth(value: Any) -> Any:
    """true and false as a command line writes them."""
    return {"true": True, "false": False}.get(value.strip().lower(), value) if isinstance(value, str) else value


def switched_on(flag: str, value: Any) -> bool:
    truth = _truth(value)
    if truth is None or isinstance(truth, bool):
        return bool(truth)
    raise Problem("setting_not_boolean", label={"en": flag, "zh": flag}, value=quoted(value))


Yes = Annotated[Literal[True], BeforeValidator(_truth)]
No = Annotated[Literal[False], BeforeValidator(_truth)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Weights = Annotated[tuple[Finite, ...], BeforeValidator(_weights)]
Texts = Annotated[dict[str, str], BeforeValidator(_texts)]
OptionalInt = Annotated[int | None, BeforeValidator(_none_if_blank)]
OptionalBool = Annotated[bool | None, BeforeValidator(_none_if_blank)]
OptionalText = Annotated[str | None, BeforeValidator(_none_if_blank)]
NumberOrPath = Annotated[str | None, BeforeValidator(_number_as_text)]
Bits = Annotated[Literal[8, 4] | None, BeforeValidator(_whole_number)]
