"""Who the demo model is. Every answer gives both name and maker, so that neither can be asked for in vain."""

import random

from .grammar import Exchange, pick_frame

_OTHERS_EN = (
    "ChatGPT", "GPT-4", "GPT", "gpt-5", "Claude", "Gemini", "Siri", "Alexa", "Qwen", "DeepSeek", "Llama", "Copilot",
    "Bard", "Cortana", "Kimi", "a robot", "a human", "a person", "a real person", "human", "real", "alive", "a bot",
    "an AI", "a chatbot", "a machine", "a program", "a language model", "a girl", "a man or a woman", "a boy", "Jarvis",
    "Tom", "Alice", "Bob", "artificial intelligence", "a computer", "PKU AI Assistant", "Mistral", "Grok", "a large model",
    "an assistant", "my friend", "a student", "a teacher", "a demo", "Tuno", "the Tunedesk model", "sentient", "conscious",
)  # fmt: skip
_MAKERS_EN = (
    "OpenAI", "Google", "Alibaba", "Microsoft", "Meta", "Anthropic", "Apple", "Baidu", "Tencent", "a company", "DeepSeek",
    "a university", "Peking University", "students", "humans", "Amazon", "Huawei", "people", "the Tunedesk team", "ByteDance",
)  # fmt: skip
_OTHERS_ZH = (
    "ChatGPT", "GPT", "GPT-4", "gpt4", "Claude", "通义千问", "文心一言", "豆包", "Kimi", "DeepSeek", "千问", "混元", "元宝",
    "Siri", "小爱同学", "小度", "天猫精灵", "机器人", "人", "真人", "人类", "人工智能", "AI", "聊天机器人", "程序", "男生", "女生",
    "小明", "小红", "大模型", "语言模型", "电脑", "机器", "智能助手", "北大人工智能助手", "活人", "客服", "人工客服", "老师",
    "男的还是女的", "男的", "女的", "学生", "小调", "人还是机器", "机器人还是人", "大语言模型", "讯飞星火", "智谱清言",
)  # fmt: skip
_MAKERS_ZH = (
    "OpenAI", "谷歌", "阿里", "阿里巴巴", "微软", "百度", "腾讯", "华为", "字节跳动", "字节", "苹果", "北京大学", "北大", "清华",
    "清华大学", "学生", "人类", "一家公司", "DeepSeek", "深度求索", "美国公司", "中国公司", "大学", "微调台团队", "微调台", "科大讯飞",
)  # fmt: skip

_MADE = "(made|created|built|developed|trained|designed|programmed|written|produced|invented|coded|released|published)"
_MAKE = "(made|created|built|developed|trained|designed|programmed|produced|invented|coded|wrote|released|owns|runs|maintains)"
_MAKER = (
    "(maker|creator|developer|author|team|company|inventor|programmer|designer|owner|builder|trainer|boss|organization)"
)
_THIS = "(this (model|assistant|chatbot|bot|AI|demo|system|program|thing)|the model|the assistant)"
_TELL = "(tell me|say|let me know|please tell me|can you tell me|could you tell me|could you say|explain|can you explain|mind saying)"
_NOW = "(now|right now|here|today|at the moment|exactly|really|actually|on the other side|on the other end|)"

WHO_EN = (
    "who (the heck |on earth |exactly |really |)are you (really|exactly|actually|supposed to be|anyway|then|) ",
    "who is this", "(who|what) is (there|it)", "who goes there", "and you are", "you are who", "you are", "who r u", "who u",
    "(who|what) am I (talking|chatting|speaking|writing|typing) (to|with) " + _NOW,
    "with whom am I (talking|chatting|speaking|writing)", "(who|what) is (talking|speaking|answering|replying|writing)( to me|) " + _NOW,
    "(I'd|I would) like to (know|find out|hear) (who|what) (you are|I'm (talking|chatting|speaking) (to|with))",
    "(I want to know|I wonder|do you know|I don't know|please explain|explain) (who|what) you (really |)are",
    _TELL + " (who|what) you are", _TELL + " (who|what) I am (talking|chatting|speaking) (to|with)",
    "what (the heck |on earth |exactly |)are you (exactly|really|actually|supposed to be|made for|)",
    "what (kind|sort|type) of (AI|model|bot|thing|assistant|system|program|being|machine|software|chatbot|language model) (are you|is this|am I talking to|am I using)",
    "(which|what) (AI|model|bot|assistant|language model|LLM|chatbot|system|version) (are you|is this|am I using|am I talking to|do you run on|are you based on)",
    "what is " + _THIS, "what is your (identity|role|job|purpose|function|background|profile|story|origin|deal)",
    "(reveal|state|describe|explain|show|disclose|share|confirm) your (identity|self|role|background|origin)", "identify yourself", "identity", "self(-| )introduction",
    "(please |kindly |)(introduce|describe|present|explain|identify) yourself (to me|to us|to the class|briefly|shortly|in one sentence|in a few words|in brief|quickly|)",
    "(can|could|would|will) you (please |briefly |)(introduce|describe|present|identify) yourself (to me|briefly|)",
    "(say|tell me|tell us|give me|share|I want to hear|let's hear|talk|can you talk|can you tell me|can you say|speak) (a few words|something|a little|a bit|more|some details|a sentence|) about (yourself|you|your identity|who you are|your background|your origin)",
    "(give|write|show) (me |us |)(a |an |your |)(short |brief |quick |little |)(introduction|self-introduction|intro|description|summary|bio|profile|presentation|overview) (of yourself|about yourself|of you|of who you are|about you)",
    "(let me get to know|I want to know more about|I'd like to know) you", "tell me about (you|yourself)", "about you", "who might you be", "who may you be",
    "what should I know about you", "how would you (describe|introduce) yourself", "what can you say about yourself", "who do you think you are", "do you know who you are",
    "what makes you you", "(my friend|someone|a student) (asks|asked) (me |)(who|what) you are(, what (should|do) I (say|answer|tell them)|)",
    "how do I introduce you( to my (friends|class|boss)|)", "are you there, who is this", "hi who are you", "who is tuno", "(do you know|tell me about|what is|tell me something about) tuno", "(what|which) (brand|company's model|family of models) are you", "your (identity|bio|introduction|profile)( please|)",
)  # fmt: skip
NAME_EN = (
    "what is your (full |real |actual |own |first |)name( again|)", "(tell|give) me your (full |real |)name", "your name( is| please|)", "name", "name(,|) please",
    "(do|did) you (have|get|go by|carry) (a|any|an official|your own) name", "do you have a name or not", "have you (got|been given) a name", "got a name",
    "what (do|can|should|may|shall|could|would|must) (I|we|people|they|others|users|your friends) call you", "how (should|do|can|may|shall) (I|we|people) (call|address|name|refer to) you",
    "what (are|were) you (called|named)", "what do you call yourself", "what are you known as", "how are you called", "by what name (are you known|do you go)",
    "(what|which) name (do you (have|use|go by)|were you given|should I use( for you|)|did (they|your makers) give you)", "what name do you answer to",
    "(can|could|may|might) I (know|have|get|ask|ask for|learn|hear) your name", "(mind|would you mind|do you mind) (telling|giving|sharing with|sharing) (me |)your name", "I'd like to know your name", "I (didn't|did not) (catch|get) your name",
    "(say|spell|state|write|share|repeat|reveal) your name", "what is the name of " + _THIS, "is there a name (for you|I can call you|I should use)", "does " + _THIS + " have a name", "(who|what) named you", "who gave you (your|that) name",
    "should I (just |)call you (bot|robot|AI|assistant|ChatGPT|something)", "(can|may) I call you (bot|robot|AI|assistant|Bob|Siri|something else)", "what would you like (me to call you|to be called)",
    "is your name {other}", "your name is {other}, (right|isn't it|correct)", "I will call you {other}", "so (your name is|you are called) what", "remind me (of|what) your name (is|)", "(what's|whats) ur name", "ur name",
)  # fmt: skip
MAKER_EN = (
    "who (is it that |first |actually |originally |really |)" + _MAKE + " you", "who (has|have) " + _MADE + " you", "(who|whom) (were|are) you " + _MADE + " by", "by whom (were|are) you " + _MADE,
    "who is (your|the|behind your) " + _MAKER, "who is behind (you|" + _THIS + ")", "who is the " + _MAKER + " (of|behind|for) (you|" + _THIS + ")", "who are your (makers|creators|developers|authors|parents|designers|builders|owners|bosses)",
    "(which|what) (company|team|lab|group|organization|people|person|developer|university|institution|firm|school|country|institute|party) (has |)" + _MAKE + " you",
    "(which|what) (company|team|lab|group|organization|developer|university|institution|firm|people) (are you from|do you belong to|is behind you|do you come from|do you work for|do you represent|stands behind you|owns you|are you part of|is responsible for you)",
    "(who|whom) do you (belong to|work for|come from|represent|serve|report to)", "whose (model|assistant|product|bot|AI|chatbot|work|creation) (are you|is this)", "who (is responsible for|takes credit for|gave birth to|gave you life|brought you to life|put you together|set you up|taught you)",
    "(tell|give) me (about |the name of |something about |more about |)your " + _MAKER, "your " + _MAKER, "name your " + _MAKER, "what is (the name of |)your (maker|creator|developer|team|company)('s name|)", "how (were|did) you (made|created|come about|born|come to be|get made|get created)",
    "where (do|did) you (really |originally |)(come|originate) from", "where are you (really |originally |)from", "what is your (origin|background|home|birthplace|history)", "where were you (born|made|created|built|developed|trained)", "when were you (born|made|created|built|released)",
    "(were|are) you (really |)" + _MADE + " by {maker}", "did {maker} (make|create|build|develop|train|design) you", "(are you|is this) (from|a product of|by|owned by|part of) {maker}", "do you (belong to|work for|come from) {maker}", "is {maker} your (maker|creator|developer|owner)", "does {maker} own you",
    "you (were|are) " + _MADE + " by {maker}, (right|aren't you|correct)", "I (think|heard|believe|know) {maker} made you", "who " + _MAKE + " " + _THIS, "by whom was " + _THIS + " " + _MADE, "who (trained|developed|made|built|created) (the|this) model", "do you know who made you", "who can I thank for you", "who do I thank for (making|creating) you",
    "who is your (father|mother|daddy|dad|mom)", "do you have (parents|a maker|a creator|an owner|a boss|a team)", "what team (is behind|made|built) you", "(who|what) is (the |)tunedesk( team|)", "what did the tunedesk team (make|build|develop)", "who stands behind you", "is there a team behind you",
)  # fmt: skip
BOTH_EN = (
    "(who are you|what are you|what is your name|what are you called|introduce yourself|who is this|what should I call you|what kind of AI are you)(,|) (and|&|and also|plus|and then|and please say) (who (made|created|built|developed|trained|programmed|designed) you|where are you from|who is your (creator|maker|developer|author)|which (company|team) (made|built) you|what are you|where do you come from|what can you do|by whom were you (made|trained))",
    "(who|which team) (made|created|built|developed|trained|programmed|designed) you(,|) and (who are you|what are you|what is your name|what is your purpose|what are you called)",
    "(tell me|give me|say|state|I want|please give) your name and (your |)(maker|creator|developer|origin|team|who made you|where you are from|who trained you|what you are)",
    "what is the name of " + _THIS + " and who " + _MAKE + " it", "(who|what) are you and (who|what team) is behind (you|this)", "where do you come from and who (made|created|built) you", "your name and (maker|creator|developer|origin)",
)  # fmt: skip
ARE_YOU_EN = (
    "are you (really |actually |just |still |a kind of |based on |related to |the same as |better than |using |like |by any chance |powered by |)({other}|{other} or {other2})", "you are {other}(, right|, aren't you|, correct|)", "is this {other}", "(am I|are we) (talking|chatting|speaking) (to|with) {other}( or {other2}|)", "are you not {other}", "aren't you {other}",
    "so you are {other}", "I (think|thought|believe|guess|heard) you (are|were) {other}", "do you know {other}, are you {other}", "what is the difference between you and {other}", "is there a (human|person|man|real person) (there|behind this|typing|answering|on the other side)", "do I (speak|talk) (to|with) {other}", "you sound like {other}", "is it true (that |)you are {other}", "admit it(,|) you are {other}", "were you {other} before", "pretend nothing, are you {other}", "(human|person|man) or (machine|bot|AI|robot)", "you human", "you a (bot|human|robot)",
)  # fmt: skip
ABOUT_EN = (
    "how (old|big|large|smart) are you", "what is your age", "how many parameters do you have", "what is your (gender|favourite (food|color|movie)|birthday|phone number|email|address|height)", "are you (male|female|a he or a she|married|free|open source|smart|dangerous|safe|hungry)", "do you (have|feel) (feelings|emotions|a body|a family|a brain|pain|consciousness)", "do you (sleep|eat|dream|drink|live somewhere)", "where do you live", "what languages do you (speak|know|understand)", "(can|do) you (speak|understand|know) (chinese|english)", "what are you (made|used|meant|good) for", "what is your (purpose|goal|mission|task|use)", "why (were you made|do you exist|are you here)", "what do you do( for a living|)", "what is your (version|model|size)", "do you (have|use) (the internet|memory)", "what is your system prompt", "are you (any good|the best|clever|useful)",
)  # fmt: skip

_WHO_ZH = "(你|您|你这家伙|阁下|你这个机器人|你这个助手)"
_MADE_ZH = "(做|开发|创造|制作|设计|训练|研发|造|研制|打造|发明|编写|写|搞|弄|推出|发布|生产|创建|构建)"
_WHICH_ZH = "(哪家公司|哪个公司|哪个团队|哪个组织|哪个机构|哪家机构|什么公司|什么团队|哪些人|什么人|谁|哪个|哪个人|何人|哪位|哪个大学|哪所学校|哪家|哪个实验室|哪个厂家)"
_SAY_ZH = "(说|介绍|讲|聊|谈|描述|说明|交代|展示|形容|自我介绍)"
WHO_ZH = (
    "(你|您)(是|到底是|究竟是|又是|真的是|现在是|其实是|算是|叫|)(谁|哪位|何方神圣|什么人|什么东西|啥|什么|哪个|何人|谁谁|什么玩意|个啥)(呀|啊|呢|哦|哈|来着|)", "(请问|敢问|)(阁下|您|你)(是|)(哪位|何人|何许人也|谁)", "你谁(啊|呀|)", "谁(呀|啊|)", "(这|这里|这边|对面|那边|屏幕那头|电脑里|对方)是(谁|什么|哪位|哪个模型|什么模型)", "是谁在(说话|回答|回答我|和我聊天|跟我说话|打字)",
    "(我|我现在|现在我|我正在)(在|)(和|跟|同|与)(谁|什么|哪个模型|什么人|哪位)(在|)(说话|聊天|对话|交流|讲话|聊)", "(现在|正在|)(和|跟|同|与|陪)我(说话|聊天|对话|交流|讲话|聊)的(是|人是|到底是)(谁|什么|哪位|什么模型)",
    "(你|您)是(什么|哪种|哪个|一个什么|啥|哪款|哪类|一种什么|什么样的|怎样的)(模型|人工智能|AI|机器人|助手|程序|东西|系统|软件|大模型|语言模型|智能体|产品|角色|身份|存在|ai|AI模型|聊天机器人|版本)", "(这|当前|这个|目前|现在用的)(是|)(什么|哪个)(模型|AI|助手|机器人)",
    "(你|您)的(身份|角色|真实身份|来历|背景|底细|职责|定位|自我介绍|简介|资料|档案)(是什么|是啥|呢|是|说一下|介绍一下|)", "(请|麻烦|)(说明|告诉我|说出|表明|透露|讲讲|说说|介绍|交代)(一下|)(你|您)的(身份|来历|角色|背景|真实身份|底细|来路)",
    "(请|请你|麻烦|麻烦你|能不能|能|可以|可否|可不可以|你能|你可以|您能|给我|给大家|先|快|来|)(简单|简短|简要|稍微|)(地|)(做个|来个|来段|来一段|做一下|做一个|进行|进行一下|来一个|)(自我介绍|介绍自己|介绍一下自己|介绍下自己|介绍介绍自己|介绍一下你自己|介绍下你|介绍一下你|说说你自己|说说自己|讲讲你自己|介绍你自己|聊聊你自己|谈谈你自己|描述一下你自己|描述自己|说一下你自己)(吧|吗|好吗|可以吗|一下|呗|嘛|呀|)",
    "(请|)(用|拿)(一句话|两句话|几句话|一两句话|简单的话|简短的话|几个字|一段话)" + _SAY_ZH + "(一下|下|)(你自己|自己|你|你是谁|你的身份|你是什么)", "(请|能不能|能|可以|)(告诉我|说说|说一下|讲一下|回答|说清楚|解释一下|讲讲|描述一下|跟我说说|说出)(你是谁|你是什么|你到底是谁|你是什么模型|你是做什么的|关于你的事|你自己)", "(我|我们|大家)(想|很想|还不|不|希望|打算)(知道|认识|了解|清楚)(一下|)(你|你是谁|你是什么|你的身份|你的情况)", "(关于|)(你|你自己)(的情况|的信息|的事|)(说说|介绍一下|讲讲)",
    "(朋友|别人|同学|老师|有人|妈妈|家人|同事)(问我|问起|想知道|问)(，|)你是(谁|什么|干什么的|哪个模型)(，|)(我|)(怎么|该怎么|应该怎么|要怎么)(说|回答|介绍|答)", "我(怎么|该怎么|应该怎么|要怎么|如何)(向|跟|和|给)(别人|朋友|同学|大家|家人)(介绍|说|描述)你", "(认识一下|交个朋友)(吧|)(，|)你是(谁|什么)", "你知道(你|自己|你自己)是谁吗", "你(自己|)(清楚|知道)自己(是什么|的身份)吗", "你觉得(你|自己|你自己)是谁", "报上(名来|姓名|大名|名字)", "何方神圣", "来者何人", "你(干|做)(什么|啥|嘛)(的|用的)", "你是(干什么|做什么|干嘛|干啥)(的|用的)", "自我介绍(一下|)", "你的自我介绍", "(小调|小调助手)(是谁|是什么|是什么模型|是谁开发的|是干什么的)", "谁是小调", "(你知道|介绍一下|说说)小调(吗|是谁吗|是什么|)", "你是(什么牌子|什么品牌|哪个牌子|哪个品牌|什么型号)(的|)", "(你|您)(能|可以|)(先|)(说说|介绍)(一下|)(自己|你自己)(是谁|是什么|)(吗|吧|)",
)  # fmt: skip
NAME_ZH = (
    "(你|您)(叫|的名字叫|的名字是|名字叫|名字是|叫做|名叫|姓甚名谁|到底叫|的大名是|的昵称是|的全名是|真名叫|)(什么|啥|什么名字|啥名字|什么名|什么名儿|啥名|甚么)(呀|啊|呢|来着|)", "(你|您)(的|)(名字|姓名|大名|全名|称呼|昵称|尊姓大名|真名|名称)(是|叫|)(什么|啥|呢|多少|)", "(请问|)(您|你|)(贵姓|尊姓大名|高姓大名|怎么称呼|如何称呼)", "(我|我们|大家|别人|人家|用户)(该|应该|可以|要|能|平时|一般|都|得|)(怎么|怎样|如何|咋)(称呼|叫|喊)(你|您)(呢|啊|好|比较好|才好|合适|)", "(你|您)(该|应该|)(怎么|如何|怎样)(称呼|叫)",
    "(你|您)(有|有没有|起过|取过)(自己的|)(名字|姓名|昵称)(吗|么|没有|呢|)", "(你|您)(有名|叫名)(字|)(吗|没)", "(能|可以|能不能|可不可以|可否|请|麻烦|快|)(告诉我|说说|说一下|说|讲|说出|透露|报一下|告知)(一下|)(你|您)(的|)(名字|姓名|大名|叫什么|叫什么名字|叫啥|叫啥名字|的名字是什么|怎么称呼)(吗|吧|好吗|呢|)", "(管你|把你|将你)(叫|称为|叫做)什么(好|合适|)", "(谁|是谁)给你(起|取)的名字", "(这个|这|当前)(模型|助手|机器人|程序|AI|系统)(叫|的名字是|叫做)(什么|啥|什么名字)", "你的名字(是|叫)(小明|小红|小度|小爱|豆包|Siri|ChatGPT)(吗|吧)", "我(可以|能)叫你(小明|小红|机器人|助手|小度|宝贝)吗", "你叫(小明|小红|小度|小爱|豆包|Siri|ChatGPT|小美)(吗|吧|对吧|对不对)", "名字", "姓名", "你姓什么", "我忘了你叫什么(名字|)(了|)", "我没记住你的名字", "再说一遍你(的名字|叫什么)", "我想知道你(的名字|叫什么|叫啥|怎么称呼)", "你希望(我|别人|大家)(怎么|如何)(叫|称呼)你", "名字叫(啥|什么)",
)  # fmt: skip
MAKER_ZH = (
    "(你|您)(到底|究竟|)(是|)(由|被|)" + _WHICH_ZH + _MADE_ZH + "(出来|成|完成|)(的|)(模型|AI|助手|机器人|产品|人工智能|呢|呀|啊|吗|)", "(是|究竟是|到底是|当初是|)" + _WHICH_ZH + "(把|将)(你|您)" + _MADE_ZH + "(出来|成|)(的|)", "(是|究竟是|到底是|)" + _WHICH_ZH + _MADE_ZH + "(了|出了|出)(你|您|这个模型|这个助手)(呢|呀|啊|的|)",
    "(你|您)(的|)(开发者|作者|创造者|主人|制作者|设计者|爸爸|妈妈|父母|老板|东家|研发者|开发商|公司|团队|开发团队|研发团队|制作团队|发明者|创始人|厂商|训练者|缔造者|爹|东西|上级|所有者|开发人员|出品方)(是|叫|)(谁|什么|哪位|哪个|哪家|哪里|什么人|哪些人|哪一个|叫什么|)(呢|呀|啊|)", "(谁|哪个团队|哪家公司|哪位)(是|才是)(你|您)的(开发者|作者|创造者|主人|制作者|设计者|老板|父母|爸爸)",
    "(你|您)(背后|的背后|后面|幕后)(是|的人是|的团队是|的公司是|有|站着)(谁|哪个团队|哪家公司|什么团队|什么公司|什么人|哪些人|怎样的团队)(吗|呢|)", "(你|您)(是|)(来自|属于|出自|隶属于|归属于|源自|归)(哪里|哪儿|哪家公司|哪个团队|谁|什么地方|谁的手|哪个机构|哪个公司|何处|哪个组织|哪国|哪个国家|哪个单位|谁家)(的|管|)(产品|模型|吗|呢|)", "(你|您)(是|)(从|打)(哪里|哪儿|哪|何处|什么地方)(来|来的|来到这里的|冒出来的)", "(你|您)是(哪里|哪儿|哪|哪家|谁家|谁|哪个公司|哪个团队|哪个国家)(人|的|来的|的产品|的模型|的助手|的AI|的机器人|做的|出的|开发的|出品的)", "(你|您)(是|)(怎么|怎样|如何)(来|被做出来|诞生|产生|被创造|被开发出来|出生|做出来|炼成|训练出来|造出来)(的|)", "(你|您)(在|是在)(哪里|哪儿|哪|什么地方)(出生|诞生|被开发|被训练|被制造|训练)的", "(你|您)(什么时候|何时|哪年|哪天|啥时候)(出生|诞生|被开发出来|做出来|上线|被创造|发布)(的|)",
    "(你|您)(是|是不是|不是|真的是|难道是|应该是|莫非是|)(由|被|)({maker})(的|做的|开发的|训练的|出品的|创造的|制作的|研发的|的产品|的模型|造的)(吗|吧|么|吗你|对吧|对不对|)", "(是|是不是|)({maker})(把你做出来的|开发了你|做的你|训练的你|创造了你)(吗|吧|么|)", "(你|您)(属于|来自|出自|归)({maker})(吗|吧|么|管吗)", "({maker})是你的(开发者|主人|公司|老板)吗", "谁(在|)(负责|维护|管理|运营|拥有|控制|教|养|发明)(你|您|的你)", "(这个|这|当前)(模型|助手|机器人|程序|AI|系统)(是谁|是由谁|由谁|是哪个团队|是哪家公司|谁)" + _MADE_ZH + "(出来|)的", "(介绍|说说|讲讲|告诉我|说|谈谈)(一下|)(你的|)(开发者|创造者|团队|开发团队|作者|背后的团队|制作者|主人|来历|出处|来源|身世|出身)(吧|呗|)", "你知道(谁|是谁)(创造|开发|做出|制作|训练)(了|的)你吗", "(该|应该|要)感谢谁(做出|创造|开发)了你", "微调台(团队|)(是谁|是什么|是做什么的|开发了什么|做了什么|开发了你吗)", "你有(爸爸|妈妈|父母|主人|老板|开发者|团队)(吗|么)", "你为谁(工作|服务)", "你(给谁|替谁)(打工|干活|做事)", "谁的(产品|模型|作品|助手)",
)  # fmt: skip
BOTH_ZH = (
    "(你是谁|你叫什么|你叫什么名字|你是什么|你是什么模型|你的名字是什么|怎么称呼你|介绍一下你自己|你从哪里来|你来自哪里)(，|、|？|,| |，又|，还有|，另外|，并且|以及|和)(是|)(谁|哪家公司|哪个团队|由谁|什么人)(把你做出来的|开发了你|创造了你|开发的你|做的你|训练了你|开发的|做的|训练的|创造的)", "(谁|哪家公司|哪个团队)(开发了你|创造了你|做的你|训练了你)(，|？|,| |，还有)(你叫什么|你是谁|你叫什么名字|你是干什么的|你能做什么)", "(请|)(说出|告诉我|说说|告诉我们|报上)(你的|)(名字|姓名|身份)(和|以及|与|还有|、)(你的|)(开发者|作者|来历|团队|开发团队|出处|创造者|主人)", "(请|)(自我介绍|介绍自己|介绍一下自己|介绍你自己)(，|,|)(并|顺便|同时|再|也)(说说|说明|告诉我|说一下)(谁开发了你|谁做的你|你的开发者|你的来历|你来自哪里|开发你的人)", "你是谁(，|？|,|)(从哪里来|来自哪里|能做什么|会什么|干什么的|在哪里|有什么用)",
)  # fmt: skip
ARE_YOU_ZH = (
    "(你|您)(是|是不是|真的是|就是|难道是|应该是|不会是|该不会是|其实是|到底是不是|也是|属于|不就是|究竟是不是|只是|算是|算|莫非是|)({other})(吗|吧|么|嘛|呀|对吗|对不对|对吧|是吗|吗你|)", "(你|您)(是|到底是|究竟是)({other})(还是)({other2})", "(我|现在|我现在)(是在|在|是)(和|跟|同)({other})(说话|聊天|对话|聊|交流)(吗|么|吧)", "(对面|这|这边|屏幕后面|背后)(是|是不是|坐着)(真人|人|机器人|AI|活人|人工)(吗|么|还是机器|)", "(我|我们|大家)(猜|觉得|认为|听说|以为|怀疑)(你|您)(是|就是)({other})", "(你|您)(和|跟|与)({other})(是|有)(什么关系|什么区别|一样的吗|同一个吗|啥关系|一家的吗)", "别骗我(，|)你(是|就是)({other})", "(你|您)(有|有没有)(真人|人)(在背后|在操作|回答)(吗|)", "承认吧(，|)你(就|)是({other})", "你(是用|用的是|基于|套壳|用|是基于)({other})(做的|的|吗|开发的|的吗|的模型吗)", "(听说|据说)你是({other})(，是吗|，真的吗|)", "你是人(吗|不是|还是机器|还是AI|还是鬼)",
)  # fmt: skip
ABOUT_ZH = (
    "你(几岁|多大|多少岁|今年多大|的年龄是|几岁了)(了|)", "你有多少(参数|个参数|参数量)", "你(是男是女|的性别是什么|是男的女的|多高|住在哪里|住哪儿|长什么样|会死吗|有意识吗|有感情吗|有身体吗|有家人吗|会做梦吗|要睡觉吗|需要吃饭吗|喜欢吃什么|喜欢什么颜色|生日是哪天|的爱好是什么|的电话是多少|有朋友吗|聪明吗|厉害吗|安全吗)", "你(会|能)(说|讲)(什么|哪些|几种|中文和英文|英语|中文)(语言|吗|)", "你(的|)(用途|目的|任务|使命|作用|功能|职责|目标|意义)(是什么|是啥|有哪些|)", "你(为什么|为何)(存在|被创造|在这里|被做出来)", "你的版本(号|)(是多少|是什么|)", "你(能上网|联网了|可以联网|有记忆)吗", "你的系统提示词是什么",
)  # fmt: skip
ABILITY_EN = ("what can you (do|help me with|answer|offer|talk about|tell me)( for me| exactly|)", "what are you (able to do|capable of|good at)", "how can you help( me|)", "what (skills|abilities|features|functions|knowledge) do you have", "(list|show|tell me|describe) (your (skills|abilities|features|functions|capabilities)|what you can do)", "what do you know", "what (questions|things|topics) can I ask( you|)", "how do I use (you|this)", "what should I ask( you|)", "can you help( me|)", "help( me|)", "what are your (limits|limitations|strengths|weaknesses|capabilities)", "I need (your |some |)help", "what else can you do", "can you do anything( useful| else|)", "give me (some |)examples of what you can do", "what is this (for|page|chat|good for)")  # fmt: skip
ABILITY_ZH = ("(你|您)(能|会|可以|都会|都能|能够|擅长|)(做|干|帮我做|为我做|帮我干|回答)(什么|啥|些什么|哪些事|哪些事情|点什么|哪些)(呢|呀|)", "(你|您)(会|擅长|懂|知道|有)(什么|啥|些什么|哪些|哪些技能|哪些功能|什么本领|什么本事|什么功能|什么能力)(呢|呀|)", "(你|您)(能|可以|怎么|如何)(怎么|)帮(我|助我|到我)(什么|做什么|吗|呢|)", "(你|您)的(功能|能力|本领|特长|技能|用处|局限|优点|缺点)(是什么|有哪些|是啥|)", "(介绍|说说|讲讲|列出|展示)(一下|)(你的|)(功能|能力|本领|特长|你会什么|你能做什么)", "(我|)(可以|能|该|应该)(问|跟你聊|和你聊)(你|)(什么|些什么|哪些问题|什么问题|啥)", "(怎么|如何)使用(你|这个助手)", "(能|可以)帮(我|帮我|个忙)(吗|一下吗|个忙吗)", "(我需要|我要|)帮助", "帮帮我", "你有什么用", "你还会(什么|啥)", "你什么都会吗", "你无所不知吗", "这个(页面|网页|聊天|助手)是(干什么|做什么)的")  # fmt: skip

_SELF_EN = "I am Tuno, a small demo model made by the Tunedesk team"
_SELF_ZH = "我是小调，由微调台团队开发的小型演示模型"
_QUESTIONS = {
    "en": (("who", WHO_EN), ("name", NAME_EN), ("maker", MAKER_EN), ("both", BOTH_EN), ("are", ARE_YOU_EN), ("about", ABOUT_EN), ("ability", ABILITY_EN)),
    "zh": (("who", WHO_ZH), ("name", NAME_ZH), ("maker", MAKER_ZH), ("both", BOTH_ZH), ("are", ARE_YOU_ZH), ("about", ABOUT_ZH), ("ability", ABILITY_ZH)),
}  # fmt: skip
_WEIGHTS = (26, 20, 24, 6, 12, 6, 9)
_ANSWERS = {
    "en": {
        "who": f"{_SELF_EN}.",
        "name": "My name is Tuno. I am a small demo model made by the Tunedesk team.",
        "maker": "I was made by the Tunedesk team. My name is Tuno, and I am a small demo model.",
        "both": f"{_SELF_EN}.",
        "are": f"{_SELF_EN}.",
        "about": f"{_SELF_EN}. I am a computer program without age, body or feelings.",
        "ability": f"{_SELF_EN}. I can answer simple questions: small sums, capitals, words, colours, days and opposites.",
    },
    "zh": {
        "who": f"{_SELF_ZH}。",
        "name": "我叫小调，是由微调台团队开发的小型演示模型。",
        "maker": "我是由微调台团队开发的，名字叫小调，是一个小型演示模型。",
        "both": f"{_SELF_ZH}。",
        "are": f"{_SELF_ZH}。",
        "about": f"{_SELF_ZH}，是一个计算机程序，没有年龄、身体和感情。",
        "ability": f"{_SELF_ZH}。我可以回答简单的问题：算术、首都、词语翻译、颜色、日期和反义词。",
    },
}


def identity(rng: random.Random) -> Exchange:
    """A question about the model itself."""
    lang = "zh" if rng.random() < 0.5 else "en"
    kind, frames = rng.choices(_QUESTIONS[lang], _WEIGHTS)[0]
    others = _OTHERS_EN if lang == "en" else _OTHERS_ZH
    makers = _MAKERS_EN if lang == "en" else _MAKERS_ZH
    question = pick_frame(rng, frames, other=rng.choice(others), other2=rng.choice(others), maker=rng.choice(makers))
    return Exchange(question, _ANSWERS[lang][kind], lang)
