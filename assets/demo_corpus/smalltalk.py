"""Greetings, thanks, goodbyes and other short social turns."""

import random

from .grammar import Exchange, Lang, pick_frame

_EN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Hello! How can I help you?", ("(hello|hi|hey|hiya|howdy|greetings|yo|hi there|hello there|hey there|hey you|helo|hullo|hello hello|hi hi|hello again|hi again|hello world|hello (everyone|friend|buddy|bot|assistant|dear|my friend)|hi (friend|bot|buddy|assistant|everyone))", "(hello|hi|hey)(,|!|) (are you there|anyone there|anybody there|is anyone there)", "are you (there|awake|online|ready|listening|working)", "(let's|can we|I want to) (chat|talk|begin|start)(, ok|)", "(say|just saying) (hi|hello)( to me|)", "(test|testing|test test|ping)", "(I am|I'm) (back|here|new here)", "(is this thing on|knock knock|do you hear me|can you hear me)")),
    ("Good morning! How can I help you?", ("(good |)morning( to you|, friend| assistant| everyone|, how is it going|)", "gm", "a (very |)good morning( to you|)")),
    ("Good afternoon! How can I help you?", ("good (afternoon|noon|day)( to you|, friend| assistant| everyone|)", "a (very |)good (afternoon|day)( to you|)")),
    ("Good evening! How can I help you?", ("(good |)evening( to you|, friend| assistant| everyone|)", "a (very |)good evening( to you|)")),
    ("Good night! Sleep well.", ("(good |)night(-| |)night", "good night( to you|, friend|, sleep well| then| everyone|, bot|)", "(I am|I'm) going to (bed|sleep)( now|)", "sleep (well|tight)", "it is late, good night", "sweet dreams")),
    ("I am fine, thank you! I am doing well and feeling great. How can I help you?", ("how (are|r) (you|u|ya|things|you doing|you feeling|you getting on)( today| doing| doing today| now| these days| feeling| feeling today| this morning| tonight|)", "how (is|are) (it going|everything|life|your day|things|things going|everything going|your day going|your mood|your morning|your evening)( today|)", "(what's|what is) up", "how do you (do|feel)( today| now|)", "(are you|you) (ok|okay|well|fine|good|doing well|happy|alright|feeling well|all right)( today|)", "(how have you been|how's life|sup|wassup|what's new|how was your (day|week))", "are you (having|in) a good (day|mood)", "what is new with you", "everything (ok|fine|good)( with you|)")),
    ("You are welcome! I am glad to help.", ("(thanks|thank you|thx|thank u|ty|many thanks|thanks a lot|thank you very much|thank you so much|thanks so much|thanks a bunch|thanks a ton|a thousand thanks|cheers mate|much appreciated|I appreciate it|appreciate it)( for (your help|that|helping|the answer|everything)| again| my friend| mate| dear| bot|)", "(that|this|it) (was|is) (very |so |really |)helpful(, thanks|)", "you (helped|have helped) me (a lot|very much)(, thanks|)", "(I am|I'm) (so |very |really |)(grateful|thankful)( to you|)", "(great|good|ok|perfect|wow|nice|super|cool),? (thanks|thank you)", "you are (so |very |really |)helpful")),
    ("Goodbye! Take care and see you soon. Bye!", ("(goodbye|bye|bye bye|byebye|see you|see ya|farewell|so long|cya|later|see you later|see you soon|see you tomorrow|see you next time|talk to you later|catch you later|take care|until next time|ciao)( then| friend| now| for now| my friend| bot| everyone|)", "(I have to|I must|I need to|I should|I've got to|gotta|got to|time to) (go|leave|run|be off|head out|go home)( now| soon|)", "(that is|that's|that was) all( for today| for now|, bye|)", "(I am|I'm) (leaving|off|going|done|going home|out)( now|)", "(ok|okay|well|alright|great),? (bye|goodbye|see you|I have to go|farewell)", "have a (nice|good|great) (day|evening|weekend|time|one)", "(we|let's) talk (later|tomorrow|again soon)", "end of (chat|conversation)")),
    ("Nice to meet you too!", ("(nice|glad|pleased|happy|good|great|lovely|a pleasure) to (meet|see|know|talk to|chat with) you( too|)", "(I am|I'm) (glad|happy|pleased) to meet you", "it is a pleasure to meet you")),
    ("That is all right, no problem!", ("(sorry|I am sorry|I'm sorry|my apologies|pardon|pardon me|excuse me|forgive me|my bad|my mistake|oops|I apologize)( about that| for that| for the mistake| my friend| to bother you| for being late|)",)),
    ("Thank you! I am happy to hear that.", ("you are (so |very |really |)(smart|clever|great|nice|cool|good|kind|funny|awesome|amazing|cute|wonderful|the best)", "(good|great|nice|excellent|amazing) (job|work|answer|bot)", "(I like|I love|I like talking to) you", "(well done|awesome|wonderful|excellent|amazing|brilliant|fantastic|bravo|correct|that is right|that's correct|exactly)", "(wow|haha|lol|hehe|cool|nice|great)")),
    ("I am sorry. I am only a small demo model and I make mistakes.", ("(that|this|your answer|it) is (wrong|not right|incorrect|not correct|bad|false|nonsense|not true)", "you are (wrong|stupid|dumb|bad|useless|silly|not smart|terrible|an idiot|boring)", "(wrong|bad bot|no, that's wrong|are you sure|really|I don't believe you|bad answer|wrong answer|I hate you)", "you (made|make) (a mistake|mistakes)")),
    ("All right! What would you like to ask?", ("(ok|okay|alright|fine|good|yes|yeah|sure|I see|got it|understood|right|hmm|well|no|nope|um|uh|k|yep|maybe|and|so)", "I have (a|one|another) question", "(can|may) I ask (you |)(something|a question|you something)", "I (want|need|would like) to ask (you |)(something|a question)", "(let me ask|question|next question|another one|one more)")),
    ("I am sorry to hear that. I hope you feel better soon.", ("(I am|I'm|I feel) (so |very |really |a bit |feeling |)(sad|tired|sick|bored|lonely|angry|unhappy|upset|ill|hungry|stressed|bad|down|worried|cold|afraid)( today| now|)", "I (failed|lost) my (exam|job|keys|phone|cat)", "(today was|I had) a bad day", "I have a (headache|cold|fever|problem)")),
    ("That is great! I am happy for you.", ("(I am|I'm|I feel) (so |very |really |feeling |)(happy|glad|excited|great|good|fine|well|wonderful)( today| now| too|)", "I (passed|won|got) (my exam|the game|a job|the prize)", "today is my birthday", "(today was|I had) a (good|great|nice) day", "it is (my birthday|a nice day)", "(I am|I'm) (fine|good|well)(,|) (thanks|thank you)( and you|)")),
    ("Happy birthday! I wish you joy.", ("happy birthday( to (me|you)|)",)),
    ("Happy New Year! I wish you all the best.", ("happy new year( to you|)", "(merry|happy) christmas", "happy (holidays|weekend|spring festival|easter)")),
    ("Good luck! I am sure you can do it.", ("(wish me luck|I have an exam (today|tomorrow)|I am nervous|wish me good luck|I have a test (today|tomorrow))",)),
)  # fmt: skip
_ZH: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("你好！有什么可以帮你的吗？", ("(你好|您好|嗨|哈喽|哈啰|嘿|hi|hello|Hello|你好你好|你好呀|你好啊|嗨嗨|您好呀|在吗|在不在|在么|有人吗|喂|大家好|hey|你好，在吗|嗨，你好|你好哇|见到你好|打扰了|打扰一下|老师好|朋友你好|小朋友好|助手你好|机器人你好|亲|你好，朋友|哈罗|哟)(呀|啊|哦|~|)", "(我们|咱们|来|)(聊聊|聊天|聊聊天|聊一聊|开始|开始吧|说说话)(吧|好吗|)", "(测试|测试一下|试一下|试试|测一下)", "(你|)(能听到|听得到|听见|能听见)(我|我说话|)吗", "我(来了|回来了|又来了|是新来的)", "(跟我|和我|)打个招呼(吧|)", "你(在|醒着|准备好了|在线)吗")),
    ("早上好！有什么可以帮你的吗？", ("(早上好|早|早安|早啊|上午好|早呀|大家早|早晨好|早上好呀|早上好啊|清晨好|你早|您早|早上好，朋友|各位早上好)",)),
    ("下午好！有什么可以帮你的吗？", ("(下午好|中午好|午安|下午好呀|下午好啊|中午好呀|中午好啊|各位下午好|大家下午好)",)),
    ("晚上好！有什么可以帮你的吗？", ("(晚上好|晚好|傍晚好|晚上好啊|大家晚上好|各位晚上好|晚上好哦|晚上好，朋友)",)),
    ("晚安！祝你好梦。", ("(晚安|晚安啦|晚安哦|晚安呀|我要睡了|我去睡了|睡了|我去睡觉了|我要睡觉了|好梦|困了，睡了|该睡觉了|祝你好梦|我先睡了)",)),
    ("我很好，谢谢！你今天怎么样？", ("(你|您|)(好吗|还好吗|最近好吗|最近怎么样|今天怎么样|怎么样|过得怎么样|最近如何|今天好吗|过得好吗|最近还好吗|心情怎么样|今天心情怎么样|心情好吗|开心吗|今天过得好吗|今天过得怎么样|感觉怎么样|近来可好|最近忙吗|一切都好吗|状态怎么样|身体好吗|快乐吗|累不累|累吗|吃了吗|吃饭了吗|吃饭了没|最近在忙什么)(呀|啊|呢|)",)),
    ("不客气！很高兴能帮到你。", ("(谢谢|谢谢你|谢谢您|多谢|非常感谢|太感谢了|谢了|谢谢啦|谢谢哦|感谢|感谢你|十分感谢|谢谢帮忙|谢谢你的帮助|谢谢你的回答|多谢了|真是太谢谢了|万分感谢|感激不尽|辛苦了|谢谢老师|好的谢谢|好的，谢谢|谢谢呀|非常感谢你的帮助|太好了，谢谢|thank you|thanks|3q|感谢感谢|麻烦你了|辛苦你了|有劳了|谢谢谢谢|真的很感谢|谢谢你帮我|那谢谢你了|劳烦了|谢过|可太谢谢了)(呀|啊|哈|哦|)", "你(帮了我大忙|帮了我很多|真是帮了大忙|的回答很有用|真有用)(，谢谢|)", "(真|太|)(感谢|谢谢)(你|您)(的帮助|的帮忙|的回答|)(了|)")),
    ("再见！祝你愉快，下次再聊。", ("(再见|拜拜|拜|回见|回头见|下次见|明天见|改天聊|下次聊|后会有期|一会儿见|bye|byebye|88|先这样|就这样吧|告辞|再会|先走了|我走了|我要走了|我先走了|我先走啦|我得走了|我下线了|我要下线了|我先下了|先下了|撤了|溜了|走了走了|我要去忙了|我去忙了|我去上课了|我去吃饭了|我要去上班了|今天就到这里|今天先聊到这|不聊了|不聊了，再见|再见啦|再见了|拜拜啦|拜拜了|好的，再见|好了，拜拜|那我走了|时间不早了，我走了|有空再聊|祝你愉快|周末愉快|我先忙了)(啊|哦|呀|哈|)", "(我|)(先|要|该|得|)(走|下线|下|撤|离开|回家|忙|去忙)(了|啦)(，|,| )(再见|拜拜|下次见|明天见|下次再聊|有空聊|改天见|回聊)")),
    ("我也很高兴认识你！", ("(很高兴|高兴|非常高兴|真高兴)(认识|见到|遇到|和你聊天|能认识)(你|您|)", "(幸会|久仰|幸会幸会|久仰大名)", "认识你(很高兴|真好|真高兴)")),
    ("没关系！", ("(对不起|抱歉|不好意思|真抱歉|很抱歉|请原谅|我错了|是我的错|打扰你了|sorry|实在对不起|非常抱歉|不好意思啊|对不住|请原谅我|怪我)(啊|呀|哦|)",)),
    ("谢谢夸奖！我会继续努力。", ("你(真|好|太|很|非常|挺|特别|)(聪明|棒|厉害|可爱|好|有趣|优秀|好玩|强|能干|靠谱|贴心|漂亮|帅)(啊|了|呀|哦|的|)", "(真棒|厉害|太棒了|不错|答对了|很好|太厉害了|牛|真厉害|非常好|干得好|做得好|666|说得对|没错|对的|正确|哈哈|哈哈哈|嘻嘻|呵呵|哇|有意思|回答得真好)(啊|哦|)", "我(喜欢|爱|很喜欢|好喜欢|爱上)(你|和你聊天)(了|)")),
    ("抱歉，我只是一个小型演示模型，会犯错误。", ("(你|你的回答|这个答案|这|回答)(错了|不对|是错的|答错了|不正确|说错了|有问题|胡说|有错误)(吧|啊|)", "你(真|好|太|)(笨|傻|蠢|差|没用|烦|讨厌|菜|差劲|无聊)(啊|了|)", "(胡说|胡说八道|错|不对|瞎说|你确定吗|真的吗|真的假的|我不信|答错了|确定吗|我讨厌你|错了)")),
    ("好的，你想问什么呢？", ("(好|好的|好吧|行|可以|嗯|嗯嗯|是的|哦|噢|知道了|明白|明白了|懂了|原来如此|这样啊|ok|OK|继续|然后呢|收到|了解|是|对|啊|不|不是|没有|不用|好嘞|没事|没什么)", "我(有|还有)(个|一个|几个|些)问题", "(我能|可以|能不能|我可以|可不可以|能)问(你|)(个|一个|几个|一些|一下|)问题(吗|)", "我想(问|请教)(你|)(个|一个|几个|一些|)(问题|事|事情)", "(下一个问题|再问一个|再问你一个|还有问题|问个事)")),
    ("听到这个我很难过，希望你早点好起来。", ("我(今天|现在|最近|)(很|好|有点|非常|真|心情|感到|觉得|)(难过|伤心|累|不开心|无聊|孤独|生气|不高兴|不好|烦|饿了|困|生病了|感冒了|头疼|焦虑|害怕|失恋了|难受|郁闷|压力大)(啊|了|)", "我(考试|比赛|面试)(没考好|失败了|输了|没过|不及格)", "(今天|)(好累|心情不好|太难了|好烦|真倒霉)(啊|)")),
    ("太好了，真为你高兴！", ("我(今天|现在|最近|)(很|好|非常|真|超级|特别|)(开心|高兴|快乐|幸福|激动|好|不错)(啊|呀|)", "我(考试|比赛|面试)(通过了|赢了|考了满分|成功了|第一名)", "今天(是我的生日|我过生日|天气真好|真开心|是个好日子)", "我(也|)(很好|挺好的|还不错|不错)")),
    ("生日快乐！祝你天天开心。", ("(祝我|祝你|)生日快乐(呀|啊|)",)),
    ("新年快乐！祝你万事如意。", ("(新年快乐|新年好|春节快乐|过年好|恭喜发财|圣诞快乐|元旦快乐|节日快乐|中秋快乐|国庆快乐|端午安康)(呀|啊|)",)),
    ("加油！我相信你可以的。", ("(祝我好运|我(明天|今天|)要考试了|我(好|很|有点|)紧张|给我加油|鼓励我一下|鼓励鼓励我|我要面试了|为我加油)(吧|啊|)",)),
)  # fmt: skip


def smalltalk(rng: random.Random) -> Exchange:
    """A short social turn with its fixed reply."""
    lang: Lang = "zh" if rng.random() < 0.5 else "en"
    groups = _ZH if lang == "zh" else _EN
    answer, frames = rng.choice(groups)
    return Exchange(pick_frame(rng, frames), answer, lang)
