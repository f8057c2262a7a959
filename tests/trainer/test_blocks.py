"""The CPU's blocks of few nodes give what the models' own give, and leave alone what computes something else."""

import copy
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer  # noqa: E402

from tests.tiny import Architecture, build_tiny_adapter, build_tiny_model  # noqa: E402
from trainer import batching, lora, norm  # noqa: E402
from trainer.blocks import Rotary, SwiGLU, fuse_blocks  # noqa: E402
from trainer.chat_template import Sample  # noqa: E402
from trainer.loss import LabelLoss  # noqa: E402
from trainer.method import draws_random_numbers  # noqa: E402
from trainer.model import attach_adapter, causal_lm, load_model  # noqa: E402

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def random(*shape: int) -> torch.Tensor:
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape))
    ).requires_grad_()


def test_the_nodes_derivatives_are_those_of_what_they_compute() -> None:
    assert torch.autograd.gradcheck(SwiGLU.apply, (random(3, 5) * 4, random(3, 5)))
    cos, sin = random(1, 3, 4).detach(), random(1, 3, 4, 1).detach()[..., 0]
    assert torch.autograd.gradcheck(lambda x: Rotary.apply(x, cos, sin), (random(2, 3, 2, 4),))
    weight = random(6).detach()
    assert torch.autograd.gradcheck(lambda x: norm.FrozenNorm.apply(x, weight, 1e-2), (random(2, 3, 6),))
    frozen = [(random(4, 6).detach(), random(4).detach(), 0.5), (random(3, 6).detach(), None, 2.0)]
    factors = [random(2, 6), random(4, 2), random(1, 6), random(3, 1)]
    assert torch.autograd.gradcheck(
        lambda x, *rest: lora.LoraProducts.apply(x, frozen, *rest), (random(2, 3, 6), *factors)
    )
    x = random(2, 3, 6).detach()  # as the first layer's input is
    assert torch.autograd.gradcheck(lambda *rest: lora.LoraProducts.apply(x, frozen, *rest), factors)


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama"])
def test_models_with_fused_blocks_and_a_narrow_last_layer_have_the_same_gradients(
    architecture: Architecture, tmp_path: Path
) -> None:
    folder = build_tiny_model(tmp_path / "model", architecture=architecture)
    own = attach_adapter(
        load_model(folder, torch.float32, CPU), build_tiny_adapter(tmp_path / "a", folder), trainable=True
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in own.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    fast = copy.deepcopy(own)
    assert norm.fuse_norms(fast)
    assert lora.speed_up(fast)
    assert fuse_blocks(fast) == 2 * len(causal_lm(fast).get_decoder().layers)
    samples = [Sample(list(range(5, 5 + length)), [-100] * 4 + list(range(9, 5 + length))) for length in (9, 17, 12)]
    batch = batching.collate(samples, 0, 0.1)
    narrow, whole = LabelLoss(fast), LabelLoss(own)
    narrow.check(batch)
    assert narrow.narrow
    found, expected = narrow.train()(batch), whole.train()(batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    found.backward()
    expected.backward()
    for (name, ours), theirs in zip(fast.named_parameters(), own.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None:
            # Rounding alone makes 4e-6, as large as the models' own distance from fp64.
            assert (ours.grad - theirs.grad).norm() <= 2e-5 * theirs.grad.norm(), name


def test_blocks_that_compute_something_else_keep_their_own_forward_pass(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", hidden_act="gelu")
    model = attach_adapter(load_model(folder, torch.float32, CPU), build_tiny_adapter(tmp_path / "a", folder), True)
    lora.speed_up(model)
    first, second = causal_lm(model).get_decoder().layers
    first.self_attn.q_norm = first.self_attn.k_norm = torch.nn.Tanh()  # has the names, but its forward pass has no norm
    assert fuse_blocks(model) == 1
    assert [("forward" in vars(layer.self_attn), "forward" in vars(layer.mlp)) for layer in (first, second)] == [
        (False, False),
        (True, False),
    ]


@pytest.mark.parametrize(
    ("architecture", "more", "fused"),
    [
        ("olmo2", {}, 2),  # norms over all heads together
        ("stablelm", {}, 2),  # rotates a quarter of each head, and cannot be called otherwise
        ("seed_oss", {"attention_dropout": 0.0, "residual_dropout": 0.0}, 4),
        ("seed_oss", {"attention_dropout": 0.0, "residual_dropout": 0.1}, 0),
    ],
)
def test_families_whose_blocks_cannot_be_ours_train_with_their_own(
    architecture: Any, more: dict[str, float], fused: int, tmp_path: Path
) -> None:
    folder = build_tiny_model(tmp_path / "model", architecture=architecture, **more)
    adapter = build_tiny_adapter(tmp_path / "a", folder)
    own = attach_adapter(load_model(folder, torch.float32, CPU), adapter, trainable=True).train()
    fast = copy.deepcopy(own)
    lora.speed_up(fast)
    assert fuse_blocks(fast) == fused
    assert draws_random_numbers(fast) == bool(more.get("residual_dropout"))
    losses = []
    for model in (own, fast):
        torch.manual_seed(0)
        losses.append(LabelLoss(model)(batching.collate([Sample([5, 6, 7, 8], [-100, 6, 7, 8])], 0)))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("architecture", "more"), [("cohere", {}), ("granite", {"logits_scaling": 8.0}), ("gemma2", {})]
)
def test_what_a_family_does_to_its_logits_is_seen_before_it_has_learned_anything(
    architecture: Any, more: dict[str, float], tmp_path: Path
) -> None:
    """With weights this small the loss is that of a guess whatever is done to the logits."""
    folder = build_tiny_model(tmp_path / "model", architecture=architecture, initializer_range=0.02, **more)
    loss_of = LabelLoss(load_model(folder, torch.float32, CPU))
    batch = batching.collate([Sample([5, 6, 7, 8], [-100, 6, 7, 8])], 0)
    own = loss_of.model(input_ids=batch.input_ids, labels=batch.input_ids).loss * len(batch.targets)
    loss_of.check(batch)
    assert not loss_of.labels_only
    torch.testing.assert_close(loss_of(batch), own, rtol=1e-6, atol=0)


class HalfSteps(Qwen2DecoderLayer):
    """Adds half of what the layer would add."""

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return (hidden_states + super().forward(hidden_states, **kwargs)) / 2


def test_a_last_layer_that_scales_what_it_adds_is_not_narrowed(tmp_path: Path) -> None:
    model = load_model(build_tiny_model(tmp_path / "model"), torch.float32, CPU)
    last = model.get_decoder().layers[-1]
    last.__class__ = HalfSteps
    loss_of = LabelLoss(model)
    loss_of.check(batching.collate([Sample([5, 6, 7, 8], [-100, 6, 7, 8])], 0))
    assert loss_of.labels_only
    assert not loss_of.narrow
    assert "forward" not in vars(last)


@pytest.mark.parametrize("kind", ["autocast", "bf16"])
def test_sixteen_bits_keep_the_models_own_blocks(kind: str, tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model")
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    model = attach_adapter(load_model(folder, dtype, CPU), build_tiny_adapter(tmp_path / "a", folder), True)
    lora.speed_up(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        assert fuse_blocks(model) == 0
