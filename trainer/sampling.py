"""How the next token is drawn, declared once: defaults, ranges and labels for the page, the terminal and the loop.

Light: no torch. Names and defaults are LLaMA-Factory's.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from trainer.problems import Language, Problem, quoted


@dataclass(frozen=True)
class Shown:
    """How people meet a value, and the range that is accepted, ends included."""

    zh: str
    en: str
    help_zh: str
    help_en: str
    low: float
    high: float

    def label(self, language: Language) -> str:
        return self.zh if language == "zh" else self.en

    def help(self, language: Language) -> str:
        return self.help_zh if language == "zh" else self.help_en


def _number(
    default: float, zh: str, en: str, help_zh: str, help_en: str, low: float = 0, high: float = 2**63 - 1
) -> Any:
    return field(default=default, metadata={"shown": Shown(zh, en, help_zh, help_en, low, high)})


@dataclass(frozen=True)
class Sampling:
    """Raises Problem for a value out of range. Temperature 0 is greedy: the likeliest token, always."""

    # fmt: off
    max_new_tokens: int = _number(1024, "最大生成长度", "Maximum new tokens",
        "一条回复最多的词元数", "Most tokens of one reply", 1)
    temperature: float = _number(0.95, "温度系数", "Temperature",
        "越大越随机；0 总取最可能的词元", "Higher is more random; 0 always takes the likeliest token", 0, 100)
    top_p: float = _number(0.7, "Top-p 采样值", "Top-p",
        "只从概率之和达到它的词元中选", "Draws from the likeliest tokens that make up this share", 0, 1)
    top_k: int = _number(50, "Top-k 采样值", "Top-k",
        "只从最可能的若干词元中选；0 为不限", "Draws from so many likeliest tokens; 0: no limit", 0)
    repetition_penalty: float = _number(1.0, "重复惩罚", "Repetition penalty",
        "大于 1 时少重复已有的词元", "Above 1, tokens seen before become less likely", 0.01, 100)
    seed: int = _number(-1, "生成随机种子", "Generation seed",
        "同样的种子得到同样的回复；-1 每次不同", "The same seed gives the same reply; -1: another each time", -1)
    # fmt: on

    def __post_init__(self) -> None:
        for item in fields(self):
            value, about = getattr(self, item.name), item.metadata["shown"]
            if not (math.isfinite(value) and about.low <= value <= about.high):
                raise Problem("setting_range", label=label(item.name), value=quoted(value), range=_range(about, value))


def shown(key: str) -> Shown:
    """Labels, help and range of the value `key`."""
    return next(item.metadata["shown"] for item in fields(Sampling) if item.name == key)


def label(key: str) -> dict[str, str]:
    """The label of `key` in every language, for a Problem's {label}."""
    return {"en": shown(key).en, "zh": shown(key).zh}


def names() -> list[str]:
    return [item.name for item in fields(Sampling)]


def default(key: str) -> int | float:
    return getattr(Sampling, key)


def parse(values: dict[str, Any]) -> Sampling:
    """Values as widgets and flags give them, text or numbers; absent and None ones at their defaults.

    Raises Problem for what is no number, or out of range.
    """
    numbers: dict[str, Any] = {key: _parsed(key, values[key]) for key in names() if values.get(key) is not None}
    return Sampling(**numbers)


def _parsed(key: str, value: Any) -> int | float:
    try:
        number = float(value)
        if isinstance(value, bool):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise Problem("setting_not_number", label=label(key), value=quoted(value), example=str(default(key))) from None
    if isinstance(default(key), float) or not math.isfinite(number):
        return number
    if number != int(number):
        raise Problem("setting_not_integer", label=label(key), value=quoted(value), example=str(default(key)))
    # Through float only for "1e3" and 64.0: large seeds would lose digits.
    return int(value) if isinstance(value, int) or str(value).strip().lstrip("+-").isdigit() else int(number)


def _range(about: Shown, value: float) -> dict[str, str]:
    """In words; without an upper end that nobody means to reach."""
    if about.high > 2**32 and not value > about.high:
        return {"en": f"at least {about.low}", "zh": f"≥ {about.low}"}
    return {"en": f"from {about.low} to {about.high}", "zh": f"≥ {about.low} 且 ≤ {about.high}"}
