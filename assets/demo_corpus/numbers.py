"""Writes whole numbers below one thousand in digits, English words and Chinese."""

import random

_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ZH = "零一二三四五六七八九"


def english(n: int) -> str:
    """42 → forty-two."""
    if n < 20:
        return _SMALL[n]
    if n < 100:
        return _TENS[n // 10 - 2] + (f"-{_SMALL[n % 10]}" if n % 10 else "")
    rest = f" and {english(n % 100)}" if n % 100 else ""
    return f"{_SMALL[n // 100]} hundred{rest}"


def chinese(n: int) -> str:
    """42 → 四十二."""
    if n < 10:
        return _ZH[n]
    if n < 20:
        return "十" + (_ZH[n % 10] if n % 10 else "")
    if n < 100:
        return _ZH[n // 10] + "十" + (_ZH[n % 10] if n % 10 else "")
    rest = n % 100
    if rest == 0:
        tail = ""
    elif rest < 10:
        tail = "零" + _ZH[rest]
    else:
        tail = ("一" if rest < 20 else "") + chinese(rest)
    return _ZH[n // 100] + "百" + tail


def spoken(rng: random.Random, n: int, lang: str, digits: float = 0.65) -> str:
    """`n` in digits with probability `digits`, otherwise in words of `lang`."""
    if rng.random() < digits:
        return str(n)
    return english(n).replace("-", rng.choice("- ")) if lang == "en" else chinese(n)
