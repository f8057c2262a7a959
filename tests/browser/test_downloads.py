"""A model fetched on the page: asked for, paused, found again after a reload, taken up again, and chosen."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import Walker
from tests.conftest import Server
from tests.hub import Hub, Repository, caches, model_files, serving
from tests.tiny import build_hollow_model

NAME = "org/small-model"


@pytest.mark.thorough
def test_a_model_is_downloaded_paused_resumed_and_chosen(
    serve: Callable[..., Server], walk: Callable[..., Walker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Hub({NAME: Repository(model_files(1_000_000))}, bytes_per_second=250_000)) as hub:
        for name, value in {**caches(tmp_path), "HF_ENDPOINT": hub.address, "NO_PROXY": "127.0.0.1,localhost"}.items():
            monkeypatch.setenv(name, value)
        walker = walk(serve().address, "zh").open()
        walker.unfold("模型下载")
        walker.fill("download_model", "没有斜杠")
        walker.click("下载")
        walker.wait_text("download_messages", "组织/名称")
        walker.fill("download_model", NAME)
        walker.click("下载")
        walker.wait_text("download_status", "剩余")
        assert walker.text("download_messages").strip() == ""
        walker.picture("download-running-zh")
        walker.click("暂停")
        walker.wait_text("download_status", "已暂停")
        hub.bytes_per_second = 0
        walker = walk(walker.address, "zh").open()
        walker.unfold("模型下载")
        walker.wait_text("download_status", "已保留")
        walker.click("继续")
        walker.wait_text("download_status", "下载完毕")
        walker.click("使用该模型")
        walker.wait(lambda: walker.field("model_name").input_value().startswith(f"{NAME} · 2.0 MB · 500K"), "its name",
                    seen=lambda: walker.field("model_name").input_value())  # fmt: skip
        assert walker.field("model_name_or_path").input_value().endswith("models--org--small-model")
        walker.picture("download-completed-zh")
        walker.click("清除")
        walker.wait(lambda: walker.text("download_status").strip() == "", "the download to be put away")
        assert walker.errors == []
        assert walker.foreign == []


@pytest.mark.thorough
def test_a_base_model_is_warned_of_before_anything_is_started(
    serve: Callable[..., Server], walk: Callable[..., Walker], tmp_path: Path
) -> None:
    folder = build_hollow_model(tmp_path / "base model 基座")
    added = [{"id": 0, "content": "<|im_start|>", "special": True}, {"id": 1, "content": "<|im_end|>", "special": True}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    walker = walk(serve("--model", str(folder)).address, "zh").open()
    walker.wait_text("template_notices", "没有自带对话模板")
    walker.choose("template", "gemma")
    walker.wait_text("template_notices", "<start_of_turn> <end_of_turn>")
    walker.choose("template", "chatml")
    walker.wait(lambda: walker.text("template_notices").strip() == "", "a template that fits to go unmentioned")
    assert walker.errors == []
