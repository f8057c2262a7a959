"""Bad input, typed by a person: a labelled sentence in the page's language before anything starts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import Walker
from tests.conftest import Server
from tests.tiny import build_tiny_model

pytestmark = pytest.mark.slow

GOOD = [{"instruction": "你好", "input": "", "output": "你好，很高兴认识你。"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "good.json").write_text(json.dumps(GOOD))
    (folder / "broken.json").write_text('[\n{"instruction": "a", "output": "b"},\n{"instruction": \n]')
    (folder / "columns.json").write_text(json.dumps([*GOOD, {"question": "a", "answer": "b"}]))
    (folder / "empty.json").write_text("[]")
    (folder / "only_en.jsonl").write_text('{"instruction": "a", "output": "b"}\n\n{"instruction": 3, "output": "b"}\n')
    return folder


# What is typed where, and what the message must hold, in Chinese and in English.
TABLE: list[tuple[str, str, list[str], list[str]]] = [
    ("learning_rate", "abc", ["学习率", "abc"], ["Learning rate", "abc"]),
    ("learning_rate", "0", ["学习率", "0"], ["Learning rate", "0"]),
    ("learning_rate", "-1", ["学习率", "-1"], ["Learning rate", "-1"]),
    ("learning_rate", "nan", ["学习率", "nan"], ["Learning rate", "nan"]),
    ("num_train_epochs", "-3", ["训练轮数", "-3"], ["Epochs", "-3"]),
    ("cutoff_len", "3", ["截断长度", "3", "4"], ["Cutoff length", "3", "4"]),
    ("per_device_train_batch_size", "0", ["批处理大小", "0"], ["Batch size", "0"]),
    ("val_size", "1.5", ["验证集比例", "1.5"], ["Val size", "1.5"]),
    ("max_samples", "1.5k", ["最大样本数", "1.5k"], ["Max samples", "1.5k"]),
    ("model_name_or_path", "/nowhere/model", ["模型路径", "/nowhere/model"], ["Model path", "/nowhere/model"]),
    ("model_name_or_path", "", ["模型路径"], ["Model path"]),
    ("output_dir", "../up", ["输出目录", "../up"], ["Output dir", "../up"]),
]
EXTRA: list[tuple[str, list[str], list[str]]] = [
    ("[1,2]", ["额外参数", "[1,2]"], ["Extra arguments", "[1,2]"]),
    ('{"weight_decay": ', ["额外参数", "第 1 行"], ["Extra arguments", "line 1"]),
    ('{"no_such_key": 1}', ["no_such_key"], ["no_such_key"]),
]
DATASETS: list[tuple[str, list[str], list[str]]] = [
    ("broken", ["broken.json", "第 4 行"], ["broken.json", "line 4"]),
    ("columns", ["第 2 行", "question", "answer"], ["row 2", "question", "answer"]),
    ("empty", ["empty"], ["empty"]),
    ("only_en", ["第 2 行", "instruction"], ["row 2", "instruction"]),
]


def refused(walker: Walker, language: str, words: tuple[list[str], list[str]], start: str) -> None:
    """Presses Start and reads the message; nothing may have been started."""
    walker.click(start)
    expected = words[0] if language == "zh" else words[1]
    for word in expected:
        walker.wait_text("messages", word, 20)
    message = walker.text("messages")
    assert "Traceback" not in message
    assert message.strip() not in ("Error", "错误")
    assert walker.page.locator("#status [data-state=running]").count() == 0


@pytest.mark.thorough
@pytest.mark.parametrize("language", ["zh", "en"])
def test_each_bad_value_is_answered_by_name(
    language: str, serve: Callable[..., Server], walk: Callable[..., Walker], model: Path, data: Path
) -> None:
    start = {"zh": "开始", "en": "Start"}[language]
    server = serve("--model", str(model), "--data-dir", str(data))
    walker = walk(server.address, language).open()
    walker.page.locator("#dataset input").fill("good")
    walker.page.get_by_role("option", name="good").click()
    for key, value, *words in TABLE:
        before = walker.field(key).input_value()
        walker.fill(key, value)
        refused(walker, language, (words[0], words[1]), start)
        assert walker.field(key).input_value() == value, "what was typed is kept"
        walker.fill(key, before)
    walker.unfold({"zh": "其它参数设置", "en": "Extra configurations"}[language])
    for value, *words in EXTRA:
        walker.fill("extra_args", value)
        refused(walker, language, (words[0], words[1]), start)
    walker.fill("extra_args", "")
    for name, *words in DATASETS:
        walker.page.locator("#dataset input").click()
        walker.page.keyboard.press("Backspace")
        walker.page.locator("#dataset input").fill(name)
        walker.page.get_by_role("option", name=name).click()
        refused(walker, language, (words[0], words[1]), start)
    walker.page.locator("#dataset input").click()
    walker.page.keyboard.press("Backspace")
    refused(walker, language, (["数据集", "没有选择"], ["Dataset", "nothing chosen"]), start)
    assert not [path for path in server.runs_dir.glob("*") if path.name.startswith("train_")], "nothing was started"
    assert walker.errors == []


def test_a_junk_settings_file_changes_nothing(
    serve: Callable[..., Server], walk: Callable[..., Walker], model: Path, data: Path
) -> None:
    server = serve("--model", str(model), "--data-dir", str(data))
    folder = server.runs_dir / "_settings"
    folder.mkdir(parents=True)
    (folder / "junk.yaml").write_text("learning_rate: [1\n")
    (folder / "list.yaml").write_text("- a\n- b\n")
    (folder / "unknown.yaml").write_text("learning_rate: 1e-4\nno_such_key: 3\n")
    walker = walk(server.address, "zh").open()
    walker.fill("learning_rate", "7e-5")
    for name, word in (("junk.yaml", "YAML"), ("list.yaml", "list.yaml"), ("unknown.yaml", "no_such_key")):
        walker.fill("config_path", name)
        walker.page.keyboard.press("Escape")
        walker.click("载入训练参数")
        walker.wait_text("messages", word)
        assert walker.field("learning_rate").input_value() == "7e-5"
