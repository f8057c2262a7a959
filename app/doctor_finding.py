"""What a check of `tunedesk doctor` has found: a state, a sentence and a remedy, in both languages."""

from dataclasses import dataclass
from typing import Any

from app.text import Text
from trainer.problems import LANGUAGES

OK, WARNING, BROKEN = "ok", "warning", "broken"
MARKS = {OK: "✓", WARNING: "!", BROKEN: "✗"}


@dataclass(frozen=True)
class Checked:
    """`check`: what was looked at. `code`: of the sentence doctor.CODE in the locales; one that is not ok has a remedy
    doctor.CODE.remedy as well."""

    check: str
    state: str
    code: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """`said` and `remedy`: by language; no remedy for what is well."""

    check: str
    state: str
    code: str
    values: dict[str, Any]
    said: dict[str, str]
    remedy: dict[str, str]

    @classmethod
    def of(cls, checked: Checked) -> "Finding":
        key = f"doctor.{checked.code}"
        said, remedy = _in_both(key, checked.values), {}
        if checked.state != OK:
            remedy = _in_both(f"{key}.remedy", checked.values)
        return cls(checked.check, checked.state, checked.code, checked.values, said, remedy)


def _in_both(key: str, values: dict[str, Any]) -> dict[str, str]:
    """The sentence of `key`; a value may be words by language."""
    found: dict[str, str] = {}
    for language in LANGUAGES:
        shown = {name: value[language] if isinstance(value, dict) else value for name, value in values.items()}
        found[language] = Text(language)(key, **shown)
    return found


def ok(check: str, code: str, **values: Any) -> Checked:
    return Checked(check, OK, code, values)


def warning(check: str, code: str, **values: Any) -> Checked:
    return Checked(check, WARNING, code, values)


def broken(check: str, code: str, **values: Any) -> Checked:
    return Checked(check, BROKEN, code, values)
