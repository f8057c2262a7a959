"""The eval loss is a mean over tokens, whatever the passes; what it marks as the best is kept and drawn."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.tiny import build_tiny_model  # noqa: E402
from tests.trainer.test_batching import samples  # noqa: E402
from trainer import batching, checkpoint, passes, plot, run_folder  # noqa: E402
from trainer.device import current  # noqa: E402
from trainer.events import EventLog  # noqa: E402
from trainer.loss import LabelLoss  # noqa: E402
from trainer.model import load_model  # noqa: E402

pytestmark = pytest.mark.slow


def test_the_eval_loss_is_the_token_mean_however_passes_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(build_tiny_model(tmp_path / "m"), torch.float32, current().torch_device)
    model.eval()
    found = samples(70)
    with torch.no_grad():
        each = []
        for sample in found:
            logits = model(input_ids=torch.tensor([sample.input_ids], device=model.device)).logits[0, :-1].double()
            labels = torch.tensor(sample.labels[1:], device=model.device)
            each.append(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
    tokens = batching.label_count(found)
    assert tokens == sum(label != -100 for sample in found for label in sample.labels[1:])
    expected = float(torch.stack(each).sum()) / tokens
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for budget in (1, 90, 10**6):
        monkeypatch.setattr(passes, "TOKEN_BUDGET", {"cpu": budget, "other": budget})
        run = passes.Passes(LabelLoss(model), current(), "fp32", scaler, 0, EventLog(tmp_path / "events.jsonl"))
        assert run.evaluate(found) / tokens == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("steps", "keep", "newest", "best", "left"),
    [
        ([10, 20, 30, 40], 2, 40, None, [30, 40]),
        ([10, 20, 30, 40], 2, 40, 40, [30, 40]),
        ([10, 20, 30, 40], 2, 40, 10, [10, 40]),
        ([10, 20, 30, 40], 1, 40, 20, [20, 40]),
        ([10, 20, 30, 40], 3, 40, 10, [10, 30, 40]),
        ([10, 20], 3, 20, 10, [10, 20]),
        ([10, 20, 30, 40], 1, 20, None, [20]),
        ([10, 20, 30, 40], 2, 20, None, [10, 20]),
    ],
)
def test_the_best_and_the_newest_checkpoint_are_never_removed(
    tmp_path: Path, steps: list[int], keep: int, newest: int, best: int | None, left: list[int]
) -> None:
    for step in steps:
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "adapter_model.safetensors").touch()
    checkpoint.prune(tmp_path, keep, newest, best)
    assert [run_folder.step_of(path) for path in run_folder.checkpoints(tmp_path)] == left


def test_the_picture_has_a_legend_only_where_there_are_two_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(plot.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure.axes[0]))
    log = EventLog(tmp_path / "events.jsonl")
    log.append("step", step=5, total_steps=15, loss=3.0)
    plot.plot_loss(tmp_path / "events.jsonl", tmp_path / "loss.png")
    for step, loss in ((5, 2.0), (10, 1.25), (15, 1.5)):
        log.append("step", step=step, total_steps=15, loss=loss)
        log.append("evaluated", step=step, eval_loss=loss)
    plot.plot_loss(tmp_path / "events.jsonl", tmp_path / "loss.png")
    assert drawn[0].get_legend() is None
    legend = [text.get_text() for text in drawn[1].get_legend().get_texts()]
    assert legend == ["train loss", "eval loss", "best: 1.25 at step 10"]
    assert [list(line.get_xdata()) for line in drawn[1].lines] == [[5, 10, 15], [5, 10, 15], [10]]
