"""Settings: one declaration, and every bad value answered by a labelled sentence."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml

import trainer.problems
from tests.conftest import ROOT
from trainer.problems import LANGUAGES, SENTENCES, Problem, Problems, sentence
from trainer.settings import TrainSettings, as_text, choices, default_text, keys, parse, shown
from trainer.settings_file import read_yaml, to_flags, to_yaml

BAD = [
    ("learning_rate", "abc"),
    ("learning_rate", "0"),
    ("learning_rate", "-1"),
    ("learning_rate", "nan"),
    ("learning_rate", "inf"),
    ("learning_rate", ""),
    ("num_train_epochs", "-3"),
    ("num_train_epochs", "1e400"),
    ("num_train_epochs", "1e308"),
    ("cutoff_len", "3"),
    ("cutoff_len", "131073"),
    ("cutoff_len", "12.5"),
    ("per_device_train_batch_size", "0"),
    ("per_device_train_batch_size", "1025"),
    ("val_size", "1.5"),
    ("val_size", "-0.1"),
    ("max_samples", "1.5k"),
    ("max_samples", "0"),
    ("seed", "-1"),
    ("lora_rank", "0"),
    ("lora_alpha", "x"),
    ("compute_type", "int8"),
    ("finetuning_type", "prefix"),
    ("template", "nonsense"),
    ("lr_scheduler_type", "square"),
    ("train_on_prompt", "maybe"),
    ("logging_steps", "0"),
    ("save_steps", "1.5"),
    ("max_steps", "0"),
    ("dataset", 3),
    ("do_train", False),
    ("stage", "dpo"),
    ("quantization_bit", "5"),
    ("freeze_trainable_layers", "0"),
    ("freeze_trainable_layers", "1.5"),
    ("freeze_trainable_modules", ""),
    ("neftune_noise_alpha", "-1"),
    ("loraplus_lr_ratio", "-1"),
    ("use_dora", "maybe"),
]


@pytest.mark.parametrize(("key", "value"), BAD)
def test_a_bad_value_is_named_by_its_label_and_shown(key: str, value: Any) -> None:
    with pytest.raises(Problems) as caught:
        parse({key: value})
    [problem] = caught.value.problems
    for language in LANGUAGES:
        words = problem.sentence(language)
        assert shown(key).label(language) in words
        assert as_text(value).strip() in words
        assert "?" not in words.replace("？", "")


def test_every_mistake_is_told_at_once_in_declared_order() -> None:
    with pytest.raises(Problems) as caught:
        parse({"cutoff_len": "3", "learning_rate": "abc", "num_train_epochs": "-3"})
    assert [item.values["key"] for item in caught.value.problems] == ["learning_rate", "num_train_epochs", "cutoff_len"]


def test_an_unknown_key_is_refused_by_name_with_the_nearest_one() -> None:
    with pytest.raises(Problems) as caught:
        parse({"learning_rat": 1e-4})
    assert "`learning_rat`" in str(caught.value)
    assert "`learning_rate`" in str(caught.value)
    with pytest.raises(Problems) as caught:
        parse({"badam_mask_mode": "scatter"})
    assert "or use" not in str(caught.value), "nothing of ours is near"


def test_a_learning_rate_below_the_end_of_its_scheduler_is_refused() -> None:
    assert parse({"lr_scheduler_type": "polynomial", "learning_rate": "2e-7"})
    with pytest.raises(Problems, match="too low"):
        parse({"lr_scheduler_type": "polynomial", "learning_rate": "1e-7"})


def test_a_home_of_nobody_is_a_folder_of_that_name() -> None:
    from trainer.prepare import absolute

    assert absolute(parse({"output_dir": "~nobody-here/x"})).output_dir == str(Path("~nobody-here/x").absolute())


@pytest.mark.parametrize(
    "values",
    [{"bf16": True, "fp16": "true"}, {"bf16": True, "compute_type": "fp32"}, {"warmup_steps": 1, "warmup_ratio": 0.1}],
)
def test_a_combination_that_would_ignore_a_setting_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(Problems):
        parse(values)


@pytest.mark.parametrize(
    ("values", "first", "second"),
    [
        ({"finetuning_type": "full", "lora_rank": 16}, "lora_rank", "finetuning_type"),
        ({"finetuning_type": "freeze", "use_dora": True}, "use_dora", "finetuning_type"),
        ({"freeze_extra_modules": "norm"}, "freeze_extra_modules", "finetuning_type"),
        ({"finetuning_type": "full", "quantization_bit": 4}, "quantization_bit", "finetuning_type"),
        ({"fsdp": True, "quantization_bit": 4}, "fsdp", "quantization_bit"),
        ({"quantization_bit": 8, "pissa_init": True}, "quantization_bit", "pissa_init"),
        ({"adapter_name_or_path": "/a", "create_new_adapter": True, "quantization_bit": 4}, "quantization_bit",
         "create_new_adapter"),
    ],
)  # fmt: skip
def test_methods_that_exclude_each_other_are_named_by_their_labels(
    values: dict[str, Any], first: str, second: str
) -> None:
    with pytest.raises(Problems) as caught:
        parse(values)
    [problem] = caught.value.problems
    for key in (first, second):
        assert shown(key).zh in problem.sentence("zh")
        assert shown(key).en in problem.sentence("en")


def test_settings_of_another_method_are_neither_written_nor_told_on_the_command_line() -> None:
    for method, other in (("lora", "freeze"), ("freeze", "lora")):
        settings = parse({"finetuning_type": method})
        assert {*keys(method)} & {*yaml.safe_load(to_yaml(settings))}  # type: ignore[arg-type]
        assert not {*keys(other)} & {*yaml.safe_load(to_yaml(settings))}  # type: ignore[arg-type]
        assert not any(key in flag for flag in to_flags(settings) for key in keys(other))  # type: ignore[arg-type]


def test_the_bits_of_a_file_a_flag_and_a_list_are_the_same() -> None:
    assert [parse({"quantization_bit": bits}).quantization_bit for bits in (4, "4", "none", None)] == [4, 4, None, None]
    assert choices("quantization_bit") == ["none", "8", "4"]
    assert default_text("quantization_bit") == "none"


def test_a_value_that_is_fixed_here_is_refused_with_the_reason() -> None:
    for key, reason in (("do_train", "Must be true"), ("eval_strategy", "every so many steps")):
        with pytest.raises(Problems, match=reason):
            parse({key: "false"})


def test_yaml_and_flags_give_the_same_settings_back() -> None:
    settings = parse(
        {
            "model_name_or_path": "/a folder/with 'quotes'/模型",
            "dataset": "a,b",
            "learning_rate": "1e-4",
            "bf16": True,
            "train_on_prompt": "true",
            "lora_alpha": 32,
            "lora_target": "q_proj,v_proj",
            "quantization_bit": 8,
            "additional_target": "lm_head",
            "loraplus_lr_ratio": 16,
            "use_dora": True,
            "max_steps": 7,
            "output_dir": "run",
        }
    )
    assert parse(yaml.safe_load(to_yaml(settings))) == settings
    flags = to_flags(settings)
    assert parse(dict(zip((flag.removeprefix("--") for flag in flags[::2]), flags[1::2], strict=True))) == settings


def test_a_llama_factory_file_runs_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "qwen_lora_sft.yaml"
    file.write_text(
        "### model\nmodel_name_or_path: Qwen/Qwen2.5-7B-Instruct\n### method\nstage: sft\ndo_train: true\n"
        "finetuning_type: lora\nlora_rank: 8\nlora_target: all\n### dataset\ndataset: identity,alpaca_en_demo\n"
        "template: qwen\ncutoff_len: 2048\nmax_samples: 1000\n### output\noutput_dir: saves/qwen/lora/sft\n"
        "logging_steps: 10\nsave_steps: 500\nplot_loss: true\nsave_only_model: false\nreport_to: none\n### train\n"
        "per_device_train_batch_size: 1\ngradient_accumulation_steps: 8\nlearning_rate: 1.0e-4\nnum_train_epochs: 3.0\n"
        "lr_scheduler_type: cosine\nwarmup_ratio: 0.1\nbf16: true\nresume_from_checkpoint: null\n"
        "overwrite_cache: true\npreprocessing_num_workers: 16\ndataloader_num_workers: 4\nddp_timeout: 180000000\n"
        "overwrite_output_dir: true\ntrust_remote_code: true\n"
        "quantization_bit: 4\nquantization_method: bnb\ndouble_quantization: true\n"
    )
    settings = parse(read_yaml(file))
    assert settings.dataset == ("identity", "alpaca_en_demo")
    assert settings.compute_type == "bf16"
    assert settings.alpha == 16


@pytest.mark.parametrize("text", ["a: [1", "- a\n- b\n", "just words", "1: 2\n", "\x00", ""])
def test_a_file_that_is_no_settings_is_refused_in_words(tmp_path: Path, text: str) -> None:
    file = tmp_path / "junk.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"junk\.yaml"):
        read_yaml(file)


def test_every_setting_has_labels_and_help_in_both_languages() -> None:
    for key in keys():
        for language in LANGUAGES:
            assert shown(key).label(language)
            assert shown(key).help(language)


def test_every_problem_has_the_same_blanks_in_both_languages() -> None:
    import string

    for code, texts in SENTENCES.items():
        blanks = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in texts]
        assert blanks[0] == blanks[1], code
        assert not any("\u4e00" <= char <= "\u9fff" for char in texts[0]), code


def test_no_two_tables_of_sentences_have_the_same_code() -> None:
    tables = [
        value
        for module in pkgutil.iter_modules(trainer.problems.__path__)
        for name, value in vars(importlib.import_module(f"trainer.problems.{module.name}")).items()
        if name.endswith("_SENTENCES")
    ]
    assert sum(map(len, tables)) == len(SENTENCES)


def test_every_package_is_installed() -> None:
    """An installation that is no editable one has only the packages that pyproject.toml names."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent for top in ("app", "trainer") for path in (ROOT / top).rglob("*.py")}
    assert set(named) == {".".join(folder.relative_to(ROOT).parts) for folder in folders}


def test_a_code_of_a_newer_version_is_shown_as_it_is() -> None:
    assert "from_the_future" in sentence("from_the_future", {"a": 1}, "zh")


def test_the_light_modules_do_not_import_torch() -> None:
    code = "import sys, trainer.command, trainer.prepare, trainer.records; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_names_every_setting() -> None:
    text = subprocess.run(
        [sys.executable, "-m", "trainer", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for key in TrainSettings.model_fields:
        assert f"--{key}" in text


CONFLICTS: list[dict[str, Any]] = [
    {"train_on_prompt": True, "mask_history": True},
    {"warmup_steps": 3, "warmup_ratio": 0.1},
    {"warmup_steps": 3, "lr_scheduler_type": "constant"},
    {"warmup_ratio": 0.1, "lr_scheduler_type": "constant"},
    {"learning_rate": 1e-8, "lr_scheduler_type": "polynomial"},
    {"load_best_model_at_end": True},
    {"finetuning_type": "full", "lora_rank": 4},
    {"freeze_trainable_layers": 3},
    {"quantization_bit": 4, "pissa_init": True},
    {"quantization_bit": 4, "create_new_adapter": True},
    {"quantization_bit": 4, "fsdp": True},
    {"finetuning_type": "full", "quantization_bit": 4},
    {"bf16": True, "fp16": True},
    {"bf16": True, "compute_type": "fp16"},
]


@pytest.mark.parametrize("values", CONFLICTS, ids=str)
def test_conflicts_name_what_has_a_control_by_its_label_alone(values: dict[str, Any]) -> None:
    with pytest.raises(Problems) as caught:
        parse(values)
    for language in LANGUAGES:
        said = " ".join(problem.sentence(language) for problem in caught.value.problems)
        raw = [key for key in keys() if shown(key).group != "file" and "_" in key and key in said]
        assert raw == [], said
        labels = [shown(key).label(language) for key in values if key in TrainSettings.model_fields]
        assert all(word in said for word in labels), said


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "learning_rate: &x [*x]\n",
        "learning_rate: {? [1, 2] : 3}\n",
        "learning_rate: " + "[" * 5000,
    ],
)
def test_a_settings_file_that_unfolds_without_end_is_refused_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    with pytest.raises((Problem, Problems)) as caught:
        parse(read_yaml(path))
    assert len(str(caught.value)) < 2000
