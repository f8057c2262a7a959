"""Templates written by hand, as odd as those of real models: what is learnt is the answers and their end tokens."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from tests.trainer import families
from tests.trainer.families import learnt, say, trained
from trainer import template_family
from trainer.chat_template import ChatTemplate
from trainer.problems import Problem

pytestmark = pytest.mark.slow

ODD = {
    "generation marks": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ '<|im_start|>' + m.content + '\\n' }}{% endif %}{% endfor %}",
    "parts alone": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% for p in m.content %}"
    "{% if p.type == 'text' %}{{ p.text | trim }}{% endif %}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "the day before each turn": "{% for m in messages %}{{ '<|im_start|>' + m.role + strftime_now(' %d.%m.%Y') + '\\n' + m.content"
    " + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant' + strftime_now(' %d.%m.%Y') + '\\n' }}"
    "{% endif %}",
    "turns counted": "{% for m in messages %}{{ loop.index ~ '. ' + m.role + ': ' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ (messages | length + 1) ~ '. assistant: ' }}{% endif %}",
    "a forced thought": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content.split('</think>')[-1] | trim"
    " + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}",
    "the question once more": "{% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>' + m.content + '\\n' + m.content"
    " + '\\n' }}{% elif m.role == 'assistant' %}{{ m.content + '<|im_end|>' }}{% endif %}{% endfor %}",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_templates_are_taken_apart_as_well(name: str) -> None:
    template = ChatTemplate(families.tokenizer_of("qwen"), ODD[name], "auto")
    for seed in range(20):
        messages = families.conversation(random.Random(seed), with_tools=False)
        answers = [message["content"] for message in messages if message["role"] == "assistant"]
        texts = trained(template, messages)
        assert all(text.endswith("<|im_end|>") for text in texts)
        assert [text.removesuffix("<|im_end|>").strip() for text in texts] == [answer.strip() for answer in answers]
        assert learnt(template, messages) == "".join(texts)


_TWO_ENDS = (
    "{% for m in messages %}{{ '<|user|>' + m.role + '\\n' + m.content }}{{ '<|im_end|>' if loop.last and not "
    "add_generation_prompt else '<|endoftext|>' }}{% endfor %}{{ '<|user|>assistant\\n' if add_generation_prompt }}"
)


@pytest.mark.parametrize("stops", [(), (3,)])
def test_an_answer_in_the_middle_may_end_with_another_token_than_the_last(
    stops: tuple[int, ...], tmp_path: Path
) -> None:
    tokenizer = families.tokenizer_of("qwen")
    tokenizer.chat_template = _TWO_ENDS
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": list(stops) or None}))
    template = ChatTemplate.of(tokenizer, model_path=str(tmp_path))
    assert template.source == _TWO_ENDS
    messages = say("q", "a", "r", " b \n", system="s")
    sample = template.encode(messages, cutoff_len=999)
    assert sample.input_ids == tokenizer.apply_chat_template(messages, return_dict=False)
    # It is learnt where generation stops at it: a model that says where it stops may write it inside an answer.
    between_turns = "" if stops else "<|endoftext|>"
    assert learnt(template, messages) == f"a{between_turns} b \n<|im_end|>"


_LABELLED = "{% for m in messages %}{{ m.role + '>' + m.content + '\\n' }}{% endfor %}{{ 'assistant' if add_generation_prompt }}"


def test_white_space_of_the_answers_own_is_learnt_whatever_stands_around_it() -> None:
    template = ChatTemplate(families.tokenizer_of("qwen"), _LABELLED, "auto")
    messages = say("q", "  a\t", "r", "\n\nb \n", "s", "c")
    assert trained(template, messages) == ["  a\t<|im_end|>", "\n\nb \n<|im_end|>", "c<|im_end|>"]
    trims = ChatTemplate(template.tokenizer, _LABELLED.replace("m.content", "m.content | trim"), "auto")
    assert trained(trims, messages) == ["a<|im_end|>", "b<|im_end|>", "c<|im_end|>"]


def test_a_template_that_wants_a_system_prompt_is_used_with_one() -> None:
    wants = "{% if messages[0].role != 'system' %}{{ raise_exception('no system prompt') }}{% endif %}"
    template = ChatTemplate(families.tokenizer_of("qwen"), wants + template_family.source("chatml"), "auto")
    assert trained(template, say("q", "a", system="s")) == ["a<|im_end|>"]
    with pytest.raises(Problem, match="no system prompt"):
        template.encode(say("q", "a"), cutoff_len=99)


# ---- calls of tools ----


def with_ids(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As OpenAI has them: each call with an id, which its result names."""
    ids = [f"call{number:05}" for number in range(99)]
    waiting: list[str] = []
    found = []
    for message in messages:
        if "tool_calls" in message:
            waiting = [ids.pop(0) for _ in message["tool_calls"]]
            calls = [{**call, "id": name} for call, name in zip(message["tool_calls"], waiting, strict=True)]
            message = {**message, "tool_calls": calls}
        elif message["role"] == "tool":
            message = {**message, "tool_call_id": waiting.pop(0)}
        found.append(message)
    return found


@pytest.mark.parametrize("name", families.KNOW_TOOLS)
def test_calls_with_ids_give_the_librarys_tokens_and_the_same_answers(name: str) -> None:
    template = families.template_of(name)
    for seed in range(15):
        plain = families.conversation(random.Random(seed), with_tools=True)
        messages = with_ids(plain)
        theirs = template.tokenizer.apply_chat_template(messages, tools=families.TOOLS, return_dict=False)
        assert template.encode(messages, cutoff_len=99_999, tools=families.TOOLS).input_ids == theirs
        if name != "mistral":  # which writes the ids
            assert trained(template, messages, families.TOOLS) == trained(template, plain, families.TOOLS)


_CALLS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}{% for c in m.tool_calls or [] %}"
    "{{ '<tool_call>' + c.function.name + WANTED + '</tool_call>' }}{% endfor %}{{ '<|im_end|>' if not m.tool_calls else "
    "'<|endoftext|>' }}{% endfor %}{{ '<|im_start|>assistant\\n' if add_generation_prompt }}"
)
WANTED = {
    "arguments as a text": "c.function.arguments",
    "an id of nine characters": "(c.id if c.id | length == 9 else raise_exception('nine!'))",
    "both": "(c.id if c.id | length == 9 else raise_exception('nine!')) + c.function.arguments",
}


@pytest.mark.parametrize("wanted", WANTED)
def test_a_template_is_given_calls_as_it_wants_them(wanted: str) -> None:
    tokenizer = families.tokenizer_of("qwen")
    tokenizer.chat_template = _CALLS.replace("WANTED", WANTED[wanted])
    template = ChatTemplate.of(tokenizer)
    calls = [families.call("f", city="北京"), families.call("g")]
    messages = [*say("q"), {"role": "assistant", "content": "", "tool_calls": calls},
                {"role": "tool", "content": "r"}, {"role": "tool", "content": "s"}, {"role": "assistant", "content": "a"}]  # fmt: skip
    given = with_ids(messages)
    for message in given:
        for one in message.get("tool_calls", ()):
            one["function"] = {
                **one["function"],
                "arguments": json.dumps(one["function"]["arguments"], ensure_ascii=False),
            }
    whole = "".join(segment.text for segment in template.segments(messages))
    assert re.sub(r"call\d{5}", "ID", whole) == re.sub(
        r"call\d{5}", "ID", tokenizer.apply_chat_template(given, tokenize=False)
    )
    assert trained(template, messages)[0].startswith("<tool_call>f")


def test_a_mark_that_ends_one_call_does_not_end_the_answer() -> None:
    tokenizer = families.tokenizer_of("qwen")
    tokenizer.chat_template = _CALLS.replace("WANTED", "c.function.arguments | tojson")
    template = ChatTemplate.of(tokenizer)
    calling = {"role": "assistant", "content": "", "tool_calls": [families.call("f"), families.call("g")]}
    texts = trained(
        template, [*say("q"), calling, {"role": "tool", "content": "r"}, {"role": "assistant", "content": "a"}]
    )
    assert texts == ["<tool_call>f{}</tool_call><tool_call>g{}</tool_call><|endoftext|>", "a<|im_end|>"]
    assert tokenizer.convert_tokens_to_ids("</tool_call>") not in template.stop_token_ids


def test_an_answer_that_was_a_thought_alone_does_not_end_a_conversation() -> None:
    for name in ("deepseek-r1", "qwen3"):
        template = families.template_of(name)
        assert template.prompt_ids(say("q", "<think>\nhm\n</think>", "r"))
    template = families.template_of("chatml")
    for answer in ("<think>\nhm\n</think>\n", "</think>\n\na", "hm</think>"):
        assert trained(template, say("q", answer)) == [answer + "<|im_end|>"]
    assert trained(families.template_of("llama3"), say("q", "hm</think>\n")) == ["hm</think><|eot_id|>"]
