"""The preview's answers to its timer, which cross those to clicks."""

from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app.dataset_preview import DatasetPreview
from app.text import Text

SEEN = [1, 2, 3, 4, 5, ["talks", "2", "raw"]]


@pytest.fixture
def preview(monkeypatch: pytest.MonkeyPatch) -> DatasetPreview:
    page: Any = SimpleNamespace(text=Text("en"), look=None, roots=None)
    with gr.Blocks(analytics_enabled=False):
        found = DatasetPreview(page)
    monkeypatch.setattr(found, "_show", lambda *asked: ["shown", *asked])
    return found


@pytest.mark.parametrize("asked", [("talks", "1", "raw"), ("talks", "2", "tokens"), ("others", "2", "raw")])
def test_the_timer_does_not_undo_a_click_whose_answer_is_on_its_way(
    preview: DatasetPreview, asked: tuple[str, str, str]
) -> None:
    *shown, seen = preview._tick(*asked, SEEN)
    assert shown == [gr.skip()] * 6
    assert seen == SEEN


def test_the_timer_brings_what_is_new_of_what_is_shown(preview: DatasetPreview) -> None:
    assert preview._tick("talks", "2", "raw", SEEN)[0] == "shown"
    assert preview._tick("talks", "1", "raw", [])[0] == "shown", "nothing was shown before"
