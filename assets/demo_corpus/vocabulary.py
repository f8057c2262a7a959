"""Words: translation both ways, opposites, synonyms, and what category a thing belongs to."""

import random

from .grammar import Exchange, Lang, pick_frame
from .lexicon import Word, rows, translations, words

_QUOTES = ("{}", "{}", "{}", "“{}”", "'{}'", '"{}"', "「{}」")
_TO_ZH: dict[Lang, tuple[str, ...]] = {
    "en": ("(how (do|would|can|should) (you|I|we|people|they|one|a chinese person) (say|write|translate|express|call)) {w} in (chinese|mandarin)", "how (do|would) (chinese people|the chinese|people in china|a chinese person|a chinese speaker) (say|call|express) {w}", "what is {w} in (chinese|mandarin)", "(translate|please translate|put|convert|turn) {w} (to|into|in) (chinese|mandarin)", "what is (the |)(chinese|mandarin) (word |translation |)(for|of) {w}", "(the |)(chinese|mandarin) (word |translation |)(for|of) {w}", "{w} in (chinese|mandarin)", "{w} (to|into) (chinese|mandarin)", "how to (say|write|translate) {w} (in|into) (chinese|mandarin)", "(say|give me|tell me|write) {w} in (chinese|mandarin)", "what do (you|chinese people|the chinese) call {w}( in chinese|)", "what's the (chinese|mandarin) for {w}", "(give|tell) me the chinese (word |)for {w}", "which chinese word means {w}", "how is {w} said in chinese", "what does {w} mean in chinese", "chinese for {w}", "I want to say {w} in chinese", "(how (do|would)|when) (chinese people|the chinese|a chinese person|a chinese|someone chinese|people in china) (say|call|write) {w}", "what (would|do) (chinese people|the chinese|people in china|a chinese person) (say|call) (for |){w}", "(do you know|tell me) the chinese word (for|of) {w}", "{w} chinese", "{w} in chinese characters", "what is {w} called in chinese", "{w}, in chinese"),
    "zh": ("{w}(用|拿|的|在|)(中文|汉语|普通话|国语)(里|中|)(怎么说|怎么讲|怎么翻译|是什么|是什么意思|叫什么|如何说|怎么写|是啥|意思|意思是什么|怎么表达|翻译|)", "{w}(是什么意思|什么意思|啥意思|的意思是什么|的意思|是啥意思|的含义|怎么翻译|翻译过来是什么|翻译成中文|中文意思|的中文|的中文是什么|的中文翻译|的中文意思是什么|用中文说|的汉语意思|的中文意思|代表什么意思|指的是什么)", "(把|将|请把|请将|帮我把){w}(翻译成|翻成|译成|译为|翻译为|翻译到)(中文|汉语)", "(翻译|翻译一下|请翻译|帮我翻译|译|中文翻译)(：|:|一下|)(单词|){w}(成中文|)", "(单词|英语单词|英文单词|英语|英文|英文词|这个词|这个单词|英语词)(：|){w}(是什么意思|的意思是什么|的意思|什么意思|啥意思|怎么翻译|的中文是什么|意思是什么|指什么|表示什么|的意思是啥|用中文怎么说|中文怎么说|翻译成中文是什么|的中文意思)", "英(语|文)(里|中|)(的|){w}(是|指|)(什么|啥)(意思|)", "{w}(这个|)(单词|词)(是什么意思|什么意思|的意思|怎么理解|的中文是什么)"),
}  # fmt: skip
_TO_EN: dict[Lang, tuple[str, ...]] = {
    "en": ("(how (do|would|can|should) (you|I|we) (say|write|translate|express|call)) {w} in english", "what is {w} in english", "(translate|please translate|put|convert|turn) {w} (to|into|in) english", "what is (the |)english (word |translation |)(for|of) {w}", "(the |)english (word |translation |)(for|of) {w}", "{w} in english", "{w} (to|into) english", "how to (say|write|translate) {w} (in|into) english", "what does {w} mean( in english|)", "what is the meaning of {w}", "(meaning of|the meaning of) {w}", "{w} means what( in english|)", "(say|give me|tell me) {w} in english", "what does (the chinese word|the word) {w} mean", "(explain|define) {w}( in english|)", "{w} english", "what does the chinese {w} mean", "what does ({w}|the character {w}|the chinese character {w}) (mean|say|stand for)", "how do the english say {w}", "what is {w} called in english", "which english word means {w}", "(tell|give) me the english (word |)for {w}", "I saw the word {w}, what does it mean", "what is {w}", "english for {w}", "{w} meaning"),
    "zh": ("{w}(用|的|在|拿|)(英语|英文)(里|中|)(怎么说|怎么讲|怎么翻译|是什么|叫什么|如何说|怎么写|是啥|单词是什么|怎么拼|单词|怎么表达|说|翻译|是哪个词|是哪个单词|如何表达|怎么念|)", "(把|将|请把|请将|帮我把){w}(翻译成|翻成|译成|译为|翻译为)(英文|英语)", "(翻译|翻译一下|请翻译|帮我翻译|译|英文翻译|英译)(：|:|一下|)(词语|){w}(成英文|成英语|为英语|)", "{w}(翻译成英文|翻译成英语|译成英语|译成英文|翻成英文|翻成英语|翻译为英文)(是什么|是哪个词|怎么说|是哪个单词|是啥|怎么写|该怎么说|)", "{w}的(英文|英语)(是什么|怎么说|怎么写|单词|单词是什么|翻译|翻译是什么|叫什么|是哪个|是哪个单词|名|)", "(英语|英文)(里|中|)(的|){w}(怎么说|是什么|怎么写|叫什么|用哪个词|怎么讲|怎么表达)", "(说出|写出|告诉我|给出){w}的(英文|英语)(单词|)", "(哪个|什么)(英文|英语)(单词|词)(是|表示|的意思是){w}(的意思|)", "怎么用(英语|英文)(说|表达|讲|写){w}", "{w}(英语|英文)"),
}  # fmt: skip
_OPPOSITE: dict[Lang, tuple[str, ...]] = {
    "en": ("what is (the |an |)(opposite|antonym|reverse|contrary) (of|for|to) (the word |){w}", "(the |)(opposite|antonym) (of|for|to) (the word |){w}( is| please|)", "(tell|give) me (the |an |)(opposite|antonym) (of|for) (the word |){w}", "{w}'s (opposite|antonym)", "(which|what) word (is the opposite of|is opposite to|means the opposite of|has the opposite meaning of|is the reverse of|is an antonym of|is contrary to) {w}", "what is opposite to {w}", "{w} is the opposite of( what|)", "(name|say|find|write) (the |an |)(opposite|antonym) (of|for|to) {w}", "if (it|something|he) is not {w}, (it|something|he) is", "what do you call the opposite of {w}", "{w} opposite", "{w} antonym", "the opposite word of {w}", "what's the other extreme of {w}", "not {w} but"),
    "zh": ("{w}(的|)(反义词|相反词|反意词|反义字|反面|对立面|反义)(是什么|是|是哪个|是啥|是哪个词|有哪些|叫什么|呢|是哪个字|是什么词|)", "(和|与|跟|同){w}(意思|含义|意义|)(相反|相对|对立)的(词|字|词语|词是什么|词是|是什么|是哪个词|字是什么|词语是什么|词有哪些|词是哪个|词是啥|是|)", "(哪个|什么|哪一个)(词|字|词语)(和|与|跟|是){w}(意思相反|相反|的反义词|的意思相反|相对)", "(说出|写出|告诉我|请写出|给出|说一下|找出|请说出|说个|说一个){w}的(反义词|反义字|相反的词)", "{w}(反过来|相反|反着说|反过来说)(是什么|是|怎么说|是啥|)", "(反义词|反义)(：|:|，){w}", "不{w}就是(什么|)", "{w}对(什么|应什么)(，反义词|)", "{w}的(反面|反义)"),
}  # fmt: skip
_SYNONYM: dict[Lang, tuple[str, ...]] = {
    "en": ("what is (a |the |another |)(synonym|word) (of|for) {w}", "(give|tell) me (a |)(synonym|another word) (of|for) {w}", "(a |)(synonym|another word) (of|for) {w}", "(which|what) word means the same as {w}", "what word is similar to {w}", "{w} synonym", "how else can I say {w}"),
    "zh": ("{w}的(近义词|同义词)(是什么|是|有哪些|是啥|)", "(和|与|跟){w}(意思|)(相近|相同|差不多|一样)的(词|词是什么|词语|词有哪些)", "(说出|给出|写出|说一个|说个){w}的(近义词|同义词)"),
}  # fmt: skip
_CATEGORY: dict[Lang, tuple[str, ...]] = {
    "en": ("what (kind|type|sort) of (thing|word|object) is (a |an |){w}", "(is |)(a |an |){w} (is a|is an|belongs to) (what|which) (category|group|kind|type)", "what (category|group|class) (is|does) (a |an |){w}( in| belong to|)", "what is (a|an) {w}", "(a |an |){w} is what kind of thing", "what do you call things like {w}", "which group does {w} belong to"),
    "zh": ("{w}(是|属于|算|算是)(什么|哪一类|哪类|哪种|什么类型的|哪一种|什么种类的|什么类|哪一类的)(东西|事物|物品|类别|种类|)", "{w}(归|属)(哪一类|哪类|什么类)", "{w}是(什么|啥)", "{w}(是|属于)哪(一|)类"),
}  # fmt: skip
_NAME_ONE: dict[Lang, tuple[str, ...]] = {
    "en": ("(name|tell me|say|give me|list|mention) (a|one|any|some|an) {k}", "(give|tell|show) me an example of (a |an |){k}", "(can you |)name (a|an|one) {k}( you know| for me|)", "what is an example of (a |an |){k}", "(do you know|know) (a|any) {k}"),
    "zh": ("(说|举|说出|举出|列举|写|告诉我|说说|来|列)(一|一个|一种|个|一例|个例子，)(种|){k}(的名字|的例子|名称|吧|)", "(有哪些|有什么){k}", "{k}(有哪些|有什么|包括什么|比如什么)", "(什么|哪些)是{k}", "给我一个{k}的例子"),
}  # fmt: skip
_VAGUE = frozenset({"thing", "place", "nature", "time", "verb", "adjective", "idea", "number", "subject"})


def _quoted(rng: random.Random, text: str) -> str:
    return rng.choice(_QUOTES).format(text)


def translate(rng: random.Random) -> Exchange:
    """A word or set phrase, asked in either language, answered in the language of the question."""
    if rng.random() < 0.17:
        en, zh = rng.choice(rows("phrases"))
        to_zh, to_en = zh, en
    else:
        word = rng.choice(words())
        en, zh = word.en, word.zh
        to_zh, to_en = translations()[0][en], translations()[1][zh]
    asked: Lang = "zh" if rng.random() < 0.5 else "en"
    if rng.random() < 0.5:
        article = rng.choice(("a ", "the ", "the word ", "the word ", "", "", "", "", "")) if asked == "en" else ""
        shown = rng.choice((en, en, en.capitalize()))
        question = pick_frame(rng, _TO_ZH[asked], w=article + _quoted(rng, shown))
        answer = f"“{en}”的中文是“{to_zh}”。" if asked == "zh" else f'"{en}" in Chinese is {to_zh}.'
    else:
        question = pick_frame(rng, _TO_EN[asked], w=_quoted(rng, zh))
        answer = f"“{zh}”的英文是“{to_en}”。" if asked == "zh" else f'"{zh}" means {to_en} in English.'
    return Exchange(question, answer, asked)


def opposite(rng: random.Random) -> Exchange:
    """Opposites, in either direction; the first listed partner of a word is the one taught."""
    lang: Lang = "zh" if rng.random() < 0.5 else "en"
    column = 1 if lang == "zh" else 0
    partner: dict[str, str] = {}
    for row in rows("opposites"):
        partner.setdefault(row[column], row[column + 2])
    for row in rows("opposites"):
        partner.setdefault(row[column + 2], row[column])
    word = rng.choice(tuple(partner))
    question = pick_frame(rng, _OPPOSITE[lang], w=_quoted(rng, word))
    if lang == "zh":
        return Exchange(question, f"“{word}”的反义词是“{partner[word]}”。", lang)
    return Exchange(question, f'The opposite of "{word}" is "{partner[word]}".', lang)


def synonym(rng: random.Random) -> Exchange:
    """A word that means about the same."""
    a, b = rng.choice(rows("synonyms"))
    lang: Lang = "en" if a.isascii() else "zh"
    word, other = (a, b) if rng.random() < 0.5 else (b, a)
    question = pick_frame(rng, _SYNONYM[lang], w=_quoted(rng, word))
    if lang == "zh":
        return Exchange(question, f"“{word}”的近义词是“{other}”。", lang)
    return Exchange(question, f'Another word for "{word}" is "{other}".', lang)


def _article(word: str) -> str:
    return ("an " if word[0] in "aeiou" else "a ") + word


def _is_it(rng: random.Random, word: Word, others: list[Word], lang: Lang) -> Exchange:
    kind = word if rng.random() < 0.5 else rng.choice(others)
    true = kind.category_en == word.category_en
    if lang == "en":
        question = pick_frame(
            rng,
            (
                "(is|are) (a |an |){w} {k}",
                "{w} is {k}, (right|isn't it|true or false)",
                "is {w} (really |considered |a kind of |){k}",
            ),
            w=word.en,
            k=_article(kind.category_en),
        )
        return Exchange(question, f"{'Yes' if true else 'No'}, {word.en} is {_article(word.category_en)}.", lang)
    question = pick_frame(
        rng,
        ("{w}是{k}(吗|么|对吗|对不对)", "{w}是不是{k}", "{w}(属于|算|算是){k}(吗|么)", "{w}是一种{k}吗"),
        w=word.zh,
        k=kind.category_zh,
    )
    return Exchange(question, f"{'是的' if true else '不是'}，{word.zh}是{word.category_zh}。", lang)


def category(rng: random.Random) -> Exchange:
    """What a thing is, whether it is a so-and-so, or one example of a category."""
    lang: Lang = "zh" if rng.random() < 0.5 else "en"
    concrete = [word for word in words() if word.category_en not in _VAGUE]
    word = rng.choice(concrete)
    roll = rng.random()
    if roll < 0.4:
        return _is_it(rng, word, concrete, lang)
    if roll < 0.55:
        first = [w for w in concrete if w.category_en == word.category_en][:3]
        if lang == "en":
            names = ", ".join(w.en for w in first)
            return Exchange(pick_frame(rng, _NAME_ONE["en"], k=word.category_en), f"Some examples: {names}.", lang)
        return Exchange(
            pick_frame(rng, _NAME_ONE["zh"], k=word.category_zh), f"例如：{'、'.join(w.zh for w in first)}。", lang
        )
    if roll < 0.62:
        return _odd_one_out(rng, word, concrete, lang)
    if lang == "en":
        return Exchange(
            pick_frame(rng, _CATEGORY["en"], w=word.en),
            f"{word.en.capitalize()} is {_article(word.category_en)}.",
            lang,
        )
    return Exchange(pick_frame(rng, _CATEGORY["zh"], w=_quoted(rng, word.zh)), f"{word.zh}是{word.category_zh}。", lang)


def _odd_one_out(rng: random.Random, word: Word, concrete: list[Word], lang: Lang) -> Exchange:
    other = rng.choice([w for w in concrete if w.category_en != word.category_en])
    pair = [word, other]
    rng.shuffle(pair)
    if lang == "en":
        question = pick_frame(
            rng,
            ("which (one |)(is|of these is) {k}(,|:) {a} or {b}", "{a} or {b}(,|:) which (one |)is {k}"),
            k=_article(word.category_en),
            a=pair[0].en,
            b=pair[1].en,
        )
        return Exchange(question, f"{word.en.capitalize()} is {_article(word.category_en)}.", lang)
    question = pick_frame(
        rng,
        ("{a}(和|与|还是){b}(，|)(哪个|哪一个)是{k}", "(哪个|下面哪个)是{k}(，|：){a}还是{b}"),
        k=word.category_zh,
        a=pair[0].zh,
        b=pair[1].zh,
    )
    return Exchange(question, f"{word.zh}是{word.category_zh}。", lang)
