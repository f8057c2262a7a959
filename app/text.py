"""The page's own words, from locales/*.json; settings and problems bring theirs from `trainer`."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from trainer.problems import LANGUAGES, Language

LOCALES = Path(__file__).parent / "locales"


@cache
def _words(language: Language) -> dict[str, str]:
    return json.loads((LOCALES / f"{language}.json").read_text(encoding="utf-8"))


class Text:
    """`text("start")`: a word or sentence of one language. A missing key is a KeyError, found by the tests."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def __call__(self, key: str, **values: Any) -> str:
        return _words(self.language)[key].format(**values)

    def group(self, prefix: str) -> dict[str, str]:
        """The words whose key starts with `prefix.`, by the rest of the key."""
        return {
            key.removeprefix(f"{prefix}."): word
            for key, word in _words(self.language).items()
            if key.startswith(f"{prefix}.")
        }


def both(key: str) -> dict[str, str]:
    """One word in every language, for a Problem's {label}."""
    return {language: _words(language)[key] for language in LANGUAGES}
