"""The chat's state in words, and words that are over."""

import pytest

from app.chat import STOPPING_S, State, Status
from app.chat_words import is_over, problem_html, status_html
from app.text import Text
from trainer.problems import Language, Problem


@pytest.mark.parametrize(
    ("problem", "still", "then"),
    [
        (Problem("chat_loading"), "loading", "ready"),
        (Problem("chat_not_loaded"), "dead", "loading"),
        (Problem("chat_busy"), "generating", "ready"),
        (Problem("chat_busy_elsewhere"), "generating", "unloaded"),
        (Problem("chat_not_stopping", seconds=f"{STOPPING_S:g}"), "generating", "starting"),
    ],
)
@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_problem_that_passes_is_over_in_another_state(
    problem: Problem, still: State, then: State, language: Language
) -> None:
    text = Text(language)
    words = problem_html(problem, text)
    assert not is_over(words, Status(still), text)
    assert is_over(words, Status(then), text)


def test_any_other_problem_stays() -> None:
    text = Text("en")
    assert not is_over(problem_html(Problem("chat_empty"), text), Status("ready"), text)
    assert not is_over("", Status("ready"), text)


def test_an_answer_that_is_being_left_is_no_longer_said_to_be_written() -> None:
    assert "Stopping" in status_html(Status("generating", stopping=True), Text("en"))
    assert "Answering" in status_html(Status("generating"), Text("en"))
