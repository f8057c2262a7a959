"""A dataset before training, walked by a person: looked at as tokens, one of their own added, its placeholders filled."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.text import Text
from tests.browser.conftest import Walker
from tests.conftest import Server
from tests.tiny import build_tiny_model
from trainer.problems import Language

pytestmark = pytest.mark.slow

OLD = '{"old":   {"file_name": "old.json"}\n}\n'
LONG = "一二三四五六七八九十" * 12
ROWS = [
    {"instruction": "你好", "output": "我是{{name}}，由{{author}}开发。"},
    {"instruction": "Hello", "output": LONG},
    {"instruction": "你好", "output": 3},
    {"instruction": "你好", "output": "我是{{name}}，由{{author}}开发。"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "old.json").write_text(json.dumps([{"instruction": "a", "output": "b"}] * 9))
    (folder / "dataset_info.json").write_text(OLD)
    return folder


def figures(walker: Walker) -> dict[str, str]:
    """What is said of the whole dataset now, by name."""
    return walker.page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("#preview_stats .td-metrics > div")].map(
            (cell) => [cell.querySelector("dt").textContent, cell.querySelector("dd").textContent]))"""
    )


def view(walker: Walker, text: Text, name: str) -> None:
    walker.page.locator("#preview_view label", has_text=text(f"view.{name}")).click()


def put(walker: Walker, text: Text, name: str, rows: list[Any]) -> None:
    """Chooses a file in the open panel and waits for what its check has found."""
    file = {"name": name, "mimeType": "application/json", "buffer": json.dumps(rows, ensure_ascii=False).encode()}
    walker.page.locator("#upload_file input[type=file]").set_input_files(file)
    walker.wait_text("upload_result", text("check.duplicates"), 40)


@pytest.mark.thorough
@pytest.mark.parametrize("language", ["zh"])
def test_a_dataset_is_added_looked_at_and_filled_in(
    language: Language, serve: Callable[..., Server], walk: Callable[..., Walker], model: Path, data: Path
) -> None:
    text = Text(language)
    server = serve("--model", str(model), "--data-dir", str(data))
    walker = walk(server.address, language).open()

    walker.click(text("upload_dataset"))
    put(walker, text, "../我的 data.json", ROWS)
    result = walker.text("upload_result")
    assert text("check.bad_row", row=3, reason="")[:5] in result
    assert text("check.bad_remedy") in result
    assert walker.field("upload_name").input_value() == "我的 data"
    walker.picture(f"{language}-upload-1400", full=False)
    walker.fill("upload_name", "old")
    walker.click(text("upload.add"))
    walker.wait_text("upload_result", "old")
    walker.fill("upload_name", "我的 data")
    walker.click(text("upload.add"))
    walker.wait_text("messages", "我的 data")
    assert "我的 data" in walker.text("dataset")
    written = (data / "dataset_info.json").read_text()
    assert written.startswith(OLD.rstrip().removesuffix("}").rstrip())
    assert json.loads(written)["我的 data"] == {"file_name": "我的 data.json"}
    assert list((server.runs_dir / "_uploads").glob("*")) == []

    # Of two chosen datasets the new one alone is wanted.
    walker.page.locator("#dataset .token", has_text="old").locator("[class*=token-remove]").click()
    walker.wait(lambda: walker.page.locator("#placeholder_fields").is_visible(), "the placeholders' fields")
    assert "{{author}}" in walker.text("placeholder_fields")
    walker.page.locator("#output_dir").scroll_into_view_if_needed()
    walker.click(text("start"))
    walker.wait_text("messages", "{{name}}")
    assert not list(server.runs_dir.glob("train_*")), "nothing was started"

    walker.click(text("preview_dataset"))
    walker.wait_text("samples", text("preview.sample", row=1))
    assert text("preview.bad_row", reason="")[:6] in walker.text("samples")
    walker.wait(lambda: text("check.bad") in figures(walker), "the check", 40, lambda: walker.text("preview_stats"))
    found = figures(walker)
    assert (found[text("check.samples")], found[text("check.bad")], found[text("check.duplicates")]) == ("3", "1", "1")
    assert "{{name}}" in walker.text("preview_stats")
    walker.fill("preview_cutoff_len", "60")
    walker.wait(lambda: figures(walker).get(text("check.truncated"), "").startswith("1"), "the cutoff", 20)
    assert walker.page.locator("#preview_stats svg line").count() == 1
    view(walker, text, "tokens")
    walker.wait(lambda: walker.page.locator("#samples .td-cut").count() == 1, "where it is cut", 20)
    parts = walker.page.locator("#samples .td-tokens").first.locator("[data-on]:not([data-part])").all_inner_texts()
    assert "".join(parts).startswith("我是{{name}}，由{{author}}开发。<|im_end|>")
    token = walker.page.locator("#samples .td-tokens [data-on]").first
    assert re.fullmatch(r"\d+", token.get_attribute("title"))
    token.hover()
    about = walker.page.locator(".td-token-about")
    assert token.get_attribute("title") in about.inner_text()
    walker.page.locator("#samples .td-tokens").first.focus()
    walker.page.keyboard.press("End")
    last = walker.page.locator("#samples .td-tokens").first.locator("[title]").last.get_attribute("title")
    assert last in about.inner_text(), "the arrow keys tell the same"
    walker.picture(f"{language}-preview-tokens-1400", full=False)
    walker.page.locator("#preview_train_on_prompt input").click()
    walker.wait(lambda: walker.page.locator("#samples .td-tokens").first.locator("[title]:not([data-on])").count() <= 1,
                "the prompt to be trained on", 20)  # fmt: skip
    walker.page.locator("#preview_train_on_prompt input").click()
    walker.page.locator("#preview_skip_bad_rows input").click()
    walker.wait_text("preview_stats", text("check.bad_skipped"))
    view(walker, text, "raw")
    walker.wait(lambda: '"output": 3' in walker.text("samples"), "the rows as they are")
    walker.click(text("preview.close"))
    assert walker.field("cutoff_len").input_value() == "60", "what was changed there is changed here"

    for place, value in enumerate(("北大", "小微（我）")):
        walker.fill(f"placeholder_{place}", value)
    walker.click(text("preview_command"))
    walker.wait(lambda: "小微（我）" in walker.field("command").input_value(), "the command", 10)
    command = walker.field("command").input_value()
    assert '{"author": "北大", "name": "小微（我）"}' in command
    assert "--skip_bad_rows true" in command
    walker.page.reload()
    walker.wait(
        lambda: walker.page.locator("#placeholder_1 textarea, #placeholder_1 input").first.is_visible(), "the fields"
    )
    walker.wait(lambda: walker.field("placeholder_1").input_value() == "小微（我）", "what was filled in", 10)
    assert walker.errors == []
    assert walker.foreign == []


def test_what_a_dataset_asks_for_and_cannot_do_is_said_when_the_page_opens_with_it(
    serve: Callable[..., Server], walk: Callable[..., Walker], data: Path
) -> None:
    pair = {"prompt": "a", "chosen": "{{name}}", "rejected": "b"}
    (data / "old.json").write_text(json.dumps([pair]))
    walker = walk(serve("--data-dir", str(data)).address, "zh").open()
    walker.wait(lambda: walker.page.locator("#placeholder_0").is_visible(), "the field")
    assert "{{name}}" in walker.text("placeholder_fields")
    walker.click("预览数据集")
    walker.wait_text("preview_stats", "暂不支持偏好训练")
    assert walker.errors == []


@pytest.mark.thorough
def test_a_page_turned_while_the_dataset_is_checked_stays_turned(
    serve: Callable[..., Server], walk: Callable[..., Walker], model: Path, data: Path
) -> None:
    rows = [{"instruction": f"q{number}", "output": f"a{number}"} for number in range(120_000)]
    (data / "old.json").write_text(json.dumps(rows))
    walker = walk(serve("--model", str(model), "--data-dir", str(data)).address, "zh").open()
    walker.click("预览数据集")
    walker.wait(lambda: "q0" in walker.text("samples"), "the preview", 10)
    for view_of, mark in (("conversation", "a{row}"), ("tokens", "a{row}"), ("conversation", "a{row}")):
        view(walker, Text("zh"), view_of)
        page = int(walker.field("preview_page").input_value())
        for _ in range(7):
            walker.click("下一页")
            walker.page.wait_for_timeout(130)
        walker.click("上一页")
        page += 6
        row = mark.format(row=4 * (page - 1))
        walker.wait(lambda: walker.field("preview_page").input_value() == str(page), f"page {page}")  # noqa: B023
        walker.wait(lambda: row in walker.text("samples"), row, 20, lambda: walker.text("samples")[:300])  # noqa: B023
        walker.page.wait_for_timeout(1200)  # an answer to what was asked before comes no more
        assert row in walker.text("samples")
        assert walker.field("preview_page").input_value() == str(page)
    walker.fill("preview_page", "999999")
    walker.page.keyboard.press("Enter")
    walker.wait(lambda: walker.field("preview_page").input_value() == "30000", "the last page", 60,
                lambda: walker.field("preview_page").input_value())  # fmt: skip
    assert walker.errors == []


@pytest.mark.thorough
def test_pasted_rows_and_bad_files_in_english(
    serve: Callable[..., Server], walk: Callable[..., Walker], model: Path, data: Path
) -> None:
    server = serve("--model", str(model), "--data-dir", str(data))
    walker = walk(server.address, "en", 390).open()
    walker.click("Add data")
    file = {"name": "x.zip", "mimeType": "application/zip", "buffer": b"PK"}
    walker.page.locator("#upload_file input[type=file]").set_input_files(file)
    walker.wait(lambda: "archive" in walker.text("upload_file"), "the refusal", 10)
    walker.click("Check")
    walker.wait_text("upload_result", "nothing given")
    walker.fill("upload_paste", '{"text": "once upon a time"}\n{"text": ')
    walker.click("Check")
    walker.wait_text("upload_result", "Bad rows", 40)
    assert "Row 2" in walker.text("upload_result")
    seen = walker.page.locator("#upload").inner_text()
    assert not re.search("[\u4e00-\u9fff]", seen)
    assert walker.page.evaluate("document.documentElement.scrollWidth") <= 390
    with walker.page.expect_download() as download:
        walker.page.get_by_role("link", name="identity.json", exact=True).click()
    assert "{{name}}" in Path(download.value.path()).read_text()
    walker.page.keyboard.press("Escape")
    walker.page.locator("#upload").wait_for(state="detached")
    assert list((server.runs_dir / "_uploads").glob("*")) == []
    assert walker.errors == []
