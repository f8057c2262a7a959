"""Compare, in Chromium: one question, answers side by side, each column with its own words, figures and problems."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import Walker
from tests.conftest import Server

pytestmark = pytest.mark.slow

# Where others take the processors for themselves, the time of a click says nothing of ours.
STOP_MS = 200 if os.getloadavg()[0] < 1.5 * len(os.sched_getaffinity(0)) else 1500
# Resolves with the milliseconds from the click on Stop until `wanted` answers say how they ended, at most 5000.
STOP = """(wanted) => new Promise((resolve) => {
  const began = performance.now();
  const look = () => {
    const ended = [...document.querySelectorAll(".td-numbers")].filter((one) => one.textContent.includes("已停止"));
    if (ended.length < wanted) return;
    watch.disconnect();
    resolve(performance.now() - began);
  };
  const watch = new MutationObserver(look);
  watch.observe(document.body, { subtree: true, childList: true, characterData: true });
  setTimeout(() => resolve(5000), 5000);
  document.querySelector("#chat_stop").click();
})"""


@pytest.fixture
def server(chat_server: Server) -> Server:
    return chat_server


def ready(walker: Walker) -> Walker:
    walker.open().tab("对话")
    walker.click("加载模型")
    walker.wait_text("chat_status", "模型已加载", 60)
    walker.fill("generation_seed", "1")
    return walker


def comparing(walker: Walker) -> None:
    walker.page.locator("#compare input").check()
    walker.page.wait_for_selector("#columns #column_1")


def ask(walker: Walker, question: str) -> None:
    walker.field("chat_input").fill(question)
    walker.field("chat_input").press("Enter")


def ended(walker: Walker, count: int) -> None:
    numbers = walker.page.locator("#columns .td-numbers")
    walker.wait(lambda: numbers.count() == count, f"{count} answers", 30, lambda: walker.text("columns"))


def answers(walker: Walker, column: int) -> list[str]:
    """What the column has answered, without the figures below."""
    found = walker.page.locator(f"#chatbot_{column} .bot.message .prose, #chatbot_{column} .message.bot .prose")
    return [text.rsplit("\n\n", 1)[0] for text in found.all_inner_texts()]


def test_columns_stream_side_by_side_and_each_shows_its_own(
    server: Server, walk: Callable[..., Walker], endless: Path
) -> None:
    walker = ready(walk(server.address, "zh"))
    assert "快速：精简计算" in walker.text("chat_status"), "the status says which way answers are computed"
    comparing(walker)
    assert walker.field("column_1").input_value() == "无（模型本身）"
    walker.wait(
        lambda: walker.field("column_2").input_value() == "mine / checkpoint-5", "what was trained last", 5,
        lambda: walker.field("column_2").input_value(),
    )  # fmt: skip
    broken = server.runs_dir / "broken"
    broken.mkdir()
    walker.field("column_3").fill(str(broken))
    walker.field("column_3").press("Enter")

    walker.fill("max_new_tokens", "30")
    ask(walker, "第一个问题")
    ended(walker, 2)
    assert "adapter_config.json" in walker.text("column_note_3")
    assert walker.text("chat_messages").strip() == ""
    assert walker.text("column_note_1").strip() == ""
    first, second = answers(walker, 1), answers(walker, 2)
    assert first != second
    for column, name in ((1, endless.name), (2, "mine / checkpoint-5")):
        below = walker.page.locator(f"#chatbot_{column} .td-numbers").inner_text()
        assert below.startswith(f"{name} · 30 个词元 · ")
        assert "首词元" in below
    walker.picture("zh-compare-1400")

    ask(walker, "第二个问题")
    ended(walker, 4)
    assert answers(walker, 1)[0] == first[0], "each goes on with its own"
    assert answers(walker, 2)[0] == second[0]
    assert walker.page.locator("#chatbot_3 .message").count() == 0

    walker.page.set_viewport_size({"width": 390, "height": 844})
    walker.page.wait_for_timeout(300)
    boxes = [walker.page.locator(f"#chatbot_{column}").bounding_box() for column in (1, 2, 3)]
    assert all(box and box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
    tops = [box["y"] for box in boxes if box]
    assert tops[1] > tops[0] + 300, "the columns stand one below the other"
    assert tops[2] > tops[1] + 300
    walker.picture("zh-compare-390")

    walker.page.reload()
    walker.tab("对话")
    walker.wait_text("chatbot_2", "第二个问题")
    assert answers(walker, 1)[0] == first[0], "a reload keeps the columns"
    assert walker.field("column_2").input_value() == "mine / checkpoint-5"
    walker.wait_text("chat_status", "模型已加载")
    walker.click("清空历史")
    walker.wait(lambda: walker.page.locator("#columns .message").count() == 0, "empty columns")
    assert walker.errors == []
    assert walker.foreign == []


@pytest.mark.alone
def test_stop_ends_all_columns_within_200_ms_and_keeps_their_words(server: Server, walk: Callable[..., Walker]) -> None:
    walker = ready(walk(server.address, "zh"))
    walker.fill("max_new_tokens", "8000")
    ask(walker, "一个问题")
    walker.wait(lambda: len(walker.text("chatbot")) > 200, "a long reply", seen=lambda: walker.text("chatbot"))
    kept = walker.text("chatbot")

    def again(turn: int) -> None:
        ask(walker, "再来")
        walker.wait(lambda: walker.page.locator("#chatbot .bot.message").count() >= turn, "another reply")

    stops_soon(walker, 1, again)
    assert all(line in walker.text("chatbot") for line in kept.splitlines()[:-1])
    walker.click("清空历史")

    comparing(walker)

    def both(turn: int) -> None:
        ask(walker, "一个问题")
        long = 50 * turn
        walker.wait(lambda: all(len("".join(answers(walker, n))) > long for n in (1, 2)), "two long replies")

    both(1)
    stops_soon(walker, 2, both)
    assert all(len("".join(answers(walker, n))) > 50 for n in (1, 2))


def stops_soon(walker: Walker, columns: int, ask_again: Callable[[int], None]) -> None:
    """The quickest of some turns counts: other programs take the processor too. An answer is being written now."""
    took: list[float] = []
    for turn in range(1, 7):
        took.append(walker.page.evaluate(STOP, columns * turn))
        if took[-1] < STOP_MS:
            return
        ask_again(turn + 1)
        walker.page.wait_for_timeout(300)
    raise AssertionError(f"Stop took {took} ms")


def test_memory_that_is_short_is_said_before_loading_and_the_user_may_go_on(
    serve: Callable[..., Server], walk: Callable[..., Walker], endless: Path, server: Server, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho '0, GPU-1, Small Card, 4096, 512'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    walker = walk(serve("--model", str(endless), runs_dir=server.runs_dir).address, "zh").open()
    walker.tab("对话")
    walker.click("加载模型")
    words = walker.wait_text("memory_words", "Small Card 空闲 0.50 GiB（共 4.00 GiB）")
    assert "mine 正在训练，占用 3.50 GiB" in words
    assert "模型未加载" in walker.text("chat_status")
    walker.picture("zh-memory-1400")
    walker.page.locator("#load_not").click()
    walker.wait(lambda: walker.page.locator("#memory_words").count() == 0, "the warning to go")
    walker.click("加载模型")
    walker.page.locator("#load_anyway").click()
    walker.wait(lambda: "模型未加载" not in walker.text("chat_status"), "the loading to begin")


def test_two_tabs_have_two_conversations_and_the_second_waits_for_its_answer(
    server: Server, walk: Callable[..., Walker]
) -> None:
    first = ready(walk(server.address, "zh"))
    first.fill("max_new_tokens", "8000")
    page = first.page.context.new_page()
    second = Walker(page, server.address, None).open()
    second.tab("对话")
    second.fill("max_new_tokens", "20")
    ask(first, "问题甲")
    first.wait(lambda: len(first.text("chatbot")) > 100, "the first tab's answer")
    ask(second, "问题乙")
    second.wait_text("chat_messages", "正在回答另一个标签页的问题")
    first.click("停止")
    second.wait(lambda: second.page.locator("#chatbot .td-numbers").count() == 1, "the second tab's answer")
    assert second.text("chat_messages").strip() == ""
    for walker, own, other in ((first, "问题甲", "问题乙"), (second, "问题乙", "问题甲")):
        walker.page.reload()
        walker.tab("对话")
        walker.wait_text("chatbot", own)
        assert other not in walker.text("chatbot")
    # A reload in the middle of an answer: what had come is kept, and the next question is answered.
    ask(first, "问题丙")
    first.wait(lambda: first.page.locator("#chatbot .bot.message").count() == 2, "the next answer")
    first.page.wait_for_timeout(2500)
    first.page.reload()
    first.tab("对话")
    first.wait_text("chatbot", "问题丙")
    first.wait_text("chat_status", "模型已加载", 5)  # nobody reads that answer any more: it is not written on
    first.fill("max_new_tokens", "20")
    ask(first, "问题丁")
    first.wait(lambda: first.page.locator("#chatbot .td-numbers").count() == 2, "an answer after the reload", 30)


def test_a_checkpoint_appears_in_the_lists_while_the_run_trains(
    server: Server, walk: Callable[..., Walker], tmp_path: Path
) -> None:
    runs_dir = server.runs_dir
    walker = walk(server.address, "zh").open()
    walker.tab("对话")
    comparing(walker)
    walker.wait(lambda: "checkpoint-5" in walker.field("column_2").input_value(), "the only checkpoint", 5)
    saved = runs_dir / "mine" / "checkpoint-10"
    shutil.copytree(runs_dir / "mine" / "checkpoint-5", tmp_path / "saving")
    (tmp_path / "saving").rename(saved)
    walker.page.wait_for_timeout(2500)  # the page looks every second
    for field in ("adapter_name_or_path", "column_3"):
        walker.choose(field, re.compile("checkpoint-10"))
        assert walker.field(field).input_value() == "mine / checkpoint-10"
