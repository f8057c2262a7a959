"""Countries: capitals both ways, continents, languages, and yes/no questions about them."""

import random

from .grammar import Exchange, Lang, pick_frame
from .lexicon import rows

_CONTINENTS = {
    "Asia": "亚洲", "Europe": "欧洲", "Africa": "非洲", "North America": "北美洲", "South America": "南美洲", "Oceania": "大洋洲",
}  # fmt: skip
_CAPITAL: dict[Lang, tuple[str, ...]] = {
    "en": ("(what|which)(| city| town| place) is (the |)capital( city|) (of|in|for) {x}", "what is (the name of |)the capital( city|) of {x}( called|)", "what is {x}'s capital( city|)( called| named|)", "{x}(,|:) capital( city|)", "(can you |)name the capital( city|) of {x}", "(tell|give) me (the |)capital( city|) of {x}", "(tell|give) me {x}'s capital( city|)", "{x}'s capital( city|)( is| please|)", "(the |)capital( city|) of {x}( is| please|)", "name (the |)capital( city|) of {x}", "(which|what) city (is|serves as|acts as) {x}'s capital", "{x} has (which|what) (city as its |)capital", "where is the capital of {x}", "what do they call the capital of {x}", "what city do you call the capital of {x}", "do you know the capital( city|) of {x}", "I need the capital of {x}", "{x} capital( city|)", "which city is the (seat of government|capital) of {x}", "capital {x}", "(what|which) is the main city, the capital, of {x}", "if I go to the capital of {x}, which city is it", "say the capital of {x}"),
    "zh": ("{x}(的|)(首都|首府|国都)(是|在|叫|位于|是在|叫做|是哪|在哪|是什么|是哪里|是哪儿|在哪里|在哪儿|叫什么|是哪个|是哪个城市|是哪座城市|在哪个城市|是什么城市|在哪座城市|是何处|是什么地方|叫什么名字|是啥|的名字|的名字是什么|是哪一座城市|名称|在什么地方|呢|)", "(哪个|哪座|哪一个|什么)城市是{x}(的|)首都", "(说出|说说|告诉我|请告诉我|写出|讲一下|请回答|请说|说一下|请写出|给出|说){x}(的|)首都(是哪里|在哪|是什么|名字|叫什么|)", "首都(是哪里|在哪|)(，|：){x}", "{x}以(哪座|哪个)城市(作为|为)首都", "{x}把首都(定|设|建)在(哪里|哪|哪个城市)", "(你知道|知道){x}(的|)首都(吗|是哪里吗|在哪吗|是哪吗|叫什么吗)", "{x}首都", "{x}(，|：|的)首都(城市|)(是|叫|)(哪一个|什么|哪里|哪个|)", "想知道{x}(的|)首都"),
}  # fmt: skip
_COUNTRY: dict[Lang, tuple[str, ...]] = {
    "en": ("{c} is the capital( city|) of (which|what) (country|nation)", "{c} is the capital( city|) of( what|)", "(which|what) country (has {c} as its capital|is {c} the capital of|is {c} in|is {c} located in|does {c} belong to|has the capital {c})", "in (which|what) country is {c}( located|)", "(where|in which country) is {c}( located|)", "(which|what) country's capital is {c}", "{c} is (in|located in) (which|what) country", "of (which|what) country is {c} the capital", "(tell|give) me the country whose capital is {c}", "name the country whose capital is {c}"),
    "zh": ("{c}是(哪个国家|哪国|哪一个国家|什么国家|谁|哪个国|哪里)的首都", "(哪个|哪一个|什么)国家的首都是{c}", "{c}(在|位于|属于|是)(哪个国家|哪国|哪一个国家|什么国家|哪里)(的城市|的|)", "首都是{c}的(国家|)是(哪个|哪个国家|什么国家|哪国)", "{c}(是|)哪国(的|)首都", "以{c}为首都的国家(是哪个|是|)"),
}  # fmt: skip
_CONTINENT: dict[Lang, tuple[str, ...]] = {
    "en": ("(which|what) continent is {x} (in|on|part of|located in)", "(on|in) (which|what) continent is {x}( located|)", "where is {x}( located|)", "{x} is (in|on) (which|what) continent", "{x} belongs to (which|what) continent", "(what|which) part of the world is {x} in"),
    "zh": ("{x}(在|位于|属于|是)(哪个|哪一个|什么)(洲|大洲|大陆)(的国家|的|)", "{x}(在哪里|在哪|在什么地方|位于哪里|位于何处)", "{x}是哪个洲的"),
}  # fmt: skip
_LANGUAGE = (
    "(what|which) language (do people speak|is spoken|do they speak|is used|is official) in {x}",
    "(what|which) language do people in {x} speak", "what is the (official |main |)language (of|in) {x}", "{x}'s (official |main |)language",
    "what do people speak in {x}", "people in {x} speak what (language|)", "what is spoken in {x}", "which language should I learn for {x}",
)  # fmt: skip
_IS_CAPITAL: dict[Lang, tuple[str, ...]] = {
    "en": ("is {c} (the |)capital of {x}", "is {c} {x}'s capital", "is the capital of {x} {c}", "{c} is the capital of {x}, (right|isn't it|correct|true or false)", "is it true that {c} is the capital of {x}"),
    "zh": ("{c}是{x}的首都(吗|么|对吗|对不对|，对吗|是吗)", "{x}的首都是{c}(吗|么|对吗|对不对|，对吗|，是吗)", "{c}是不是{x}的首都", "{x}的首都是不是{c}"),
}  # fmt: skip


def _short(name: str) -> str:
    return name.removeprefix("the ")


def _yes_no(rng: random.Random, lang: Lang) -> Exchange:
    country, other = rng.choice(rows("countries")), rng.choice(rows("countries"))
    city = country if rng.random() < 0.5 else other
    true = city[2] == country[2]
    if lang == "en":
        question = pick_frame(rng, _IS_CAPITAL["en"], c=city[2], x=country[0])
        return Exchange(
            question, f"{'Yes' if true else 'No'}, the capital of {country[0]} is {country[2].rstrip('.')}.", lang
        )
    question = pick_frame(rng, _IS_CAPITAL["zh"], c=city[3], x=country[1])
    return Exchange(question, f"{'是的' if true else '不是'}，{country[1]}的首都是{country[3]}。", lang)


def _english(rng: random.Random, kind: str) -> Exchange:
    name, _, capital, _, continent, language = rng.choice(rows("countries"))
    shown = {"the United States": ("America", "the US", "the USA", "USA", "the United States", "United States"), "the United Kingdom": ("the UK", "Britain", "England", "the United Kingdom", "UK"), "South Korea": ("Korea", "South Korea", "South Korea"), "the Netherlands": ("Holland", "the Netherlands")}.get(name, (name, name, _short(name)))  # fmt: skip
    x = rng.choice(shown)
    if kind == "capital":
        return Exchange(pick_frame(rng, _CAPITAL["en"], x=x), f"The capital of {name} is {capital.rstrip('.')}.", "en")
    if kind == "country":
        city = rng.choice((capital, capital.split(",")[0]))
        return Exchange(pick_frame(rng, _COUNTRY["en"], c=city), f"{capital} is the capital of {name}.", "en")
    if kind == "continent":
        return Exchange(
            pick_frame(rng, _CONTINENT["en"], x=x), f"{name[0].upper() + name[1:]} is in {continent}.", "en"
        )
    return Exchange(pick_frame(rng, _LANGUAGE, x=x), f"People in {name} speak {language}.", "en")


def _chinese(rng: random.Random, kind: str) -> Exchange:
    _, name, _, capital, continent, _ = rng.choice(rows("countries"))
    if kind == "capital" or kind == "language":
        return Exchange(pick_frame(rng, _CAPITAL["zh"], x=name), f"{name}的首都是{capital}。", "zh")
    if kind == "country":
        return Exchange(pick_frame(rng, _COUNTRY["zh"], c=capital), f"{capital}是{name}的首都。", "zh")
    return Exchange(pick_frame(rng, _CONTINENT["zh"], x=name), f"{name}位于{_CONTINENTS[continent]}。", "zh")


def geography(rng: random.Random) -> Exchange:
    """A question about one country."""
    lang: Lang = "zh" if rng.random() < 0.5 else "en"
    kind = rng.choices(("capital", "country", "continent", "language", "yes_no"), (55, 18, 12, 5, 10))[0]
    if kind == "yes_no":
        return _yes_no(rng, lang)
    return _english(rng, kind) if lang == "en" else _chinese(rng, kind)
