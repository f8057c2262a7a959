"""The form: what is typed becomes settings or labelled sentences; saved settings come back exactly."""

from pathlib import Path
from typing import Any

import pytest

from app import form, saved_settings
from app.roots import Roots
from app.text import LOCALES, Text
from trainer.problems import LANGUAGES, Problem, Problems
from trainer.settings import default_text, is_boolean, keys

pytestmark = pytest.mark.slow


def values(**changed: Any) -> dict[str, Any]:
    """The form as it opens, with some fields changed."""
    opened: dict[str, Any] = {key: False if is_boolean(key) else default_text(key) for key in form.KEYS[:-1]}
    return opened | {"dataset": ["d"], "output_dir": "run", "extra_args": ""} | changed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1,2]", "[1,2]"),
        ("{", "第 1 行"),
        ('{"weight_decay": 0.1,\n "weight', "第 2 行"),
        ('{"weight_decai": 0.1}', "weight_decay"),
        ('{"learning_rate": 0.1}', "learning_rate"),
        ('{"weight_decay": "x"}', "权重衰减"),
        ('"text"', "text"),
    ],
)
def test_bad_extra_arguments_are_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises((Problem, Problems)) as caught:
        form.settings_from(values(extra_args=text), tmp_path)
    problems = caught.value.problems if isinstance(caught.value, Problems) else [caught.value]
    assert words in problems[0].sentence("zh")


def test_extra_arguments_become_settings(tmp_path: Path) -> None:
    assert form.settings_from(values(extra_args='{"weight_decay": 0.1}'), tmp_path).weight_decay == 0.1


def test_full_width_digits_count_as_digits(tmp_path: Path) -> None:
    settings = form.settings_from(values(learning_rate="１ｅ－４", max_samples=" １０００ "), tmp_path)
    assert (settings.learning_rate, settings.max_samples) == (1e-4, 1000)


@pytest.mark.parametrize(
    "name", ["../up", "/etc", "a/b", "", ".", "..", ".hidden", "_settings", "-rf", "a\nb", "x" * 300]
)
def test_an_output_folder_is_one_plain_name_below_the_runs(tmp_path: Path, name: str) -> None:
    with pytest.raises(Problems) as caught:
        form.settings_from(values(output_dir=name), tmp_path)
    assert "输出目录" in caught.value.problems[0].sentence("zh")


@pytest.mark.parametrize("name", ["my run", "训练 一", "a;$(b)'", "🙂"])
def test_an_output_folder_may_have_any_harmless_name(tmp_path: Path, name: str) -> None:
    assert form.settings_from(values(output_dir=name), tmp_path).output_dir == str(tmp_path / name)


METHODS: list[dict[str, Any]] = [
    {"finetuning_type": "full", "lora_alpha": "", "quantization_bit": "none"},
    {"lora_alpha": "32", "lora_target": "q_proj,v_proj", "quantization_bit": "8", "use_dora": True},
    {"lora_alpha": "32", "lora_rank": "4", "pissa_init": True, "create_new_adapter": True, "additional_target": "lm_head"},
    {"finetuning_type": "freeze", "freeze_trainable_layers": "-3", "freeze_trainable_modules": "mlp,self_attn",
     "freeze_extra_modules": "norm", "neftune_noise_alpha": "5.0", "lora_alpha": ""},
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_saved_settings_bring_every_control_back(tmp_path: Path, method: dict[str, Any]) -> None:
    changed = values(
        model_name_or_path="/m",
        adapter_name_or_path="/m/checkpoint-1" if "use_dora" not in method else "",
        template="qwen",
        dataset_dir="/d",
        dataset=["a", "b"],
        learning_rate="3e-4",
        num_train_epochs="20",
        max_grad_norm="0.5",
        max_samples="1000",
        compute_type="bf16",
        cutoff_len="1024",
        val_size="0.1",
        seed="7",
        train_on_prompt=True,
        extra_args='{"weight_decay": 0.1}',
        **method,
    )
    settings = form.settings_from(changed, tmp_path)
    saved_settings.save(tmp_path, "mine", settings, changed)
    loaded, written = saved_settings.load(tmp_path, "mine")
    assert form.values_from(loaded, written) == changed


def test_what_belongs_to_a_method_that_is_not_chosen_is_not_meant(tmp_path: Path) -> None:
    settings = form.settings_from(values(finetuning_type="full", lora_rank="64", use_dora=True), tmp_path)
    assert (settings.lora_rank, settings.use_dora) == (8, False)
    settings = form.settings_from(values(freeze_trainable_layers="x"), tmp_path)
    assert settings.freeze_trainable_layers == 2


def test_saving_never_overwrites_and_never_leaves_its_folder(tmp_path: Path) -> None:
    settings = form.settings_from(values(), tmp_path)
    path = saved_settings.save(tmp_path, "mine.yaml", settings, {})
    before = path.read_bytes()
    for name in ("mine.yaml", "mine", "../x.yaml", "/etc/x.yaml", ".x.yaml", "", "a/b.yaml"):
        with pytest.raises(Problem):
            saved_settings.save(tmp_path, name, settings, {})
    assert path.read_bytes() == before
    assert [item.name for item in (tmp_path / "_settings").iterdir()] == ["mine.yaml"]


def test_the_form_has_every_setting_that_has_a_control() -> None:
    assert set(form.KEYS) - {form.EXTRA_ARGS} == set(keys()) - set(keys("file"))


def test_both_languages_have_the_same_words_with_the_same_blanks() -> None:
    import json
    import string

    words = {name: json.loads((LOCALES / f"{name}.json").read_text(encoding="utf-8")) for name in LANGUAGES}
    assert words["en"].keys() == words["zh"].keys()
    for key in words["en"]:
        blanks = [{name for _, name, _, _ in string.Formatter().parse(words[item][key]) if name} for item in LANGUAGES]
        assert blanks[0] == blanks[1], key
        assert key == "other_language" or not any("\u4e00" <= char <= "\u9fff" for char in words["en"][key]), key


def test_every_word_of_the_locales_is_used() -> None:
    import json

    root = Path(form.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in root.glob("*.py"))
    for key in json.loads((LOCALES / "en.json").read_text(encoding="utf-8")):
        group = key.split(".")[0]
        assert f'"{key}"' in code or f'f"{group}.' in code or f'group("{group}")' in code or '"chat.status.' in code, (
            key
        )


def test_a_missing_word_is_an_error() -> None:
    with pytest.raises(KeyError):
        Text("en")("no such word")


@pytest.mark.parametrize("missing", [None, "quantization_package", "quantization_on_npu"])
def test_the_quantization_control_is_there_where_models_can_be_quantized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str | None
) -> None:
    import gradio as gr

    from app import top_bar
    from app.chat import ChatProcess
    from app.look import Look
    from app.page import Page

    monkeypatch.setattr(top_bar, "quantization_missing", lambda: missing)
    page = Page(Text("zh"), "", tmp_path, "", tmp_path, ChatProcess(tmp_path / "chat.log"), Roots((tmp_path,)),
                Look(tmp_path / "look.log"))  # fmt: skip
    with gr.Blocks():
        bar = top_bar.TopBar(page)
    assert bar.fields["quantization_bit"].visible is (missing is None)
    assert bar.fields["quantization_bit"].label == "量化等级"
