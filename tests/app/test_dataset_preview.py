"""What the preview sends to a tab: what it does not show yet, also where a timer's request crosses the answer to a click."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app.dataset_preview import DatasetPreview
from app.looked import LOOKED
from app.text import Text


@pytest.fixture
def preview(tmp_path: Path) -> DatasetPreview:
    """Of a dataset of two pages, for a page whose settings cannot be used: nothing asks for tokens."""
    (tmp_path / "x.json").write_text(json.dumps([{"instruction": f"q{n}", "output": "a"} for n in range(8)]))

    def refuse(typed: Any) -> None:
        from trainer.problems import Problem

        raise Problem("model_missing", label="", path="")

    page: Any = SimpleNamespace(
        text=Text("en"), look=None, roots=SimpleNamespace(check=lambda path, _: Path(path), check_typed=refuse)
    )
    with gr.Blocks(analytics_enabled=False):
        found = DatasetPreview(page)
    found._keys = list(LOOKED)
    return found


def shown(preview: DatasetPreview, folder: Path, page: str, seen: str) -> list[Any]:
    typed = {"dataset_dir": str(folder), "skip_bad_rows": False}
    return preview._show("x", page, "raw", seen, *(typed.get(key, "") for key in LOOKED))


def test_what_a_tab_shows_is_not_sent_again(preview: DatasetPreview, tmp_path: Path) -> None:
    first = shown(preview, tmp_path, "1", "")
    assert "q0" in first[2]
    assert shown(preview, tmp_path, "1", first[-1])[:5] == [gr.skip()] * 5


def test_a_timer_does_not_undo_the_page_whose_answer_it_crosses(preview: DatasetPreview, tmp_path: Path) -> None:
    """The tab still says what it shows: page 1, though the server has answered with page 2 already."""
    first = shown(preview, tmp_path, "1", "")
    assert "q4" in shown(preview, tmp_path, "2", first[-1])[2]
    crossing = shown(preview, tmp_path, "1", first[-1])
    assert crossing[:5] == [gr.skip()] * 5
    assert "q4" in shown(preview, tmp_path, "2", crossing[-1])[2], "what the tab shows by then is brought again"
