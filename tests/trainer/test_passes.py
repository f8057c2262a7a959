"""The shortcuts of a pass (one-node LoRA layers, chunked loss, threads) give what the plain way gives."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.tiny import build_tiny_adapter, build_tiny_model  # noqa: E402
from tests.trainer.test_batching import samples  # noqa: E402
from trainer import batching, graphs, lora, loss, passes  # noqa: E402
from trainer.chat_template import Sample  # noqa: E402
from trainer.device import Device, current  # noqa: E402
from trainer.distributed import Ranks, bytes_here  # noqa: E402
from trainer.events import EventLog, read_events  # noqa: E402
from trainer.loss import LabelLoss, LinearCrossEntropy  # noqa: E402
from trainer.model import attach_adapter, load_model  # noqa: E402
from trainer.norm import fuse_norms  # noqa: E402
from trainer.problems import Problem  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    model = build_tiny_model(folder / "base")
    return model, build_tiny_adapter(folder / "adapter", model)


def adapted(folders: tuple[Path, Path]) -> torch.nn.Module:
    model = load_model(folders[0], torch.float32, current().torch_device)
    return attach_adapter(model, folders[1], trainable=True)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_one_node_lora_layers_give_pefts_outputs_and_gradients(folders: tuple[Path, Path]) -> None:
    model = adapted(folders)
    ids = torch.randint(3, 200, (3, 17), generator=torch.Generator().manual_seed(0))
    expected = model(input_ids=ids, labels=ids)
    expected.loss.backward()
    wanted = gradients(model)
    model.zero_grad()

    assert lora.speed_up(model)
    found = model(input_ids=ids, labels=ids)
    found.loss.backward()
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-6)

    with torch.no_grad(), model.disable_adapter():
        base = model(input_ids=ids).logits
    plain = load_model(folders[0], torch.float32, current().torch_device)(input_ids=ids).logits
    torch.testing.assert_close(base, plain)


def test_layers_with_dropout_keep_pefts_own_forward_pass(folders: tuple[Path, Path]) -> None:
    model = adapted(folders)
    for module in model.modules():
        if hasattr(module, "lora_dropout"):
            module.lora_dropout["default"] = torch.nn.Dropout(0.1)
    assert not lora.speed_up(model)


@pytest.mark.parametrize("chunk", [50, 700, 10**6])
def test_the_chunked_loss_gives_the_plain_ones_value_and_gradients(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", chunk)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(23, 16, generator=generator, requires_grad=True)
    weight = torch.randn(100, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 100, (23,), generator=generator)
    weights = torch.rand(23, generator=generator)
    plain = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="none") @ weights
    wanted = torch.autograd.grad(plain / 7, (hidden, weight))
    value = LinearCrossEntropy.apply(hidden, weight, targets, weights)
    found = torch.autograd.grad(value / 7, (hidden, weight))
    torch.testing.assert_close(value, plain)
    for gradient, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_shares_have_every_position_once_and_about_as_many_tokens(count: int) -> None:
    lengths = [len(sample.input_ids) for sample in samples(16)]
    shares = batching.share(lengths, count)
    assert sorted(position for part in shares for position in part) == list(range(16))
    tokens = [sum(lengths[position] for position in part) for part in shares]
    assert max(tokens) <= sum(lengths) / count + max(lengths)


def test_threads_give_the_loss_and_gradients_of_one_pass(folders: tuple[Path, Path], tmp_path: Path) -> None:
    model = adapted(folders)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    chosen = samples(9)
    cores = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = []
        for threads in (False, True, True):
            run = passes.Passes(LabelLoss(model), current(), "fp32", scaler, 0, EventLog(tmp_path / "events.jsonl"))
            if threads:
                run.use_threads(trained)
            model.zero_grad()
            found.append((float(run.backward(chosen, batching.label_count(chosen))), gradients(model)))
            torch.set_num_threads(2)
    finally:
        torch.set_num_threads(cores)
    (one, expected), (several, shared), (again, repeated) = found
    assert several == pytest.approx(one, rel=1e-6)
    assert several == again
    for name, gradient in shared.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7)
        assert torch.equal(gradient, repeated[name])


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama"])
def test_fused_norms_give_the_models_own_outputs(architecture: str, tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "m", architecture=architecture)  # type: ignore[arg-type]
    model = load_model(folder, torch.float32, current().torch_device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
        ids = torch.randint(3, 200, (2, 9))
        expected = model(input_ids=ids).logits
        assert fuse_norms(model) >= 5
        torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_norm_that_adds_one_to_its_weight_is_left_alone() -> None:
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm

    assert fuse_norms(torch.nn.Sequential(GemmaRMSNorm(16))) == 0


def test_a_captured_pass_is_padded_with_a_sample_of_its_own_that_counts_nothing() -> None:
    batch = batching.flatten(samples(5), 0.25)
    shape = graphs._shape(batch)
    inputs = graphs._blank(shape, batch)
    graphs._pad_into(inputs, batch)
    assert batch.starts is not None
    assert inputs.starts is not None
    assert inputs.input_ids.shape == (1, shape[0])
    assert int(inputs.weights.sum() * 4) == len(batch.targets)
    assert inputs.starts.tolist()[: len(batch.starts)] == batch.starts.tolist()
    assert set(inputs.starts.tolist()[len(batch.starts) :]) == {shape[0]}
    assert int((inputs.starts[1:] - inputs.starts[:-1]).max()) <= shape[3]


class ShortOfMemory(LabelLoss):
    """Raises what torch raises when a pass holds more tokens than `room`; recomputing needs a quarter."""

    room = 10**9

    def forward(self, batch: batching.Batch) -> torch.Tensor:
        recomputing = any(getattr(module, "gradient_checkpointing", False) for module in self.model.modules())
        if batch.input_ids.numel() > self.room * (4 if recomputing else 1):
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(batch)


@pytest.mark.parametrize("room", [100, 12])
def test_a_step_short_of_memory_is_redone_with_the_same_result(
    folders: tuple[Path, Path], tmp_path: Path, room: int
) -> None:
    model = adapted(folders)
    loss_of = ShortOfMemory(model).train()
    events = EventLog(tmp_path / "events.jsonl")
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    run = passes.Passes(loss_of, current(), "fp32", scaler, 0, events)
    chosen = samples(12)
    count = batching.label_count(chosen)
    expected = float(run.backward(chosen, count))
    wanted = gradients(model)
    model.zero_grad()

    run._budget, loss_of.room = 320, room
    assert float(run.backward(chosen, count)) == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-6)
    found = [event["code"] for event in read_events(tmp_path / "events.jsonl")[0]]
    assert found[:2] == ["token_budget_halved"] * 2
    assert ("checkpointing_switched_on" in found) == (room == 12), found


def test_a_single_sample_that_cannot_fit_is_named_with_its_length(folders: tuple[Path, Path], tmp_path: Path) -> None:
    loss_of = ShortOfMemory(adapted(folders)).train()
    loss_of.room = 5
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    run = passes.Passes(loss_of, current(), "fp32", scaler, 0, EventLog(tmp_path / "events.jsonl"))
    with pytest.raises(Problem) as refused:
        run.backward([Sample([5] * 37, [5] * 37)], 36)
    assert refused.value.code == "sample_too_long"
    assert "37" in refused.value.sentence("en")
    assert "37" in refused.value.sentence("zh")


class Shards(Device):
    """A device of `room` bytes where a pass takes `fixed` of them, and one for each of its tokens."""

    room, fixed, longest = 0, 0, 0
    torch_device = torch.device("cpu")

    def free_memory(self) -> int:
        return Shards.room

    def allocated_memory(self) -> int:
        return 0

    def peak_memory(self) -> int:
        return Shards.fixed + Shards.longest

    def reset_peak_memory(self) -> None:
        Shards.longest = 0


class Counting(LabelLoss):
    def forward(self, batch: batching.Batch) -> torch.Tensor:
        Shards.longest = max(Shards.longest, batch.input_ids.numel())
        return super().forward(batch)


@pytest.mark.parametrize(("spare", "budget"), [(100_000, 512), (1500, 256), (20, 16)])
def test_what_shards_take_in_any_pass_does_not_make_their_budget_small(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int, budget: int
) -> None:
    model = adapted(folders)
    gradients = bytes_here(parameter for parameter in model.parameters() if parameter.requires_grad)
    monkeypatch.setattr(Shards, "fixed", gradients + 1000)
    monkeypatch.setattr(Shards, "room", int(3 * gradients + (1000 + spare) / 0.85))
    monkeypatch.setattr(passes, "TOKEN_BUDGET", {"other": 512})
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    device = Shards("npu", "shards", 1)
    run = passes.Passes(Counting(model), device, "fp32", scaler, 0, EventLog(tmp_path / "events.jsonl"))
    run.in_step_with(Ranks())
    run.fit([Sample([5] * 16, [5] * 16)], False)
    assert run._budget == budget
    assert Shards.longest + 1000 <= 1000 + spare
