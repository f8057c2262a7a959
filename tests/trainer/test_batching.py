"""Steps and their cutting: every sample once an epoch, no result that depends on the cut."""

import functools
import operator
import random

import pytest

torch = pytest.importorskip("torch")

from tests.tiny import build_tiny_model  # noqa: E402
from trainer import batching  # noqa: E402
from trainer.chat_template import Sample  # noqa: E402

pytestmark = pytest.mark.slow


def samples(count: int, seed: int = 0) -> list[Sample]:
    """Random samples of 5 to 40 tokens, the first third without labels."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        length = chance.randint(5, 40)
        ids = [chance.randint(3, 200) for _ in range(length)]
        found.append(Sample(ids, [-100] * (length // 3) + ids[length // 3 :]))
    return found


def test_an_epoch_has_every_sample_once_and_another_order_than_the_last() -> None:
    found = list(batching.steps(count=10, step_size=4, seed=1, first_step=0, total_steps=6))
    assert [len(step) for step in found] == [4, 4, 2, 4, 4, 2]
    first, second = functools.reduce(operator.iadd, found[:3], []), functools.reduce(operator.iadd, found[3:], [])
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_a_resumed_run_sees_the_same_steps() -> None:
    whole = list(batching.steps(10, 4, 1, 0, 9))
    assert list(batching.steps(10, 4, 1, 5, 9)) == whole[5:]


@pytest.mark.parametrize("budget", [1, 64, 300, 10_000])
def test_a_cut_has_every_sample_once_and_keeps_to_its_budget(budget: int) -> None:
    lengths = [len(sample.input_ids) for sample in samples(30)]
    groups = batching.cut(lengths, budget)
    assert sorted(functools.reduce(operator.iadd, groups, [])) == list(range(30))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[item] for item in group) <= budget


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama"])
def test_loss_and_gradients_do_not_depend_on_the_cut(
    architecture: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from pathlib import Path

    from trainer.device import current
    from trainer.loss import LabelLoss
    from trainer.model import load_model

    folder = build_tiny_model(tmp_path_factory.mktemp("m") / architecture, architecture=architecture)  # type: ignore[arg-type]
    model = load_model(Path(folder), torch.float32, current().torch_device).requires_grad_(True)
    loss_of = LabelLoss(model)
    chosen = samples(12)
    count = batching.label_count(chosen)

    # The reference: one padded batch with an attention mask through the model's own forward pass.
    batch = batching.collate(chosen, 0)
    mask, labels = torch.zeros_like(batch.input_ids), torch.full_like(batch.input_ids, -100)
    for row, sample in enumerate(chosen):
        mask[row, : len(sample.input_ids)] = 1
        labels[row, : len(sample.labels)] = torch.tensor(sample.labels)
    logits = model(input_ids=batch.input_ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    reference = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="sum"
    ) / count  # fmt: skip
    reference.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    for budget in (1, 100, 10_000):
        model.zero_grad()
        total = 0.0
        for group in batching.cut([len(sample.input_ids) for sample in chosen], budget):
            loss = loss_of(batching.collate([chosen[item] for item in group], 0, 1 / count))
            loss.backward()
            total += float(loss.detach())
        assert total == pytest.approx(float(reference.detach()), rel=1e-5)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-6)


def test_a_model_that_caps_its_logits_takes_its_own_forward_pass() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from trainer.loss import LabelLoss

    config = AutoConfig.for_model(
        "gemma2", vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, final_logit_softcapping=0.05, max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(0)
    loss_of = LabelLoss(AutoModelForCausalLM.from_config(config).eval())
    with torch.no_grad():
        loss_of.model.get_output_embeddings().weight.mul_(20)
    batch = batching.collate(samples(3), 0)
    loss_of.check(batch)
    assert not loss_of.labels_only
