"""Samples of one pass never see each other: padded or end to end, a sample's logits are those of its own pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.nn.attention import varlen  # noqa: E402
from transformers import AttentionInterface  # noqa: E402

from tests.tiny import Architecture, build_tiny_model  # noqa: E402
from tests.trainer.test_batching import samples  # noqa: E402
from trainer import attention, batching  # noqa: E402
from trainer.batching import Batch  # noqa: E402
from trainer.chat_template import Sample  # noqa: E402
from trainer.device import current  # noqa: E402
from trainer.loss import LabelLoss  # noqa: E402
from trainer.model import load_model  # noqa: E402

pytestmark = pytest.mark.slow

ARCHITECTURES: list[Architecture] = ["qwen2", "qwen3", "llama"]
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
with_and_without_cache = pytest.mark.parametrize("use_cache", [False, True])
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT TESTED: varlen attention needs a CUDA device")


def tiny(folder: Path, architecture: Architecture, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    return load_model(build_tiny_model(folder / "model", architecture=architecture), dtype, torch.device(device))


def alone(model: Any, sample: Sample, use_cache: bool = False) -> Tensor:
    """(tokens, vocabulary): the sample in a forward pass of its own."""
    logits: Tensor = model(input_ids=torch.tensor([sample.input_ids], device=model.device), use_cache=use_cache).logits
    return logits[0]


def together(model: Any, batch: Batch, use_cache: bool = False) -> Tensor:
    """The logits of an unpadded batch, called as the loss calls it: (tokens, vocabulary)."""
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "use_cache": use_cache,
                              "cu_seq_lens_q": batch.starts, "cu_seq_lens_k": batch.starts,
                              "max_length_q": batch.longest, "max_length_k": batch.longest}  # fmt: skip
    logits: Tensor = model(**inputs).logits
    return logits[0]


def with_other_words(sample: Sample) -> Sample:
    return Sample([(token + 17) % 200 + 3 for token in sample.input_ids], sample.labels)


def reference_varlen(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, _: Tensor, *lengths: int, scale: float, **options: Any
) -> Tensor:
    """What torch's kernel computes, (tokens, heads, head_dim) in and out, sample by sample and on any device."""
    assert options.get("window_size", (-1, 0)) == (-1, 0)
    parts = []
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        q, k, v = (states[start:end].transpose(0, 1)[None] for states in (query, key, value))
        grouped = q.shape[1] != k.shape[1]
        part = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=grouped
        )
        parts.append(part[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture
def unpadded(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Switches a model to unpadded passes; on the CPU the kernel is replaced, all around it is ours."""

    def switch(model: Any) -> Any:
        if model.device.type == "cpu":
            monkeypatch.setattr(varlen, "varlen_attn", reference_varlen)
            AttentionInterface.register(attention.NAME, attention.varlen_attention)
        else:
            assert attention.varlen_implementation(current(), model.dtype) == attention.NAME
        assert attention.use_varlen(model, attention.NAME)
        return model

    return switch


@every_architecture
@with_and_without_cache
@torch.no_grad()
def test_a_padded_samples_logits_are_those_of_its_own_pass(
    architecture: Architecture, use_cache: bool, tmp_path: Path
) -> None:
    model, chosen = tiny(tmp_path, architecture), samples(6)
    logits = model(input_ids=batching.collate(chosen, 0).input_ids, use_cache=use_cache).logits
    for row, sample in enumerate(chosen):
        torch.testing.assert_close(
            logits[row, : len(sample.input_ids)], alone(model, sample, use_cache), rtol=1e-4, atol=1e-4
        )


@every_architecture
@with_and_without_cache
@torch.no_grad()
def test_an_unpadded_samples_logits_are_those_of_its_own_pass(
    architecture: Architecture, use_cache: bool, tmp_path: Path, unpadded: Callable[[Any], Any]
) -> None:
    model, chosen = tiny(tmp_path, architecture), samples(6)
    expected = [alone(model, sample, use_cache) for sample in chosen]
    batch = batching.flatten(chosen)
    found = together(unpadded(model), batch, use_cache).split([len(sample.input_ids) for sample in chosen])
    for logits, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)


@every_architecture
def test_unpadded_gradients_are_those_of_separate_passes(
    architecture: Architecture, tmp_path: Path, unpadded: Callable[[Any], Any]
) -> None:
    model, chosen = tiny(tmp_path, architecture).requires_grad_(True), samples(6)
    for sample in chosen:
        LabelLoss(model)(batching.collate([sample], 0)).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    LabelLoss(unpadded(model))(batching.flatten(chosen)).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-4)


@on_cuda
@pytest.mark.gpu
@every_architecture
@with_and_without_cache
def test_on_cuda_unpadded_logits_and_gradients_are_those_of_separate_passes(
    architecture: Architecture, use_cache: bool, tmp_path: Path, unpadded: Callable[[Any], Any]
) -> None:
    model = tiny(tmp_path, architecture, torch.bfloat16, "cuda").requires_grad_(True)
    chosen = samples(6)
    for sample in chosen:
        LabelLoss(model)(batching.collate([sample], 0).to(model.device)).backward()
    expected = {name: parameter.grad.float() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        wanted = torch.cat([alone(model, sample, use_cache) for sample in chosen])
    model.zero_grad()
    batch = batching.flatten(chosen).to(model.device)
    LabelLoss(unpadded(model))(batch).backward()
    # bf16 has 8 bits: two kernels differ by some of the last one; a sample that saw another would differ by all.
    for name, parameter in model.named_parameters():
        assert _distance(parameter.grad.float(), expected[name]) < 3e-2, name
    with torch.no_grad():
        assert _distance(together(model, batch, use_cache), wanted) < 3e-2


@on_cuda
@pytest.mark.gpu
@every_architecture
@torch.no_grad()
def test_on_cuda_other_samples_words_change_no_bit_of_a_samples_logits(
    architecture: Architecture, tmp_path: Path, unpadded: Callable[[Any], Any]
) -> None:
    model, chosen = unpadded(tiny(tmp_path, architecture, torch.bfloat16, "cuda")), samples(5)
    start = len(chosen[0].input_ids) + len(chosen[1].input_ids)
    middle = slice(start, start + len(chosen[2].input_ids))
    changed = [sample if number == 2 else with_other_words(sample) for number, sample in enumerate(chosen)]
    before = together(model, batching.flatten(chosen).to(model.device))
    after = together(model, batching.flatten(changed).to(model.device))
    assert torch.equal(before[middle], after[middle])
    assert not torch.equal(before[: middle.start], after[: middle.start])


def _distance(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what is wanted."""
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())
