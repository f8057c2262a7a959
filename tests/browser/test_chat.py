"""The Chat tab under a reply that does not end: what is typed stays, Stop stops, nothing is fetched."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.browser.conftest import Walker, endless_model
from tests.conftest import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slow enough to be watched."""
    return endless_model(tmp_path_factory.mktemp("model") / "tiny", hidden_size=512, layers=8)


def typed(walker: Walker) -> str:
    return walker.page.locator("#chat_input textarea").input_value()


def loaded(walker: Walker) -> None:
    walker.tab("对话")
    walker.click("加载模型")
    walker.wait_text("chat_status", "模型已加载", 60)


def test_what_is_typed_while_a_reply_streams_is_kept_and_stop_keeps_the_reply(
    serve: Callable[..., Server], walk: Callable[..., Walker], model: Path
) -> None:
    server = serve("--model", str(model))
    walker = walk(server.address, "zh").open()
    walker.tab("对话")
    box = walker.page.locator("#chat_input textarea")
    box.fill("没有加载时的问题")
    box.press("Enter")
    walker.wait_text("chat_messages", "请先加载模型")
    assert typed(walker) == "没有加载时的问题"

    loaded(walker)
    walker.fill("max_new_tokens", "8000")
    walker.fill("temperature", "0")
    box.fill("第一行")
    box.press("Shift+Enter")
    box.press_sequentially("第二行 ![x](http://192.0.2.1/spy.png) <b>粗</b>")
    box.press("Enter")
    walker.wait(lambda: len(walker.text("chatbot")) > 200, "a long reply", 60)
    assert "<b>粗</b>" in walker.text("chatbot"), "tags are shown as text"
    box.fill("下一个问题")
    walker.page.wait_for_timeout(500)
    assert typed(walker) == "下一个问题"
    box.press("Enter")
    walker.wait_text("chat_messages", "正在生成另一条回复")
    assert typed(walker) == "下一个问题"

    began = time.monotonic()
    walker.click("停止")
    walker.wait(lambda: walker.page.locator("#chatbot .td-numbers").count() == 1, "the end of the reply", 5)
    assert time.monotonic() - began < 2
    walker.page.wait_for_timeout(300)
    kept = walker.text("chatbot")
    assert "第一行" in kept
    assert len(kept) > 200
    clearing = walker.page.get_by_role("button", name="清空").locator("visible=true")
    assert [button.inner_text() for button in clearing.all()] == ["清空历史"], "one button clears, not two"
    assert walker.page.get_by_role("button", name="Copy message").count() == 0, "no English on the Chinese page"
    walker.page.locator("#escape_html input").uncheck()
    walker.page.wait_for_timeout(500)
    assert walker.foreign == [], "a picture in a message is not fetched from another host"


def test_a_chat_process_that_is_killed_is_said_and_loads_again(
    serve: Callable[..., Server], walk: Callable[..., Walker], model: Path
) -> None:
    server = serve("--model", str(model))
    walker = walk(server.address, "zh").open()
    loaded(walker)
    [process] = psutil.Process(server.process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    walker.wait_text("chat_status", "对话进程被外部终止")
    walker.click("加载模型")
    walker.wait_text("chat_status", "模型已加载", 60)
    assert walker.errors == []


def test_a_bad_model_folder_is_said_before_anything_starts(
    serve: Callable[..., Server], walk: Callable[..., Walker], model: Path, tmp_path: Path
) -> None:
    server = serve("--model", str(model), "--allow-path", str(tmp_path), "--allow-path", "/nowhere")
    walker = walk(server.address, "zh").open()
    walker.tab("对话")
    (tmp_path / "empty").mkdir()
    for path, word in (("/nowhere", "/nowhere"), ("", "模型路径"), (str(tmp_path / "empty"), "config.json")):
        walker.fill("model_name_or_path", path)
        walker.click("加载模型")
        walker.wait_text("chat_messages", word)
    assert psutil.Process(server.process.pid).children() == []
