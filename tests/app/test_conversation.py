"""The conversation as the chat box shows it."""

import pytest

from app import conversation


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
    found = conversation.shown([{"role": "assistant", "content": text}], True, "思考过程")
    assert [item["content"] for item in found] == contents
    assert ("metadata" in found[0]) == text.startswith(("<think>why", "<think>still"))


def test_a_question_is_never_folded() -> None:
    [found] = conversation.shown([{"role": "user", "content": "<think>hm</think>"}], True, "思考过程")
    assert found["content"] == "&lt;think&gt;hm&lt;/think&gt;"


@pytest.mark.parametrize("kept", [None, "x", {}, [1], [{"role": "user"}], [{"role": "system", "content": "x"}]])
def test_what_a_browser_kept_wrongly_is_an_empty_conversation(kept: object) -> None:
    assert conversation.restored(kept) == []
