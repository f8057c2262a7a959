"""The tokens of a conversation are those that transformers makes of it with the same template, token for token."""

import random

import pytest

from tests.trainer import families
from trainer.rendering import Renderer
from trainer.settings import template_names

pytestmark = pytest.mark.slow

COUNT = 200


@pytest.mark.parametrize("name", ["qwen", "llama3", "chatml", "gemma", "glm4", "deepseek", "mistral"])
def test_every_token_is_the_librarys(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    equal, with_tools, tokens = families.parity(name, COUNT)
    with capsys.disabled():
        print(f"\n{name}: {equal} of {COUNT} conversations equal ({with_tools} with tools), {tokens} tokens")
    assert equal == COUNT
    assert bool(with_tools) == (name in families.KNOW_TOOLS)


@pytest.mark.parametrize("name", [n for n in template_names() if n in families.TOKENS])
def test_the_other_templates_tokens_are_the_librarys_too(name: str) -> None:
    equal, _, tokens = families.parity(name, 40)
    assert (equal, tokens > 1000) == (40, True)


@pytest.mark.parametrize("name", template_names())
def test_a_rendering_is_what_apply_chat_template_gives(name: str) -> None:
    tokenizer = families.tokenizer_of(name)
    template = families.template_of(name)
    renderer = Renderer(tokenizer, template.source)
    chance = random.Random(name)
    for number in range(30):
        tools = families.TOOLS if template.knows_tools and number % 2 else None
        messages = families.conversation(chance, with_tools=tools is not None)
        for prompt in (False, True):
            for thinking in (False, True):
                expected = tokenizer.apply_chat_template(
                    messages, tools=tools, chat_template=template.source, tokenize=False,
                    add_generation_prompt=prompt, enable_thinking=thinking,
                )  # fmt: skip
                assert renderer.render(messages, prompt=prompt, thinking=thinking, tools=tools) == expected


ODD_HELPERS = """{%- set ns = namespace(n=0) -%}{%- set d = dict(a=1) -%}
{%- for message in messages -%}{%- if loop.index > 99 -%}{%- break -%}{%- endif -%}{%- set ns.n = ns.n + 1 -%}
{{- ns.n ~ ' ' ~ message.role ~ ': ' -}}{% generation %}{{- message.content -}}{% endgeneration %}{{- eos_token -}}
{{- message.tool_calls | tojson(indent=2) if message.tool_calls -}}
{%- endfor -%}{{- strftime_now('%Y') ~ d.a -}}{{- tools is none ~ documents is none ~ add_generation_prompt -}}"""


def test_the_helpers_of_the_library_are_there() -> None:
    tokenizer = families.tokenizer_of("qwen")
    messages = families.conversation(random.Random(1), with_tools=True)
    expected = tokenizer.apply_chat_template(messages, chat_template=ODD_HELPERS, tokenize=False, enable_thinking=True)
    assert Renderer(tokenizer, ODD_HELPERS).render(messages, prompt=False, thinking=True) == expected
