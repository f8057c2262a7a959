"""Folders that are models, folders that are not, and what is said of each. No torch."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import break_json, build_hollow_adapter, build_hollow_model, edit_json, write_safetensors
from trainer.model_folder import check_adapter_folder, check_model_folder, describe, recommended
from trainer.problems import Problem

Change = Callable[[Path], object]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return build_hollow_model(tmp_path / "hollow-model")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return build_hollow_adapter(tmp_path / "adapter")


def cut(name: str, size: int) -> Change:
    return lambda folder: os.truncate(folder / name, size)


def without(*names: str) -> Change:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def sharded(*present: str) -> Change:
    """An index that names shards a and b, of which `present` are there."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "a", "y": "b"}}))
        for name in present:
            write_safetensors(folder / name)

    return change


def git_lfs_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def weights_folder(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


def escaping_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../a"}}))


BROKEN_MODELS: dict[str, tuple[Change, str, str]] = {
    "no config": (without("config.json"), "model_not_a_model", "config.json"),
    "half a config": (lambda folder: break_json(folder / "config.json"), "model_config_broken", "config.json"),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"), "model_config_broken", "object"),
    "config is not UTF-8": (
        lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe{}"),
        "model_config_broken",
        "utf-8",
    ),
    "no model_type": (
        lambda folder: edit_json(folder / "config.json", model_type=1),
        "model_config_broken",
        "model_type",
    ),
    "no tokenizer": (without("tokenizer.json"), "model_not_a_model", "tokenizer.json"),
    "empty tokenizer": (cut("tokenizer.json", 0), "model_not_a_model", "whole of tokenizer.json"),
    "no weights": (without("model.safetensors"), "model_not_a_model", "model.safetensors"),
    "empty weights": (cut("model.safetensors", 0), "model_not_a_model", "whole of model.safetensors"),
    "header cut off": (cut("model.safetensors", 20), "model_not_a_model", "whole of model.safetensors"),
    "data cut off": (cut("model.safetensors", 100), "model_not_a_model", "(100/"),
    "Git LFS pointer": (git_lfs_pointer, "model_not_a_model", "git lfs pull"),
    "only pickle": (only_pickle, "model_unsafe", "pytorch_model.bin"),
    "a shard is missing": (sharded("a"), "model_not_a_model", "b is missing"),
    "an index that leads elsewhere": (escaping_index, "model_config_broken", "../a"),
    "weights are a folder": (
        weights_folder,
        "model_not_a_model",
        "model.safetensors",
    ),
}


@pytest.mark.parametrize("case", BROKEN_MODELS)
def test_a_broken_model_folder_is_refused_with_what_is_wrong(model: Path, case: str) -> None:
    change, code, words = BROKEN_MODELS[case]
    change(model)
    with pytest.raises(Problem) as caught:
        check_model_folder(model)
    assert caught.value.code == code
    assert words in caught.value.sentence("en")
    assert str(model) in caught.value.sentence("zh")
    assert caught.value.sentence("zh").startswith("模型路径：")


@pytest.mark.parametrize(
    ("given", "code"),
    [("", "model_missing"), ("  ", "model_missing"), ("/no/such", "model_not_found"), ("a\0b", "model_not_found"),
     ("x" * 5000, "model_not_found"), (__file__, "model_not_found")],
)  # fmt: skip
def test_what_is_no_folder_is_refused(given: str, code: str) -> None:
    with pytest.raises(Problem) as caught:
        check_model_folder(given)
    assert caught.value.code == code


def test_a_model_folder_is_accepted_also_with_blanks_around_and_shards(model: Path) -> None:
    assert check_model_folder(f" {model}\n") == model
    sharded("a", "b")(model)
    assert check_model_folder(model) == model


BROKEN_ADAPTERS: dict[str, tuple[Change, str]] = {
    "no config": (without("adapter_config.json"), "adapter_config.json"),
    "half a config": (lambda folder: break_json(folder / "adapter_config.json"), "readable adapter_config.json"),
    "no peft_type": (lambda folder: edit_json(folder / "adapter_config.json", peft_type=None), "peft_type"),
    "no weights": (without("adapter_model.safetensors"), "adapter_model.safetensors"),
    "weights cut off": (cut("adapter_model.safetensors", 99), "whole of adapter_model.safetensors"),
}


@pytest.mark.parametrize("case", BROKEN_ADAPTERS)
def test_a_broken_adapter_folder_is_refused_with_what_is_wrong(adapter: Path, case: str) -> None:
    assert check_adapter_folder(adapter) == adapter
    change, words = BROKEN_ADAPTERS[case]
    change(adapter)
    with pytest.raises(Problem) as caught:
        check_adapter_folder(adapter)
    assert caught.value.code == "adapter_not_an_adapter"
    assert words in caught.value.sentence("en")


def test_a_pickle_adapter_is_unsafe(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(Problem, match="pickle"):
        check_adapter_folder(adapter)


def hub_cache(folder: Path, *revisions: str) -> Path:
    cache = folder / "models--some-org--some--model"
    for number, revision in enumerate(revisions):
        snapshot = build_hollow_model(cache / "snapshots" / revision)
        os.utime(snapshot, (number, number))
    return cache


def test_a_hub_cache_folder_leads_to_its_main_snapshot(tmp_path: Path) -> None:
    cache = hub_cache(tmp_path, "old", "new")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("old\n")
    assert check_model_folder(cache) == cache / "snapshots" / "old"
    assert describe(cache).name == "some-org/some/model"


def test_without_main_the_newest_snapshot_with_a_config_counts(tmp_path: Path) -> None:
    cache = hub_cache(tmp_path, "old", "new")
    (cache / "snapshots" / "empty").mkdir()
    assert check_model_folder(cache) == cache / "snapshots" / "new"


def test_an_empty_hub_cache_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "models--a--b" / "snapshots").mkdir(parents=True)
    with pytest.raises(Problem, match=r"config\.json is missing"):
        check_model_folder(tmp_path / "models--a--b")


def test_a_model_is_described_by_name_size_type_and_template(model: Path) -> None:
    info = describe(model)
    assert (info.name, info.model_type, info.has_template) == ("hollow-model", "qwen2", False)
    assert info.size_bytes == (model / "model.safetensors").stat().st_size
    (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert describe(model).has_template
    (model / "tokenizer_config.json").write_text("{")
    assert not describe(model).has_template
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert describe(model).has_template


def test_recommended_settings_are_read_and_typed(model: Path) -> None:
    assert recommended(model) == {}
    (model / "recommended_settings.yaml").write_text("learning_rate: 2e-3\nlora_rank: 16\ntemplate: auto\n")
    assert recommended(model) == {"learning_rate": 0.002, "lora_rank": 16, "template": "auto"}


@pytest.mark.parametrize(
    "text",
    ["", "[1, 2]", "{", "learning_rate: -1", "learning_rate: [1]", "unknown: 1", "output_dir: /etc", "1: 2",
     "model_name_or_path: /x", "lora_rank: null", "date: 2024-99-99", "a: !!python/object:os.system {}", "\0",
     "[" * 5000, "x: '" + "y" * 70000 + "'"],
)  # fmt: skip
def test_junk_recommendations_are_ignored(model: Path, text: str) -> None:
    (model / "recommended_settings.yaml").write_text(text)
    assert recommended(model) == {}


def test_a_bad_recommendation_does_not_hide_a_good_one(model: Path) -> None:
    (model / "recommended_settings.yaml").write_bytes("learning_rate: abc\nlora_rank: 4\n你好: 1\n".encode())
    assert recommended(model) == {"lora_rank": 4}


def test_checking_folders_needs_no_torch() -> None:
    code = "import sys, trainer.model_folder, trainer.sampling, trainer.chat_terminal, trainer.chat; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
