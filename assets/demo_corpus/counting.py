"""Counting, comparing, number words, even and odd, and simple number sequences."""

import random

from .grammar import Exchange, Lang, pick_frame
from .numbers import chinese, english, spoken

_COUNT: dict[Lang, tuple[str, ...]] = {
    "en": ("(count|please count|can you count|count up|list the numbers|say the numbers|write the numbers) from {a} to {b}", "(list|give me|name) (the |all |)(numbers|integers) (from|between) {a} (to|and) {b}", "count {a} to {b}", "numbers from {a} to {b}"),
    "zh": ("(从|请从|){a}(数|数数|报数|开始数)到{b}", "(数|列出|写出|说出)(一下|)(从|){a}到{b}(的数字|的数|)", "{a}到{b}(有哪些数|有哪些数字|怎么数)"),
}  # fmt: skip
_COMPARE: dict[Lang, tuple[str, ...]] = {
    "en": ("(which|what) (number |one |)is (bigger|larger|greater|higher|more)(,|:|) {a} or {b}", "{a} or {b}(,|:) (which|what) (one |number |)is (bigger|larger|greater|higher|more)", "(which|what) is the (bigger|larger|greater) (number|one)(,|:| of| between) {a} (or|and) {b}", "compare {a} and {b}", "the (larger|bigger) of {a} and {b}"),
    "zh": ("{a}(和|与|跟|还是){b}(，|)(哪个|谁|哪个数|哪一个)(更|比较|)(大|大一些|大一点)", "(哪个|谁|哪个数|哪一个)(更|比较|)大(，|：|,){a}(还是|和){b}", "比较{a}和{b}(的大小|谁大|)", "{a}大还是{b}大"),
}  # fmt: skip
_SMALLER: dict[Lang, tuple[str, ...]] = {
    "en": ("(which|what) (number |one |)is (smaller|less|lower)(,|:|) {a} or {b}", "{a} or {b}(,|:) (which|what) (one |number |)is (smaller|less|lower)"),
    "zh": ("{a}(和|与|跟|还是){b}(，|)(哪个|谁|哪个数|哪一个)(更|比较|)小", "(哪个|谁|哪个数|哪一个)(更|比较|)小(，|：|,){a}(还是|和){b}", "{a}小还是{b}小"),
}  # fmt: skip
_IS_BIGGER: dict[Lang, tuple[str, ...]] = {
    "en": ("is {a} (bigger|larger|greater|more|higher) than {b}", "{a} is (bigger|larger|greater|more) than {b}(,|) (right|true or false|isn't it|correct)", "{a} > {b}(, true or false|, right|)"),
    "zh": ("{a}(比|是不是比|要比|是比){b}(大|更大|大些)(吗|么|对吗|是吗|，对不对)", "{a}大于{b}(吗|么|对吗|对不对)", "{a}是不是(大于|比){b}(大|)", "{a}(比){b}大(不大|还是小|对不对)"),
}  # fmt: skip
_IS_SMALLER: dict[Lang, tuple[str, ...]] = {
    "en": ("is {a} (smaller|less|lower) than {b}", "{a} < {b}(, true or false|, right|)"),
    "zh": ("{a}(比|是不是比|要比|是比){b}(小|更小)(吗|么|对吗|是吗)", "{a}小于{b}(吗|么|对吗|对不对)"),
}  # fmt: skip
_NEXT: dict[Lang, tuple[str, ...]] = {
    "en": ("(what|which) (number |)(comes |is |)(right |just |)after {a}", "the number (right |)after {a}", "what is the next number after {a}", "(what|which) number follows {a}", "what is one more than {a}", "next number after {a}"),
    "zh": ("{a}(的|)(后面|后一个|下一个|之后)(的|)(数|数字|一个数|)(是|)(几|多少|什么|什么数)", "比{a}(大|多)(1|一)(的数|)是(几|多少)"),
}  # fmt: skip
_BEFORE: dict[Lang, tuple[str, ...]] = {
    "en": ("(what|which) (number |)(comes |is |)(right |just |)before {a}", "the number (right |)before {a}", "what is one less than {a}", "(what|which) number precedes {a}"),
    "zh": ("{a}(的|)(前面|前一个|上一个|之前)(的|)(数|数字|一个数|)(是|)(几|多少|什么|什么数)", "比{a}(小|少)(1|一)(的数|)是(几|多少)"),
}  # fmt: skip
_PARITY: dict[Lang, tuple[str, ...]] = {
    "en": ("is {a} (even or odd|odd or even|an even or an odd number|even|odd|an even number|an odd number)", "{a}(:|,) (even or odd|odd or even)"),
    "zh": ("{a}是(奇数还是偶数|偶数还是奇数|单数还是双数|偶数吗|奇数吗|单数吗|双数吗)", "{a}(是|)(奇数|偶数)(还是|或)(偶数|奇数)"),
}  # fmt: skip
_SEQUENCE: dict[Lang, tuple[str, ...]] = {
    "en": ("(what comes next|what is next|what number comes next|continue|complete|next number|what is the next number|fill in the next number)( in the sequence| in this sequence|)(:|,|) {s}( ...|, ...|, ?|)", "{s}, (what comes next|what is next|next|then|...|and then)", "continue the (sequence|pattern|series) {s}"),
    "zh": ("{s}(，|, )(下一个是|接下来是|后面是|下一个数是|接着是|然后是)(多少|几|什么|)", "(找规律|按规律填空|继续|接着写|数列)(：|，|){s}(，|, |)(下一个是|接下来是|)(多少|几|什么|)", "{s}(后面|之后)(是|的数是|填)(几|多少)"),
}  # fmt: skip


def _count(rng: random.Random, lang: Lang) -> Exchange:
    first = rng.choice((1, 1, 1, rng.randrange(0, 15)))
    last = first + rng.randrange(2, 12)
    frames = _COUNT[lang]
    if first == 1 and rng.random() < 0.4:
        frames = (
            ("count to {b}", "(can you |please |)count (up |)to {b}")
            if lang == "en"
            else ("数到{b}", "(请|从头|你能|能|)数到{b}(吗|)")
        )
    numbers = range(first, last + 1)
    use_words = rng.random() < 0.5
    spell = (english if lang == "en" else chinese) if use_words else str
    question = pick_frame(rng, frames, a=spell(first), b=spell(last))
    joined = ", ".join(str(n) for n in numbers) if lang == "en" else "、".join(str(n) for n in numbers)
    return Exchange(question, joined + ("." if lang == "en" else "。"), lang)


def _compare(rng: random.Random, lang: Lang) -> Exchange:
    top = rng.choice((10, 10, 20, 100, 100))
    x, y = rng.sample(range(top + 1), 2)
    digits = 0.0 if rng.random() < 0.15 else 1.0
    a, b = spoken(rng, x, lang, digits), spoken(rng, y, lang, digits)
    big, small = max(x, y), min(x, y)
    larger = f"{big} is larger than {small}" if lang == "en" else f"{big}比{small}大"
    kind = rng.choices(range(4), (3, 2, 4, 3))[0]
    if kind < 2:
        question = pick_frame(rng, (_COMPARE, _SMALLER)[kind][lang], a=a, b=b)
        if kind == 1:
            larger = f"{small} is smaller than {big}" if lang == "en" else f"{small}比{big}小"
        return Exchange(question, larger + ("." if lang == "en" else "。"), lang)
    yes = x > y if kind == 2 else x < y
    question = pick_frame(rng, (_IS_BIGGER, _IS_SMALLER)[kind - 2][lang], a=a, b=b)
    if lang == "en":
        return Exchange(question, f"{'Yes' if yes else 'No'}, {larger}.", lang)
    return Exchange(question, f"{'是的' if yes else '不是'}，{larger}。", lang)


def _neighbour(rng: random.Random, lang: Lang) -> Exchange:
    n = rng.randrange(1, 100)
    step = rng.choice((1, -1))
    question = pick_frame(rng, (_NEXT if step > 0 else _BEFORE)[lang], a=spoken(rng, n, lang, 0.8))
    if lang == "en":
        return Exchange(question, f"The number {'after' if step > 0 else 'before'} {n} is {n + step}.", lang)
    return Exchange(question, f"{n}的{'后' if step > 0 else '前'}一个数是{n + step}。", lang)


def _parity(rng: random.Random, lang: Lang) -> Exchange:
    n = rng.randrange(101)
    question = pick_frame(rng, _PARITY[lang], a=spoken(rng, n, lang, 0.85))
    if lang == "en":
        return Exchange(question, f"{n} is {'an odd' if n % 2 else 'an even'} number.", lang)
    return Exchange(question, f"{n}是{'奇' if n % 2 else '偶'}数。", lang)


def _sequence(rng: random.Random, lang: Lang) -> Exchange:
    step = rng.choice((1, 2, 2, 3, 5, 10, -1))
    first = rng.randrange(6, 15) if step < 0 else rng.choice((step, step, 1, 2, rng.randrange(10)))
    length = rng.randrange(3, 6)
    shown = rng.choice((", ", ",", " ", "，", "、")).join(str(first + step * i) for i in range(length))
    question = pick_frame(rng, _SEQUENCE[lang], s=shown)
    result = first + step * length
    return Exchange(question, f"The next number is {result}." if lang == "en" else f"下一个数是{result}。", lang)


def _words(rng: random.Random, lang: Lang) -> Exchange:
    n = rng.choice((rng.randrange(21), rng.randrange(101), rng.randrange(101)))
    roll = rng.random()
    if lang == "zh":
        if roll < 0.4:
            question = pick_frame(
                rng,
                (
                    "{n}(的|用|)(英语|英文)(怎么说|怎么写|是什么|怎么读)",
                    "{z}(的|用|)(英语|英文)(怎么说|怎么写|是什么|怎么读)",
                ),
                n=n,
                z=chinese(n),
            )
            return Exchange(question, f"{n}的英文是“{english(n)}”。", lang)
        question = pick_frame(
            rng,
            (
                "{n}(用|的|)(中文|汉字|汉语)(怎么写|怎么读|怎么说|是什么)",
                "(把|将){n}(写成|读成|变成)(中文|汉字)",
                "数字{n}怎么读",
            ),
            n=n,
        )
        return Exchange(question, f"{n}的中文是“{chinese(n)}”。", lang)
    if roll < 0.5:
        question = pick_frame(
            rng,
            (
                "(write|spell|say|give me) {n} in (english |)words",
                "how do you (write|spell|say) {n}( in words| in english|)",
                "(write|spell) the number {n}( in words|)",
                "{n} in words",
            ),
            n=n,
        )
        return Exchange(question, f"{n} in words is {english(n)}.", lang)
    if roll < 0.75:
        question = pick_frame(
            rng,
            (
                "(write|say|give me|translate) {n} (in|into) chinese",
                "how do you (write|say) {n} in chinese",
                "what is {n} in chinese",
                "{n} in chinese",
            ),
            n=rng.choice((str(n), english(n))),
        )
        return Exchange(question, f"{n} in Chinese is {chinese(n)}.", lang)
    question = pick_frame(
        rng,
        (
            "(write|give me) {w} (in|as) (digits|numbers|numerals|a number)",
            "{w} (in|as) (digits|numbers|a number)",
            "what number is {w}",
            "(which|what) number is {z}",
            "what does {z} mean",
            "{z} in (numbers|digits)",
        ),
        w=english(n),
        z=chinese(n),
    )
    return Exchange(question, f"The number is {n}, {english(n)}.", lang)


def counting(rng: random.Random) -> Exchange:
    """A question about whole numbers that is not a sum."""
    lang: Lang = "zh" if rng.random() < 0.5 else "en"
    kinds = (_count, _compare, _neighbour, _parity, _sequence, _words)
    return rng.choices(kinds, (13, 50, 10, 9, 8, 10))[0](rng, lang)
