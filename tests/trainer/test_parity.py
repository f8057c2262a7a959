"""Step by step, losses and gradient norms are those of plain transformers.Trainer, however a step is cut."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from tests import plain_trainer  # noqa: E402
from tests.plain_trainer import Step  # noqa: E402
from tests.tiny import Architecture, build_tiny_adapter, build_tiny_model  # noqa: E402
from trainer import budget, run_folder  # noqa: E402
from trainer.chat_template import ChatTemplate  # noqa: E402
from trainer.data import load_samples  # noqa: E402
from trainer.events import EventLog, read_events  # noqa: E402
from trainer.model import attach_adapter  # noqa: E402
from trainer.settings import parse  # noqa: E402
from trainer.train import run  # noqa: E402

pytestmark = pytest.mark.slow

SAMPLES = 37  # no multiple of the step's 8: every epoch ends with a short step
COMMON: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "learning_rate": 2e-3,
    "weight_decay": 0.1,
    "warmup_steps": 5,
    "lr_scheduler_type": "cosine",
    "seed": 7,
}
# As our cut has it, and the processor's cores, with which samples are shared among threads.
CUTS = [(64, 2), (300, 1), (None, 1), (None, 2)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of 25 to some 130 tokens in an order that has nothing to do with their length."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {"instruction": f"你好，你是谁？{'请说。' * (5 * number % 7)}", "output": f"我是{'很好' * (number * number % 23 + 1)}{number}"}
        for number in range(SAMPLES)
    ]  # fmt: skip
    (folder / "who.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture
def cores() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Comparison:
    """One model, method and dataset; `plain` and `ours` train them with the same settings."""

    def __init__(self, work: Path, data: Path, architecture: Architecture, method: str, steps: int) -> None:
        self.work, self.method = work, method
        self.model = build_tiny_model(work / "model", architecture=architecture)
        self.adapter = (
            None if method == "full" else build_tiny_adapter(work / "adapter", self.model, use_dora=method == "dora")
        )
        self.common = COMMON | {"max_steps": steps}
        self.settings = {
            "model_name_or_path": self.model,
            "dataset_dir": data,
            "dataset": "who",
            "finetuning_type": "full" if method == "full" else "lora",
            "logging_steps": 1,
            "plot_loss": False,
            **({"adapter_name_or_path": self.adapter} if self.adapter else {}),
        }

    def ours(self, name: str) -> list[Step]:
        folder = self.work / name
        folder.mkdir()
        values = {key: str(value) for key, value in (self.settings | self.common | {"output_dir": folder}).items()}
        events = folder / run_folder.EVENTS
        assert run(parse(values), EventLog(events), threading.Event()) == 0
        found = [event for event in read_events(events)[0] if event["event"] == "step"]
        return [Step(event["loss"], event["grad_norm"], event["learning_rate"], 0.0) for event in found]

    def plain(self) -> list[Step]:
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        settings = parse({key: str(value) for key, value in self.settings.items()})
        log = EventLog(self.work / "samples.jsonl")
        samples = load_samples(settings, ChatTemplate.of(tokenizer), log).train
        model = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        if self.adapter:
            model = attach_adapter(model, self.adapter, trainable=True)
        steps = plain_trainer.train(model, tokenizer, samples, self.work / "plain", **self.common)
        return [replace(step, ended=0.0) for step in steps]


def assert_equal(found: list[Step], expected: list[Step]) -> None:
    assert len(found) == len(expected)
    for number, (ours, plain) in enumerate(zip(found, expected, strict=True), 1):
        assert ours.learning_rate == pytest.approx(plain.learning_rate, rel=1e-6), f"step {number}"
        assert ours.loss == pytest.approx(plain.loss, rel=1e-4), f"step {number}"
        assert ours.grad_norm == pytest.approx(plain.grad_norm, rel=1e-4), f"step {number}"


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("architecture", "method", "steps", "cuts"),
    [
        ("qwen2", "lora", 30, CUTS),
        ("qwen2", "full", 10, CUTS[:3]),  # full tuning has no threads
        ("qwen2", "dora", 6, CUTS[1:2]),
        ("qwen3", "lora", 6, CUTS[1:2]),
        pytest.param("qwen3", "full", 6, CUTS[:1], marks=pytest.mark.thorough),
        ("llama", "lora", 6, CUTS[1:2]),
        pytest.param("llama", "full", 6, CUTS[:1], marks=pytest.mark.thorough),
    ],
)
def test_every_step_has_plain_trainers_loss_and_gradient_norm(
    architecture: Architecture,
    method: str,
    steps: int,
    cuts: list[tuple[int | None, int]],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    comparison = Comparison(tmp_path, data, architecture, method, steps)
    torch.set_num_threads(1)
    expected = comparison.plain()
    assert len(expected) == steps
    for tokens, count in cuts:
        torch.set_num_threads(count)
        with monkeypatch.context() as patch:
            if tokens:
                patch.setitem(budget.TOKEN_BUDGET, "cpu", tokens)
            assert_equal(comparison.ours(f"{tokens}-{count}"), expected)
