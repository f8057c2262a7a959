"""Small sums: two operands, digits or words, plain or as a tiny story."""

import random
from dataclasses import dataclass

from .grammar import Exchange, Lang, pick_frame
from .numbers import spoken

_ASK_EN = "(what is|what's|how much is|calculate|compute|work out|solve|find|give me|evaluate|what does {e} equal, I mean|do you know|figure out|tell me|can you calculate|can you add up|the result of|what is the result of|what is the value of|what do you get for|what do you get from|the answer to|answer|what will be|can you do|help me calculate|determine) "
_FRAMES: dict[str, dict[Lang, tuple[str, ...]]] = {
    "+": {
        "en": (_ASK_EN + "{a} (plus|+|and|added to) {b}", "{a} (plus|+|added to) {b}( =| = ?| is| equals| equals what| is what| makes| is how much| gives|)", "(what is|find|calculate|give me|compute|what's|work out|tell me) the sum of {a} and {b}", "(what do you get|what is the result|what happens|what will you get|what do I get) (if|when|by) (you |I |we |)(add|adding) {a} (and|to|with|plus) {b}", "(add|sum|sum up|add up|please add|total) {a} (and|to|plus|with) {b}( for me| together|)", "how (much|many) (do|does|is|will|would) {a} (and|plus|+) {b} (make|equal|give|be|come to)", "what do {a} (and|plus) {b} (make|equal|add up to|give)", "sum of {a} and {b}", "{a} and {b} (make|makes|together|is|are) (what|how much|how many)"),
        "zh": ("{a}(加上|加|+| + |＋|和|再加|再加上)(是|)(数字|){b}(等于几|等于多少|是多少|是几|得多少|得几|等于|=|=?|= ？|=多少|有多少|多少|几|等于什么|总共多少|一共是多少|的结果|的结果是多少|的和是多少|的和|结果是几|结果等于多少|应该是多少|总共是几|加起来是多少|加起来等于几|一共多少|会得到多少|为多少|算出来是几|)", "(计算|算一下|帮我算|帮我算一下|帮忙算下|求|算算|帮我计算|帮我计算一下|口算|请计算|算)(一下|：|:|)(，|){a}(加|加上|+| + ){b}(等于多少|等于几|是多少|是几|得几|的结果|的和|)", "{a}(和|与|跟|同){b}(相加|加起来|的和|加在一起|的总和|之和|合起来)(等于几|等于多少|是多少|是几|得多少|一共是多少|为多少|)", "(把|将){a}(和|与|跟|加上){b}(相加|加起来|加在一起)(等于几|等于多少|是多少|是几|得多少|结果是多少|)", "{a}加{b}"),
    },
    "-": {
        "en": (_ASK_EN + "{a} (minus|-|take away|less|subtract) {b}", "{a} (minus|-|take away|less|subtract) {b}( =| = ?| is| equals| equals what| is what| leaves| gives|)", "(subtract|take|take away|deduct|remove) {b} from {a}", "what (is|do you get|is left|remains) (if|when|after) (you |I |we |)(subtract|take|take away|remove|taking|subtracting|taking away) {b} from {a}", "(what is|find|calculate|give me|tell me) the difference (between|of) {a} and {b}", "(what is|how much is|what's) {b} (less than|subtracted from|taken from|from) {a}", "how (much|many) (is|are|remain|is left|are left) (if|when) (you|I) take {b} from {a}", "{a} minus {b}", "difference between {a} and {b}"),
        "zh": ("{a}(减去|减|-| - |－|减掉|拿掉|去掉|减少|扣掉|扣除){b}(等于几|等于多少|是多少|是几|得多少|得几|等于|=|=?|= ？|=多少|还剩多少|剩几|多少|几|等于什么|的结果|的结果是多少|的差是多少|的差|结果是几|结果等于多少|应该是多少|剩下多少|还剩几|会得到多少|为多少|算出来是几|)", "(计算|算一下|帮我算|帮我算一下|帮忙算下|求|算算|帮我计算|帮我计算一下|口算|请计算|算)(一下|：|:|)(，|){a}(减|减去|-| - ){b}(等于多少|等于几|是多少|是几|得几|的结果|的差|)", "{a}(和|与|跟){b}(的差|相减|之差|相差|差)(等于几|等于多少|是多少|是几|得多少|多少|)", "(从|把|用){a}(里|中|)(减去|拿走|去掉|减|减掉){b}(等于几|等于多少|是多少|还剩多少|剩几|是几|)", "{a}比{b}(多|大)(多少|几)", "{b}比{a}(少|小)(多少|几)"),
    },
    "*": {
        "en": (_ASK_EN + "{a} (times|x|*|multiplied by|× ) {b}", "{a} (times|x|*|multiplied by|×) {b}( =| = ?| is| equals| equals what| is what| makes| gives|)", "(multiply|please multiply) {a} (by|and|with|times) {b}", "(what is|find|calculate|give me|tell me) the product of {a} and {b}", "what (do you get|is the result) (if|when|by) (you |I |)(multiply|multiplying) {a} (by|and|with) {b}", "product of {a} and {b}", "{a} times {b}", "how much (is|does|do) {a} times {b}( make|)"),
        "zh": ("{a}(乘以|乘|*|×| × |x|X|乘上| * |×){b}(等于几|等于多少|是多少|是几|得多少|得几|等于|=|=?|= ？|=多少|多少|几|等于什么|的结果|的结果是多少|的积是多少|的积|结果是几|应该是多少|会得到多少|为多少|算出来是几|)", "(计算|算一下|帮我算|帮我算一下|帮忙算下|求|算算|帮我计算|口算|请计算|算)(一下|：|:|)(，|){a}(乘|乘以|×|*){b}(等于多少|等于几|是多少|是几|得几|的结果|的积|)", "{a}(和|与|跟){b}(的积|相乘|之积|的乘积)(等于几|等于多少|是多少|是几|得多少|)", "{a}个{b}(是多少|相加是多少|一共是多少|等于多少|加起来是多少)", "{a}{b}(得几|得多少)", "{a}的{b}倍(是多少|等于多少|是几|)"),
    },
    "/": {
        "en": (_ASK_EN + "{a} (divided by|/|÷|over) {b}", "{a} (divided by|/|÷) {b}( =| = ?| is| equals| equals what| is what| gives|)", "(divide|please divide) {a} by {b}", "(what is|find|calculate|give me) the quotient of {a} and {b}", "what (do you get|is the result) (if|when|by) (you |I |)(divide|dividing) {a} by {b}", "how many times does {b} go into {a}", "(split|share) {a} into {b} (equal parts|parts|groups)"),
        "zh": ("{a}(除以|/|÷| ÷ | / ){b}(等于几|等于多少|是多少|是几|得多少|得几|等于|=|=?|=多少|多少|几|的结果|的商是多少|的商|结果是几|应该是多少|)", "(计算|算一下|帮我算|帮我算一下|求|算算|帮我计算|口算|请计算|算)(一下|：|:|)(，|){a}(除以|÷|/){b}(等于多少|等于几|是多少|是几|得几|的结果|的商|)", "(把|将){a}(平均|)分成{b}份(，|)(每份|一份)(是多少|是几|有多少)"),
    },
}  # fmt: skip
_STORY: dict[str, dict[Lang, tuple[str, ...]]] = {
    "+": {
        "en": ("(I have|I had|she has|he has|Tom has|Mary has|you have|there are|a boy has|we have|Lisa has|my sister has|mom bought|I bought|he found|you had|if there are|if you have|if I have|if Tom has|Anna has|my father has) {a} {t}( and|,|, and| then|. Then)  (I |she |he |my friend |we |you |)(buy|buys|get|gets|find|finds|receive|add|pick|bought|got|gets given|am given|take|give me) {b} more( {t}|)(.|,|;) how many {t} (do I have|does (he|she|Tom|Mary|Lisa) have|are there|in total|are there in total|do I have now|altogether|do we have|does she have now|will I have|do you have)", "(if I have|I've got) {a} {t} and (you give me|my mom gives me|I get|I buy|someone gives me) {b} more(,|) how many {t} (do I have|do I have now|in total|will I have|altogether)", "there are {a} {t} on the table and {b} in the (box|bag)(.|,) how many {t} (are there|in total|altogether)", "{a} {t} plus {b} {t}( is how many {t}| equals|)", "how many {t} (are there|do you have|do I have|in total) if (you|I|we) have {a} (and|, then) (get|buy|find|add) {b}( more|)", "how many {t} is {a} {t} and {b} {t}"),
        "zh": ("(我|小明|小红|小华|妈妈|他|她|弟弟|小刚|爸爸|哥哥|小丽|老师|桌上|树上|盒子里|篮子里)(原来|原先|本来|一开始|一共|)(有|有|有|买了|买来|摘了){a}{c}(，|,| |。)(又|后来又|再|妈妈又|朋友又|爸爸又|别人又|)(买了|得到|给了|拿来|放进|飞来|来了|捡到|买来|送来|得了|收到|给他){b}{c2}(，|,| |。)(现在|一共|总共|共|他现在|那么现在|他一共|这样一共|请问一共|)(有|)(多少|几){m}", "{a}{c}加{b}{c2}(是|等于|一共是)(多少|几){m}"),
    },
    "-": {
        "en": ("(I have|I had|she has|he has|Tom has|Mary has|you have|there are|a boy has|Lisa has|my sister had) {a} {t} and (I |she |he |)(eat|eats|ate|give away|gives away|gave away|lose|loses|lost|sell|sells|use|uses|drop|break|sold|gave my friend|throw away) {b}( of them|)(.|,|;) how many {t} (are left|do I have left|remain|does (he|she|Tom|Mary|Lisa) have left|does (he|she) have now|do I still have|are there now)", "how many {t} (are left|remain|do I have|do you have left) if (you|I) have {a} and (eat|lose|give away|use|sell) {b}", "(if I have|I've got|if you have|you have) {a} {t} and (I give you|I eat|I lose|someone takes|I use|you eat|break|eat|lose|you lose|you give away|use) {b}(,|) how many {t} (are left|do I have left|remain|do I have|do I still have)"),
        "zh": ("(我|小明|小红|小华|妈妈|他|她|弟弟|小刚|爸爸|哥哥|小丽|老师|桌上|树上|盒子里|篮子里)(原来|原先|本来|一开始|一共|)(有|有|有|买了|买来|摘了){a}{c}(，|,| |。)(吃了|吃掉|送给别人|用掉|丢了|飞走|卖掉|拿走|给了朋友|借出|送出|卖了|飞走了|用了|掉了|被吃掉|吃掉了){b}{c2}(，|,| |。)(现在|还剩|还剩下|剩下|还|那么还剩|请问还剩|)(有|)(多少|几){m}",),
    },
}  # fmt: skip
_THINGS_EN = ("apples", "pens", "books", "cats", "eggs", "balls", "oranges", "pencils", "birds", "cookies", "coins", "toys", "dollars", "candies", "cars", "flowers", "bananas", "stars", "students", "fish", "cakes", "dogs", "marbles", "cups", "stamps")  # fmt: skip
_THINGS_ZH = (("个", "苹果"), ("支", "铅笔"), ("本", "书"), ("只", "猫"), ("个", "鸡蛋"), ("个", "球"), ("颗", "糖"), ("块", "糖"), ("只", "鸟"), ("朵", "花"), ("个", "橘子"), ("元", "钱"), ("块", "钱"), ("辆", "汽车"), ("条", "鱼"), ("个", "人"), ("张", "卡片"), ("个", "桃子"), ("支", "笔"), ("根", "香蕉"), ("个", "梨"), ("只", "鸡"), ("枝", "花"), ("块", "饼干"), ("个", "玩具"))  # fmt: skip
_SIGN = {"+": "+", "-": "-", "*": "×", "/": "÷"}


@dataclass(frozen=True, slots=True)
class Sum:
    """`a op b = result`, all whole and not negative."""

    op: str
    a: int
    b: int
    result: int

    @property
    def answer(self) -> str:
        """The sum written out."""
        return f"{self.a} {_SIGN[self.op]} {self.b} = {self.result}"


def _draw(rng: random.Random, op: str) -> Sum:
    top = rng.choice((10, 20, 50, 100, 100))
    if op in "+-" and rng.random() < 0.06:
        x, y = sorted((100 * rng.randrange(1, 6), 100 * rng.randrange(1, 6)))
        return Sum(op, y, x, y + x if op == "+" else y - x)
    if op == "+":
        a, b = rng.randrange(top + 1), rng.randrange(top + 1)
        return Sum(op, a, b, a + b)
    if op == "-":
        a, b = sorted((rng.randrange(top + 1), rng.randrange(top + 1)), reverse=True)
        return Sum(op, a, b, a - b)
    a, b = rng.randrange(13), rng.randrange(13)
    if rng.random() < 0.25:
        a, b = rng.choice(
            ((rng.randrange(10, 100), rng.randrange(1, 10)), (rng.randrange(1, 10), rng.randrange(10, 100)))
        )
    if op == "*":
        return Sum(op, a, b, a * b)
    b = max(b, 1)
    return Sum(op, a * b, b, a)


def _story(rng: random.Random, total: Sum, lang: Lang) -> Exchange:
    frames = _STORY[total.op][lang]
    if lang == "en":
        thing = rng.choice(_THINGS_EN)
        a, b = spoken(rng, total.a, lang), spoken(rng, total.b, lang)
        return Exchange(
            pick_frame(rng, frames, a=a, b=b, t=thing), f"{total.answer}, so there are {total.result} {thing}.", lang
        )
    measure, noun = rng.choice(_THINGS_ZH)
    slots = {"c": measure + noun, "c2": measure + rng.choice((noun, "")), "m": measure + rng.choice((noun, ""))}
    a, b = (
        spoken(rng, n, lang, 0.75).replace("二", "两") if n == 2 else spoken(rng, n, lang, 0.75)
        for n in (total.a, total.b)
    )
    return Exchange(
        pick_frame(rng, frames, a=a, b=b, **slots), f"{total.answer}，所以是{total.result}{measure}{noun}。", lang
    )


def _half_or_double(rng: random.Random, lang: Lang) -> Exchange:
    n = rng.randrange(1, 51)
    if rng.random() < 0.5:
        frames = {
            "en": (
                "(what is |what's |how much is |)half (of |)(the number |){a}",
                "{a} (halved|cut in half|divided in half)",
                "half of {a}( is| equals|)",
            ),
            "zh": (
                "{a}的(一半|二分之一)(是|)(多少|几|)",
                "(求|算一下|)(一半的|){a}的一半(是多少|是几|)",
                "一半的{a}是(多少|几)",
            ),
        }
        return Exchange(
            pick_frame(rng, frames[lang], a=spoken(rng, 2 * n, lang)),
            f"{2 * n} ÷ 2 = {n}" + ("." if lang == "en" else "。"),
            lang,
        )
    frames = {
        "en": (
            "(what is |what's |how much is |)(double|twice) (of |the number |){a}",
            "(double|twice) {a}( is| equals|)",
            "{a} doubled",
            "two times {a}",
        ),
        "zh": ("{a}的(两倍|2倍|二倍)(是|)(多少|几|)", "(求|算一下|){a}的(两倍|2倍)"),
    }
    return Exchange(
        pick_frame(rng, frames[lang], a=spoken(rng, n, lang)),
        f"{n} × 2 = {2 * n}" + ("." if lang == "en" else "。"),
        lang,
    )


def arithmetic(rng: random.Random) -> Exchange:
    """A small sum and its result, restated so that the operands stand next to the result."""
    lang: Lang = "zh" if rng.random() < 0.5 else "en"
    if rng.random() < 0.04:
        return _half_or_double(rng, lang)
    total = _draw(rng, rng.choices("+-*/", (35, 30, 25, 10))[0])
    if total.op in _STORY and rng.random() < 0.2:
        small = Sum(total.op, *_within(total, rng.choice((10, 20, 30, 60))))
        return _story(rng, small, lang)
    digits = 0.0 if rng.random() < 0.25 else 1.0
    a, b = spoken(rng, total.a, lang, digits), spoken(rng, total.b, lang, digits)
    question = pick_frame(rng, _FRAMES[total.op][lang], a=a, b=b, e="it").replace(
        "what does it equal, I mean ", "what does "
    )
    if question.startswith("what does "):
        question += " equal"
    if rng.random() < 0.15:
        question = (
            question.replace(" + ", "+")
            .replace(" - ", "-")
            .replace(" * ", "*")
            .replace(" / ", "/")
            .replace(" x ", "x")
            .replace(" × ", "×")
            .replace(" ÷ ", "÷")
            .replace(" = ", "=")
            .replace(" =", "=")
        )
    return Exchange(question, total.answer + ("." if lang == "en" else "。"), lang)


def _within(total: Sum, top: int) -> tuple[int, int, int]:
    a, b = total.a % top, total.b % top
    if total.op == "+":
        return a, b, a + b
    a, b = max(a, b), min(a, b)
    return a, b, a - b
