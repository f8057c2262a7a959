"""The page's pieces of HTML."""

from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from app.fragments import (
    header_html,
    log_html,
    metrics_html,
    notice_html,
    problems_html,
    status_html,
)

HOSTILE = """<script>alert("x")</script>' onclick='y' " onload="z" & `${1}`"""

FRAGMENTS: dict[str, Callable[[str], str]] = {
    "header": lambda text: header_html("<svg></svg>", text, text, text, text),
    "status": lambda text: status_html(text, text, 0.5),
    "metrics": lambda text: metrics_html([(text, text)]),
    "problems": lambda text: problems_html(text, [text]),
    "notice": notice_html,
    "log": log_html,
}


class Document(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", FRAGMENTS)
def test_hostile_text_is_shown_and_never_becomes_markup(name: str) -> None:
    document = Document(FRAGMENTS[name](HOSTILE))
    assert HOSTILE in document.text
    assert "script" not in document.tags
    assert not {"onclick", "onload"} & document.attributes.keys()


def test_a_fraction_outside_the_bar_is_held_within_it() -> None:
    assert 'aria-valuenow="100"' in status_html("训练", "61/60", 61 / 60)


def test_a_run_of_unknown_length_has_a_bar_without_a_value() -> None:
    html = status_html("加载模型", "", None)
    assert "data-unknown" in html
    assert "aria-valuenow" not in html


def test_an_idle_status_has_no_bar() -> None:
    assert "td-bar" not in status_html("就绪", "", None, "idle")


def test_no_problems_leave_no_panel() -> None:
    assert problems_html("请先修改", []) == ""
