"""One question and its answers: columns that fail alone, tabs that wait for each other, and whose answer Stop ends."""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.answering import Answers, Asking, Column, Part, Tabs, ask_process
from app.chat import ChatProcess, Done
from tests.tiny import build_hollow_model
from trainer.problems import Problem

ECHO = [sys.executable, str(Path(__file__).with_name("echo_chat.py"))]


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[ChatProcess]:
    process = ChatProcess(tmp_path / "chat.log", ECHO)
    process.load(build_hollow_model(tmp_path / "model"))
    yield process
    process.unload()


def question(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def text_of(parts: list[Part | None]) -> str:
    return "".join(part[1] for part in parts if part and isinstance(part[1], str))


def columns(*numbers: int) -> list[Column]:
    return [Column(number, "", f"who {number}") for number in numbers]


def test_every_column_goes_on_with_its_own_answers_and_one_that_failed_is_as_before() -> None:
    before = [[], [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], [], []]
    answers = Answers(before, columns(1, 2), {"role": "user", "content": "next"})
    assert [len(one) for one in answers.pending] == [0, 3, 1, 0], "the question is seen before its answer"
    answers.take(0, "an")
    answers.take(1, Problem("chat_empty"))
    answers.take(0, "swer")
    answers.take(0, Done("stop", 2))
    assert [message["content"] for message in answers.now[1]] == ["a", "b", "next", "answer"]
    assert answers.now[1][-1]["numbers"]["who"] == "who 1"
    assert answers.now[2] == answers.now[0] == []
    assert answers.problems[2].code == "chat_empty"


def test_an_answer_stopped_before_its_first_word_leaves_the_question_unasked() -> None:
    answers = Answers([[], [], [], []], columns(0), {"role": "user", "content": "?"})
    answers.take(0, Done("cancelled"))
    assert answers.now == [[], [], [], []]


def test_a_conversation_that_is_cleared_under_its_answer_stays_empty_and_the_others_stay() -> None:
    before = [[{"role": "user", "content": "one"}], [{"role": "user", "content": "two"}], [], []]
    answers = Answers(before, columns(1, 2), {"role": "user", "content": "next"})
    answers.take(0, "wo")
    assert not answers.forget([0]), "no answer was to go there"
    assert answers.forget([1])
    answers.take(0, "rd")
    answers.take(0, Done("cancelled", 2))
    assert answers.now == [[], [], [], []]
    assert [len(one) for one in answers.pending] == [0, 0, 1, 0]


def test_clearing_ends_the_answer_that_goes_there_and_no_other(chat: ChatProcess) -> None:
    tabs, answers = Tabs(), Answers([[], [], [], []], columns(1), {"role": "user", "content": "?"})
    with tabs.asking("tab", chat.stop, answers.forget) as asking:
        parts = asking.parts(lambda: ask_process(chat, [("", question("slow " + "a" * 500))], False, {}))
        next(parts)
        tabs.clear("other", [1])
        tabs.clear("tab", [0, 2])
        assert not asking.stopped.is_set()
        tabs.clear("tab", [1])
        assert asking.stopped.is_set()
        assert len(list(parts)) < 100
    tabs.clear("tab", [1])


def test_a_question_right_after_stop_waits_for_the_end_instead_of_being_refused() -> None:
    tabs, begun = Tabs(), threading.Event()

    def first() -> None:
        with tabs.asking("tab", lambda: None) as asking:
            begun.set()
            asking.stopped.wait(5)
            time.sleep(0.2)

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait(5)
    threading.Timer(0.1, tabs.stop, ["tab"]).start()  # which the question has overtaken
    with tabs.asking("tab", lambda: None):
        thread.join(1)
        assert not thread.is_alive()
        assert tabs.has("tab")
    assert not tabs.has("tab")


def test_a_second_tab_waits_and_is_answered_after_the_first(chat: ChatProcess) -> None:
    tabs = Tabs()
    waited: list[int] = []
    second: list[Part | None] = []

    def ask_second() -> None:
        with tabs.asking("second", chat.stop) as asking:
            second.extend(asking.parts(lambda: ask_process(chat, [("", question("say B"))], False, {})))
            waited.append(second.count(None))

    with tabs.asking("first", chat.stop) as asking:
        parts = asking.parts(lambda: ask_process(chat, [("", question("slow " + "a" * 20))], False, {}))
        first = [next(parts)]
        thread = threading.Thread(target=ask_second)
        thread.start()
        first += list(parts)
    thread.join(10)
    assert text_of(first) == "a" * 20
    assert text_of(second) == "B", "and nothing of the first"
    assert waited[0] > 0


def test_stop_of_a_waiting_tab_takes_its_question_back_and_leaves_the_other_alone(chat: ChatProcess) -> None:
    tabs = Tabs()
    with tabs.asking("first", chat.stop) as asking:
        parts = asking.parts(lambda: ask_process(chat, [("", question("slow " + "a" * 30))], False, {}))
        first = [next(parts)]
        with tabs.asking("second", chat.stop) as waiting:
            second = waiting.parts(lambda: ask_process(chat, [("", question("say B"))], False, {}))
            assert next(second) is None
            tabs.stop("second")
            assert list(second) == []
        first += list(parts)
    assert text_of(first) == "a" * 30


def test_stop_ends_the_tabs_own_answer(chat: ChatProcess) -> None:
    tabs = Tabs()
    with tabs.asking("tab", chat.stop) as asking:
        parts = asking.parts(lambda: ask_process(chat, [("", question("slow " + "a" * 500))], False, {}))
        found = [next(parts)]
        began = time.monotonic()
        tabs.stop("other")
        tabs.stop("tab")
        found += list(parts)
    assert time.monotonic() - began < 2
    assert found[-1] is not None
    last = found[-1][1]
    assert isinstance(last, Done)
    assert last.finish == "cancelled"


def test_one_tab_asks_one_question_at_a_time() -> None:
    tabs = Tabs()
    with tabs.asking("tab", lambda: None):
        with pytest.raises(Problem) as caught, tabs.asking("tab", lambda: None):
            pass
        assert caught.value.code == "chat_busy"
    with tabs.asking("tab", lambda: None) as asking:
        assert isinstance(asking, Asking)


def test_closing_the_parts_early_ends_the_answer_in_the_process(chat: ChatProcess) -> None:
    asking = Asking(chat.stop)
    parts = asking.parts(lambda: ask_process(chat, [("", question("slow " + "a" * 500))], False, {}))
    next(parts)
    parts.close()  # type: ignore[attr-defined]
    began = time.monotonic()
    while chat.status.state == "generating":
        assert time.monotonic() - began < 5
        time.sleep(0.02)


def test_compared_columns_each_get_their_own_conversation(chat: ChatProcess) -> None:
    asked = [("", question("say one")), ("/some/adapter", question("say two"))]
    found = list(ask_process(chat, asked, True, {}))
    texts = {n: text_of([part for part in found if part[0] == n]) for n in (0, 1)}
    assert texts == {0: "o0n0e0", 1: "t1w1o1"}
