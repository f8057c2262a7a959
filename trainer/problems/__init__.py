"""Every problem a user can cause or meet, once, in both languages: what was given and what to do.

Light: no torch. Events carry `code` and values; whoever shows them picks the language.
"""

import json
import string
from typing import Any, Literal, get_args

from trainer.problems.chat import CHAT_SENTENCES
from trainer.problems.data import DATA_SENTENCES
from trainer.problems.device import DEVICE_SENTENCES
from trainer.problems.download import DOWNLOAD_SENTENCES
from trainer.problems.export import EXPORT_SENTENCES
from trainer.problems.machine import MACHINE_SENTENCES
from trainer.problems.method import METHOD_SENTENCES
from trainer.problems.model import MODEL_SENTENCES
from trainer.problems.prepare import PREPARE_SENTENCES
from trainer.problems.run import RUN_SENTENCES
from trainer.problems.server import SERVER_SENTENCES
from trainer.problems.setting import SETTING_SENTENCES
from trainer.problems.template import TEMPLATE_SENTENCES
from trainer.problems.training import TRAINING_SENTENCES
from trainer.problems.upload import UPLOAD_SENTENCES
from trainer.system_words import in_chinese

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

# code -> (en, zh). {label} is a setting's or a field's label in the reader's language.
SENTENCES: dict[str, tuple[str, str]] = {
    **CHAT_SENTENCES,
    **DATA_SENTENCES,
    **DEVICE_SENTENCES,
    **DOWNLOAD_SENTENCES,
    **EXPORT_SENTENCES,
    **MACHINE_SENTENCES,
    **METHOD_SENTENCES,
    **MODEL_SENTENCES,
    **PREPARE_SENTENCES,
    **RUN_SENTENCES,
    **SERVER_SENTENCES,
    **SETTING_SENTENCES,
    **TEMPLATE_SENTENCES,
    **TRAINING_SENTENCES,
    **UPLOAD_SENTENCES,
}


def _shown(value: Any, language: Language) -> Any:
    if isinstance(value, dict) and set(LANGUAGES) <= set(value):
        return value[language]
    return value


def sentence(code: str, values: dict[str, Any], language: Language) -> str:
    """The sentence of `code` in `language`, filled with `values`.

    A value may be a mapping {"en": …, "zh": …} (a label, a range). Unknown codes, as an
    older page may meet in a newer run's events, are shown as they are.
    """
    if code not in SENTENCES:
        return f"{code} {json.dumps(values, ensure_ascii=False, default=str)}"
    text = SENTENCES[code][LANGUAGES.index(language)]
    shown = {key: _shown(value, language) for key, value in values.items()}
    if language == "zh" and isinstance(shown.get("detail"), str):
        shown["detail"] = in_chinese(shown["detail"])
    names = {name for _, name, _, _ in string.Formatter().parse(text) if name}
    return text.format(**{name: shown.get(name, "?") for name in names})


class Problem(ValueError):
    """The user's mistake or misfortune: a `code` of SENTENCES and the values that fill it."""

    def __init__(self, code: str, **values: Any) -> None:
        assert code in SENTENCES, code
        self.code = code
        self.values = values
        super().__init__(sentence(code, values, "en"))

    def sentence(self, language: Language) -> str:
        return sentence(self.code, self.values, language)


class Problems(ValueError):
    """Several problems found at once, in the order in which the settings are declared."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


def quoted(value: Any) -> str:
    """`value` as shown inside a sentence: one line, at most 80 characters, in back quotes."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
    text = " ".join(text.encode(errors="backslashreplace").decode().split())  # half of a character cannot be printed
    return f"`{text[:80]}…`" if len(text) > 80 else f"`{text}`"
