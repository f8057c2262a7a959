"""What the preview shows: every kind of sample, tokens and their cut, figures and bad rows; nothing of it is markup."""

from collections.abc import Callable
from typing import Any

import pytest

from app import dataset_view, dataset_words
from app.look import Answer
from app.text import Text
from tests.app.test_fragments import HOSTILE, Document
from trainer.problems import Problem
from trainer.records import BadRow, Record

ZH, EN = Text("zh"), Text("en")
WHY = {"en": f"it is {HOSTILE}", "zh": f"它是 {HOSTILE}"}
CALL = {"type": "function", "function": {"name": HOSTILE, "arguments": {HOSTILE: HOSTILE}}}


def record(text: str, **changes: Any) -> Record:
    messages = ({"role": "user", "content": text}, {"role": "assistant", "content": text, "tool_calls": [CALL]})
    return Record(
        **({"dataset": "d", "row": 7, "kind": "conversation", "messages": messages, "raw": {text: text}} | changes)
    )


def bad(text: str) -> BadRow:
    return BadRow(3, WHY, text, Problem("dataset_empty", name="x", path="y"))


SAMPLE: dict[str, Any] = {"row": 7, "kind": "conversation", "length": 3, "trained": 1, "cut_at": 2, "bad": None,
                          "tokens": [[1, "a", 0, 1], [2, HOSTILE, 1, 1], [3, "\n", 1, 0]]}  # fmt: skip
FOUND: dict[str, Any] = {
    "rows": 1200, "bad": 25, "bad_rows": [{"row": row, "reason": WHY} for row in range(1, 21)], "samples": 1175,
    "tokens": 123456, "trained_tokens": 61728, "histogram": [[10, 1000], [20, 0], [400, 175]], "longest": 390, "truncated": 47,
    "nothing_left": 0, "duplicates": 3, "languages": {"zh": 0.51, "en": 0.487, "other": 0.003},
    "placeholders": {HOSTILE: 2}, "seconds": 0.1, "sampled": None,
}  # fmt: skip


def checked(found: dict[str, Any], cutoff_len: int = 64, skipping: bool = False, text: Text = ZH) -> str:
    return dataset_words.check_html(Answer("done", found), None, cutoff_len, skipping, text)


SHOWN: dict[str, Callable[[], str]] = {
    "conversation": lambda: dataset_view.conversations_html([record(HOSTILE, tools=(CALL,))], ZH),
    "pair": lambda: dataset_view.conversations_html(
        [record(HOSTILE, kind="preference", rejected=({"role": "assistant", "content": HOSTILE},))], ZH
    ),
    "label": lambda: dataset_view.conversations_html([record(HOSTILE, kind="kto", desirable=False)], ZH),
    "bad row": lambda: dataset_view.conversations_html([bad(HOSTILE)], ZH),
    "raw": lambda: dataset_view.raw_rows_html([record(HOSTILE, raw=HOSTILE), bad(HOSTILE)], ZH),
    "tokens": lambda: dataset_view.tokens_html([SAMPLE], ZH),
    "check": lambda: checked(FOUND),
}


@pytest.mark.parametrize("name", SHOWN)
def test_hostile_content_is_shown_and_never_becomes_markup(name: str) -> None:
    document = Document(SHOWN[name]())
    assert HOSTILE in document.text
    assert "script" not in document.tags
    assert not {"onclick", "onload"} & document.attributes.keys()


def test_roles_are_named_in_the_pages_language_and_raw_text_stays_readable() -> None:
    html = dataset_view.conversations_html([record("你好")], ZH)
    assert "样例 7用户你好" in Document(html).text
    assert '"你好": "你好"' in Document(html).text


def test_of_a_pair_the_shared_turns_stand_once_and_the_answers_side_by_side() -> None:
    text = Document(SHOWN["pair"]()).text
    assert text.index("✓ 更好的回答") < text.index("✗ 较差的回答")
    assert text.count("用户") == 1


def test_of_a_long_text_the_end_is_left_out_and_said_so() -> None:
    html = dataset_view.conversations_html([record("x" * (dataset_view.MOST_CHARACTERS + 1500))], EN)
    assert "1,500 more characters not shown" in html
    assert len(html) < 4 * dataset_view.MOST_CHARACTERS


def test_tokens_are_marked_as_trained_masked_or_cut() -> None:
    html = dataset_view.tokens_html([SAMPLE], ZH)
    first, rest = html.split('title="1"')[0], html.split('title="1"')[1]
    assert first.endswith("<span ")
    assert '<span data-on title="2">' in rest
    assert rest.index("✂") < rest.index('<span data-on data-out title="3">↵')
    assert "共 3 个词元，训练 1 个，截断于 2" in html


def test_a_token_that_goes_on_with_a_character_can_be_pointed_at() -> None:
    tokens = [[1, "开", 1, 1], [2, "", 1, 1], [3, "", 1, 1]]
    html = dataset_view.tokens_html([SAMPLE | {"tokens": tokens, "cut_at": None}], ZH)
    assert f'<span data-on data-part title="3">{dataset_view.PART}</span>' in html


def test_a_sample_of_which_nothing_is_trained_says_so() -> None:
    assert "没有可训练的内容" in dataset_view.tokens_html([SAMPLE | {"trained": 0}], ZH)
    assert "不能" not in dataset_view.tokens_html([SAMPLE], ZH)


def test_a_sample_of_many_tokens_stays_small() -> None:
    many = SAMPLE | {"tokens": [[1, "a", 1, 1]] * 9000, "length": 12000, "cut_at": 8000}
    html = dataset_view.tokens_html([many], EN)
    assert "10,000 more tokens not shown" in html
    assert html.count("<span data-on title") == dataset_view.MOST_TOKENS
    assert "cut at 8,000" in html


def test_figures_are_said_with_their_shares() -> None:
    text = Document(checked(FOUND)).text
    for words in ("样本1,175", "词元123,456", "训练的词元61,728 · 50%", "最长样本（词元）390", "被截断47 · 4%", "无可训练内容0",
                  "重复3", "坏行25", "中文 51% · 英文 49%"):  # fmt: skip
        assert words in text, words
    assert "≈" not in text
    assert "≈ 123,456" in checked(FOUND | {"sampled": 500})
    assert "500" in checked(FOUND | {"sampled": 500})


def test_without_a_model_rows_are_counted_all_the_same() -> None:
    found = (
        FOUND | dict.fromkeys(("tokens", "trained_tokens", "longest", "truncated", "nothing_left")) | {"histogram": []}
    )
    why = Problem("dataset_empty", name="x", path="/nowhere")
    html = dataset_words.check_html(Answer("done", found), why, 64, False, EN)
    assert "/nowhere" in html
    assert "Samples" in html
    assert "Tokens" not in html


def test_bad_rows_come_with_their_reason_and_with_what_to_do() -> None:
    text = Document(checked(FOUND)).text
    assert "25 行无法使用。请改正文件，或勾选“跳过坏行”（skip_bad_rows）" in text
    assert "第 20 行：它是" in text
    assert "以及另外 5 行" in text
    assert "已勾选“跳过坏行”" in checked(FOUND, skipping=True)
    assert "td-problems" not in checked(FOUND | {"bad": 0, "bad_rows": []})


@pytest.mark.parametrize(("cutoff", "place"), [(10, 10.0), (5, 5.0), (20, 20.0), (210, 25.0), (400, 30.0), (401, None)])
def test_the_cutoff_stands_where_it_falls_among_the_lengths(cutoff: int, place: float | None) -> None:
    html = checked(FOUND, cutoff)
    assert ("<line" in html) == (place is not None)
    if place is not None:
        assert f'x1="{place:.1f}"' in html


def test_progress_is_said_in_rows_and_parts() -> None:
    running = Answer("running", {"rows": 34567, "bytes": 30, "of_bytes": 120})
    html = dataset_words.check_html(running, None, 64, False, ZH)
    assert "已检查 34,567 行，25%" in html
    assert 'aria-valuenow="25"' in html
    stopped = dataset_words.check_html(Answer("stopped", running.values), None, 64, False, EN)
    assert "stopped (34,567 rows seen)" in stopped
