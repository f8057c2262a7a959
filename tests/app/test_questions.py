"""A question and what the tab shows of its answers: what is typed leaves its field when it is answered, not before."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import conversation
from app.arguments import page_parser
from app.chat import ChatProcess
from app.look import Look
from app.page import Page
from app.questions import Asked, Drawn, Questions
from app.roots import Roots
from app.server_controls import LOCAL, SERVER, UNUSED
from app.text import Text
from tests.app.odd_server import OddServer, odd_server

pytestmark = pytest.mark.slow

END = 'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


@pytest.fixture
def questions(tmp_path: Path) -> Questions:
    text, chat = Text("zh"), ChatProcess(tmp_path / "chat.log")
    return Questions(
        Page(
            text,
            str(tmp_path),
            tmp_path,
            "",
            tmp_path / "runs",
            chat,
            Roots.of(page_parser().parse_args([])),
            Look(tmp_path / "look.log"),
        )
    )


@pytest.fixture
def odd() -> Iterator[OddServer]:
    with odd_server() as server:
        yield server


def asked(message: str, odd: OddServer | None = None, **changes: object) -> Asked:
    said = {"message": message, "kept": "", "engine": SERVER if odd else LOCAL, "url": odd.url if odd else "", "key": "",
            "server_model": "m", "compare": False, "columns": ("", UNUSED, UNUSED), "role": "user", "tools": "",
            "numbers": ("1024", "0.7", "0.95", "50", "1.0", "-1"), "system": "", "skip_special": True, "escape": True, "thinking": True}  # fmt: skip
    return Asked(**{**said, **changes})  # type: ignore[arg-type]


def answered(drawn: list[Drawn]) -> int:
    return sum(one.answered for one in drawn)


@pytest.mark.parametrize(("message", "words"), [(" ", "输入"), ("问题", "请先加载模型")])
def test_what_cannot_be_asked_is_said_and_changes_nothing_else(questions: Questions, message: str, words: str) -> None:
    [drawn] = questions.ask(asked(message), "tab")
    assert words in (drawn.words or "")
    assert drawn == Drawn(words=drawn.words)


def test_the_field_is_emptied_once_when_the_answer_begins(questions: Questions, odd: OddServer) -> None:
    odd.streams('data: {"choices": [{"index": 0, "delta": {"content": "答"}}]}\n\n', END)
    drawn = list(questions.ask(asked("问题", odd), "tab"))
    assert answered(drawn) == 1
    assert drawn[-1].words == ""
    assert "答" in (drawn[-1].kept or "")


def test_a_browser_that_takes_slowly_does_not_fall_behind(questions: Questions, odd: OddServer) -> None:
    odd.streams(*(f'data: {{"choices": [{{"index": 0, "delta": {{"content": "{n} "}}}}]}}\n\n' for n in range(40)), END)
    odd.pause_s = 0.01
    drawn = []
    for one in questions.ask(asked("问题", odd), "tab"):
        drawn.append(one)
        time.sleep(0.12)
    assert len(drawn) < 10, "what came while it was taken is drawn at once"
    assert "38 39" in str(drawn[-1].boxes[0])


def test_a_question_that_gets_no_answer_stays_in_its_field(questions: Questions, odd: OddServer) -> None:
    odd.answers("<html>", kind="text/html")
    drawn = list(questions.ask(asked("问题", odd), "tab"))
    assert answered(drawn) == 0
    assert "text/html" in (drawn[-1].words or "")
    assert drawn[-1].boxes[0] == []


def test_a_question_stopped_before_its_first_word_stays_in_its_field(questions: Questions, odd: OddServer) -> None:
    odd.pieces, odd.holds = [], True
    drawn = []
    for one in questions.ask(asked("问题", odd), "tab"):
        drawn.append(one)
        questions.stop("tab")
    assert answered(drawn) == 0
    assert drawn[-1].boxes[0] == []


def test_a_conversation_cleared_under_its_answer_comes_back_with_no_word(questions: Questions, odd: OddServer) -> None:
    odd.streams('data: {"choices": [{"index": 0, "delta": {"content": "答"}}]}\n\n')
    odd.holds = True
    kept = conversation.as_kept([[{"role": "user", "content": "以前"}], [{"role": "user", "content": "列"}], [], []])
    drawn = []
    for one in questions.ask(asked("问题", odd, kept=kept), "tab"):
        drawn.append(one)
        if one.answered:
            questions.clear("tab", [0])
    assert drawn[-1].boxes[0] == []
    assert conversation.restored(drawn[-1].kept) == [[], [{"role": "user", "content": "列"}], [], []]
