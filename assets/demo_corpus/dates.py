"""Days of the week and months: before, after, today and tomorrow, and their order."""

import random

from .grammar import Exchange, Lang, pick_frame
from .numbers import chinese

DAYS_EN = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
DAYS_ZH = ("一", "二", "三", "四", "五", "六", "日")
MONTHS_EN = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
]
_NEIGHBOUR_EN: dict[int, tuple[str, ...]] = {
    1: ("(what|which) {k} (comes |is |goes |falls |)(right |just |directly |immediately |)(after|following) {x}", "(what|which) {k} follows {x}", "(what|which) is the {k} (after|following) {x}", "what (comes|is|follows) (right |)after {x}", "the {k} (right |)after {x}( is|)", "the next {k} after {x}", "{x} is followed by (what|which {k}|what {k})", "after {x} comes( what| which {k}|)", "next {k} after {x}", "after {x}(,|) (what|which) {k} (is it|comes|is next)", "(tell|give) me the {k} after {x}", "what {k} is next after {x}", "{k} after {x}", "when {x} (ends|is over)(,|) (what|which) {k} (begins|starts|is it|comes)", "{x} comes (right |just |)before (what|which) {k}"),
    -1: ("(what|which) {k} (comes |is |goes |falls |)(right |just |directly |immediately |)before {x}", "(what|which) {k} precedes {x}", "(what|which) is the {k} before {x}", "what (comes|is) (right |just |)before {x}", "the {k} (right |)before {x}( is|)", "the previous {k} before {x}", "before {x} comes( what| which {k}|)", "before {x}(,|) (what|which) {k} (is it|comes|was it)", "(tell|give) me the {k} before {x}", "{k} before {x}", "{x} comes (right |just |)after (what|which) {k}", "{x} follows (what|which) {k}"),
}  # fmt: skip
_TODAY_EN = (
    ("(if |suppose |say |when |)(today is|it is|it's|today's) {x}( today|)(,|) (then |)(what|which) day (is |will it be |will |comes |)(tomorrow)( be|)", 1),
    ("(if |suppose |)today is {x}(,|) (then |)tomorrow is( what day|)", 1), ("(if |)today is {x}(,|) what is tomorrow", 1), ("what day is tomorrow if today is {x}", 1),
    ("(if |suppose |say |when |)(today is|it is|it's|today's) {x}( today|)(,|) (then |)(what|which) day (was |was it |)yesterday( was|)", -1),
    ("(if |)today is {x}(,|) (then |)yesterday was( what day|)", -1), ("what day was yesterday if today is {x}", -1), ("(if |)today is {x}(,|) what was yesterday", -1),
    ("(if |)(yesterday was) {x}(,|) (then |)(what|which) day is (it |)today", 1), ("(if |)tomorrow is {x}(,|) (then |)(what|which) day is (it |)today", -1),
    ("(if |)today is {x}(,|) (what|which) day is (it |)(the day after tomorrow|in two days|two days later)", 2), ("(if |)today is {x}(,|) (what|which) day was (it |)(the day before yesterday|two days ago)", -2),
    ("(if |)(yesterday was) {x}(,|.|) (then |)(what|which) day is (it |)tomorrow", 2), ("(if |)(tomorrow is|tomorrow will be) {x}(,|.|) (then |)(what|what day|which day) (is |is it |)(today|now)", -1), ("(if |)yesterday was {x}(,|.|) (so |then |)(what is|what's|what day is) today", 1),
    ("(what|which) day (is|comes) two days after {x}", 2), ("(what|which) day is three days after {x}", 3),
)  # fmt: skip
_NEIGHBOUR_ZH: dict[int, tuple[str, ...]] = {
    1: ("{x}(的|)(后一天|后面一天|下一天|第二天|后面|之后|以后|后边|次日|过后|隔天|后|紧接着)(的一天|那天|)(是|)(星期几|周几|礼拜几|哪天|哪一天|什么)", "{x}(过了|过完|完了|结束后|结束)(，|)?(是|就是|接下来是)(星期几|周几|礼拜几|哪天)", "{x}(接着|接下来|后面跟着)是(星期几|周几|哪天|什么)", "(哪天|哪一天|星期几|周几)(在|是){x}(后面|之后|的后一天|的第二天|的下一天)"),
    -1: ("{x}(的|)(前一天|前面一天|上一天|前面|之前|以前|前边|前)(的一天|那天|)(是|)(星期几|周几|礼拜几|哪天|哪一天|什么)", "(哪天|哪一天|星期几|周几)(在|是){x}(前面|之前|的前一天|的上一天)"),
}  # fmt: skip
_IF_ZH = "(如果|假如|要是|假设|若|既然|倘若|)"
_ASK_ZH = "(是|)(星期几|周几|礼拜几|呢|几|是哪天|是星期几呢)"
_TODAY_ZH = (
    (_IF_ZH + "今天(是|){x}(，|,| |)(那么|那|)(明天|明日)" + _ASK_ZH, 1), (_IF_ZH + "今天(是|){x}(，|,| |)(那么|那|)(昨天|昨日)" + _ASK_ZH, -1),
    (_IF_ZH + "今天(是|){x}(，|,| |)(那么|那|)后天" + _ASK_ZH, 2), (_IF_ZH + "今天(是|){x}(，|,| |)(那么|那|)前天" + _ASK_ZH, -2),
    (_IF_ZH + "昨天(是|){x}(，|,| |)(那么|那|)今天" + _ASK_ZH, 1), (_IF_ZH + "明天(是|){x}(，|,| |)(那么|那|)今天" + _ASK_ZH, -1),
    (_IF_ZH + "后天(是|){x}(，|,| |)(那么|那|)今天" + _ASK_ZH, -2), (_IF_ZH + "前天(是|){x}(，|,| |)(那么|那|)今天" + _ASK_ZH, 2), (_IF_ZH + "明天(是|){x}(，|,| |)(那么|那|)后天" + _ASK_ZH, 1), (_IF_ZH + "明天(是|){x}(，|,| |)(那么|那|)昨天" + _ASK_ZH, -2),
    ("(明天是|明天)(星期几|周几)(，|,)" + _IF_ZH + "今天(是|){x}", 1), (_IF_ZH + "今天(是|){x}(，|,| |)(那么|那|)(大后天|三天后|再过三天)" + _ASK_ZH, 3), (_IF_ZH + "今天(是|){x}(，|,| |)(那么|那|)(两天后|过两天|再过两天)" + _ASK_ZH, 2), (_IF_ZH + "昨天(是|){x}(，|,| |)(那么|那|)明天" + _ASK_ZH, 2),
)  # fmt: skip
_MONTH_ZH: dict[int, tuple[str, ...]] = {
    1: ("{x}(的|)(下一个月|下个月|后一个月|后面一个月|后面|之后|以后|过后|接下来|次月|后)(的月份|)(是|)(几月|什么月|哪个月|几月份|什么|哪月)", "{x}(过了|过完|完了|结束后|结束|过去)(之后|以后|后|)(是|就是|就到|到)(几月|什么月|哪个月|几月份)(了|)", "{x}接着是(几月|什么月|哪个月)", "(哪个月|几月)(在|是){x}(后面|之后|的下个月|的下一个月)", "(如果|假如|)(这个月|本月|现在)是{x}(，|)(那么|那|)(下个月|下月|下一个月)(是|)(几月|呢|几月份)"),
    -1: ("{x}(的|)(上一个月|上个月|前一个月|前面一个月|前面|之前|以前|前)(的月份|)(是|)(几月|什么月|哪个月|几月份|什么|哪月)", "(哪个月|几月)(在|是){x}(前面|之前|的上个月|的上一个月)", "(如果|假如|)(这个月|本月|现在)是{x}(，|)(那么|那|)(上个月|上月|上一个月)(是|)(几月|呢|几月份)"),
}  # fmt: skip


def _day_zh(rng: random.Random, i: int) -> str:
    name = DAYS_ZH[i % 7]
    if name == "日":
        name = rng.choice(("日", "天", "日"))
    prefix = rng.choice(("星期", "星期", "周", "周", "礼拜"))
    return prefix + ("日" if prefix == "周" and name == "天" else name)


def _answer_day_zh(i: int) -> str:
    return f"星期{DAYS_ZH[i % 7]}"


def _relation(step: int) -> str:
    return {1: "after", -1: "before"}.get(step, f"{abs(step)} days {'after' if step > 0 else 'before'}")


def _day(rng: random.Random, lang: Lang) -> Exchange:
    i = rng.randrange(7)
    step = rng.choice((1, -1))
    neighbour = rng.random() < 0.5
    if lang == "en":
        if neighbour:
            question = pick_frame(rng, _NEIGHBOUR_EN[step], x=DAYS_EN[i], k="day")
            return Exchange(question, f"The day {_relation(step)} {DAYS_EN[i]} is {DAYS_EN[(i + step) % 7]}.", lang)
        frame, step = rng.choice(_TODAY_EN)
        return Exchange(pick_frame(rng, (frame,), x=DAYS_EN[i]), f"It is {DAYS_EN[(i + step) % 7]}.", lang)
    if neighbour:
        question = pick_frame(rng, _NEIGHBOUR_ZH[step], x=_day_zh(rng, i)).replace("?", "")
        return Exchange(
            question, f"{_answer_day_zh(i)}的{'后' if step > 0 else '前'}一天是{_answer_day_zh(i + step)}。", lang
        )
    frame, step = rng.choice(_TODAY_ZH)
    return Exchange(pick_frame(rng, (frame,), x=_day_zh(rng, i)), f"是{_answer_day_zh(i + step)}。", lang)


def _month(rng: random.Random, lang: Lang) -> Exchange:
    i = rng.randrange(12)
    step = rng.choice((1, -1))
    j = (i + step) % 12
    if lang == "en":
        question = pick_frame(rng, _NEIGHBOUR_EN[step], x=MONTHS_EN[i], k="month")
        return Exchange(question, f"The month {_relation(step)} {MONTHS_EN[i]} is {MONTHS_EN[j]}.", lang)
    name = chinese(i + 1) if rng.random() < 0.7 else str(i + 1)
    question = pick_frame(rng, _MONTH_ZH[step], x=name + rng.choice(("月", "月", "月份")))
    return Exchange(question, f"{chinese(i + 1)}月的{'下' if step > 0 else '上'}一个月是{chinese(j + 1)}月。", lang)


def _ordinal(rng: random.Random, lang: Lang) -> Exchange:
    i = rng.randrange(12)
    if lang == "zh":
        question = pick_frame(
            rng,
            (
                "一年(的|中的|)第{n}个月是(几月|什么月|哪个月)",
                "第{n}个月(是|叫)(几月|什么|什么月)",
                "{e}(是|用中文说是|是指)(几月|哪个月|什么月)",
            ),
            n=chinese(i + 1),
            e=MONTHS_EN[i],
        )
        return Exchange(question, f"是{chinese(i + 1)}月。", lang)
    if rng.random() < 0.5:
        question = pick_frame(
            rng,
            (
                "(what|which) (month |)is the {n} month( of the year| in a year|)",
                "the {n} month( of the year|)( is|)",
                "name the {n} month( of the year|)",
                "month number {m}( is what|)",
            ),
            n=_ORDINALS[i],
            m=i + 1,
        )
        return Exchange(question, f"The {_ORDINALS[i]} month is {MONTHS_EN[i]}.", lang)
    i %= 7
    question = pick_frame(
        rng,
        (
            "(what|which) (day |)is the {n} day of the week",
            "the {n} day of the week( is|)",
            "name the {n} day of (the|a) week",
        ),
        n=_ORDINALS[i],
    )
    return Exchange(question, f"The {_ORDINALS[i]} day of the week is {DAYS_EN[i]}.", lang)


def dates(rng: random.Random) -> Exchange:
    """A question about days or months."""
    lang: Lang = "zh" if rng.random() < 0.5 else "en"
    return rng.choices((_day, _month, _ordinal), (60, 30, 10))[0](rng, lang)
