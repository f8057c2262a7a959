"""The estimate as people read it, in both languages, and the counting behind it."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app import __main__ as page_main
from app import form
from app.estimate import EstimatePanel, TokenCounter
from app.estimate_words import estimate_html, estimate_lines, measured_html, warning_words
from app.runs import Run
from app.text import Text
from trainer.counts import Counts
from trainer.estimate import Estimate, Hardware
from trainer.problems import LANGUAGES, Problem
from trainer.settings import TrainSettings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MACHINE = Hardware("cuda", "NVIDIA H200", 130.2, total_gib=139.8)
SMALL = Hardware("cuda", "NVIDIA A2", 14.0, total_gib=16.0)
FOUND = Estimate(
    parts={"weights": 14.2, "adapter": 0.11, "activations": 6.7, "logits": 0.0},
    device_gib=130.2, reserved_gib=1.5, seconds=75, steps=24, budget=8192, checkpointed=False,
)  # fmt: skip
TOO_LARGE = replace(
    FOUND, device_gib=14.0, checkpointed=True, sampled=2000,
    advice=({"cutoff_len": 1024}, {"finetuning_type": "lora", "quantization_bit": 4}, {"gradient_checkpointing": None}),
)  # fmt: skip


def test_one_line_says_peak_device_and_time_and_the_fold_its_parts() -> None:
    html = estimate_html(FOUND, MACHINE, Text("en"))
    assert (
        "<summary>Estimate: peak memory about 21.0 GiB; 130.2 GiB of 139.8 GiB free · about 0:01:15 for 24 steps</summary>"
        in html
    )
    assert "<dt>Model weights</dt><dd>14.2 GiB</dd>" in html
    assert "Logits" not in html, "a part that is nothing is not shown"
    assert 'role="alert"' not in html
    chinese = estimate_html(FOUND, MACHINE, Text("zh"))
    assert "估算：峰值内存约 21.0 GiB，空闲 130.2 GiB（共 139.8 GiB） · 24 步约需 0:01:15" in chinese
    assert "<dt>模型权重</dt><dd>14.2 GiB</dd>" in chinese


def test_what_does_not_fit_is_a_warning_that_names_settings_by_their_labels() -> None:
    assert warning_words(TOO_LARGE, SMALL, Text("en")) == (
        "This will not fit: about 22.5 GiB is needed, and NVIDIA A2 has 14.0 GiB of 16.0 GiB free. This makes it fit: "
        "Cutoff length 1024; or Finetuning method lora with Quantization bit 4; or Gradient checkpointing left empty."
    )
    assert warning_words(TOO_LARGE, SMALL, Text("zh")) == (
        "内存放不下：约需 22.5 GiB，而 NVIDIA A2 空闲 14.0 GiB（共 16.0 GiB）。这样改即可放下："
        "截断长度 1024；或 微调方法 lora 并且 量化等级 4；或 重算激活值 留空。"
    )
    assert 'role="alert"' in estimate_html(TOO_LARGE, MACHINE, Text("en"))
    crowded = warning_words(TOO_LARGE, replace(SMALL, total_gib=24.0), Text("en"))
    assert "unload the chat model" in crowded, "what fits the device but not what is free of it"
    hopeless = warning_words(replace(TOO_LARGE, advice=()), SMALL, Text("en"))
    assert "smaller model" in hopeless


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_part_and_note_has_words(language: str) -> None:
    parts = dict.fromkeys(("weights", "adapter", "gradients", "optimizer", "activations", "logits", "program"), 1.0)
    lines = estimate_lines(replace(TOO_LARGE, parts=parts, device_gib=5.0), MACHINE, Text(language))  # type: ignore[arg-type]
    assert len(lines) == 1 + len(parts) + 4 + 1


def test_a_running_runs_measurement_stands_beside_its_estimate() -> None:
    events = [
        {"event": "stage", "stage": "starting", "time": 1.0},
        {"event": "estimate", "time": 2.0, "memory_gib": 16.04, "seconds": 60.0},
        {"event": "step", "time": 3.0, "memory_gib": 15.21},
    ]
    run = Run(Path("run"), "running", events[0], events)
    assert "Measured: peak memory 15.2 GiB (the estimate was 16.0 GiB)" in (measured_html(run, Text("en")) or "")
    assert "实测：峰值内存 15.2 GiB" in (measured_html(run, Text("zh")) or "")
    assert measured_html(replace(run, status="completed"), Text("en")) is None
    resumed = [*events, {"event": "stage", "stage": "starting", "time": 4.0}]
    assert measured_html(replace(run, events=resumed), Text("en")) is None
    assert measured_html(None, Text("en")) is None


@pytest.mark.parametrize(
    ("settings", "config"),
    [({"val_size": 0.999}, {}), ({}, {"num_attention_heads": [4]}), ({}, {"hidden_size": 10**400}), ({}, {"vocab_size": "1"})],
)  # fmt: skip
def test_what_cannot_be_estimated_leaves_the_panel_empty_and_its_timer_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], config: dict[str, Any]
) -> None:
    """A timer that goes on would show the same error again and again."""
    demo = ROOT / "assets" / "demo-model"
    for file in demo.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(json.loads((demo / "config.json").read_text()) | config))
    monkeypatch.setattr(TokenCounter, "of", lambda *_: (True, Counts((50,) * 72, (20,) * 72, 72)))
    values: list[Any] = [*(None for _ in form.KEYS), [], "1", "", ""]
    panel = EstimatePanel(Text("en"))

    def shown(**settings: Any) -> tuple[str, bool]:
        chosen = TrainSettings(model_name_or_path=str(tmp_path), dataset=("d",), **settings)
        words, timer = panel._tick(lambda _: chosen, values)
        return words, timer.active

    assert shown(**settings) == ("", False)
    assert shown(lora_target=("no_such_layer",), **settings) == ("", False)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").symlink_to(demo / "config.json")
    words, active = shown()
    assert ("td-estimate" in words, active) == (True, False)
    assert shown(lora_target=("no_such_layer",)) == ("", False)
    words, active = shown(cutoff_len=8)
    assert ("Cutoff length 8 cuts every sample" in words, "needs 31" in words, active) == (True, True, False)


def test_tokens_are_counted_beside_the_page_and_once() -> None:
    settings = TrainSettings(
        model_name_or_path=str(ROOT / "assets" / "demo-model"), dataset_dir=str(ROOT / "data"), dataset=("identity",)
    )
    counter = TokenCounter()
    assert counter.of(settings) == (False, None)
    deadline = time.monotonic() + 60
    while not (answer := counter.of(settings))[0] and time.monotonic() < deadline:
        time.sleep(0.1)
    found = answer[1]
    assert found is not None
    assert len(found.lengths) == len(found.labels) == found.total
    assert all(0 < labels < length for length, labels in zip(found.lengths, found.labels, strict=True))
    other = settings.model_copy(update={"cutoff_len": 64, "lora_rank": 32})
    assert counter.of(other) == (True, found), "neither changes what is counted"
    with pytest.raises(Problem):
        counter.of(settings.model_copy(update={"dataset": ("nowhere",)}))


def estimated(capfd: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str, str]:
    demo = ["--model_name_or_path", str(ROOT / "assets" / "demo-model"), "--dataset_dir", str(ROOT / "data")]
    code = page_main.estimate([*demo, "--dataset", "identity-pku-assistant", "--output_dir", "o", *flags])
    return code, *capfd.readouterr()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ([], 0, "GiB free"),
        (["--lora_target", "no_such_layer"], 2, "LoRA modules: the model has no module named no_such_layer"),
        (["--val_size", "0.999"], 2, "Val size 0.999"),
        (["--cutoff_len", "4"], 2, "Cutoff length 4 cuts every sample before its answer"),
    ],
)
def test_the_terminals_estimate_refuses_what_a_run_would_refuse(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flags: list[str], code: int, words: str
) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    found, out, err = estimated(capfd, *flags)
    assert found == code
    assert words in (err if code else out)
