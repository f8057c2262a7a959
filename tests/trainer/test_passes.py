"""The shortcuts of a pass (one-node LoRA layers, chunked loss, threads) give what the plain way gives."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn.attention import varlen  # noqa: E402
from transformers import AttentionInterface  # noqa: E402

from tests.tiny import build_tiny_adapter, build_tiny_model  # noqa: E402
from tests.trainer.test_batching import samples  # noqa: E402
from tests.trainer.test_isolation import reference_varlen  # noqa: E402
from trainer import attention, batching, distributed, graphs, lora, loss, machines, passes, run_folder  # noqa: E402
from trainer.again import Start  # noqa: E402
from trainer.chat_template import Sample  # noqa: E402
from trainer.device import Device, current  # noqa: E402
from trainer.distributed import Ranks, bytes_here  # noqa: E402
from trainer.events import EventLog, read_events  # noqa: E402
from trainer.loss import LabelLoss, LinearCrossEntropy  # noqa: E402
from trainer.model import attach_adapter, load_model  # noqa: E402
from trainer.norm import fuse_norms  # noqa: E402
from trainer.problems import Problem  # noqa: E402
from trainer.settings import parse  # noqa: E402

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


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


def test_16_bit_passes_of_a_processor_come_in_few_lengths(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """oneDNN keeps memory for every length that it has met."""
    loss_of = LabelLoss(adapted(folders).to(torch.bfloat16)).train()
    run = passes.Passes(loss_of, Device("cpu", "", 1), "bf16", torch.amp.GradScaler(enabled=False), 0,
                        EventLog(tmp_path / "events"))  # fmt: skip
    seen: list[int] = []
    loss_of.register_forward_pre_hook(
        lambda _, arguments: seen.extend((arguments[0].input_ids.shape[1], len(arguments[0].predicting)))
    )
    found: list[tuple[float, float]] = []
    for rows in (passes.PADDING_OF_16_BIT, 1):
        monkeypatch.setattr(passes, "PADDING_OF_16_BIT", rows)
        loss_of.zero_grad()
        loss = float(run.backward(samples(5), 100))
        found.append((loss, sum(gradient.norm().item() for gradient in gradients(loss_of).values())))
        assert all(length % rows == 0 for length in seen)
    assert any(length % 16 for length in seen), "else they have lengths of their own"
    assert found[0] == pytest.approx(found[1], rel=1e-2)


@pytest.mark.parametrize("apart", [True, False])
def test_samples_go_unpadded_only_where_they_do_not_see_each_other(
    apart: bool, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, *rest: Any,
               **options: Any) -> torch.Tensor:  # fmt: skip
        if not apart:
            starts = starts[[0, -1]]
        return reference_varlen(query, key, value, starts, *rest, **options)

    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    AttentionInterface.register(attention.NAME, attention.varlen_attention)
    monkeypatch.setattr(passes, "varlen_implementation", lambda *_: attention.NAME)
    model = load_model(build_tiny_model(tmp_path / "m", initializer_range=0.02), torch.float32, CPU)
    run = passes.Passes(LabelLoss(model), Device("cpu", "", 1), "fp32", torch.amp.GradScaler(enabled=False), 0,
                        EventLog(tmp_path / "events"))  # fmt: skip
    run.check(samples(3))
    assert run._unpadded == apart


def test_a_trial_takes_short_samples_in_which_attention_matters() -> None:
    def lengths(*given: int) -> list[int]:
        return [len(one.input_ids) for one in passes._for_trial([Sample([1] * count, [1] * count) for count in given])]

    assert lengths(9000, 30, 2, 17, 400) == [17, 30]
    assert lengths(2, 9000, 3) == [3, 9000]
    assert lengths(5) == [5, 5]


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


def test_a_run_started_again_for_want_of_memory_keeps_to_the_room_that_it_was_left(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    model = adapted(folders)
    ranks = Ranks()
    ranks.start = Start(None, budget=100, checkpointing=True)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    run = passes.Passes(LabelLoss(model), current(), "fp32", scaler, 0, EventLog(tmp_path / "events.jsonl"))
    run.in_step_with(ranks)
    run.fit([Sample([5] * 16, [5] * 16)], False)
    assert (run._budget, run.checkpointed) == (100, True)


class OtherDisk(Ranks):
    """The first process, when another one cannot see the checkpoint."""

    def any(self, truth: bool) -> bool:
        return True


@pytest.mark.parametrize(("kind", "step"), [(Ranks, 5), (OtherDisk, 0)])
def test_processes_start_again_from_a_checkpoint_that_all_can_see(kind: type[Ranks], step: int, tmp_path: Path) -> None:
    events = EventLog(tmp_path / run_folder.EVENTS)
    events.stage("starting")
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    for name in run_folder.RESUME_FILES:
        (checkpoint / name).touch()
    events.append("saved", path=checkpoint.name, step=5)
    events.append("warning", code="token_budget_halved", budget=64)
    ranks = kind(peers=SimpleNamespace(attempt=1))  # type: ignore[arg-type]
    assert ranks.starting_point(parse({"output_dir": str(tmp_path)}), events) == (checkpoint if step else None)
    assert ranks.start.budget == 64
    told = read_events(tmp_path / run_folder.EVENTS)[0][-1]
    assert (told["code"], told["step"]) == ("started_again", step)


def test_only_a_sample_that_cannot_fit_alone_ends_a_run_of_shards(folders: tuple[Path, Path], tmp_path: Path) -> None:
    loss_of = ShortOfMemory(adapted(folders)).train()
    ranks = Ranks(peers=SimpleNamespace(attempt=0, take=None, start_again=pytest.fail))  # type: ignore[arg-type]
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    run = passes.Passes(loss_of, current(), "fp32", scaler, 0, EventLog(tmp_path / "events.jsonl"))
    run.in_step_with(ranks)
    run.fit([Sample([5] * 37, [5] * 37)], None)
    run._budget, loss_of.room = 37, 5
    with pytest.raises(torch.OutOfMemoryError) as short:
        run.backward([Sample([5] * 37, [5] * 37)], 36)
    told = ranks.start_again_if_short(short.value)
    assert isinstance(told, Problem)
    assert (told.code, told.values["tokens"]) == ("sharded_sample_too_long", 37)
    assert "Cutoff length" in told.sentence("en")


def test_a_process_without_a_sample_of_the_step_may_be_short_of_memory(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run = passes.Passes(LabelLoss(adapted(folders)), Device("cpu", "", 1), "fp32", None, 0, EventLog(tmp_path / "e"))
    run._budget = 40
    assert run._less([]) == {"code": "token_budget_halved", "budget": 20}


def test_a_shortage_outside_of_our_own_launcher_is_told_and_not_waited_for(tmp_path: Path) -> None:
    ranks = Ranks(1, 2)
    short = torch.OutOfMemoryError("out of memory")
    assert ranks.start_again_if_short(short) is short, "before the passes have been fitted nothing could be made less"
    ranks.when_short(lambda: {"code": "token_budget_halved", "budget": 1}, EventLog(tmp_path / "events.jsonl"))
    told = ranks.start_again_if_short(short)
    assert isinstance(told, Problem)
    assert told.code == "sharded_out_of_memory"
    other = ValueError("something else")
    assert ranks.start_again_if_short(other) is other


def test_a_lost_connection_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "LOST_PEER_WAIT_S", 0)
    told = Ranks(0, 2).await_the_cause(RuntimeError("[gloo] Connection closed by peer\nmore"))
    assert isinstance(told, Problem)
    assert (told.code, told.values) == ("connection_lost", {"detail": "[gloo] Connection closed by peer"})
    own = Problem("sample_too_long", tokens=1, device="gloo", label="x")
    assert Ranks(0, 2).await_the_cause(own) is own


def test_a_machine_is_silent_when_it_has_not_been_heard_for_long_enough() -> None:
    now, beats = [0.0], {1: 1, 2: 1}
    silence = machines.Silence(range(1, 3), 60, lambda: now[0])
    for _ in range(5):
        now[0] += 30
        beats[1] += 1
        found = silence.broken(beats.__getitem__)
        if now[0] <= 90:
            assert found is None
    assert found == 2
