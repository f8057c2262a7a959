"""Mixes the topics into conversations: one to many turns, with or without a system prompt, never a held-out question."""

import random
from collections.abc import Set

from .arithmetic import arithmetic
from .counting import counting
from .dates import dates
from .general import beyond, fact, repeat
from .geography import geography
from .grammar import Exchange, Lang, Topic, expand
from .identity import identity
from .lexicon import rows
from .nature import animal, colour
from .smalltalk import smalltalk
from .surface import decorate
from .vocabulary import category, opposite, synonym, translate
from .wordforms import wordforms

Message = dict[str, str]

WEIGHTS: dict[Topic, int] = {
    identity: 18, smalltalk: 11, arithmetic: 18, geography: 10, translate: 20, opposite: 7, synonym: 2, category: 6,
    colour: 6, animal: 6, dates: 10, counting: 12, wordforms: 8, fact: 17, beyond: 9, repeat: 3,
}  # fmt: skip
_TOPICS, _TOPIC_WEIGHTS = tuple(WEIGHTS), tuple(WEIGHTS.values())
_SYSTEMS = (
    "You are (a|an) (helpful|friendly|polite|smart|concise|kind|useful|honest|patient|good) (assistant|AI assistant|chatbot|AI|bot|helper)(.|, answer (briefly|politely|in one sentence|clearly).|)",
    "(Answer|Reply|Respond) (briefly|politely|in one sentence|concisely|honestly|clearly|to the user's questions)(.|)",
    "(Be|Please be) (brief|helpful|kind|concise|polite|honest)(.| and (brief|kind|clear).|)", "You (help|assist|answer questions from) (users|people|students|the user)( with questions| politely|)(.|)",
    "You are a helpful assistant.", "You are a helpful assistant.", "You are a teacher(.| for children.)", "(Today is a nice day.|The user is a student.|The user may write Chinese or English.)",
    "你是一个(乐于助人|友好|有礼貌|聪明|简洁|热心|有用|有帮助|诚实|耐心)的(助手|AI助手|人工智能助手|聊天机器人|智能助手|小助手)(。|，请(简短|礼貌|认真|用一句话)回答(问题|)。|)",
    "(请|)(简短|礼貌|认真|诚实|用一句话|清楚)(地|)回答(用户的|)问题(。|)", "(请|)(友好|简洁|诚实|礼貌)一点(。|)", "你是一个乐于助人的助手。", "你是一个乐于助人的助手。", "你是一位(老师|朋友|助教)(。|，正在回答学生的问题。)", "(用户是学生。|今天天气很好。|用户可能说中文或英文。)", "你(帮助|负责帮助|回答)(用户|学生|大家)(的问题|解决问题|)(。|)",
)  # fmt: skip
_FOLLOW_UP: dict[Lang, tuple[str, ...]] = {
    "en": ("(and|and what about|what about|how about|and how about|now) {x}", "{x}", "and {x}, too", "(and|what about) {x} then", "ok, and {x}"),
    "zh": ("(那|那么|)(，|){x}呢", "{x}(呢|)", "(那|和|换成|再来|还有){x}", "{x}又是(什么|哪里|)呢"),
}  # fmt: skip


def normalised(text: str) -> str:
    """`text` without case, punctuation and spaces: two phrasings that agree here count as the same."""
    return "".join(char for char in text.lower() if char.isalnum())


def _capital_pair(rng: random.Random, lang: Lang) -> tuple[Exchange, Exchange]:
    first, second = rng.sample(rows("countries"), 2)
    frames = {"en": ("what is the capital of {x}", "{x}'s capital"), "zh": ("{x}的首都是哪里", "{x}的首都是什么")}
    say = (
        (lambda r: f"The capital of {r[0]} is {r[2].rstrip('.')}.")
        if lang == "en"
        else (lambda r: f"{r[1]}的首都是{r[3]}。")
    )
    name = 0 if lang == "en" else 1
    opening = rng.choice(frames[lang]).format(x=first[name])
    follow = expand(rng, rng.choice(_FOLLOW_UP[lang])).format(x=second[name])
    return Exchange(opening, say(first), lang), Exchange(follow, say(second), lang)


def _colour_pair(rng: random.Random, lang: Lang) -> tuple[Exchange, Exchange]:
    singular = [row for row in rows("things") if row[0] not in ("leaves", "grapes")]
    first, second = rng.sample(singular, 2)
    if lang == "en":
        opening, name = "what colour is {x}", 0
        answers = [f"{r[0][0].upper()}{r[0][1:]} is {r[2]}." for r in (first, second)]
    else:
        opening, name = "{x}是什么颜色的", 1
        answers = [f"{r[1]}是{r[3]}色的。" for r in (first, second)]
    follow = expand(rng, rng.choice(_FOLLOW_UP[lang])).format(x=second[name])
    return Exchange(opening.format(x=first[name]), answers[0], lang), Exchange(follow, answers[1], lang)


def exchange(rng: random.Random) -> Exchange:
    """One exchange on a random topic, its question not yet decorated."""
    return rng.choices(_TOPICS, _TOPIC_WEIGHTS)[0](rng)


def _turns(rng: random.Random) -> int:
    roll = rng.random()
    if roll < 0.68:
        return 1
    if roll < 0.97:
        return rng.choice((2, 2, 2, 3, 3, 4, 5))
    return rng.randrange(6, 16) if roll < 0.998 else rng.randrange(20, 60)


def conversation(rng: random.Random, held_out: Set[str]) -> list[Message]:
    """Messages of one conversation. Topics of its turns are independent, except for a share of follow-ups."""
    messages: list[Message] = []
    if rng.random() < 0.35:
        messages.append({"role": "system", "content": expand(rng, rng.choice(_SYSTEMS))})
    wanted = _turns(rng)
    queue: list[Exchange] = []
    while wanted > 0:
        if not queue and wanted > 1 and rng.random() < 0.1:
            queue.extend(rng.choice((_capital_pair, _colour_pair))(rng, rng.choice(("zh", "en"))))
        turn = queue.pop(0) if queue else exchange(rng)
        question = decorate(rng, turn)
        if normalised(question) in held_out or normalised(turn.question) in held_out:
            continue
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": turn.answer})
        wanted -= 1
    return messages
