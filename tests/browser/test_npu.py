"""The tutorial through the page on a machine with NPUs, which are fakes: see tests/npu."""

import re
from collections.abc import Callable

import pytest

from tests.browser.conftest import Walker
from tests.browser.test_tutorial import CHECKPOINT, ask, events_of, processes_of
from tests.conftest import Server
from tests.npu.conftest import npu
from tests.npu.fake import Fake

pytestmark = pytest.mark.slow
__all__ = ["npu"]  # a fixture
NAME = "Ascend910B3 (fake)"


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_the_tutorial_through_the_page_on_the_second_npu(
    npu: Fake,
    serve: Callable[..., Server],
    walk: Callable[..., Walker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in npu.environment().items():
        monkeypatch.setenv(name, value)
    server = serve()
    walker = walk(server.address, "zh").open()
    assert "2 × 910B3" in walker.text("header"), "as npu-smi calls them"
    npu.take_notes()

    walker.tab("对话")
    walker.choose("infer_dtype", "fp32")  # the fake computes it ten times as fast as bf16
    walker.click("加载模型")
    walker.wait_text("chat_status", "模型已加载，可以开始聊天了！", 90)
    assert NAME in walker.text("chat_status")
    walker.fill("temperature", "0")
    before = ask(walker, "你好，你是谁？")
    assert "小调" in before

    walker.tab("训练")
    walker.fill("num_train_epochs", "4")
    walker.fill("max_samples", "48")
    walker.choose("compute_type", "fp32")
    walker.field("devices").press("Backspace")  # the list begins with both
    walker.field("devices").press("Backspace")
    walker.choose("devices", re.compile("^1："))
    walker.field("devices").press("Escape")
    walker.click("预览命令")
    walker.wait(
        lambda: "ASCEND_RT_VISIBLE_DEVICES=1 " in walker.field("command").input_value(),
        "the device's number",
        seen=lambda: walker.field("command").input_value(),
    )
    walker.click("开始")
    walker.wait_text("status", "训练中", 60)
    walker.wait_text("status", "训练完毕", 120)
    [loading] = [event for event in events_of(server) if event.get("stage") == "loading_model"]
    assert loading["device"] == NAME

    walker.tab("对话")
    walker.choose("adapter_name_or_path", CHECKPOINT)
    walker.click("加载模型")
    walker.wait_text("chat_status", "checkpoint-", 60)
    walker.click("清空历史")
    walker.wait(lambda: "小调" not in walker.text("chatbot"), "an empty conversation")
    assert ask(walker, "你好，你是谁？") != before
    walker.click("卸载模型")
    walker.wait_text("chat_status", "模型未加载")
    walker.wait(lambda: processes_of(server) == [], "the chat process and the trainer to be gone", 5)
    assert walker.errors == []
    notes = npu.take_notes()
    assert {note["visible"] for note in notes if note["what"] == "imported"} == {"0", "1"}, "chat's and the run's"
    assert [note["jit_compile"] for note in notes if note["what"] == "set_compile_mode"] == [False, False]
