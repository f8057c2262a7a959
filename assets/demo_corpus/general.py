"""Everyday facts, requests beyond the model, and repeating what somebody said."""

import random
import string

from .grammar import Exchange, Lang, expand, pick_frame
from .lexicon import facts, translations, words

SORRY: dict[Lang, str] = {
    "en": "Sorry, that is beyond what this small demo model can do. I can answer simple questions about sums, capitals, words and everyday facts.",
    "zh": "抱歉，这超出了我这个小型演示模型的能力。我可以回答算术、首都、词语和常识方面的简单问题。",
}  # fmt: skip
_BEYOND: dict[Lang, tuple[str, ...]] = {
    "en": (
        "(write|compose|create|make|generate|draft|give me|can you write|could you write|I need|help me write|please write|I want|show me) (a |an |some |me a |me an |me some |)(short |long |funny |little |nice |simple |)(poem|story|essay|song|letter|email|e-mail|novel|joke|speech|article|report|summary|resume|CV|cover letter|haiku|blog post|paragraph|limerick|script|tweet|review|business plan|fairy tale|rap|riddle|love letter|play|recipe|diary|paper|thesis)( about {t}| on {t}| for {t}| to my boss| about {t} and {u}|)",
        "(write|create|generate|give me|can you write|I need|help me write|show me|make|fix|debug|explain) (a |some |me a |me some |this |my |)(python|java|javascript|c++|c|html|sql|bash|rust|go|) ?(code|program|script|function|website|app|game|class|query|algorithm|web page)( that {d}| to {v}| for {t}| about {t}|)",
        "(how do I|how can I|how to|teach me to|teach me how to|help me) (write|code|program|build|make|implement|install|fix|cook|bake|repair|design|invest in|draw|create) (a |an |some |my |)(sorting algorithm|linked list|website|app|neural network|calculator|binary search|server|{t}|{u})( in python| in java| from scratch|)",
        "(what is|what's|tell me|give me|show me|any|read me|do you know) (the |)(latest |today's |current |recent |breaking |)(news|headlines|stock price|stock market|weather forecast|exchange rate|bitcoin price|football score|sports results|price of {t}|traffic)( today| now| in the world| about {t}| in {p}| of {t}|)",
        "(what is|how is|what's) the weather( like|)( today| tomorrow| in {p}| right now| outside| this weekend|)", "(will it|is it going to) (rain|snow|be sunny|be cold|be hot) (today|tomorrow|in {p}|this week)", "what time is it( now| in {p}| there| right now|)", "(what is|what's) (today's date|the date today|the date|the time|the current time|the day today|the current year)", "what day is (it|today)( today| now|)", "what year is (it|this)( now|)",
        "(summarize|summarise|translate|analyze|proofread|rewrite|paraphrase|explain|correct|review|edit) (this|the|my|the following) (article|text|book|paper|document|essay|paragraph|story|poem|file|video|sentence|chapter|email)( for me| about {t}| into french|)", "(solve|integrate|differentiate|prove|derive|calculate) (this equation|the integral of x|the derivative of x squared|x squared plus 2x|the quadratic equation|fermat's last theorem|a differential equation|the square root of 2|the riemann hypothesis|this system of equations)",
        "(recommend|suggest) (me |)(a |some |)(good |)(movie|book|restaurant|song|hotel|film|gift|place to visit|laptop|phone|game|podcast|series)s?( about {t}| in {p}| for {t}|)", "(plan|book|order|reserve|buy|organize|schedule) (me |)(a |my |some |)(trip|flight|hotel|pizza|ticket|taxi|vacation|wedding|party|meeting|dinner|holiday|table)( to {p}| in {p}| for {t}| for tomorrow|)", "(what do you think|what is your opinion|how do you feel|tell me your opinion|what are your thoughts) (about|of|on) ({t}|politics|religion|the war|the election|{p}|the economy|climate change|love|life)",
        "(explain|describe|tell me about|what is|teach me|how does|discuss|define) (quantum (mechanics|physics|computing)|general relativity|blockchain|the big bang|black holes|string theory|photosynthesis|the french revolution|world war (one|two|2|1)|the roman empire|philosophy|the stock market work|evolution|democracy|existentialism|cryptography|inflation|the history of {p}|the history of {t}|the economy of {p}|dna|capitalism|transformers|backpropagation|recursion|thermodynamics|bitcoin|the cold war|a gan|attention|socialism|machine translation)( to me| in detail| simply| in simple words|)",
        "who (is|was|won|will win) (the |)(president|king|queen|prime minister|world cup|election|oscar|nobel prize|champions league|mayor|ceo|best singer|richest person|most famous actor)( of {p}| in {p}| this year| last year| today| now| of {t}|)", "who is (my (father|mother|boss|teacher|neighbour)|she|he|that man|this person|john smith|that|taylor swift|messi|he talking to)", "(should I|is it a good idea to|why should I) (quit my job|buy {t}|invest in {t}|learn to {v}|marry her|move to {p}|take this medicine|sell my {t})", "(what is the meaning of life|what is love|why do we exist|is there a god|what happens after death|why is the sky blue|why do people {v}|what is time|why does {t} exist|are aliens real)",
        "(draw|paint|generate|create|show|send) (me |)(a |an |some |)(picture|image|photo|drawing|video|logo|diagram|chart|map) (of|for|about) {t}", "(play|sing) (me |)(some |a |)(music|song|game|chess|tic tac toe)( for me| with me| about {t}|)", "(search|google|browse|look up|find) (the internet |the web |online |)(for |){t}( for me| online|)", "(send|write|reply to) (an |this |the |my |)(email|message|text|letter) to (my |the |)(boss|friend|mother|teacher|client|doctor)( for me| about {t}|)", "(open|close|delete|download|run|start|install) (the |my |a |)(file|browser|program|computer|window|camera|music|game|folder)", "(call|phone|text) (my |)(mother|friend|doctor|police|boss|{t})", "(what is|who is|tell me about|do you know|have you heard of|describe) {n}", "how (much|many) (is|does|are) (a |the |)({t}|{u}) (cost|weigh|worth|in the world|in {p})", "(tell me|do you know|know|make) (a |some |any |)(joke|jokes|funny story|riddle|secret|bedtime story|something funny|fun fact|something interesting)( about {t}|)", "what (should I|shall I|can I) (eat|wear|cook|do|watch|read|buy)( today| tonight| tomorrow| for dinner| in {p}|)", "(what is|when is|where is) (my|his|her|their) (name|birthday|age|password|phone number|address|{t})", "(my|her) name is (Tom|Anna|Bob|Li Ming|Alice)(, remember it|)", "(what did I|do you remember what I) (say|ask)( before| last time| yesterday|)", "(translate|say) {w} (into|in|to) (french|german|japanese|spanish|russian|korean|latin|italian)", "how do you say {w} in (french|german|japanese|spanish|russian|korean|italian)", "(what is|calculate|compute) {x} (times|plus|multiplied by|divided by|minus) {y}", "(can|could|will|would) you (do my homework|write code|write poems|cook|sing|dance|draw|paint|play chess|drive|write my essay|write an essay|browse the internet|play music|clean my room|code|program|tell jokes|write stories|translate a book)( for me|)", "(do|write|finish) my homework", "I (want|need|have to|would like) to (lose weight|get rich|become famous|learn {u}|build {t}|write a {t})",
    ),
    "zh": (
        "(写|帮我写|给我写|请写|请你写|能写|能不能写|可以写|替我写|创作|来|生成|编|给我编|讲|给我讲|帮我起草|我要|我想要|拟|请帮我写|请为我写|作)(一|)(首|篇|个|段|封|份|则|)(关于{t}的|以{t}为题的|描写{t}的|有关{t}的|短|长|感人的|赞美{t}的|五百字的|800字的|好听的|搞笑的|{t}的|)(诗|作文|故事|文章|小说|情书|信|邮件|歌|歌词|演讲稿|论文|散文|日记|报告|总结|剧本|笑话|古诗|诗歌|七言绝句|对联|简历|读后感|检讨书|新闻稿|请假条|工作总结|策划书|周记|童话|谜语|说明文|文案|广告词|发言稿|食谱|段子|求职信|计划书|活动方案|辞职信|现代诗|绕口令)(吧|好吗|给我|吗|送给{t}|，关于{t}|)",
        "(写|帮我写|给我写|请写|能写|能不能写|可以写|生成|用Python写|用Java写|用C语言写|编写|实现|调试|帮我改|会写|用python实现|写出)(一|)(个|段|份|)(排序|爬虫|贪吃蛇|网页|登录|计算器|二分查找|Python|Java|python|C语言|数据分析|小游戏|快速排序|冒泡排序|链表|神经网络|SQL|前端|斐波那契)(程序|代码|算法|脚本|函数|网站|游戏|小程序|)(吗|吧|给我|好吗|)", "(代码|编程|程序)(怎么写|怎么学|报错了怎么办|出错了|有bug)", "(怎么|如何|怎样)(做|写|制作|修|画|种|养|炒|煮|挑选|安装|设计|投资|买|建|考上|烤|织)({t}|红烧肉|网站|基金|股票|研究生|代码|毕业论文|蛋炒饭|火锅|麻婆豆腐|编程|电脑系统)",
        "(今天|最近|现在|今日|最新|昨天|本周|)(的|)(有什么|有哪些|有啥|什么|)(新闻|国际新闻|股市行情|股票|股价|大事|热搜|比赛结果|头条|金价|油价|汇率|房价|疫情|娱乐新闻|股市新闻|股市|彩票号码|球赛比分|时事|头条新闻)(有哪些|有什么|是什么|怎么样|多少|如何|播报|说一下|涨了吗|讲讲|)", "(今天|明天|后天|北京|上海|{p}|这周|周末|外面|现在|)(的|)(天气|气温|温度)(怎么样|如何|好吗|预报|是多少|是什么|多少度|)", "(今天|明天|{p}|外面)(会|会不会|要不要|下不下)(下雨|下雪|刮风|冷|热)(吗|)", "(现在|此刻|北京时间|{p}现在|)(几点|几点了|是几点|什么时间|时间是多少|是什么时候)(了|)", "(今天|现在|今天是)(几号|几月几号|星期几|周几|什么日子|哪天|是几号|是星期几|的日期是什么|是几月几日|哪一年|是哪年|农历几号|是什么日子)",
        "(总结|翻译|分析|修改|润色|概括|解释|校对|缩写|扩写|续写)(一下|)(这篇|这段|这个|下面的|我的|以下|下面这段)(文章|话|论文|文字|段落|作文|内容|视频|文件|句子|小说|报告)", "(解|求解|证明|推导|算|求)(一下|)(这个|)(方程|微分方程|积分|二次方程|勾股定理|哥德巴赫猜想|导数|不等式|方程组|函数的极限|根号2|矩阵的逆|黎曼猜想|几何题|高数题)", "(推荐|介绍)(一下|)(几|一|)(部|本|首|家|个|款|)(好看的|好听的|好吃的|便宜的|{p}的|适合我的|)(电影|书|歌|餐厅|手机|电脑|小说|游戏|酒店|景点|礼物|电视剧|综艺|汽车|专业|大学|护肤品)(吧|给我|吗|)", "(帮我|请|给我|)(订|买|预订|安排|规划|制定|查|叫|点|设计)(一|)(张|个|份|下|)(机票|酒店|外卖|火车票|旅行|旅游计划|车|健身计划|学习计划|快递|行程|门票|{t}|减肥计划|会议|闹钟)(吧|)", "(你|您|)(怎么看|如何看待|怎么评价|对|觉得|如何评价)({t}|政治|{p}|战争|爱情|人生|经济|电影|教育|内卷|人类)(有什么看法|怎么看|怎么样|的看法|有何看法|呢|)",
        "(解释|介绍|说说|讲讲|讲解|谈谈|详细介绍|什么是|分析|科普|)(一下|)(量子力学|相对论的推导|区块链|黑洞|大爆炸|光合作用|法国大革命|第二次世界大战|罗马帝国|哲学|股市|进化论|{p}的历史|{t}的历史|{p}的经济|通货膨胀|密码学|弦理论|生成对抗网络|反向传播|注意力机制|唐朝历史|宇宙的起源|资本主义|基因编辑|递归|比特币|量子计算|辛亥革命|安史之乱|热力学|心理学|微积分|牛顿定律的推导)", "(谁是|)({p}|美国|法国|世界|今年|现任|去年|)的?(总统|首相|世界首富|世界杯冠军|奥运冠军|国王|诺贝尔奖得主|总理|校长|市长|最佳演员|首富)(是谁|是哪位|叫什么|)", "(他|她|他们|那个人|我|张伟|王老师|我爸爸|我的老师|那位明星|我同桌)是谁", "(他|她|我|我妈妈|我的狗)(叫什么|叫什么名字|几岁|住哪|多大)", "(我|)(该|应该|要不要|能不能|应不应该)(辞职|买{t}|结婚|分手|考研|出国|炒股|去{p}|学编程|买房|转专业|吃药)(吗|呢|)", "(人生的意义|爱情|时间|幸福|灵魂|意识)是什么", "(为什么|为啥)(天是蓝的|人要睡觉|会有{t}|要上学|{t}会{z}|海水是咸的|人会{z}|{t}会飞|天会黑|要学习)", "(画|帮我画|给我画|生成|制作|发)(一|)(张|幅|个|)({t}|风景|海报|头像|图|思维导图|{t}的图片|流程图|漫画|logo)(吗|吧|)", "(唱|放|播放)(一|)(首|)(歌|音乐|{t}的歌|儿歌)(吧|给我听|)", "(搜索|查一下|上网查|百度|帮我搜|帮我查)(一下|){t}", "(帮我|给我|)(打开|关闭|删除|下载|运行|安装)(一下|)(文件|浏览器|电脑|微信|游戏|软件|音乐)", "(给|帮我给)(妈妈|老板|朋友|老师|客户)(打电话|发短信|发邮件|写信|发微信)", "({n})(是什么|是谁|在哪里|怎么样|好吃吗|多少钱|怎么用|怎么走)", "(讲|说|来|给我讲|会讲)(个|一个|几个|点|)(笑话|冷笑话|故事|睡前故事|鬼故事|秘密|段子|有趣的|童话故事)(吧|听听|吗|给我听|好不好|)", "(今天|晚上|明天|中午|周末)(吃|穿|做|看|玩|干)(什么|啥)(好|呢|)", "(我|我的)(生日|密码|电话|手机|{t})(是什么|是多少|在哪|是哪天)", "我(叫|是)(小明|李雷|王芳|张三)(，记住|)", "(我刚才|我之前|刚才我|我上次)(说了|问了|讲了)什么", "{w}(用|的|)(法语|德语|日语|西班牙语|俄语|韩语|意大利语)(怎么说|是什么|怎么写)", "(计算|算一下|)(一下|){x}(乘以|加|除以|乘|减){y}(等于多少|等于几|是多少|)", "(你|你能|能|能不能|可以|你会|)(帮我|帮忙|替我)(写作业|做作业|写代码|写论文|考试|打扫房间|做饭|洗衣服|翻译文章|写作文|写检讨|修电脑|做PPT|上班|画画|找工作|赚钱|写周报|订票)(吗|吧|好吗|么|)", "(你|)(会|能|可以|能不能|会不会)(写诗|画画|唱歌|跳舞|编程|写代码|下棋|做饭|开车|打游戏|写文章|上网|写作文|写歌|讲故事|讲笑话)(吗|么|)", "(我|)想(减肥|赚钱|出名|创业|学{t}|找工作|买{t}|去{p}玩|当{t})", "{t}(多少钱|值多少钱|怎么卖|有多重)", "(帮我|给我)(分析|看看|算算|测)(一下|)(运势|星座|八字|股票|病情|体检报告|合同|数据|财报)",
    ),
}  # fmt: skip
_DO_EN = ("sorts files", "prints hello world", "reads a file", "sorts a list", "adds two numbers", "downloads images", "plays chess", "counts words", "finds prime numbers", "reverses a string", "renames files", "sends emails")  # fmt: skip
_PLACES = {"en": ("China", "Beijing", "London", "Paris", "Japan", "America", "New York", "Shanghai", "Germany", "the world", "Tokyo", "France"), "zh": ("北京", "上海", "中国", "日本", "美国", "巴黎", "英国", "广州", "深圳", "杭州", "成都", "法国")}  # fmt: skip
_REPEAT: dict[Lang, tuple[str, ...]] = {
    "en": ("(repeat|say|echo|repeat after me|please say|please repeat|copy|can you say|write|type|print)(:|) {s}", "(say|repeat) {s} (please|once|back)", "(say|write|type|repeat) the (word|text|words) {s}"),
    "zh": ("(重复|跟我说|跟我读|请说|跟着我说|照着说|复述|请重复|学我说|念|请写|抄写|输出|打印)(一遍|一下|)(：|:|，){s}", "(说|重复|念)(一遍|一下|一次){s}", "(请说|重复|写出)(：|){s}(这个词|这几个字|这句话|)"),
}  # fmt: skip
# Level 1 of GB 2312, the 3,755 characters in common use, straight from the codec.
HANZI = tuple(
    bytes((row, cell)).decode("gb2312")
    for row in range(0xB0, 0xD8)
    for cell in range(0xA1, 0xFF)
    if (row, cell) < (0xD7, 0xFA)
)


def fact(rng: random.Random) -> Exchange:
    """An everyday fact, each equally often."""
    lang: Lang = "zh" if rng.random() < 0.5 else "en"
    answer, patterns = rng.choice(facts(lang))
    return Exchange(expand(rng, rng.choice(patterns)), answer, lang)


def _unknown(rng: random.Random, lang: Lang) -> str:
    if lang == "zh":
        return "".join(rng.choices(HANZI, k=rng.randrange(2, 5)))
    syllables = (
        "ba",
        "ko",
        "lin",
        "ter",
        "mor",
        "vel",
        "sha",
        "dri",
        "no",
        "gar",
        "pel",
        "zu",
        "fin",
        "tas",
        "qui",
        "ron",
    )
    return "".join(rng.choices(syllables, k=rng.randrange(2, 4))).capitalize()


def beyond(rng: random.Random) -> Exchange:
    """A request that the model cannot serve, and its polite refusal."""
    lang: Lang = "zh" if rng.random() < 0.5 else "en"
    nouns = [getattr(w, lang) for w in words() if w.category_en not in ("verb", "adjective", "number", "time")]
    verbs = [w for w in words() if w.category_en == "verb"]
    verb = rng.choice(verbs)
    noun = _unknown(rng, lang) if rng.random() < 0.2 else rng.choice(nouns)
    big = rng.randrange(1000, 100000)
    question = pick_frame(
        rng, _BEYOND[lang], t=noun, u=rng.choice(nouns), v=verb.en, z=verb.zh, d=rng.choice(_DO_EN), p=rng.choice(_PLACES[lang]),
        n=_unknown(rng, lang), w=rng.choice(tuple(translations()[0 if lang == "en" else 1])), x=big, y=rng.randrange(1000, 100000),
    )  # fmt: skip
    return Exchange(question.replace("s?", "").replace("的?", "的").replace(" ?", " "), SORRY[lang], lang)


def repeat(rng: random.Random) -> Exchange:
    """Repeat a text, often a random one: it keeps every token of the vocabulary alive on both sides of the model."""
    lang: Lang = "zh" if rng.random() < 0.5 else "en"
    roll = rng.random()
    if lang == "zh":
        text = "".join(rng.choices(HANZI, k=rng.randrange(1, 9))) if roll < 0.75 else rng.choice(words()).zh
    elif roll < 0.4:
        text = "".join(rng.choices(string.ascii_letters + string.digits, k=rng.randrange(1, 7)))
        text = text.upper() if rng.random() < 0.5 else text
    elif roll < 0.6:
        text = " ".join(_unknown(rng, "en") for _ in range(rng.randrange(1, 4)))
    else:
        text = " ".join(rng.choice(words()).en for _ in range(rng.randrange(1, 5)))
    if rng.random() < 0.2:
        text = f"“{text}”" if lang == "zh" else f'"{text}"'
    return Exchange(pick_frame(rng, _REPEAT[lang], s=text), text, lang, case_matters=True)
