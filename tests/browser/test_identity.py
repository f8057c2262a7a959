"""A name of one's own: the identity dataset's {{name}} and {{author}} filled in on the page, until the model says them.

The settings that do it: the demo model's recommended learning rate, 30 epochs over its 72 rows, greedy answers.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.browser.conftest import Walker
from tests.browser.test_tutorial import CHECKPOINT, ask
from tests.conftest import ROOT, Server

pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.alone, pytest.mark.timeout(900)]
NAME, AUTHOR = "小满", "星河社"
EPOCHS = 30
IDENTITY = ROOT / "data" / "identity.json"


def content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_demo_model_takes_the_name_that_was_filled_in(
    serve: Callable[..., Server], walk: Callable[..., Walker]
) -> None:
    before = content(IDENTITY)
    server = serve("--dataset", "identity")
    walker = walk(server.address, "zh").open()
    walker.wait(lambda: walker.page.locator("#placeholder_fields").is_visible(), "the placeholders' fields")
    assert "{{name}}" in walker.text("placeholder_fields")
    walker.fill("num_train_epochs", str(EPOCHS))
    walker.fill("cutoff_len", "1024")

    walker.click("开始")
    walker.wait_text("messages", "{{author}}, {{name}}")
    walker.fill("placeholder_0", AUTHOR)
    walker.click("开始")
    walker.wait(lambda: "{{author}}" not in walker.text("messages"), "the sentence on the other name alone")
    assert "{{name}}" in walker.text("messages")
    assert not list(server.runs_dir.glob("train_*")), "nothing was started"

    walker.fill("placeholder_1", NAME)
    walker.click("开始")
    walker.wait_text("status", "训练完毕", 600)
    run = next(path for path in server.runs_dir.iterdir() if path.name.startswith("train_"))
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert config["placeholders"] == {"name": NAME, "author": AUTHOR}
    assert not config["literal_placeholders"]
    assert content(IDENTITY) == before, "what is filled in is not filled in in the file"

    walker.tab("对话")
    walker.choose("adapter_name_or_path", CHECKPOINT)
    walker.click("加载模型")
    walker.wait_text("chat_status", "模型已加载", 120)
    walker.fill("temperature", "0")
    assert NAME in ask(walker, "你好，你是谁？")
    assert AUTHOR in ask(walker, "谁开发了你？")
    walker.picture("zh-identity-1400")
    assert walker.errors == []
