"""Reads the word lists in words/. Each list is one small text format, read whole and kept as tuples."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

WORDS = Path(__file__).parent / "words"


@dataclass(frozen=True, slots=True)
class Word:
    """A translation pair with the category it was listed under."""

    en: str
    zh: str
    category_en: str
    category_zh: str


@cache
def rows(name: str) -> tuple[tuple[str, ...], ...]:
    """Rows of a tab-separated list."""
    lines = (WORDS / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    return tuple(tuple(line.split("\t")) for line in lines if line)


@cache
def forms(name: str) -> tuple[tuple[str, ...], ...]:
    """Rows of a space-separated list of word forms."""
    lines = (WORDS / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    return tuple(tuple(line.split()) for line in lines if line)


@cache
def facts(lang: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(answer, question patterns) of one language."""
    lines = (WORDS / f"facts_{lang}.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(" = ", 1) for line in lines if line)
    return tuple((answer, tuple(patterns.split("; "))) for answer, patterns in pairs)


@cache
def words() -> tuple[Word, ...]:
    """Every translation pair, in file order."""
    found = []
    for line in (WORDS / "words.txt").read_text(encoding="utf-8").splitlines():
        heading, _, entries = line.partition(": ")
        category_en, category_zh = heading.rsplit(" ", 1)
        for entry in entries.split("; "):
            en, zh = entry.rsplit(" ", 1)
            found.append(Word(en, zh, category_en, category_zh))
    return tuple(found)


@cache
def translations() -> tuple[dict[str, str], dict[str, str]]:
    """English to Chinese and back; where a word has several translations the first listed wins."""
    to_zh: dict[str, str] = {}
    to_en: dict[str, str] = {}
    for word in words():
        to_zh.setdefault(word.en, word.zh)
        to_en.setdefault(word.zh, word.en)
    return to_zh, to_en
