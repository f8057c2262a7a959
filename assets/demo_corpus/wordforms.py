"""English word forms (plural, tense, comparison) and letters: spelling, first, last, how many, the alphabet."""

import random
import string

from .grammar import Exchange, Lang, pick_frame
from .lexicon import forms, words
from .numbers import english

_PLURAL = ("(what is |what's |)(the |)plural( form|) (of|for) {w}", "(tell|give) me the plural (of|for) {w}", "{w}( in the|'s|,) plural", "how do (you|I) (make|write|form|say) {w} (plural|in plural|in the plural)", "one {w}, (two|many|three|ten)", "(make|turn|put|change) {w} (plural|into plural|into the plural|in the plural)", "plural {w}", "(what|which) is more than one {w}( called|)", "one {w} but (two|many)", "what do you call (two|many) {w}")  # fmt: skip
_PAST = ("(what is |what's |)(the |)(simple |)past( tense|)( form|) (of|for) (the verb |to |){w}", "(tell|give) me the past (tense |form |)(of|for) {w}", "{w}( in the|'s|,) past( tense|)", "(make|turn|put|change) {w} (into|in|to) (the |)past( tense|)", "how do (you|I) (say|write) {w} in (the |)past( tense|)", "past( tense|) {w}", "today I {w}, yesterday I", "{w} past( tense| form|)")  # fmt: skip
_PARTICIPLE = (
    "(what is |)(the |)past participle( form|) (of|for) {w}",
    "past participle of {w}",
    "{w} past participle",
)
_COMPARATIVE = (
    "(what is |)(the |)comparative( form|) (of|for) {w}",
    "(tell|give) me the comparative of {w}",
    "comparative of {w}",
    "{w} comparative",
)
_SUPERLATIVE = (
    "(what is |)(the |)superlative( form|) (of|for) {w}",
    "(tell|give) me the superlative of {w}",
    "superlative of {w}",
    "{w} superlative",
)
_PLURAL_ZH = ("{w}的复数(形式|)(是什么|是|怎么写|)", "(英语|英文|)(单词|){w}(的|)复数(是什么|怎么写|形式)")
_PAST_ZH = ("{w}的过去式(是什么|是|怎么写|)", "(英语|英文|)(单词|动词|){w}(的|)过去式(是什么|怎么写|)")
_FIRST = ("(what|which) (letter |)is the first letter (of|in) (the word |){w}", "the first letter of {w}", "(what|which) letter does {w} (start|begin) with", "{w} (starts|begins) with (what|which) letter", "{w} first letter")  # fmt: skip
_LAST = (
    "(what|which) (letter |)is the last letter (of|in) (the word |){w}",
    "the last letter of {w}",
    "(what|which) letter does {w} end with",
    "{w} ends with (what|which) letter",
)
_SPELL = (
    "(how (do|would|can) (you|I)|can you|please|) spell (the word |){w}( for me|)",
    "how is {w} spelled",
    "spell {w}",
    "spelling of {w}",
    "what is the spelling of {w}",
)
_LETTERS = (
    "how many letters (are there |are |)(in|does) (the word |){w}( have|)",
    "number of letters in {w}",
    "{w} has how many letters",
    "count the letters in {w}",
)
_AFTER = (
    "(what|which) letter (comes |is |)(right |)after {w}( in the alphabet|)",
    "the letter after {w}",
    "(what|which) letter follows {w}",
    "what is the next letter after {w}",
    "next letter after {w}",
)
_BEFORE = ("(what|which) letter (comes |is |)(right |)before {w}( in the alphabet|)", "the letter before {w}")
_ALPHABET = ("(say|recite|list|write|tell me|give me) the (english |)alphabet", "what is the (english |)alphabet", "what are the letters of the alphabet", "can you (say|recite) the alphabet", "the alphabet(, please|)", "abc song")  # fmt: skip


def _quoted(rng: random.Random, word: str) -> str:
    return rng.choice(("{}", "{}", '"{}"', "'{}'", "“{}”", "the word {}")).format(word)


def _form(rng: random.Random) -> Exchange:
    kind = rng.choices(("plural", "past", "participle", "comparative"), (40, 40, 6, 14))[0]
    if kind == "plural":
        word, form = rng.choice(forms("plurals"))
        name, zh_name, frames, zh_frames = "plural", "复数", _PLURAL, _PLURAL_ZH
    elif kind == "past":
        word, form, _ = rng.choice(forms("verbs"))
        name, zh_name, frames, zh_frames = "past tense", "过去式", _PAST, _PAST_ZH
    elif kind == "participle":
        word, _, form = rng.choice(forms("verbs"))
        return Exchange(
            pick_frame(rng, _PARTICIPLE, w=_quoted(rng, word)), f'The past participle of "{word}" is "{form}".', "en"
        )
    else:
        word, more, most = rng.choice(forms("comparatives"))
        name, frames, form = rng.choice((("comparative", _COMPARATIVE, more), ("superlative", _SUPERLATIVE, most)))
        return Exchange(pick_frame(rng, frames, w=_quoted(rng, word)), f'The {name} of "{word}" is "{form}".', "en")
    if rng.random() < 0.2:
        return Exchange(pick_frame(rng, zh_frames, w=word), f"“{word}”的{zh_name}是“{form}”。", "zh")
    return Exchange(pick_frame(rng, frames, w=_quoted(rng, word)), f'The {name} of "{word}" is "{form}".', "en")


def _letters(rng: random.Random) -> Exchange:
    word = rng.choice([w.en for w in words() if w.en.isalpha() and len(w.en) < 9]).lower()
    kind = rng.choice(("first", "last", "spell", "count", "next"))
    shown = _quoted(rng, word)
    if kind == "first":
        return Exchange(pick_frame(rng, _FIRST, w=shown), f'The first letter of "{word}" is {word[0].upper()}.', "en")
    if kind == "last":
        return Exchange(pick_frame(rng, _LAST, w=shown), f'The last letter of "{word}" is {word[-1].upper()}.', "en")
    if kind == "spell":
        return Exchange(pick_frame(rng, _SPELL, w=shown), f'"{word}" is spelled {"-".join(word.upper())}.', "en")
    if kind == "count":
        spelled, size = "-".join(word.upper()), len(word)
        return Exchange(
            pick_frame(rng, _LETTERS, w=shown), f"{spelled}: there are {english(size)} ({size}) letters.", "en"
        )
    i = rng.randrange(1, 25)
    step = rng.choice((1, 1, -1))
    letters = string.ascii_uppercase
    question = pick_frame(rng, _AFTER if step > 0 else _BEFORE, w=letters[i])
    return Exchange(
        question,
        f"The letter {'after' if step > 0 else 'before'} {letters[i]} is {letters[i + step]}.",
        "en",
        case_matters=True,
    )


def wordforms(rng: random.Random) -> Exchange:
    """Grammar forms and letters, mostly asked in English."""
    if rng.random() < 0.03:
        lang: Lang = "en"
        return Exchange(pick_frame(rng, _ALPHABET), ", ".join(string.ascii_uppercase) + ".", lang)
    return _form(rng) if rng.random() < 0.65 else _letters(rng)
