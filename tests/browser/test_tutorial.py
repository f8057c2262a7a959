"""The tutorial, walked in Chromium by someone who reads labels: from the first click to the changed answer."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.browser.conftest import Walker
from tests.conftest import Server

pytestmark = pytest.mark.slow
TOKEN_IN_ADDRESS = re.compile(r"\?token=\S+")
CHECKPOINT = re.compile(r"checkpoint-\d+")


def ask(walker: Walker, question: str, send: str = "Enter") -> str:
    """Types the question, sends it, and gives back the finished answer."""
    replies = walker.page.locator("#chatbot .bot.message, #chatbot .message.bot")
    before = replies.count()
    walker.page.locator("#chat_input textarea").fill(question)
    if send == "Enter":
        walker.page.locator("#chat_input textarea").press("Enter")
    else:
        walker.click(send)
    walker.wait(lambda: replies.count() > before, "an answer")
    walker.wait(lambda: replies.last.locator(".td-numbers").count() > 0, "the answer's end", 60)
    return replies.last.inner_text()


def chart_points(walker: Walker) -> list[float]:
    data = walker.page.locator("#loss-chart [data-points]").first.get_attribute("data-points")
    return json.loads(data)["step"] if data else []


def processes_of(server: Server) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children(recursive=True)


@pytest.mark.alone
def test_the_tutorial_in_chinese_ends_with_another_answer(
    serve: Callable[..., Server], walk: Callable[..., Walker]
) -> None:
    server = serve()
    walker = walk(server.address, "zh").open()
    assert "/zh/" in walker.page.url
    assert "token" not in walker.page.url, "the token must not stay in the address bar"
    walker.picture("zh-train-1400")

    walker.tab("对话")
    walker.wait_text("chat_status", "模型未加载，请先加载模型。")
    walker.click("加载模型")
    walker.wait_text("chat_status", "模型已加载，可以开始聊天了！", 60)
    walker.fill("generation_seed", "42")
    before = ask(walker, "你好，你是谁？")
    assert "小调" in before
    walker.picture("zh-chat-before-1400")

    walker.tab("训练")
    walker.click("预览数据集")
    # The page number stands there before the samples do.
    walker.wait(lambda: walker.page.locator("#samples summary").count() > 0, "the preview")
    first = walker.text("samples")
    walker.picture("zh-preview-1400", full=False)
    walker.click("下一页")
    walker.wait(lambda: walker.field("preview_page").input_value() == "2", "page 2")
    walker.wait(lambda: walker.text("samples") != first, "the samples of page 2")
    walker.click("上一页")
    walker.wait(lambda: walker.text("samples") == first, "page 1 again", seen=lambda: walker.text("samples"))
    walker.page.locator("#preview summary").first.click()
    assert "instruction" in walker.text("samples")
    walker.click("关闭")

    walker.fill("num_train_epochs", "20")
    walker.fill("max_samples", "1000")
    walker.fill("cutoff_len", "1024")
    assert float(walker.field("learning_rate").input_value()) != 5e-5, "the demo model recommends its own rate"
    walker.click("保存训练参数")
    walker.wait_text("messages", "已保存到")
    walker.click("预览命令")
    walker.wait(lambda: "--num_train_epochs 20" in walker.field("command").input_value(), "the command")

    walker.click("开始")
    began = time.monotonic()
    walker.wait(lambda: walker.page.locator("#status [data-state=running]").count() == 1, "a stage", 1.0)
    walker.wait_text("status", "训练中", 40)
    walker.wait(lambda: len(chart_points(walker)) >= 3, "the curve", 40)
    walker.picture("zh-training-1400")
    height = walker.page.evaluate("document.documentElement.scrollHeight")
    assert height <= 2500
    assert re.search(r"运行中 \d+/\d+: \d:\d\d:\d\d < \d:\d\d:\d\d", walker.text("status").replace("：", ": "))
    walker.wait_text("status", "训练完毕", 120)
    assert time.monotonic() - began <= 90, "the tutorial's training must end within 90 s"
    walker.picture("zh-finished-1400")
    run = next(path for path in server.runs_dir.iterdir() if path.name.startswith("train_"))
    for name in ("config.yaml", "events.jsonl", "train.log", "training_loss.png", "adapter_model.safetensors"):
        assert (run / name).is_file(), name

    walker.tab("对话")
    walker.choose("adapter_name_or_path", CHECKPOINT)
    walker.click("卸载模型")
    walker.wait_text("chat_status", "模型未加载")
    walker.wait(lambda: processes_of(server) == [], "the chat process and the trainer to be gone", 3)
    walker.click("加载模型")
    walker.wait_text("chat_status", "模型已加载", 60)
    assert "checkpoint-" in walker.text("chat_status")
    walker.click("清空历史")
    walker.wait(lambda: "小调" not in walker.text("chatbot"), "an empty conversation")
    after = ask(walker, "你好，你是谁？", send="提交")
    assert "北大人工智能助手" in after
    walker.picture("zh-chat-after-1400")

    walker.page.reload()
    walker.wait_text("status", "训练完毕")
    walker.tab("对话")
    walker.wait_text("chat_status", "模型已加载")
    assert "北大人工智能助手" in walker.text("chatbot"), "a reload keeps the conversation"
    assert walker.errors == []
    assert walker.foreign == []


@pytest.mark.thorough
def test_a_shorter_walk_in_english_speaks_english_throughout(
    serve: Callable[..., Server], walk: Callable[..., Walker]
) -> None:
    server = serve()
    walker = walk(server.address, "en").open()
    assert "/en/" in walker.page.url
    chinese = re.compile("[\u4e00-\u9fff]")
    walker.picture("en-train-1400")
    for name in ("Extra configurations", "LoRA configurations", "Log"):
        walker.unfold(name)
    seen = walker.page.locator("body").inner_text().replace("中文", "")
    assert not chinese.search(seen), chinese.search(seen)

    walker.fill("num_train_epochs", "1")
    walker.fill("logging_steps", "1")
    walker.click("Start")
    walker.wait_text("status", "Finished", 60)
    walker.picture("en-finished-1400")
    walker.tab("Chat")
    walker.click("Load model")
    walker.wait_text("chat_status", "Model is loaded, now you can chat with it!", 60)
    walker.fill("generation_seed", "42")
    assert "Tuno" in ask(walker, "Hello, who are you?")
    walker.picture("en-chat-1400")

    walker.page.get_by_role("link", name="中文").click()
    walker.page.wait_for_url("**/zh/**")
    walker.page.goto(TOKEN_IN_ADDRESS.sub("", server.address))
    walker.page.wait_for_url("**/zh/**")  # the choice is remembered
    assert walker.errors == []
    assert walker.foreign == []


def events_of(server: Server) -> list[Any]:
    run = next(path for path in server.runs_dir.iterdir() if path.name.startswith("train_"))
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


@pytest.mark.thorough
def test_abort_stops_at_a_step_and_resume_goes_on_from_it(
    serve: Callable[..., Server], walk: Callable[..., Walker], tmp_path: Path
) -> None:
    server = serve()
    walker = walk(server.address, "zh").open()
    walker.fill("num_train_epochs", "40")
    walker.unfold("其它参数设置")
    walker.fill("logging_steps", "1")
    walker.click("开始")
    walker.wait(lambda: len(chart_points(walker)) >= 3, "the curve", 60)
    second = walk(server.address, "en").open()
    second.wait_text("status", "Training")
    assert len(chart_points(second)) >= 3, "a tab opened later shows the curve from the first step"

    walker.click("中断")
    walker.wait_text("status", "已中断", 30)
    assert "步停止" in walker.text("status")
    second.wait_text("status", "Stopped at step")
    stopped_at = events_of(server)[-1]["step"]

    walker.click("开始")  # the same output folder
    walker.wait_text("messages", "已有一次训练")
    walker.page.locator("#offer_resume").click()
    walker.wait_text("status", "训练中", 60)
    walker.wait(lambda: (chart_points(walker) or [0])[-1] > stopped_at, "steps after the stop", 60)
    walker.click("中断")
    walker.wait_text("status", "已中断", 30)
    steps = [event["step"] for event in events_of(server) if event["event"] == "step"]
    assert steps == list(range(1, len(steps) + 1)), "no step is lost or done twice"
    assert walker.errors == []


@pytest.mark.thorough
def test_abort_before_the_first_step_is_no_failure(serve: Callable[..., Server], walk: Callable[..., Walker]) -> None:
    server = serve()
    walker = walk(server.address, "zh").open()
    walker.click("开始")
    walker.wait(lambda: walker.page.locator("#status [data-state=running]").count() == 1, "a stage", 2)
    walker.click("中断")
    walker.wait_text("status", "已中断", 30)
    assert "终止" not in walker.text("status")
    assert walker.text("messages").strip() == ""
