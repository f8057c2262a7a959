"""Colours of things, and what animals say, how many legs they have and what their young are called."""

import random

from .grammar import Exchange, Lang, pick_frame
from .lexicon import rows
from .numbers import chinese, english

_COLOUR: dict[Lang, tuple[str, ...]] = {
    "en": ("(what|which) (colour|color) (is|does|are|has|do you see in) {x}( have| usually| normally| normally have| usually have|)", "what is the (usual |normal |typical |main |)(colour|color) of {x}", "(the |)(colour|color) of {x}( is| please|)", "{x} is (what|which) (colour|color)", "{x} (has|have) (what|which) (colour|color)", "(tell|give) me (the |)(colour|color) of {x}", "{x}'s (colour|color)", "(in |)(what|which) (colour|color) (would|do) you (paint|describe|draw|see|call) {x}", "what (colour|color) would you say {x} is", "(what|which) (colour|color) comes to mind for {x}", "(usually|normally)(,|) what (colour|color) is {x}", "{x}: (what|which) (colour|color)", "name the (colour|color) of {x}"),
    "zh": ("{x}(是|一般是|通常是|看上去是|看起来是|大多是|都是|平时是|属于|应该是|常见的是|正常是|本来是)(什么|啥|哪种|什么样的|哪个|怎样的|何种)(颜色|色|颜色的|色的|样的颜色)", "{x}(的|)(颜色|色彩)(是|一般是|通常是|)(什么|啥|什么样的|哪种|什么样|呢|)", "(什么|哪种)颜色(是|代表){x}(的颜色|的|)", "(说出|说说|告诉我|猜猜|写出){x}(的|是什么)颜色", "{x}(有|长|呈|呈现)(什么|啥|哪种)(颜色|色)", "{x}(什么|啥)(颜色|色)(的|)", "{x}(用|画成|涂)(什么|啥|哪种)(颜色|色)(画|好|)"),
}  # fmt: skip
_IS_COLOUR: dict[Lang, tuple[str, ...]] = {
    "en": ("(is|are) {x} {k}", "{x} is {k}, (right|true or false|isn't it)", "(is|are) {x} (usually |normally |){k}( in colour| in color|)"),
    "zh": ("{x}是{k}色(的|)(吗|么|对吗|对不对)", "{x}是不是{k}色(的|)", "{x}(都|一般|通常)是{k}色的吗", "{x}的颜色是{k}色吗", "{x}是{k}(色|)的(吗|么)"),
}  # fmt: skip
_SOUND: dict[Lang, tuple[str, ...]] = {
    "en": ("(what|which) (sound|noise) (does|do|would) (a |an |the |){x}s? make", "what does (a |an |the |){x} say", "what (sound |noise |)do {x}s (say|make)", "how does (a |an |the |){x} (sound|call|talk|cry)", "(the |)(sound|noise) (of|made by) (a |an |){x}", "{x} (sound|noise)", "what is the (sound|noise) (of|made by) (a |an |){x}", "(make|do|imitate) (the sound of |)(a |an |){x}( sound| noise|)", "(tell|give) me the sound (of |)(a |an |){x}( makes|)"),
    "zh": ("(小|一只|)(老|){x}(是|)(怎么|怎样|如何|咋)叫(的|唤|唤的|)", "{x}(的|)(叫声|声音)(是|)(什么|什么样|怎样|怎么样|啥|)(的|)", "{x}(会|)(发出|发)(什么|啥|怎样的|什么样的)(声音|叫声)", "(学|模仿)(一下|一声|)(小|){x}叫", "{x}叫起来是(什么|啥|怎样的)(声音|声儿)", "{x}(说|喊)什么"),
}  # fmt: skip
_YOUNG: dict[Lang, tuple[str, ...]] = {
    "en": ("what is (a |the )(baby|young|little) {x}( called| named|)", "what do (you|we|people) call (a |the )(baby|young|little) {x}", "(a |)(baby|young) {x} is called( what|)", "(the |)name (of|for) (a |the )(baby|young) {x}", "what is the (young|baby|child) of (a |an |){x}( called|)"),
    "zh": ("{x}的(宝宝|孩子|幼崽|幼仔|小宝宝)(叫|是|叫做)(什么|啥)", "{x}(小时候|的幼崽|刚出生)(叫|是)(什么|啥)"),
}  # fmt: skip
_LEGS: dict[Lang, tuple[str, ...]] = {
    "en": ("how many (legs|feet) (does|do|has) (a |an |the |one |){x}s?( have| got| have got|)", "(a |an |the |){x} has how many (legs|feet)", "(the |)number of legs (of|on) (a |an |){x}", "how many legs are (there |)on (a |an |){x}", "(tell me |)how many legs (a |an |){x} has", "{x} legs", "count the legs of (a |an |){x}"),
    "zh": ("(一只|一头|一条|一个|小|)(老|){x}(一共|总共|到底|)(有|长着|长|长了)(多少|几)(条|只|个|根)(腿|脚|足|腿脚)", "{x}的(腿|脚)有(多少|几)(条|只|个)", "{x}(多少|几)(条|只)(腿|脚)"),
}  # fmt: skip
_ZH_COLOURS = {"green": "绿", "blue": "蓝", "white": "白", "red": "红", "black": "黑", "yellow": "黄", "purple": "紫"}


def _article(word: str) -> str:
    return ("an " if word[0] in "aeiou" else "a ") + word


def _plain(rng: random.Random, thing: str) -> str:
    bare = thing.removeprefix("a ").removeprefix("an ").removeprefix("the ")
    ripe = f"a ripe {bare}" if thing.startswith("a") else thing
    plural = f"{bare}s" if thing.startswith(("a ", "an ")) else bare
    return rng.choice((thing, thing, bare, f"the {bare}", plural, plural, ripe, f"fresh {bare}", f"most {plural}"))


def colour(rng: random.Random) -> Exchange:
    """What colour a thing has, or whether it has a certain one."""
    lang: Lang = "zh" if rng.random() < 0.5 else "en"
    en, zh, colour_en, colour_zh = rng.choice(rows("things"))
    if rng.random() < 0.2:
        asked = colour_en if rng.random() < 0.5 else rng.choice(tuple(_ZH_COLOURS))
        true = asked == colour_en
        if lang == "en":
            question = pick_frame(rng, _IS_COLOUR["en"], x=_plain(rng, en), k=asked)
            return Exchange(question, f"{'Yes' if true else 'No'}, {en} is {colour_en}.", lang)
        question = pick_frame(rng, _IS_COLOUR["zh"], x=zh, k=_ZH_COLOURS.get(asked, colour_zh))
        return Exchange(question, f"{'是的' if true else '不是'}，{zh}是{colour_zh}色的。", lang)
    if lang == "en":
        subject = "leaves are" if en == "leaves" else "grapes are" if en == "grapes" else f"{en} is"
        return Exchange(
            pick_frame(rng, _COLOUR["en"], x=_plain(rng, en)), f"{subject[0].upper()}{subject[1:]} {colour_en}.", lang
        )
    kind = rng.choice(("", "", "", "", "成熟的", "新鲜的", "晴天的" if "天空" in zh else ""))
    return Exchange(pick_frame(rng, _COLOUR["zh"], x=kind + zh), f"{zh}是{colour_zh}色的。", lang)


def _legs(rng: random.Random, row: tuple[str, ...], lang: Lang) -> Exchange:
    en, zh, count = row[0], row[1], int(row[6])
    if lang == "en":
        number = f"{english(count)} ({count})" if count else "no (0)"
        return Exchange(
            pick_frame(rng, _LEGS["en"], x=en).replace("s?", rng.choice(("", "s"))),
            f"{_article(en).capitalize()} has {number} legs.",
            lang,
        )
    number = "两" if count == 2 else chinese(count)
    return Exchange(pick_frame(rng, _LEGS["zh"], x=zh), f"{zh}有{number}（{count}）条腿。", lang)


def animal(rng: random.Random) -> Exchange:
    """An animal's sound, legs or young."""
    lang: Lang = "zh" if rng.random() < 0.5 else "en"
    row = rng.choice(rows("animals"))
    en, zh, sound_en, sound_zh, young_en, young_zh, _ = row
    kind = rng.choices(("sound", "legs", "young"), (45, 35, 20))[0]
    if kind == "legs" or (kind == "sound" and not sound_en):
        return _legs(rng, row, lang)
    if kind == "sound":
        if lang == "en":
            return Exchange(
                pick_frame(rng, _SOUND["en"], x=en).replace("s?", rng.choice(("", "s"))),
                f"{_article(en).capitalize()} says {sound_en}.",
                lang,
            )
        return Exchange(pick_frame(rng, _SOUND["zh"], x=zh), f"{zh}的叫声是“{sound_zh}”。", lang)
    if lang == "en":
        return Exchange(pick_frame(rng, _YOUNG["en"], x=en), f"A baby {en} is called {_article(young_en)}.", lang)
    return Exchange(pick_frame(rng, _YOUNG["zh"], x=zh), f"{zh}的宝宝叫{young_zh}。", lang)
