"""The form in Chromium: saved settings bring every control back, and a reload loses nothing."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.browser.conftest import Walker
from tests.conftest import Server
from tests.tiny import build_tiny_adapter, build_tiny_model

pytestmark = pytest.mark.slow

TEXTS = {
    "num_train_epochs": "7",
    "learning_rate": "3e-4",
    "max_grad_norm": "0.5",
    "seed": "7",
    "max_samples": "123",
    "cutoff_len": "512",
    "per_device_train_batch_size": "3",
    "gradient_accumulation_steps": "4",
    "val_size": "0.25",
    "logging_steps": "2",
    "save_steps": "50",
    "warmup_steps": "6",
    "extra_args": '{"weight_decay": 0.01}',
    "lora_rank": "4",
    "lora_alpha": "12",
    "lora_dropout": "0.1",
    "lora_target": "q_proj,v_proj",
    "neftune_noise_alpha": "5",
    "loraplus_lr_ratio": "16.0",
    "additional_target": "lm_head",
}
SWITCHES = ("create_new_adapter", "use_rslora", "use_dora", "pissa_init")
CHOICES = {"template": "llama3", "compute_type": "pure_bf16", "lr_scheduler_type": "linear"}


def shown(walker: Walker) -> dict[str, str]:
    """Every control as a person sees it."""
    names = [*TEXTS, *CHOICES, "model_name", "model_name_or_path", "adapter_name_or_path", "dataset_dir"]
    values = {name: walker.field(name).input_value() for name in names}
    values["train_on_prompt"] = str(walker.page.locator("#train_on_prompt input").is_checked())
    values["mask_history"] = str(walker.page.locator("#mask_history input").is_checked())
    for name in SWITCHES:
        values[name] = str(walker.page.locator(f"#{name} input").is_checked())
    values["dataset"] = walker.page.locator("#dataset").inner_text()
    values["model_name"] = values["model_name"].split(" ·")[0]  # the rest is in the page's language
    return values


def fill_in(walker: Walker, model: Path, adapter: Path) -> dict[str, str]:
    """Changes every control."""
    walker.unfold("其它参数设置")
    walker.unfold("LoRA 参数设置")
    walker.fill("model_name_or_path", str(model))
    walker.wait(
        lambda: walker.field("model_name").input_value().startswith(f"{model.name} ·"),
        "the name of a model typed by path",
    )
    for key, value in TEXTS.items():
        walker.fill(key, value)
    for key, value in CHOICES.items():
        walker.choose(key, value)
    walker.fill("adapter_name_or_path", str(adapter))
    walker.page.keyboard.press("Enter")
    walker.page.locator("#train_on_prompt input").check()
    for name in SWITCHES:
        walker.page.locator(f"#{name} input").check()
    walker.page.locator("#dataset input").fill("general")
    walker.page.get_by_role("option", name="general-chat").click()
    walker.page.keyboard.press("Escape")
    walker.page.wait_for_timeout(500)
    return shown(walker)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = tmp_path_factory.mktemp("models")
    model = build_tiny_model(base / "tiny")
    return model, build_tiny_adapter(base / "adapter", model)


@pytest.mark.thorough
def test_saved_settings_bring_every_control_back(
    serve: Callable[..., Server], walk: Callable[..., Walker], folders: tuple[Path, Path]
) -> None:
    server = serve(*(word for folder in folders for word in ("--allow-path", str(folder))))
    walker = walk(server.address, "zh").open()
    opened = shown_after_unfolding(walker)
    before = fill_in(walker, *folders)
    assert all(before[key] != opened[key] for key in before if key not in ("dataset_dir", "mask_history"))
    walker.fill("config_path", "mine")
    walker.page.keyboard.press("Enter")
    walker.click("保存训练参数")
    walker.wait_text("messages", "mine.yaml")

    other = walk(server.address, "zh").open()
    shown_after_unfolding(other)
    other.fill("config_path", "mine.yaml")
    other.page.keyboard.press("Enter")
    other.click("载入训练参数")
    other.wait_text("messages", "已载入")
    other.page.wait_for_timeout(1500)  # whatever loading sets in motion must not change it again
    assert shown(other) == before
    assert other.field("output_dir").input_value() == walker.field("output_dir").input_value()


def shown_after_unfolding(walker: Walker) -> dict[str, str]:
    walker.unfold("其它参数设置")
    walker.unfold("LoRA 参数设置")
    walker.page.wait_for_timeout(300)
    values = shown(walker)
    walker.unfold("其它参数设置")
    walker.unfold("LoRA 参数设置")
    return values


@pytest.mark.thorough
def test_a_llama_factory_file_loads_and_what_is_not_here_is_said_by_name(
    serve: Callable[..., Server], walk: Callable[..., Walker]
) -> None:
    server = serve()
    folder = server.runs_dir / "_settings"
    folder.mkdir(parents=True)
    (folder / "lf.yaml").write_text(
        "stage: sft\ndo_train: true\nfinetuning_type: lora\ndataset: nothing_here\ntemplate: qwen\ncutoff_len: 1024\n"
        "output_dir: saves/qwen/lora/sft\nlearning_rate: 1.0e-4\nwarmup_ratio: 0.1\nfp16: true\n"
    )
    walker = walk(server.address, "en").open()
    walker.fill("config_path", "lf.yaml")
    walker.page.keyboard.press("Enter")
    walker.click("Load arguments")
    walker.wait_text("messages", "Loaded")
    assert walker.field("compute_type").input_value() == "fp16"
    assert walker.field("learning_rate").input_value() == "1.0e-4"
    assert walker.field("output_dir").input_value() == "sft"
    walker.click("Start")
    walker.wait_text("messages", "Compute type")
    walker.choose("compute_type", "fp32")
    walker.click("Start")
    walker.wait_text("messages", "nothing_here")
    assert walker.errors == []


@pytest.mark.thorough
def test_freeze_settings_are_there_only_while_freeze_is_chosen(
    serve: Callable[..., Server], walk: Callable[..., Walker]
) -> None:
    walker = walk(serve().address, "zh").open()
    lora, freeze = (walker.page.locator(f"#{method}_configurations") for method in ("lora", "freeze"))
    assert lora.is_visible()
    assert not freeze.is_visible()
    walker.choose("finetuning_type", "freeze")
    freeze.wait_for()
    lora.wait_for(state="hidden")
    walker.unfold("部分参数微调设置")
    walker.fill("freeze_trainable_layers", "0")
    walker.click("预览命令")
    walker.wait_text("messages", "可训练层数")
    walker.fill("freeze_trainable_layers", "1")
    walker.click("预览命令")
    walker.wait(lambda: "--freeze_trainable_layers 1" in walker.field("command").input_value(), "the command")
    assert "--lora_rank" not in walker.field("command").input_value()
    assert walker.errors == []


@pytest.mark.thorough
def test_the_form_outlives_a_reload_and_a_change_of_language_in_its_own_tab(
    serve: Callable[..., Server], walk: Callable[..., Walker], folders: tuple[Path, Path]
) -> None:
    server = serve(*(word for folder in folders for word in ("--allow-path", str(folder))))
    walker = walk(server.address, "zh").open()
    before = fill_in(walker, *folders)
    walker.fill("output_dir", "my run")
    walker.tab("对话")
    walker.fill("system", "简短回答")
    walker.page.reload()
    walker.open("")
    walker.wait(lambda: walker.field("output_dir").input_value() == "my run", "the form after a reload")
    walker.unfold("其它参数设置")
    walker.unfold("LoRA 参数设置")
    assert shown(walker) == before
    walker.tab("对话")
    assert walker.field("system").input_value() == "简短回答"

    walker.page.get_by_role("link", name="English").click()
    walker.page.wait_for_url("**/en/**")
    walker.wait(lambda: walker.field("output_dir").input_value() == "my run", "the form in English")
    walker.page.wait_for_timeout(1500)  # whatever filling in sets in motion must not change it again
    walker.unfold("Extra configurations")
    walker.unfold("LoRA configurations")
    after = shown(walker)
    assert "general-chat" in after.pop("dataset")
    assert after == {key: value for key, value in before.items() if key != "dataset"}

    other = Walker(walker.page.context.new_page(), server.address, None).open()
    assert other.field("learning_rate").input_value() != before["learning_rate"], "another tab has a form of its own"
    other.fill("learning_rate", "9e-9")
    walker.page.reload()
    walker.wait(lambda: walker.field("output_dir").input_value() == "my run", "the first tab's form")
    assert walker.field("learning_rate").input_value() == before["learning_rate"]

    walker.click("Restore defaults")
    walker.wait_text("messages", "default")
    walker.wait(lambda: walker.field("learning_rate").input_value() == "0.002", "the default rate")
    assert walker.field("model_name").input_value().startswith("demo-model ·")
    assert walker.field("output_dir").input_value().startswith("train_")
    assert walker.errors == other.errors == []


@pytest.mark.thorough
def test_a_kept_form_that_is_no_longer_valid_leaves_the_page_whole(
    serve: Callable[..., Server], walk: Callable[..., Walker]
) -> None:
    walker = walk(serve().address, "zh").open()
    walker.fill("num_train_epochs", "7")
    walker.wait(lambda: walker.page.evaluate("sessionStorage.length") == 1, "what the tab keeps")
    broken = {"num_train_epochs": 7, "finetuning_type": "gone", "lr_scheduler_type": ["x"], "dataset": [1],
              "train_on_prompt": "yes", "max_grad_norm": "0.5", "cutoff_len": None, "no_such_field": "x"}  # fmt: skip
    for kept in ("{", "[1]", json.dumps(broken)):
        walker.page.evaluate("kept => sessionStorage.setItem(Object.keys(sessionStorage)[0], kept)", kept)
        walker.page.evaluate("tunedesk.changed = () => {}")  # the page that is left shall not keep another one
        walker.page.reload()
        walker.wait(lambda: walker.field("output_dir").input_value() != "", "the page")
        walker.wait_text("estimate", "估算")
        assert walker.field("num_train_epochs").input_value() == "3.0"
        assert walker.field("finetuning_type").input_value() == "lora"
    assert walker.field("max_grad_norm").input_value() == "0.5", "what is valid comes back"
    assert walker.page.locator("[data-testid=toast-body]").count() == 0
    assert walker.errors == []


def test_the_previewed_command_follows_the_form(serve: Callable[..., Server], walk: Callable[..., Walker]) -> None:
    server = serve()
    walker = walk(server.address, "zh").open()
    walker.click("预览命令")
    walker.wait(lambda: "--num_train_epochs 3.0" in command(walker), "the command")
    walker.field("num_train_epochs").press("End")
    walker.field("num_train_epochs").press_sequentially("5")
    walker.wait(lambda: "--num_train_epochs 3.05" in command(walker), "the command of the changed form", 5)
    walker.fill("num_train_epochs", "abc")
    walker.wait_text("command_problems", "训练轮数", 5)
    assert command(walker) == "", "a form with mistakes has no command"
    walker.fill("num_train_epochs", "0.1")
    walker.choose("lr_scheduler_type", "linear")
    walker.wait(lambda: "--lr_scheduler_type linear" in command(walker), "the command of the mended form", 5)
    assert walker.text("command_problems").strip() == ""
    previewed = command(walker)
    walker.click("开始")
    walker.wait(lambda: walker.page.locator("#status [data-state]:not([data-state=idle])").count() == 1, "a run", 20)
    run = next(path for path in server.runs_dir.iterdir() if path.name.startswith("train_"))
    [started] = [words for process in psutil.process_iter(["cmdline"])
                 if str(run) in (words := process.info["cmdline"] or []) and "train" in words]  # fmt: skip
    words = shlex.split(previewed.replace("\\\n", ""))
    assert words[words.index("train") :] == started[started.index("train") :]
    walker.page.locator("#preview_command").press("Escape")
    walker.field("command").wait_for(state="hidden")
    assert walker.errors == []


def command(walker: Walker) -> str:
    return walker.field("command").input_value()
