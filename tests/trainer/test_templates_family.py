"""Which template a model's family has, and what is said where it may not fit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import build_tiny_model
from tests.trainer import families
from trainer import template_family
from trainer.chat_template import ChatTemplate
from trainer.events import read_events
from trainer.problems import LANGUAGES, Problem
from trainer.settings import template_names


def folder_of(path: Path, config: dict[str, Any], tokens: list[str] | None = None) -> Path:
    """A model folder as far as its family shows in it; `tokens`: in tokenizer.json, where its vocabulary follows."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if tokens is not None:
        added = [{"id": n, "content": token, "special": True} for n, token in enumerate(tokens)]
        rest = {"version": "1.0", "added_tokens": added, "model": {"vocab": {f"w{n}": n for n in range(99)}}}
        (path / "tokenizer.json").write_text(json.dumps(rest, ensure_ascii=False))
    return path


@pytest.mark.parametrize(
    ("config", "tokens", "name"),
    [
        ({"model_type": "qwen2"}, None, "qwen"),
        ({"model_type": "qwen3_moe"}, None, "qwen3"),
        ({"model_type": "gemma3_text"}, None, "gemma3"),
        ({"model_type": "gemma2"}, None, "gemma"),
        ({"model_type": "mixtral"}, None, "mistral"),
        ({"model_type": "llama4"}, None, "llama4"),
        ({"model_type": "glm4"}, None, "glm4"),
        ({"model_type": "deepseek_v2"}, None, "deepseek"),
        ({"model_type": "deepseek_v3"}, None, "deepseek-r1"),
        ({"model_type": "internlm2"}, None, "internlm2"),
        ({"model_type": "llama", "vocab_size": 32000}, [], "llama2"),
        ({"model_type": "llama", "vocab_size": 128256}, None, "llama3"),
        ({"model_type": "llama", "vocab_size": 1}, families.TOKENS["llama3"][2], "llama3"),
        ({"model_type": "llama", "vocab_size": 64000}, ["<|im_start|>", "<|im_end|>"], "yi"),
        ({"model_type": "llama", "vocab_size": 1}, ["<|im_start|>", "<|im_end|>"], "chatml"),
        ({"model_type": "llama"}, ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"], "deepseek"),
        ({"model_type": "llama"}, ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"], "deepseek-r1"),
        ({"model_type": "phi3"}, families.TOKENS["phi4"][2], "phi4"),
        ({"model_type": "baichuan", "vocab_size": 125696}, None, "baichuan2"),
        ({"model_type": "chatglm"}, families.TOKENS["glm4"][2], "glm4"),
        ({"model_type": "gpt2", "vocab_size": 50257}, ["<|endoftext|>"], None),
        ({}, None, None),
    ],
)  # fmt: skip
def test_a_family_is_guessed_from_config_and_tokens(tmp_path: Path, config: Any, tokens: Any, name: str | None) -> None:
    assert template_family.guess(folder_of(tmp_path, config, tokens)) == name
    assert name is None or name in template_names()


def test_every_guess_is_a_template_that_ships() -> None:
    names = {*template_family._BY_TYPE.values(), *template_family._BY_TOKENS, *template_family._BY_SIZE.values()}
    assert names <= {*template_names()}


@pytest.mark.parametrize("broken", ["", "{", "[]", "null", "\ufeff{", '{"added_tokens_decoder": 3}'])
def test_broken_files_are_no_family(tmp_path: Path, broken: str) -> None:
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json", "added_tokens.json"):
        (tmp_path / name).write_text(broken)
    assert template_family.guess(tmp_path) is None
    assert [problem.code for problem in template_family.warnings(tmp_path, "auto")] == ["template_missing"]


def test_a_base_model_without_template_draws_a_warning(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"model_type": "qwen2"}, families.IM)
    [problem] = template_family.warnings(folder, "auto")
    assert problem.code == "template_guessed"
    for language in LANGUAGES:
        assert "qwen" in problem.sentence(language)
        assert str(folder) in problem.sentence(language)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert template_family.warnings(folder, "auto") == []
    assert template_family.warnings(folder, "chatml") == []


def test_a_template_whose_tokens_the_tokenizer_lacks_draws_a_warning_that_names_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"model_type": "qwen2"}, families.IM)
    [problem] = template_family.warnings(folder, "llama3")
    assert problem.code == "template_tokens_missing"
    for language in LANGUAGES:
        assert "<|start_header_id|> <|end_header_id|> <|eot_id|>" in problem.sentence(language)
    assert template_family.warnings(folder, "alpaca") == []
    bare = folder_of(tmp_path / "bare", {"model_type": "llama", "vocab_size": 128256}, ["<|begin_of_text|>"])
    assert [problem.code for problem in template_family.warnings(bare, "auto")] == [
        "template_guessed",
        "template_tokens_missing",
    ]


@pytest.mark.parametrize("name", template_names())
def test_a_familys_own_tokenizer_lacks_nothing(name: str) -> None:
    assert families.template_of(name).warnings("m") == []


def test_a_template_says_what_its_tokenizer_lacks() -> None:
    template = ChatTemplate.of(families.tokenizer_of("gemma"), "glm4")
    [problem] = template.warnings("/models/g")
    assert problem.code == "template_tokens_missing"
    assert problem.values["tokens"] == "[gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|>"


def test_the_guess_is_the_same_in_training_and_chat_and_says_so(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"model_type": "gemma2"})
    template = ChatTemplate.of(families.tokenizer_of("gemma"), "auto", str(folder))
    assert (template.name, template.origin) == ("gemma", "guessed")
    assert template.source == template_family.source("gemma")
    assert [problem.code for problem in template.warnings(str(folder))] == ["template_guessed"]
    own = families.template_of("qwen").tokenizer
    assert ChatTemplate.of(own, "auto", str(folder)).origin == "own"
    assert ChatTemplate.of(own, "yi", str(folder)).origin == "named"
    with pytest.raises(Problem) as caught:
        ChatTemplate.of(families.tokenizer_of("gemma"), "auto", str(tmp_path / "nothing"))
    assert caught.value.code == "template_missing"


OWN: dict[str, tuple[str, Any]] = {
    "a file": ("chat_template.jinja", "X"),
    "a processor's file": ("chat_template.json", {"chat_template": "X"}),
    "in the tokenizer's": ("tokenizer_config.json", {"chat_template": "X"}),
    "the default of several": ("tokenizer_config.json", {"chat_template": [{"name": "rag", "template": "Y"}, {"name": "default", "template": "X"}]}),
    "none": ("tokenizer_config.json", {"chat_template": None}),
    "an empty one": ("tokenizer_config.json", {"chat_template": ""}),
    "several without a default": ("tokenizer_config.json", {"chat_template": [{"name": "rag", "template": "Y"}]}),
    "junk": ("tokenizer_config.json", {"chat_template": [3, {"name": []}]}),
}  # fmt: skip


@pytest.mark.parametrize("case", OWN)
def test_a_model_brings_a_template_where_its_tokenizer_or_its_processor_keeps_one(tmp_path: Path, case: str) -> None:
    folder = folder_of(tmp_path / "model", {"model_type": "gemma2"}, families.TOKENS["gemma"][2])
    name, content = OWN[case]
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    brings = "X" in (folder / name).read_text()
    assert template_family.own_source(folder) == ("X" if brings else None)
    assert template_family.source_of(folder, "auto") == ("X" if brings else template_family.source("gemma"))
    assert [one.code for one in template_family.warnings(folder, "auto")] == ([] if brings else ["template_guessed"])
    tokenizer = families.tokenizer_of("gemma")
    tokenizer.chat_template = content["chat_template"] if name == "tokenizer_config.json" and brings else None
    if isinstance(tokenizer.chat_template, list):
        tokenizer.chat_template = {one["name"]: one["template"] for one in tokenizer.chat_template}
    template = ChatTemplate.of(tokenizer, "auto", str(folder))
    assert (template.origin, template.source == "X") == ("own" if brings else "guessed", brings)


def test_the_page_says_before_the_start_what_a_training_would_warn_of(tmp_path: Path) -> None:
    from app.models import template_notices

    folder = folder_of(tmp_path / "base", {"model_type": "qwen2"}, families.IM)
    said = {name: template_notices(str(folder), "", name, "zh") for name in ("auto", "qwen", "llama3")}
    assert [len(found) for found in said.values()] == [1, 0, 1]
    assert "没有自带对话模板" in said["auto"][0]
    assert "<|eot_id|>" in said["llama3"][0]
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "chat_template.jinja").write_text("X")
    assert template_notices(str(folder), str(adapter), "auto", "en") == []
    for nothing in ("", " ", str(tmp_path / "nowhere"), "org/absent", "\0", "x" * 5000, "~nobody-here/x"):
        assert template_notices(nothing, "", "auto", "en") == []


@pytest.mark.slow
def test_a_base_model_is_trained_with_its_familys_template_which_the_result_carries(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "base", chat_template=None)
    (tmp_path / "who.json").write_text(json.dumps([{"instruction": "q", "output": "a"}] * 4))
    values = {"model_name_or_path": model, "dataset_dir": tmp_path, "dataset": "who", "output_dir": tmp_path / "run",
              "max_steps": 1}  # fmt: skip
    argv = [sys.executable, "-m", "trainer", *(f"{key}={value}" for key, value in values.items())]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "chat_template.jinja").read_text() == template_family.source("qwen")
    events, _ = read_events(tmp_path / "run" / "events.jsonl")
    [warning] = [event for event in events if event["event"] == "warning"]
    assert (warning["code"], warning["template"]) == ("template_guessed", "qwen")


@pytest.mark.slow
def test_an_adapter_is_asked_in_the_words_it_was_trained_with(tmp_path: Path) -> None:
    from tests.tiny import build_tiny_adapter, build_tiny_model
    from trainer.chat_model import ChatModel

    model = build_tiny_model(tmp_path / "model")
    adapter = build_tiny_adapter(tmp_path / "adapter", model)
    (adapter / "chat_template.jinja").write_text(template_family.source("alpaca"))
    chat = ChatModel(model)
    chat.use_adapter(adapter)
    asked = [{"role": "user", "content": "Hi"}]
    assert "### Instruction" in chat.template.prompt(asked)
    chat.use_adapter(None)
    assert "### Instruction" not in chat.template.prompt(asked)
    chat.use_template("chatml")
    chat.use_adapter(adapter)
    assert "### Instruction" not in chat.template.prompt(asked), "a template that was chosen is kept"
