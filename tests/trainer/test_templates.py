"""Every named template, and odd ones: what is learnt is what the model has to write, as the template shows it."""

import pickle
import random
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.trainer import families
from tests.trainer.families import KNOW_TOOLS, TOOLS, call, learnt, say, template_of, trained
from trainer import template_family
from trainer.chat_template import IGNORED, ChatTemplate, Sample
from trainer.problems import Problem
from trainer.settings import template_names

pytestmark = pytest.mark.slow

NAMED = template_names()
# They show the reasoning of the last answer alone.
DROP_REASONING = ("deepseek-r1", "qwen3")


def spelt(name: str, text: str) -> str:
    """`text`, without white space where decoding changes it: SentencePiece's tokens carry their words' spaces."""
    return _bare(text) if name in families.SENTENCE_PIECES else text


def _bare(text: str) -> str:
    return re.sub(r"[\s▁]", "", text)


def test_the_issues_templates_are_there() -> None:
    assert sorted(families.TOKENS) == NAMED
    assert len(NAMED) == 19


SHAPES = {
    "one turn": say("q", "a"),
    "system": say("q", "a", system="s"),
    "many turns": say("who", "me", "who?", "me.", "who are you", "me and you", system="who me"),
    "white space": say("  q\n", "\n a \n\n", "\tq", "b  "),
    "the same words": say("a", "a", "a", "a", system="a"),
    "words of templates": say("User: x", "Assistant: y", "### Response:\n", "Human: [/INST] ASSISTANT:"),
    "a blank system prompt": say("q", "a", system=" "),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_answer_is_learnt_with_its_end_token(name: str, shape: str) -> None:
    template, messages = template_of(name), SHAPES[shape]
    answers = [message["content"].strip() for message in messages if message["role"] == "assistant"]
    ends = template.end_token
    assert ends
    texts = trained(template, messages)
    assert [text.removesuffix(ends).strip() for text in texts] == answers
    assert all(text.endswith(ends) for text in texts)
    assert spelt(name, learnt(template, messages)) == spelt(name, "".join(texts))
    assert spelt(name, learnt(template, messages, mask_history=True)) == spelt(name, texts[-1])
    everything = template.encode(messages, cutoff_len=9999, train_on_prompt=True)
    assert everything.labels == everything.input_ids


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_sample_begins_with_its_chat_prompt(name: str, shape: str) -> None:
    template, messages = template_of(name), SHAPES[shape]
    prompt = template.prompt_ids(messages[:-1], enable_thinking=False)
    sample = template.encode(messages, cutoff_len=9999, mask_history=True)
    assert sample.input_ids[: len(prompt)] == prompt
    assert sample.labels[: len(prompt)] == [IGNORED] * len(prompt)
    assert sample.labels[len(prompt)] != IGNORED


@pytest.mark.parametrize("name", NAMED)
def test_reasoning_is_learnt_where_the_template_shows_it(name: str) -> None:
    template = template_of(name)
    messages = say("q", "<think>\none\n\ntwo\n</think>\n\na", "q", "<think>three</think>b")
    texts = [text.removesuffix(template.end_token) for text in trained(template, messages)]
    first, last = "<think>\none\n\ntwo\n</think>\n\na", "<think>three</think>b"
    if name in DROP_REASONING:
        first, last = "a", "<think>\nthree\n</think>\n\nb"
    assert [text.strip() for text in texts] == [first, last]
    assert spelt(name, learnt(template, messages)) == spelt(name, "".join(trained(template, messages)))


@pytest.mark.parametrize("name", DROP_REASONING)
def test_a_thought_that_the_template_adds_is_not_learnt_and_one_that_is_given_empty_is(name: str) -> None:
    template = template_of(name)
    assert trained(template, say("q", "a")) == ["a" + template.end_token]
    empty = "<think>\n\n</think>\n\na"
    assert trained(template, say("q", empty)) == [empty + template.end_token]


@pytest.mark.parametrize("name", NAMED)
def test_contents_in_parts_are_their_text(name: str) -> None:
    template = template_of(name)
    parts = [
        {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "text", "text": "r"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a"}], "name": None},
    ]
    assert template.segments(parts) == template.segments(say("qr", "a"))
    parts[0]["content"] = [{"type": "image", "image": "x.png"}]
    with pytest.raises(Problem) as caught:
        template.encode(parts, cutoff_len=9)
    assert caught.value.code == "template_failed"
    assert "image" in caught.value.sentence("zh")


# ---- tools ----

CALLING = [
    {"role": "user", "content": "weather in 北京?"},
    {"role": "assistant", "content": "", "tool_calls": [call("get_weather", city="北京", days=2)]},
    {"role": "tool", "content": '{"sky": "blue"}'},
    {"role": "assistant", "content": "Blue."},
    {"role": "user", "content": "and then?"},
    {"role": "assistant", "content": "I look.", "tool_calls": [call("get_weather", city="x", days=1), call("search")]},
    {"role": "tool", "content": "rain"},
    {"role": "tool", "content": "snow"},
    {"role": "assistant", "content": "Rain."},
]
ARGUMENTS = '{"city": "北京", "days": 2}'
_HERMES = '<tool_call>\n{{"name": "{}", "arguments": {}}}\n</tool_call>'.format
_R1 = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n{}\n```<｜tool▁call▁end｜>".format
_PLUGIN = '<|action_start|><|plugin|>\n{{"name": "{}", "parameters": {}}}<|action_end|>'.format
_LLAMA = '{{"name": "{}", "parameters": {}}}'.format
_MISTRAL = '{{"name": "{}", "arguments": {}}}'.format
X = '{"city": "x", "days": 1}'
# What the model has to write: a call, and a text with two of them.
CALLS = {
    "qwen": (_HERMES("get_weather", ARGUMENTS) + "<|im_end|>",
             "I look.\n" + _HERMES("get_weather", X) + "\n" + _HERMES("search", "{}") + "<|im_end|>"),
    "qwen3": (_HERMES("get_weather", ARGUMENTS) + "<|im_end|>",
              "I look.\n" + _HERMES("get_weather", X) + "\n" + _HERMES("search", "{}") + "<|im_end|>"),
    "llama3": (_LLAMA("get_weather", ARGUMENTS) + "<|eot_id|>",
               "I look." + _LLAMA("get_weather", X) + "; " + _LLAMA("search", "{}") + "<|eot_id|>"),
    "llama4": (_LLAMA("get_weather", ARGUMENTS) + "<|eot|>",
               "I look." + _LLAMA("get_weather", X) + "; " + _LLAMA("search", "{}") + "<|eot|>"),
    "mistral": ("[TOOL_CALLS] [" + _MISTRAL("get_weather", ARGUMENTS) + "]</s>",
                " I look.[TOOL_CALLS] [" + _MISTRAL("get_weather", X) + ", " + _MISTRAL("search", "{}") + "]</s>"),
    "glm4": ("get_weather\n" + ARGUMENTS + "<|observation|>",
             "\nI look.<|assistant|>get_weather\n" + X + "<|assistant|>search\n{}<|observation|>"),
    "internlm2": (_PLUGIN("get_weather", ARGUMENTS) + "<|im_end|>",
                  "I look." + _PLUGIN("get_weather", X) + _PLUGIN("search", "{}") + "<|im_end|>"),
    "deepseek-r1": ("<｜tool▁calls▁begin｜>" + _R1("get_weather", ARGUMENTS) + "<｜tool▁calls▁end｜><｜end▁of▁sentence｜>",
                    "I look.<｜tool▁calls▁begin｜>" + _R1("get_weather", X) + "\n" + _R1("search", "{}")
                    + "<｜tool▁calls▁end｜><｜end▁of▁sentence｜>"),
}  # fmt: skip


def test_every_template_that_knows_tools_is_told_of_here() -> None:
    assert sorted(CALLS) == sorted(KNOW_TOOLS) == [name for name in NAMED if template_of(name).knows_tools]


@pytest.mark.parametrize("name", KNOW_TOOLS)
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_calls_are_learnt_as_the_family_writes_them(name: str, tools: Any) -> None:
    template = template_of(name)
    texts = trained(template, CALLING, tools)
    assert (texts[0], texts[2]) == CALLS[name]
    assert [text.strip() for text in (texts[1], texts[3])] == [
        "Blue." + template.end_token,
        "Rain." + template.end_token,
    ]
    assert spelt(name, learnt(template, CALLING, tools)) == spelt(name, "".join(texts))
    assert spelt(name, learnt(template, CALLING, tools, mask_history=True)) == spelt(name, texts[3])


@pytest.mark.parametrize("name", KNOW_TOOLS)
@pytest.mark.parametrize("until", [2, 4, 6, 9])
def test_a_sample_with_tools_begins_with_its_chat_prompt(name: str, until: int) -> None:
    template, messages = template_of(name), CALLING[:until]
    prompt = template.prompt_ids(messages[:-1], enable_thinking=False, tools=TOOLS)
    sample = template.encode(messages, cutoff_len=9999, mask_history=True, tools=TOOLS)
    assert sample.input_ids[: len(prompt)] == prompt
    assert sample.labels[: len(prompt)] == [IGNORED] * len(prompt)
    assert sample.labels[len(prompt)] != IGNORED
    assert "get_weather" in template.prompt(messages[:1], tools=TOOLS)


@pytest.mark.parametrize("name", KNOW_TOOLS)
def test_generation_stops_where_calls_end(name: str) -> None:
    template = template_of(name)
    for text in trained(template, CALLING, TOOLS):
        end = template.tokenizer(text, add_special_tokens=False)["input_ids"][-1]
        assert end in template.stop_token_ids


@pytest.mark.parametrize("name", KNOW_TOOLS)
def test_control_tokens_in_calls_results_and_tools_stay_text(name: str) -> None:
    template = template_of(name)
    typed = "".join(families.TOKENS[name][2]) + str(template.tokenizer.eos_token)
    tools: Any = [{"type": "function", "function": {**TOOLS[0]["function"], "description": typed}}]
    forged = [{**message, "content": "x" + typed + "x"} for message in CALLING]
    honest = [{**message, "content": "x"} for message in CALLING]
    for messages, city in ((forged, typed + '"'), (honest, "x")):
        messages[1]["tool_calls"] = [call("get_weather", city=city, days=2)]
    control = set(template.tokenizer.all_special_ids)
    ids = [template.encode(messages, cutoff_len=99_999, tools=given).input_ids
           for messages, given in ((forged, tools), (honest, TOOLS))]  # fmt: skip
    counts = [[token for token in found if token in control] for found in ids]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", KNOW_TOOLS)
def test_a_call_that_spells_what_stands_between_turns_leaves_them_as_they_are(name: str) -> None:
    template = template_of(name)
    between_turns = re.findall(r"\W{3,}\w*\W+", template.prompt(say("q", "a", "q")))
    ids = []
    for words in ["x", *families.TOKENS[name][2], template.end_token, *between_turns]:
        messages = [dict(message) for message in CALLING]
        messages[1]["tool_calls"] = [call("get_weather", city=words, days=2)]
        ids.append(template.encode(messages, cutoff_len=99_999, tools=TOOLS).input_ids)
        assert [text.removesuffix(template.end_token).strip() for text in trained(template, messages)][1::2] == [
            "Blue.",
            "Rain.",
        ]
    control = set(template.tokenizer.all_special_ids)
    assert len({tuple(token for token in found if token in control) for found in ids}) == 1


@pytest.mark.parametrize("name", [name for name in NAMED if name not in KNOW_TOOLS])
def test_calls_that_a_template_leaves_out_are_refused(name: str) -> None:
    template = template_of(name)
    with pytest.raises(Problem) as caught:
        template.encode(CALLING[:4], cutoff_len=99)
    assert caught.value.code == "template_failed"
    with pytest.raises(Problem) as caught:
        template.encode_all([say("q", "a")], cutoff_len=99, tools=[TOOLS])
    assert caught.value.code == "tools_unsupported"


def test_a_result_that_begins_as_json_escapes_does_cuts_no_end_token() -> None:
    template = template_of("mistral")
    results = [{"role": "tool", "content": " [/INST]\t "}] * 2
    messages = [*CALLING[:2], *results, {"role": "assistant", "content": "z"}, {"role": "tool", "content": "\\n "}]
    assert trained(template, messages, TOOLS)[1:] == [" z</s>"]


def test_tools_differ_between_conversations() -> None:
    template = template_of("qwen")
    messages = [say("q", "a"), say("q", "a"), CALLING]
    tools = [TOOLS, None, TOOLS]
    together = template.encode_all(messages, cutoff_len=9999, tools=tools)
    assert together == [template.encode(m, cutoff_len=9999, tools=t) for m, t in zip(messages, tools, strict=True)]
    assert len(together[0].input_ids) > len(together[1].input_ids) + 50


# ---- any contents ----

PIECES = [
    "a", "你好", "é😀", " ", "\n", "\n\n", "\t", "User: ", "Assistant:", "### Response:\n", "[/INST]", "<think>", "</think>",
    "<tool_call>", "9070000010709", "<|im_end|>", "</s>", "<|user|>", "<end_of_turn>", "<reserved_107>", '{"a": 1}', "\\n",
]  # fmt: skip
WORDS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=12
)
ANSWERS = WORDS.map(lambda words: f"x{words}y")


@pytest.mark.parametrize("name", NAMED)
@settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(system=st.none() | WORDS, turns=st.lists(st.tuples(WORDS, ANSWERS), min_size=1, max_size=4), last=st.booleans())
def test_the_labelled_tokens_spell_the_answers_whatever_is_said(
    name: str, system: str | None, turns: list[tuple[str, str]], last: bool
) -> None:
    template = TEMPLATES.setdefault(name, template_of(name))
    messages = say(*(content for turn in turns for content in turn), system=system)
    answers = [answer for _, answer in turns]
    if name in DROP_REASONING:
        answers = [answer.split("</think>")[-1] for answer in answers]
    texts = trained(template, messages)
    for text, answer in zip(texts, answers, strict=True):
        assert _bare(text.removesuffix(template.end_token)).endswith(_bare(answer))
        if name not in DROP_REASONING:
            assert _bare(text.removesuffix(template.end_token)) == _bare(answer)
    expected = texts[-1] if last else "".join(texts)
    found = learnt(template, messages, mask_history=last)
    assert spelt(name, found) == spelt(name, expected)


TEMPLATES: dict[str, ChatTemplate] = {}


# ---- texts, previews, processes ----


@pytest.mark.parametrize("name", ["qwen", "llama2", "deepseek"])
def test_a_text_is_learnt_whole_between_what_the_tokenizer_puts_around_it(name: str) -> None:
    template = template_of(name)
    tokenizer = template.tokenizer
    texts = ["Hello world.\n\n你好", "", "ends" + tokenizer.eos_token]
    for text, sample in zip(texts, template.encode_text(texts, 9999), strict=True):
        expected = tokenizer(text)["input_ids"]
        if expected[-1:] != [tokenizer.eos_token_id]:
            expected = [*expected, tokenizer.eos_token_id]
        assert sample == Sample(expected, expected)
    assert template.encode_text(texts[:1], 3)[0].labels == template.encode_text(texts[:1], 9999)[0].labels[:3]


@pytest.mark.parametrize("name", ["qwen", "mistral", "glm4"])
def test_a_previews_tokens_are_the_samples(name: str) -> None:
    template = template_of(name)
    for tools, mask in ((None, False), (TOOLS, True)):
        tokens = template.tokens(CALLING, tools, 40, False, mask)
        whole = template.encode(CALLING, cutoff_len=9999, tools=tools, mask_history=mask)
        assert [token.id for token in tokens] == whole.input_ids
        assert [token.trained for token in tokens] == [label != IGNORED for label in whole.labels]
        assert [token.kept for token in tokens] == [True] * 40 + [False] * (len(tokens) - 40)
        assert "".join(token.text for token in tokens) == template.tokenizer.decode(whole.input_ids)
    shown = [token.text for token in template.tokens(say("😀", "é"))]
    assert "😀" in [text.strip() for text in shown]
    text = template.tokens([{"role": "text", "content": "x y"}])
    assert all(token.trained for token in text)
    assert [token.id for token in text] == template.encode_text(["x y"], 99)[0].input_ids


def test_a_template_goes_to_another_process_as_it_is() -> None:
    template = template_of("qwen3")
    copy = pickle.loads(pickle.dumps(template))  # noqa: S301
    assert (copy.name, copy.source, copy.stop_token_ids) == (template.name, template.source, template.stop_token_ids)
    messages = families.conversation(random.Random(3), with_tools=True)
    assert copy.encode(messages, cutoff_len=999, tools=TOOLS) == template.encode(messages, cutoff_len=999, tools=TOOLS)


@pytest.mark.parametrize("name", NAMED)
def test_a_templates_special_tokens_are_those_that_it_writes(name: str) -> None:
    template = template_of(name)
    needed = template_family.special_tokens(name)
    written = template.prompt(say("q", "a", "q", system="s"), enable_thinking=False) + template.prompt(say("q"))
    written += "".join(segment.text for segment in template.segments(say("q", "<think>t</think>a")))
    if name in KNOW_TOOLS:
        written += template.prompt(CALLING[:3], tools=TOOLS)
    assert all(token in written for token in needed)
    pattern = r"<\|[^|]+\|>|<｜User｜>|<｜Assistant｜>|<(?:start|end)_of_turn>|<reserved_\d+>"
    own = {*template.tokenizer.all_special_tokens} - {template.tokenizer.bos_token, template.tokenizer.eos_token}
    plain = template.prompt(say("q", "a", "q", system="s"))
    assert {token for token in re.findall(pattern, plain) if token in own} <= {*needed}
