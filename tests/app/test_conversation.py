"""The conversation as the chat box shows it."""

import json

import pytest

from app import conversation
from app.chat import Done
from app.text import Text

EN, ZH = Text("en"), Text("zh")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a & b &lt;", "a &amp; b &amp;lt;"),
        ("`<b>` and <b>", "`<b>` and &lt;b&gt;"),
        ("```html\n<b>\n```\n<i>", "```html\n<b>\n```\n&lt;i&gt;"),
        ("```\n<b>", "```\n<b>"),
        ("![x](http://a/b.png)", r"\![x](http://a/b.png)"),
    ],
)
def test_tags_are_shown_as_text_outside_code(text: str, shown: str) -> None:
    assert conversation.escape_html(text) == shown


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        ("<think>why</think>\n\nbecause", ["why", "because"]),
        ("<think>still thinking", ["still thinking"]),
        ("<think>\n\n</think>\n\nno thought", ["no thought"]),
        ("plain", ["plain"]),
    ],
)
def test_an_answers_reasoning_is_folded_under_its_title(text: str, contents: list[str]) -> None:
    found = conversation.shown([{"role": "assistant", "content": text}], True, ZH)
    assert [item["content"] for item in found] == contents
    assert ("metadata" in found[0]) == text.startswith(("<think>why", "<think>still"))
    # The box shows a thought while it comes, and folds it when it is over.
    if "metadata" in found[0]:
        assert found[0]["metadata"]["status"] == ("done" if "</think>" in text else "pending")


def test_a_question_is_never_folded() -> None:
    [found] = conversation.shown([{"role": "user", "content": "<think>hm</think>"}], True, ZH)
    assert found["content"] == "&lt;think&gt;hm&lt;/think&gt;"


def test_an_answer_says_below_itself_who_gave_it_how_fast_and_why_it_ended() -> None:
    numbers = conversation.numbers(Done("length", 12, 3, 1.0, 0.25, 40.4), "run <1> / checkpoint-5")
    message = {"role": "assistant", "content": "Hello", "numbers": numbers}
    [found] = conversation.shown([message], True, EN)
    assert found["content"] == (
        'Hello\n\n<small class="td-numbers">run &lt;1&gt; / checkpoint-5 · 12 tokens · 40 tokens/s · first token 0.25 s'
        " · maximum new tokens reached</small>"
    )
    kept = conversation.restored(conversation.as_kept([[message], [], [], []]))
    assert kept[0] == [message], "a reload keeps the numbers"
    assert "numbers" not in conversation.asked([message], "")[0], "the model is not told its speed"


@pytest.mark.parametrize(("content", "shown"), [("", "*(nothing was said)*"), (" \n", "*(nothing was said)*")])
def test_an_answer_without_a_word_says_so_once_it_has_ended(content: str, shown: str) -> None:
    message = {"role": "assistant", "content": content}
    assert "nothing" not in str(conversation.shown([message], True, EN))
    [found] = conversation.shown([message | {"numbers": conversation.numbers(Done("stop", 1), "m")}], True, EN)
    assert found["content"] == f'{shown}\n\n<small class="td-numbers">m</small>'


@pytest.mark.parametrize(
    ("said", "closed"),
    [
        ("```python\nx = 1", "```python\nx = 1\n```"),
        ("~~~\n```\n", "~~~\n```\n\n~~~"),
        ("````\n```", "````\n```\n````"),
        ("1. so:\n   ```sh\n   ls", "1. so:\n   ```sh\n   ls\n   ```"),
        ("```\nx\n```", "```\nx\n```"),
        ("a ``` b", "a ``` b"),
        ("```x``` inline", "```x``` inline"),
    ],
)
def test_the_numbers_stand_below_a_block_of_code_that_was_cut_off_and_not_in_it(said: str, closed: str) -> None:
    numbers = conversation.numbers(Done("length", 2), "m")
    [found] = conversation.shown([{"role": "assistant", "content": said, "numbers": numbers}], True, EN)
    assert found["content"].startswith(closed + "\n\n<small")


def test_a_call_of_a_tool_is_shown_by_name_with_its_arguments_laid_out() -> None:
    text = 'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call>'
    [found] = conversation.shown([{"role": "assistant", "content": text}], True, EN)
    assert found["content"] == (
        'Let me see.\n\n**Calls tool** `weather`\n\n```json\n{\n  "city": "北京"\n}\n```'
    )  # fmt: skip


def test_what_a_tool_gave_back_is_shown_as_that_and_asked_in_the_tools_role() -> None:
    message = {"role": "observation", "content": '{"sky":"```"}'}
    [found] = conversation.shown([message], True, ZH)
    assert found["role"] == "user"
    assert found["content"] == '**工具结果**\n\n````json\n{\n  "sky": "```"\n}\n````'
    assert conversation.asked([message], "be kind") == [
        {"role": "system", "content": "be kind"},
        {"role": "tool", "content": '{"sky":"```"}'},
    ]


def test_a_server_gets_calls_and_results_with_ids_that_belong_together() -> None:
    calls = '<tool_call>{"name": "a", "arguments": {}}</tool_call><tool_call>{"name": "b", "arguments": {"x": 1}}</tool_call>'
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": calls},
            {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}]  # fmt: skip
    question, answer, *results = conversation.for_server(said)
    assert question == {"role": "user", "content": "?"}
    assert answer["content"] is None
    assert [call["function"] for call in answer["tool_calls"]] == [
        {"name": "a", "arguments": "{}"},
        {"name": "b", "arguments": '{"x": 1}'},
    ]
    assert [result["tool_call_id"] for result in results] == [call["id"] for call in answer["tool_calls"]]


@pytest.mark.parametrize(
    "kept",
    [
        None,
        "x",
        "",
        "[" * 100_000,
        "{}",
        "[1]",
        '[{"role": "user"}]',
        '[[1], {}, "x", [{"role": "system", "content": "x"}]]',
    ],
)
def test_what_a_browser_kept_wrongly_is_an_empty_conversation(kept: object) -> None:
    assert conversation.restored(kept) == [[], [], [], []]


def test_a_conversation_of_an_older_page_is_kept() -> None:
    old = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    assert conversation.restored(json.dumps(old)) == [old, [], [], []]
