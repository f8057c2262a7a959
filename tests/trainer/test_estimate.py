"""The estimate as arithmetic: what holds for any model, and that its advice is true."""

from dataclasses import replace
from typing import Any

import psutil
import pytest

from trainer import accelerators
from trainer import estimate as estimates
from trainer.counts import Counts
from trainer.estimate import Estimate, Hardware, check_cutoff, estimate
from trainer.launch import Launch
from trainer.model_size import ModelSize, model_size
from trainer.problems import Problem
from trainer.settings import TrainSettings

H200 = Hardware("cuda", "NVIDIA H200", 139.8, quantizes=True)
SHORT = Counts((80,) * 90, (40,) * 90, 90)
LONG = Counts((6000,) * 40, (5900,) * 40, 40)


def qwen(
    hidden: int = 3584, width: int = 18944, layers: int = 28, key: int = 512, vocabulary: int = 152064
) -> ModelSize:
    """The shape of Qwen2.5-7B unless told otherwise."""
    shapes = {"q": (hidden, hidden), "k": (key, hidden), "v": (key, hidden), "o": (hidden, hidden)}
    feed_forward = {"gate": (width, hidden), "up": (width, hidden), "down": (hidden, width)}
    tensors = {name: ("BF16", [vocabulary, hidden]) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    for layer in range(layers):
        for name, shape in {**shapes, **feed_forward}.items():
            tensors[f"model.layers.{layer}.{name}_proj.weight"] = ("BF16", list(shape))
    config = {
        "hidden_size": hidden, "intermediate_size": width, "num_hidden_layers": layers, "vocab_size": vocabulary,
        "num_attention_heads": hidden // 128, "num_key_value_heads": key // 128, "tie_word_embeddings": False,
    }  # fmt: skip
    size = model_size(config, tensors)
    assert size is not None
    return size


def of(counts: Counts = SHORT, hardware: Hardware = H200, size: ModelSize | None = None, **settings: Any) -> Estimate:
    found = estimate(TrainSettings(**settings), size or qwen(), counts, hardware)
    assert found is not None
    return found


def test_a_7b_model_has_its_known_numbers() -> None:
    size = qwen()
    assert size.parameters == pytest.approx(7.615e9, rel=1e-3)
    assert of().parts["weights"] == pytest.approx(7.615e9 * 2 / 2**30, rel=1e-3)
    # peft counts 20,185,088 for rank 8 on all seven projections.
    assert of().parts["optimizer"] == pytest.approx(8 * 20_185_088 / 2**30, rel=1e-6)


def test_more_of_anything_never_takes_less() -> None:
    base = of()
    longer = Counts(tuple(2 * length for length in SHORT.lengths), SHORT.labels, SHORT.total)
    for more in (of(longer), of(lora_rank=64), of(per_device_train_batch_size=8), of(lora_dropout=0.1),
                 of(finetuning_type="full"), of(size=qwen(layers=40)), of(compute_type="fp32")):  # fmt: skip
        assert more.peak_gib > base.peak_gib
    assert of(num_train_epochs=6.0).seconds > base.seconds
    assert of(num_train_epochs=6.0).steps == 2 * base.steps


def test_the_batch_size_is_cut_to_the_token_budget() -> None:
    wide = of(LONG, per_device_train_batch_size=64, gradient_accumulation_steps=1)
    wider = of(LONG, per_device_train_batch_size=512, gradient_accumulation_steps=1)
    assert wide.fits
    assert wider.parts["activations"] == wide.parts["activations"]


def test_short_memory_makes_passes_smaller_then_keeps_no_activations_then_does_not_fit() -> None:
    found = [of(LONG, replace(H200, memory_gib=gib)) for gib in (140, 40, 20, 16)]
    assert found[1].budget < found[0].budget == 8192
    assert [one.checkpointed for one in found] == [False, False, True, True]
    assert [one.fits for one in found] == [True, True, True, False]


CASES: list[dict[str, Any]] = [
    {"finetuning_type": "full"},
    {"finetuning_type": "full", "compute_type": "fp32"},
    {"cutoff_len": 131072},
    {"gradient_checkpointing": False},
    {"use_dora": True, "cutoff_len": 65536},
]


@pytest.mark.parametrize("gib", [12.0, 17.0, 24.0, 80.0])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_advised_makes_it_fit(case: dict[str, Any], gib: float) -> None:
    counts = Counts((100_000,) * 8, (99_900,) * 8, 8)
    machine = replace(H200, memory_gib=gib)
    found = of(counts, machine, **case)
    assert bool(found.advice) <= (not found.fits)
    for change in found.advice:
        assert of(counts, machine, **(case | change)).fits, change


def test_some_of_that_does_not_fit_and_gets_advice() -> None:
    found = of(SHORT, replace(H200, memory_gib=80.0), finetuning_type="full")
    assert not found.fits
    assert {"finetuning_type": "lora"} in found.advice


def test_modules_that_are_trained_beside_an_adapter_are_advised_against() -> None:
    plain = of()
    between = Hardware("cuda", "NVIDIA H200", plain.peak_gib + plain.reserved_gib + 1)
    assert {"additional_target": ()} in of(hardware=between, additional_target=("embed_tokens", "lm_head")).advice


def test_where_quantization_does_not_run_it_is_not_advised() -> None:
    machine = replace(H200, memory_gib=12.0)
    assert any("quantization_bit" in change for change in of(SHORT, machine).advice)
    assert not any("quantization_bit" in change for change in of(SHORT, replace(machine, quantizes=False)).advice)


def test_two_devices_share_the_steps_and_a_fully_trained_model() -> None:
    two = replace(H200, count=2)
    assert of(hardware=two).steps == 3 * -(-90 // 32)
    one_full, two_full = of(finetuning_type="full"), of(hardware=two, finetuning_type="full")
    assert two_full.parts["optimizer"] == one_full.parts["optimizer"] / 2
    assert of(hardware=two).parts["weights"] == of().parts["weights"]


def test_an_adapters_base_is_shared_out_when_it_does_not_fit_one_device_or_when_asked() -> None:
    small, large = replace(H200, count=2, memory_gib=15.0), replace(H200, count=2)
    whole, share = of().parts["weights"], of(hardware=small).parts["weights"]
    assert whole / 2 < share < 0.75 * whole
    assert of(hardware=small).fits
    assert not of(hardware=replace(small, count=1)).fits
    for hardware, fsdp, expected in ((large, None, whole), (large, True, share), (small, False, whole)):
        assert of(hardware=hardware, fsdp=fsdp).parts["weights"] == expected
    assert of(hardware=small).parts["optimizer"] == of().parts["optimizer"]


def test_shards_of_a_fully_trained_model_take_what_was_measured_on_two_devices() -> None:
    """Samples as long as Alpaca's. Measured on two H200s: 62 GiB."""
    samples = Counts((219,) * 1000, (120,) * 1000, 1000)
    found = of(samples, replace(H200, count=2), finetuning_type="full")
    assert found.peak_gib == pytest.approx(62, rel=0.15)
    assert found.checkpointed


def test_a_cutoff_that_leaves_no_label_leaves_no_estimate_and_is_refused_as_the_trainer_does() -> None:
    assert estimate(TrainSettings(cutoff_len=8), qwen(), SHORT, H200) is None
    with pytest.raises(Problem, match=r"Cutoff length 8 cuts every sample .* the shortest sample needs 41"):
        check_cutoff(TrainSettings(cutoff_len=8), SHORT)
    turns = Counts((80, 90), (40, 40), 2, firsts=(12, 20))  # several answers: the first one stands early
    with pytest.raises(Problem, match="needs 13"):
        check_cutoff(TrainSettings(cutoff_len=12), turns)
    check_cutoff(TrainSettings(cutoff_len=13), turns)
    assert turns.cut(13) == [(13, 1)]


def smi(monkeypatch: pytest.MonkeyPatch, *free_mib: int, total_mib: str = "143771") -> None:
    lines = [f"{i}, GPU-{i}, NVIDIA H200, {total_mib}, {free}" for i, free in enumerate(free_mib)]
    monkeypatch.setattr(estimates, "accelerators", lambda: accelerators.nvidia(lines))


def test_an_estimate_goes_by_what_is_free_on_the_chosen_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    smi(monkeypatch, 1024, 81920, 143360)
    chosen = Hardware.of(Launch(devices=("1", "2")))
    assert (chosen.memory_gib, chosen.count) == (80, 2)
    assert chosen.whole_gib == pytest.approx(140.4, abs=0.1)
    assert Hardware.of(Launch(devices=("2",), nodes=3, master_addr="a")).count == 3
    assert Hardware.of(Launch()).memory_gib == 1
    assert Hardware.of(Launch(processes=1)).count == 1
    assert not of(hardware=Hardware.of(Launch())).fits
    assert of(hardware=chosen).fits


def test_a_device_without_memory_of_its_own_and_a_processor_have_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    host = psutil.virtual_memory()
    smi(monkeypatch, 0, total_mib="[N/A]")
    assert Hardware.of(Launch()).whole_gib == host.total / 2**30
    smi(monkeypatch)
    machine = Hardware.of(Launch(processes=2))
    assert (machine.kind, machine.count, machine.whole_gib) == ("cpu", 2, host.total / 2**30)
    assert 0 < machine.memory_gib < machine.whole_gib


def test_a_base_is_cut_over_devices_by_their_whole_memory_as_the_trainer_does() -> None:
    crowded = replace(H200, count=2, memory_gib=15.0, total_gib=139.8)
    assert of(hardware=crowded).parts["weights"] == of().parts["weights"]


def test_a_config_may_say_that_it_has_no_text_part() -> None:
    config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 16, "text_config": None}
    assert model_size(config, {"lm_head.weight": ("BF16", [16, 8])}) is not None


def test_a_validation_set_of_all_samples_leaves_no_estimate() -> None:
    assert estimate(TrainSettings(val_size=0.999), qwen(), SHORT, H200) is None


def test_a_config_without_sizes_leaves_no_size() -> None:
    assert model_size({"model_type": "qwen2"}, {"w": ("F32", [16])}) is None


def test_a_mixture_of_experts_counts_the_experts_that_a_token_meets() -> None:
    tensors = {"model.embed_tokens.weight": ("BF16", [1000, 64])}
    for expert in range(8):
        tensors[f"model.layers.0.mlp.experts.{expert}.up_proj.weight"] = ("BF16", [128, 64])
    config = {
        "hidden_size": 64, "moe_intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4,
        "vocab_size": 1000, "num_experts": 8, "num_experts_per_tok": 2, "tie_word_embeddings": True,
    }  # fmt: skip
    size = model_size(config, tensors)
    assert size is not None
    assert size.active == 2 * 128 * 64
    assert size.width == 2 * 128
    assert not size.linears
