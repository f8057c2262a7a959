"""What differs between two people typing the same question: openers, politeness, punctuation, case, small slips."""

import random
import re

from .grammar import Exchange, Lang, expand

_OPENERS: dict[Lang, tuple[str, ...]] = {
    "en": (
        "(hello|hi|hey|hi there|hello there|hey there)(,|!| -|) ",
        "(please|pls|please,|quick question:|question:|one question:|ok,|okay,|well,|so,|so|now|and|um,|also,|next:) ",
        "(can|could|would|will) you (please |kindly |)(tell me|answer this|answer|help me with this)(:|,|) ",
        "(tell me|please tell me|answer me|answer this|let me ask|let me ask you|may I ask|can I ask)(:|,|) ",
        "(I want to know|I'd like to know|I wonder|I was wondering|I am curious|just curious|do you know)(:|,|) ",
        "(my (friend|teacher|kid|son|sister) (asks|asked me|wants to know)|for my homework)(:|,) ",
        "(Q:|hi! ok,|hello! question:|excuse me,|excuse me|sorry,|dear assistant,|yo|alright,|right,|listen,) ",
    ),
    "zh": (
        "(你好|您好|嗨|哈喽|嘿|喂|在吗|哎|诶|早|大家好)(，|！|。| |,|)",
        "(请问|请问一下|问一下|想问一下|我想问|我想问一下|问个问题|问你个问题|请教一下|麻烦问下)(，|：|,| |)",
        "(你好|您好)(，|,|！| |)(请问|我想问一下|问一下|麻烦问一下)(，|,|)",
        "(请|麻烦你|麻烦|劳驾|请你|请您|帮我|帮忙)(告诉我|说一下|说说|回答|回答一下|看看|讲讲)(，|：|,|)",
        "(你知道|知道|你知不知道|你能告诉我|能告诉我|能不能告诉我|可以告诉我|能说说|可否告知|能说一下)(，|)",
        "(那|那么|好的|好|对了|嗯|额|呃|另外|还有|然后|接下来)(，|,|)",
        "(我想知道|想知道|我很好奇|好奇|请回答|请回答：|问题：|问：|快说|说说看|考考你|考你一下)(，|：|,|)",
        "(老师问|作业题|我儿子问|我女儿问|小朋友问|同学问|朋友问我)(，|：|:)",
    ),
}
_CLOSERS: dict[Lang, tuple[str, ...]] = {
    "en": (
        ", please",
        " please",
        " (thanks|thank you|thx)",
        ", (thanks|thank you)",
        " (then|again|exactly|anyway|actually|now|by the way|btw)",
        ", (do you know|can you tell me|any idea|mate|buddy|friend|my friend|dear)",
    ),
    "zh": (
        "(呀|啊|呢|吗|嘛|哦|啦|来着|哈|噢|捏)",
        "(，|,| |)(谢谢|谢谢你|多谢|谢啦|感谢)",
        "(，|,| |)(你知道吗|知道吗|告诉我|请回答|说一下|回答我|你说说|请告诉我|说说看|你说呢)",
    ),
}
_END_MARKS: dict[Lang, tuple[str, ...]] = {
    "en": ("?", "?", "?", "?", "", "", "", ".", "!", "??", " ?", "...", "？"),
    "zh": ("？", "？", "？", "？", "", "", "", "。", "！", "?", "？？", "~", "…", "?!"),
}

# The grammars are written in lower case; people mostly give these words their capital.
_PROPER_LIST = """
chinese mandarin english french german japanese spanish russian korean latin italian china england
britain london america europe germany france italy spain japan paris beijing earth moon sun mars
christmas halloween valentine january february march april may june july august september october
november december monday sunday everest newton einstein edison shakespeare hamlet romeo juliet
macbeth mona lisa leonardo vinci eiffel liberty confucius peking celsius python java javascript
openai google siri tuno tunedesk isaac albert thomas egypt asia tang
"""
_PROPER = frozenset(_PROPER_LIST.split())
_WORD = re.compile(r"[a-z]+")
_SHORT_FORMS = (
    ("what is ", "what's "), ("who is ", "who's "), ("where is ", "where's "), ("how is ", "how's "), ("I am ", "I'm "),
    ("that is ", "that's "), ("it is ", "it's "),
)  # fmt: skip


def _capitals(text: str) -> str:
    """Gives proper nouns their capital."""
    return _WORD.sub(lambda found: found[0].capitalize() if found[0] in _PROPER else found[0], text)


def _slip(rng: random.Random, text: str) -> str:
    """One small typing slip: a letter dropped, doubled or swapped with its neighbour."""
    at = [i for i in range(1, len(text) - 1) if text[i].isalpha() and text[i].isascii()]
    if len(at) < 12:
        return text
    i = rng.choice(at)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:i] + text[i + 1 :]
    if kind == 1:
        return text[:i] + text[i] + text[i:]
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]


def _recase(rng: random.Random, text: str) -> str:
    roll = rng.random()
    if roll < 0.6 and rng.random() < 0.75:
        text = _capitals(text)
    if roll < 0.40:
        return text[:1].upper() + text[1:]
    if roll < 0.72:
        return text.lower()
    if roll < 0.75:
        return text.upper()
    if roll < 0.78:
        return text.title()
    return text


def _english(rng: random.Random, text: str, case_matters: bool) -> str:
    if rng.random() < 0.35:
        for full, short in _SHORT_FORMS:
            text = text.replace(full, short)
    if rng.random() < 0.15:
        text = text.replace("'", "")
    if rng.random() < 0.04:
        text = text.replace("you", "u").replace("are ", "r ")
    if case_matters:
        return text[:1].upper() + text[1:] if rng.random() < 0.5 else text
    if rng.random() < 0.05:
        text = _slip(rng, text)
    return _recase(rng, text)


def _chinese(rng: random.Random, text: str) -> str:
    if rng.random() < 0.1:
        text = text.replace("什么", "啥")
    if rng.random() < 0.05:
        text = text.replace("你", "您")
    if rng.random() < 0.1:
        text = text.replace("，", rng.choice((",", " ", "")))
    if rng.random() < 0.15:
        text = text.replace("“", "").replace("”", "")
    if rng.random() < 0.1:
        text = text.replace("“", '"').replace("”", '"')
    if rng.random() < 0.03 and len(text) > 8:
        i = rng.randrange(1, len(text))
        text = text[:i] + " " + text[i:]
    return text


def decorate(rng: random.Random, exchange: Exchange) -> str:
    """The exchange's question as somebody might type it."""
    text, lang = exchange.question, exchange.lang
    if rng.random() < 0.28:
        text = expand(rng, rng.choice(_OPENERS[lang])) + (" " if lang == "en" else "") + text
    if rng.random() < 0.13:
        closer = expand(rng, rng.choice(_CLOSERS[lang]))
        text += closer if lang == "zh" or closer.startswith(",") else f" {closer}"
    text = _english(rng, text, exchange.case_matters) if lang == "en" else _chinese(rng, text)
    if text[-1:] not in "?？!！.。":
        text += rng.choice(_END_MARKS[lang])
    return text
