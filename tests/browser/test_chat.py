"""The Chat tab under a reply that does not end: what is typed stays, Stop stops, the process may die, nothing is fetched."""

import os
import signal
from collections.abc import Callable

import psutil
import pytest

from tests.browser.conftest import Walker
from tests.conftest import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def server(chat_server: Server) -> Server:
    return chat_server


def children(server: Server) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children()


def loaded(walker: Walker) -> None:
    walker.click("加载模型")
    walker.wait_text("chat_status", "模型已加载", 60)


def test_a_bad_model_folder_is_said_before_anything_starts(server: Server, walk: Callable[..., Walker]) -> None:
    before = children(server)
    walker = walk(server.address, "zh").open()
    walker.tab("对话")
    empty = server.runs_dir.parent / "empty"
    for path, word in (("/nowhere", "/nowhere"), ("", "模型路径"), (str(empty), "config.json")):
        walker.fill("model_name_or_path", path)
        walker.click("加载模型")
        walker.wait_text("chat_messages", word)
    assert children(server) == before


@pytest.mark.everyday
def test_what_is_typed_while_a_reply_streams_is_kept_and_stop_keeps_the_reply(
    server: Server, walk: Callable[..., Walker]
) -> None:
    walker = walk(server.address, "zh").open()
    walker.tab("对话")
    walker.click("卸载模型")
    walker.wait_text("chat_status", "模型未加载")
    box = walker.field("chat_input")
    box.fill("没有加载时的问题")
    box.press("Enter")
    walker.wait_text("chat_messages", "请先加载模型")
    assert box.input_value() == "没有加载时的问题"

    loaded(walker)
    walker.fill("max_new_tokens", "8000")
    box.fill("第一行")
    box.press("Shift+Enter")
    box.press_sequentially("第二行 ![x](http://192.0.2.1/spy.png) <b>粗</b>")
    box.press("Enter")
    walker.wait(lambda: len(walker.text("chatbot")) > 200, "a long reply", 60)
    assert "<b>粗</b>" in walker.text("chatbot"), "tags are shown as text"
    box.fill("下一个问题")
    walker.page.wait_for_timeout(500)
    assert box.input_value() == "下一个问题"
    box.press("Enter")
    walker.wait_text("chat_messages", "正在生成另一条回复")
    assert box.input_value() == "下一个问题"

    walker.click("停止")
    walker.wait(lambda: walker.page.locator("#chatbot .td-numbers").count() == 1, "the end of the reply", 10)
    kept = walker.text("chatbot")
    assert "第一行" in kept
    assert len(kept) > 200
    clearing = walker.page.get_by_role("button", name="清空").locator("visible=true")
    assert [button.inner_text() for button in clearing.all()] == ["清空历史"], "one button clears, not two"
    assert walker.page.get_by_role("button", name="Copy message").count() == 0, "no English on the Chinese page"
    walker.page.locator("#escape_html input").uncheck()
    walker.page.wait_for_timeout(500)
    assert walker.foreign == [], "a picture in a message is not fetched from another host"
    loaded(walker)  # at once, being loaded: the status does not stay at what the click said
    assert walker.errors == []


def test_what_is_cleared_does_not_come_back(server: Server, walk: Callable[..., Walker]) -> None:
    walker = walk(server.address, "zh").open()
    walker.tab("对话")
    loaded(walker)
    walker.fill("max_new_tokens", "8000")
    box, answers = walker.field("chat_input"), walker.page.locator("#chatbot .td-numbers")

    box.fill("第一个问题")
    box.press("Enter")
    walker.wait(lambda: len(walker.text("chatbot")) > 100, "a reply", 60,
                lambda: [walker.text("chatbot"), walker.text("chat_messages"), box.input_value()])  # fmt: skip
    walker.click("清空历史")
    walker.wait_text("chat_status", "模型已加载", 10)  # nobody reads that answer: it is not written on
    walker.page.wait_for_timeout(500)
    assert walker.page.locator("#chatbot .message").count() == 0

    walker.fill("max_new_tokens", "10")
    box.fill("第二个问题")
    box.press("Enter")
    walker.wait(lambda: answers.count() == 1, "an answer")
    box.fill("第三个问题")
    walker.page.evaluate(
        "() => { chat('clear_history'); setTimeout(() => chat('chat_submit'), 20); "
        "function chat(id) { document.querySelector(`#${id}`).click(); } }"
    )
    walker.wait_text("chatbot", "第三个问题")
    walker.wait(lambda: answers.count() == 1, "its answer")
    assert "第二个问题" not in walker.text("chatbot")
    walker.click("清空历史")
    walker.page.reload()
    walker.tab("对话")
    walker.wait_text("chat_status", "模型已加载")
    assert walker.page.locator("#chatbot .message").count() == 0, "not after a reload either"
    assert walker.errors == []


def test_a_chat_process_killed_in_the_middle_of_a_reply_is_said_and_loads_again(
    server: Server, walk: Callable[..., Walker]
) -> None:
    walker = walk(server.address, "zh").open()
    walker.tab("对话")
    loaded(walker)
    walker.fill("max_new_tokens", "8000")
    walker.field("chat_input").fill("一个问题")
    walker.field("chat_input").press("Enter")
    walker.wait(lambda: len(walker.text("chatbot")) > 100, "a reply", 60)
    [process] = children(server)
    os.kill(process.pid, signal.SIGKILL)
    for place in ("chat_status", "chat_messages"):
        walker.wait_text(place, "对话进程被外部终止")
    walker.page.reload()
    walker.tab("对话")
    walker.wait_text("chatbot", "一个问题")
    assert len(walker.text("chatbot")) > 100, "what had come of the answer is kept"
    loaded(walker)
    assert walker.errors == []
