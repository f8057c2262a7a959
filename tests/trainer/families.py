"""Tiny tokenizers with the special tokens of each family, and conversations to render with its template."""

import random
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from trainer.chat_template import IGNORED, ChatTemplate

IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Of each template: begin of text, end of text, the other special tokens.
TOKENS: dict[str, tuple[str | None, str, list[str]]] = {
    "alpaca": ("<s>", "</s>", []),
    "baichuan2": ("<s>", "</s>", ["<reserved_106>", "<reserved_107>"]),
    "chatml": (None, "<|im_end|>", IM),
    "deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", []),
    "deepseek-r1": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", ["<｜User｜>", "<｜Assistant｜>"]),
    "default": ("<s>", "</s>", []),
    "gemma": ("<bos>", "<eos>", ["<start_of_turn>", "<end_of_turn>"]),
    "gemma3": ("<bos>", "<eos>", ["<start_of_turn>", "<end_of_turn>"]),
    "glm4": (None, "<|endoftext|>", ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]),
    "internlm2": ("<s>", "</s>", ["<|im_start|>", "<|im_end|>", "<|action_start|>", "<|action_end|>", "<|plugin|>"]),
    "llama2": ("<s>", "</s>", []),
    "llama3": ("<|begin_of_text|>", "<|end_of_text|>", ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
    "llama4": ("<|begin_of_text|>", "<|end_of_text|>", ["<|header_start|>", "<|header_end|>", "<|eot|>"]),
    "mistral": ("<s>", "</s>", ["[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
                                "[TOOL_RESULTS]", "[/TOOL_RESULTS]"]),
    "phi4": (None, "<|im_end|>", ["<|im_start|>", "<|im_sep|>", "<|im_end|>"]),
    "qwen": (None, "<|im_end|>", IM),
    "qwen3": (None, "<|im_end|>", IM),
    "vicuna": ("<s>", "</s>", []),
    "yi": ("<|startoftext|>", "<|endoftext|>", IM),
}  # fmt: skip
# Marks inside answers: tokens, but not special ones.
MARKUP = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
TOOL_MARKUP = {
    "deepseek-r1": [
        f"<｜tool▁{name}▁{end}｜>" for name in ("calls", "call", "outputs", "output") for end in ("begin", "end")
    ]
    + ["<｜tool▁sep｜>"]
}
SENTENCE_PIECES = ("llama2", "mistral", "vicuna", "alpaca", "baichuan2")
KNOW_TOOLS = ("deepseek-r1", "glm4", "internlm2", "llama3", "llama4", "mistral", "qwen", "qwen3")
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "get_weather", "description": "查询 weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}},
    {"type": "function", "function": {"name": "search", "description": "", "parameters": {
        "type": "object", "properties": {}}}},
]  # fmt: skip
WORDS = [
    "the", "model", "reads", "a", "text", "and", "writes", "an", "answer", "Hello", "world.", "who", "are", "you?", "你好",
    "你是谁", "今天天气很好，", "北京", "print(x)", "=", "3.14;", "😀", "é", "Assistant:", "User:", "[X]", "system\nuser", "\n\n-",
    "one\n-", "two\n\n```py\nx\n```", "1", "", "2", '{"a":', "[1]}", "###", "ASSISTANT",
]  # fmt: skip


@cache
def _byte_level() -> str:
    """In the manner of Qwen and Llama 3: line breaks are a word of their own."""
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([Split(words, "isolated"), bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS * 5)], trainer)
    return tokenizer.to_str()


@cache
def _sentence_pieces() -> str:
    """In the manner of Llama 2 and Mistral: every text begins with a space of its own."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=["<unk>", *bytes_], show_progress=False)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = Split("▁", "merged_with_next")  # only to learn words: none holds a space inside
    tokenizer.train_from_iterator([" ".join(WORDS * 5).replace("\n", " ")], trainer)  # line breaks are bytes to them
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer.to_str()


def tokenizer_of(name: str) -> Any:
    """A tokenizer of some hundred words with the special tokens that the family of the template `name` has."""
    begin, end, others = TOKENS[name]
    backend = Tokenizer.from_str(_sentence_pieces() if name in SENTENCE_PIECES else _byte_level())
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=begin, eos_token=end, additional_special_tokens=others
    )
    tokenizer.add_tokens([AddedToken(mark, special=False) for mark in [*MARKUP, *TOOL_MARKUP.get(name, [])]])
    return tokenizer


def template_of(name: str) -> ChatTemplate:
    """The named template on its family's tokenizer, which brings it as its own."""
    template = ChatTemplate.of(tokenizer_of(name), name)
    template.tokenizer.chat_template = template.source
    return template


def say(*contents: str, system: str | None = None) -> list[dict[str, Any]]:
    """Questions and answers in turn."""
    turns = [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system is not None else []) + turns


def trained(template: ChatTemplate, messages: list[Any], tools: Any = None) -> list[str]:
    """The trained pieces of the rendered conversation."""
    return [segment.text for segment in template.segments(messages, tools) if segment.trained]


def learnt(template: ChatTemplate, messages: list[Any], tools: Any = None, **values: Any) -> str:
    """What the labelled tokens spell."""
    sample = template.encode(messages, cutoff_len=100_000, tools=tools, **values)
    return template.tokenizer.decode([token for token in sample.labels if token != IGNORED])


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def conversation(chance: random.Random, with_tools: bool) -> list[dict[str, Any]]:
    """One to five questions and answers, often with a system prompt, some by way of tools.

    No answer begins with a line break: the prompt ends with one, and after it the model writes another token than a
    tokenizer makes of the two.
    """

    def say(most: int) -> str:
        return " ".join(chance.choices(WORDS, k=chance.randint(1, most))).strip() or "你"

    messages: list[dict[str, Any]] = []
    if chance.random() < 0.5:
        messages.append({"role": "system", "content": say(15)})
    for _ in range(chance.randint(1, 5)):
        messages.append({"role": "user", "content": say(30)})
        if with_tools and chance.random() < 0.6:
            calls = [call("get_weather", city=say(3), days=chance.randint(1, 9)), call("search")]
            calls = calls[: chance.randint(1, 2)]
            messages.append({"role": "assistant", "content": chance.choice(["", say(10)]), "tool_calls": calls})
            messages += [{"role": "tool", "content": say(10)} for _ in calls]
        messages.append({"role": "assistant", "content": say(40)})
    return messages


def parity(name: str, count: int = 200) -> tuple[int, int, int]:
    """How many of `count` generated conversations are token for token what the library makes of them with the same
    template; how many of them have tools; how many tokens all of them have."""
    template = template_of(name)
    chance = random.Random(name)
    equal = with_tools = tokens = 0
    for number in range(count):
        tools = TOOLS if name in KNOW_TOOLS and number % 3 == 0 else None
        messages = conversation(chance, with_tools=tools is not None)
        theirs = template.tokenizer.apply_chat_template(messages, tools=tools, tokenize=True, return_dict=False)
        ours = template.encode(messages, cutoff_len=100_000, tools=tools).input_ids
        equal += ours == theirs
        with_tools += tools is not None
        tokens += len(theirs)
    return equal, with_tools, tokens
