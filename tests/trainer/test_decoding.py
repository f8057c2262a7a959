"""The three ways to an answer: equal to transformers' own, each conversation's cache used and never misused, and the
base untouched by whatever adapter was on it."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny import LINEAR, Architecture, build_tiny_adapter, build_tiny_model, build_tiny_tokenizer, edit_json
from trainer.decoder import FAMILIES, Cache, Decoder
from trainer.decoding import Engine
from trainer.problems import Problem
from trainer.sampling import Sampling

pytestmark = pytest.mark.slow

PROMPTS = ["你好，你是谁？", "Hello, who are you?", "👩‍👩‍👧 天气 🌦️ one two", "a", "请问今天天气怎么样？" * 9]
GREEDY = Sampling(max_new_tokens=200, temperature=0)
FEW = Sampling(max_new_tokens=24, temperature=0)
LONG: dict[str, Any] = {"max_positions": 2048}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for architecture in get_args(Architecture):
        build_tiny_model(root / architecture, architecture=architecture, max_positions=2048)
        build_tiny_adapter(root / f"{architecture}-adapter", root / architecture)
    build_tiny_adapter(root / "other-adapter", root / "qwen2", seed=5)
    return root


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    return build_tiny_tokenizer(tmp_path)


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def engine_of(folder: Path, way: str = "lean") -> Engine:
    model = loaded(folder)
    if way == "transformers":
        model.config.model_type = "unknown"
    engine = Engine(model)
    assert engine.way() == way
    return engine


def ids_of(
    engine: Engine, prompt: list[int], how: Sampling = FEW, adapter: Path | None = None, cancel: Any = None
) -> list[int]:
    return list(engine.answer(prompt, how, cancel or threading.Event(), adapter))


def generated(model: Any, prompt: list[int], count: int) -> list[int]:
    """What transformers' own loop makes of it."""
    given = torch.tensor([prompt])
    output = model.generate(
        input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=count, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return output[0, len(prompt) :].tolist()


@torch.no_grad()
def logits_of(model: Any, prompt: list[int]) -> Tensor:
    return model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1]


def counted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each pass is given from now on, both ways."""
    found: list[int] = []
    read, forward = Decoder.read, engine.model.forward

    def reading(decoder: Decoder, ids: list[int], *rest: Any, **values: Any) -> Tensor:
        found.append(len(ids))
        return read(decoder, ids, *rest, **values)

    def passing(*given: Any, **values: Any) -> Any:
        found.append(values["input_ids"].shape[1])
        return forward(*given, **values)

    monkeypatch.setattr(Decoder, "read", reading)
    monkeypatch.setattr(engine.model, "forward", passing)
    return found


both_ways = pytest.mark.parametrize("way", ["lean", "transformers"])


# ---- equal to transformers ----


@pytest.mark.parametrize("adapted", [False, True], ids=["base", "adapter"])
@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_greedy_output_is_that_of_transformers_generate_both_ways(
    folder: Path, tokenizer: Any, architecture: str, adapted: bool
) -> None:
    theirs = loaded(folder / architecture)
    adapter = folder / f"{architecture}-adapter" if adapted else None
    if adapter:
        theirs = PeftModel.from_pretrained(theirs, str(adapter)).eval()
    prompts = [tokenizer(prompt).input_ids for prompt in PROMPTS]
    expected = [generated(theirs, prompt, 200) for prompt in prompts]
    # transformers' own pass does what `generate` does with it: one prompt shows that the loop around it is the same.
    for way, count in (("lean", len(prompts)), ("transformers", 1)):
        engine = engine_of(folder / architecture, way)
        assert engine.way(adapter) == way
        assert [ids_of(engine, prompt, GREEDY, adapter) for prompt in prompts[:count]] == expected[:count]


VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    "llama-3": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0,
                                    "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
    "mistral": {"sliding_window": None},
    "qwen2-yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
                                       "original_max_position_embeddings": 64}},
    "qwen3": {"num_key_value_heads": 1},
    "seed_oss": {"num_key_value_heads": 4},
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_every_family_of_the_lean_pass_computes_what_transformers_does_also_far_on(tmp_path: Path, name: str) -> None:
    architecture: Any = name.split("-")[0]
    folder = build_tiny_model(tmp_path, architecture=architecture, max_positions=256, **VARIANTS[name])
    engine, theirs = engine_of(folder), loaded(folder)
    prompt = [(7 * number) % 300 + 5 for number in range(150)]
    assert ids_of(engine, prompt, GREEDY) == generated(theirs, prompt, 256 - 150)


def test_keys_are_computed_anew_where_longrope_changes_its_frequencies(tmp_path: Path) -> None:
    rotary = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    folder = build_tiny_model(
        tmp_path, architecture="phi3", max_positions=256, rope_parameters=rotary, original_max_position_embeddings=60
    )  # type: ignore[arg-type]
    engine, theirs = Engine(loaded(folder)), loaded(folder)
    first = list(range(5, 55))
    said = ids_of(engine, first)
    assert said == generated(theirs, first, 24)  # over it in the midst of an answer
    for prompt in ([*first, *said, 9], first[:40], list(range(5, 75))):  # beyond it, before it, and beyond it at once
        assert ids_of(engine, prompt) == generated(theirs, prompt, 24)


def test_the_families_of_the_lean_pass_are_the_tested_ones() -> None:
    assert {name.split("-")[0] for name in VARIANTS} == FAMILIES


OTHERS: dict[str, dict[str, Any]] = {
    "gemma2": {"sliding_window": 16}, "gpt2": {}, "phi": {}, "mistral": {"sliding_window": 8}, "ministral3": {},
    "qwen3_next": {"num_experts": 4, "moe_intermediate_size": 32, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 32,
                   "linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
                   "layer_types": ["linear_attention", "full_attention"]},
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1},
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
    "llama": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    "qwen3": {"hidden_act": "gelu"},
}  # fmt: skip


@pytest.mark.parametrize("architecture", OTHERS)
def test_another_family_answers_by_transformers_and_goes_on_in_a_second_turn(tmp_path: Path, architecture: Any) -> None:
    folder = build_tiny_model(tmp_path, architecture=architecture, **OTHERS[architecture])
    engine, theirs = engine_of(folder, "transformers"), loaded(folder)
    prompt = [(7 * number) % 300 + 5 for number in range(40)]
    said = ids_of(engine, prompt)
    assert said == generated(theirs, prompt, 24)
    again = [*prompt, *said, 9, 10]
    assert ids_of(engine, again) == generated(theirs, again, 24)


@pytest.mark.parametrize("architecture", OTHERS)
def test_a_long_prompt_is_read_in_stretches_where_the_cache_goes_on(
    tmp_path: Path, architecture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.plain_pass.LEAST_STRETCH", 7)
    monkeypatch.setattr("trainer.plain_pass.STRETCH_WORK", 1)
    folder = build_tiny_model(tmp_path, architecture=architecture, **OTHERS[architecture])
    engine, theirs = engine_of(folder, "transformers"), loaded(folder)
    prompt = [(7 * number) % 300 + 5 for number in range(40)]
    passes = counted(engine, monkeypatch)
    said = ids_of(engine, prompt)
    in_one = {"qwen3_next": [7, 40], "bamba": [7, 40], "llama": [40]}  # a state, and frequencies by length
    assert passes == in_one.get(architecture, [7, 7, 7, 7, 7, 5]) + [1] * 23
    assert said == generated(theirs, prompt, 24)
    other = [9, *prompt]
    assert ids_of(engine, other, cancel=CancelledAfter(15)) == []
    assert ids_of(engine, other) == generated(theirs, other, 24)


def test_a_trial_finds_out_that_a_model_computes_something_else(folder: Path) -> None:
    model = loaded(folder / "qwen2")
    model.model.layers[1].mlp.act_fn = torch.nn.GELU()
    assert Decoder.of(model) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_lean_pass_in_16_bits_is_as_near_to_fp32_as_the_models_own(folder: Path, dtype: torch.dtype) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder / "qwen3", dtype=dtype).eval()
    decoder = Decoder.of(model)
    assert decoder is not None
    prompt = list(range(5, 60))
    cache = Cache(decoder, 64)
    decoder.read(prompt[:-1], cache)
    found = decoder.read(prompt[-1:], cache)
    exact = logits_of(loaded(folder / "qwen3"), prompt)
    assert (found - exact).norm() <= 1.5 * (logits_of(model, prompt) - exact).norm()


# ---- sampling ----


@both_ways
def test_a_seed_repeats_and_the_two_ways_draw_the_same(folder: Path, way: str) -> None:
    how = Sampling(max_new_tokens=100, temperature=1.2, top_p=0.95, repetition_penalty=1.1, seed=7)
    engine = engine_of(folder / "qwen2", way)
    first = ids_of(engine, [5, 6, 7], how)
    torch.manual_seed(99)
    ids_of(engine, [8, 9])
    assert ids_of(engine, [5, 6, 7], how) == first
    assert ids_of(engine_of(folder / "qwen2"), [5, 6, 7], how) == first
    assert ids_of(engine, [5, 6, 7], Sampling(max_new_tokens=100, temperature=1.2, seed=8)) != first


def test_an_answer_without_any_limit_begins_at_once(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path, max_positions=2**40)
    answer = iter(engine_of(folder).answer([5, 6], Sampling(max_new_tokens=2**62), threading.Event()))
    began = time.monotonic()
    assert isinstance(next(answer), int)
    assert time.monotonic() - began < 5


def test_a_cache_grows_with_the_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.decoding.LEAST_CAPACITY", 8)
    monkeypatch.setattr("trainer.decoding.ROOM_AT_FIRST", 4)
    engine = engine_of(folder / "qwen2")
    assert ids_of(engine, [5, 6, 7], GREEDY) == generated(loaded(folder / "qwen2"), [5, 6, 7], 200)


# ---- the cache of a conversation ----


@both_ways
def test_a_second_turn_computes_only_its_new_tokens_and_says_what_a_fresh_engine_says(
    folder: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(folder / "qwen2", way)
    passes = counted(engine, monkeypatch)
    first = list(range(5, 105))
    said = ids_of(engine, first)
    assert passes == [100] + [1] * 23
    passes.clear()
    second = [*first, *said, 40, 41, 42]
    found = ids_of(engine, second)
    assert passes == [4] + [1] * 23  # the last token said was never read
    assert found == ids_of(engine_of(folder / "qwen2", way), second)


def test_the_logits_of_a_second_turn_are_those_of_a_fresh_cache(folder: Path) -> None:
    decoder = engine_of(folder / "qwen3").decoder
    kept, fresh = Cache(decoder, 256), Cache(decoder, 256)
    first, second = list(range(5, 105)), [*range(5, 105), *range(200, 230)]
    decoder.read(first, kept)
    for token in (200, 201):
        decoder.read([token], kept)
    same = kept.keep_prefix(second)
    assert same == 102
    torch.testing.assert_close(decoder.read(second[same:], kept), decoder.read(second, fresh), rtol=1e-4, atol=1e-4)


@both_ways
def test_edited_and_cleared_history_is_honoured(folder: Path, way: str) -> None:
    engine, theirs = engine_of(folder / "qwen2", way), loaded(folder / "qwen2")
    first = list(range(5, 65))
    said = ids_of(engine, first)
    edited = [*first[:30], 99, *first[31:], *said]
    for prompt in (edited, first[:20], [77, 78], first, [*first, *said], first[:1]):
        assert ids_of(engine, prompt) == generated(theirs, prompt, 24)


@both_ways
def test_the_same_question_again_gives_the_same_answer(folder: Path, way: str) -> None:
    engine = engine_of(folder / "qwen2", way)
    prompt = list(range(5, 65))
    assert ids_of(engine, prompt) == ids_of(engine, prompt)


@both_ways
def test_each_adapter_has_a_cache_of_its_own(folder: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(folder / "qwen2", way)
    passes = counted(engine, monkeypatch)
    adapters = (None, folder / "qwen2-adapter", folder / "other-adapter")
    prompt = list(range(5, 105))
    said = {adapter: ids_of(engine, prompt, adapter=adapter) for adapter in adapters}
    assert [count for count in passes if count > 1] == [100, 100, 100]
    passes.clear()
    again = {adapter: ids_of(engine, [*prompt, *said[adapter], 40], adapter=adapter) for adapter in adapters}
    assert [count for count in passes if count > 1] == [2, 2, 2]
    fresh = engine_of(folder / "qwen2", way)
    for adapter in adapters:
        assert again[adapter] == ids_of(fresh, [*prompt, *said[adapter], 40], adapter=adapter)


def test_two_answers_at_a_time_do_not_share_a_cache(folder: Path) -> None:
    engine = engine_of(folder / "qwen2")
    answers = [iter(engine.answer(prompt, FEW, threading.Event())) for prompt in ([5, 6, 7], [8, 9], [5, 6])]
    found = list(zip(*answers, strict=True))
    theirs = loaded(folder / "qwen2")
    for number, prompt in enumerate(([5, 6, 7], [8, 9], [5, 6])):
        assert [ids[number] for ids in found] == generated(theirs, prompt, 24)


class CancelledAfter(threading.Event):
    """Is set once it has been asked so many times."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@both_ways
@pytest.mark.parametrize("asked", [0, 1, 4, 5, 6, 7, 8, 20])
def test_a_cancelled_prompt_or_answer_leaves_the_cache_valid(folder: Path, way: str, asked: int) -> None:
    engine, theirs = engine_of(folder / "qwen2", way), loaded(folder / "qwen2")
    first = list(range(5, 65))
    said = ids_of(engine, first)
    second = [*first, *said, *range(90, 120)]
    cut = ids_of(engine, second, cancel=CancelledAfter(asked))
    assert len(cut) < 24
    assert ids_of(engine, second) == generated(theirs, second, 24)
    assert ids_of(engine, first) == said


def test_a_prompt_of_several_stretches_is_one_prompt_and_keeps_those_that_were_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.decoder.STRETCH", 16)
    engine, theirs = engine_of(folder / "qwen2"), loaded(folder / "qwen2")
    prompt = list(range(5, 105))
    asked_a_layer = 4
    assert ids_of(engine, prompt, cancel=CancelledAfter(2 * 2 * asked_a_layer + 1)) == []
    passes = counted(engine, monkeypatch)
    assert ids_of(engine, prompt) == generated(theirs, prompt, 24)
    assert passes[0] == 100 - 32  # two stretches of two layers were whole


# ---- adapters ----


def build_adapter(folder: Path, model: Path, config: Any, seed: int = 3) -> Path:
    adapted = get_peft_model(loaded(model), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    adapted.save_pretrained(str(folder))  # with what of the base peft itself adds
    return folder


def lora(**values: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": LINEAR, "task_type": "CAUSAL_LM", **values})


PLAIN = {
    "rslora": lora(use_rslora=True),
    "attention alone": lora(target_modules=["q_proj", "v_proj"]),
    "one of two": lora(target_modules=["up_proj", "down_proj"]),
}
THROUGH_PEFT = {
    "dora": lora(use_dora=True),
    "modules_to_save": lora(modules_to_save=["lm_head"]),
    "rank_pattern": lora(rank_pattern={"q_proj": 2}),
    "alpha_pattern": lora(alpha_pattern={"q_proj": 2}),
    "biases": lora(bias="all"),
    "output layer": lora(target_modules=["q_proj", "lm_head"]),
    "embedding": lora(target_modules=["q_proj", "embed_tokens"]),
    "tokens": lora(trainable_token_indices=[5, 6]),
    "learnt prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
}


@pytest.mark.parametrize("name", [*PLAIN, *THROUGH_PEFT])
def test_an_adapter_of_any_kind_answers_as_with_peft_and_leaves_the_base_as_a_fresh_load(
    folder: Path, tmp_path: Path, name: str
) -> None:
    base = folder / "qwen2"
    adapter = build_adapter(tmp_path / "adapter", base, (PLAIN | THROUGH_PEFT)[name])
    engine, prompt = engine_of(base), list(range(5, 25))
    untouched = engine_of(base)
    before = ids_of(engine, prompt)
    assert engine.way(adapter) == ("lean" if name in PLAIN else "transformers")
    theirs = PeftModel.from_pretrained(loaded(base), str(adapter)).eval()
    found = ids_of(engine, prompt, adapter=adapter)
    assert found == generated(theirs, prompt, 24)
    assert found != before
    again = [*prompt, *found, 9, 10]
    assert ids_of(engine, again, adapter=adapter) == generated(theirs, again, 24)
    assert torch.equal(decoded(engine, prompt), decoded(untouched, prompt))
    assert torch.equal(logits_of(engine.through_peft(None), prompt), logits_of(untouched.model, prompt))
    assert [name for name, _ in engine.model.named_modules()] == [name for name, _ in untouched.model.named_modules()]


def decoded(engine: Engine, prompt: list[int]) -> Tensor:
    engine.low_rank(None)  # as every answer does
    return engine.decoder.read(prompt, Cache(engine.decoder, 64))


def test_embeddings_that_an_adapter_brings_along_go_when_it_goes(folder: Path, tmp_path: Path) -> None:
    base, file = folder / "qwen2", tmp_path / "adapter" / "adapter_model.safetensors"
    adapter = build_adapter(tmp_path / "adapter", base, THROUGH_PEFT["embedding"])
    stored = load_file(file)
    stored["base_model.model.model.embed_tokens.base_layer.weight"] += 1
    save_file(stored, file, {"format": "pt"})
    engine, prompt = engine_of(base), list(range(5, 25))
    ids_of(engine, prompt, adapter=adapter)
    assert torch.equal(logits_of(engine.through_peft(None), prompt), logits_of(loaded(base), prompt))


@pytest.mark.parametrize("begins", ["pissa", "olora"])
def test_an_adapter_that_starts_from_the_bases_weights_gives_them_back(
    folder: Path, tmp_path: Path, begins: str
) -> None:
    base = folder / "qwen2"
    adapter = build_tiny_adapter(tmp_path / "adapter", base)
    edit_json(adapter / "adapter_config.json", init_lora_weights=begins)
    engine, prompt = engine_of(base), list(range(5, 25))
    assert engine.way(adapter) == "transformers"
    found = ids_of(engine, prompt, adapter=adapter)
    assert found == generated(PeftModel.from_pretrained(loaded(base), str(adapter)).eval(), prompt, 24)
    assert torch.equal(decoded(engine, prompt), decoded(engine_of(base), prompt))
    assert torch.equal(logits_of(engine.through_peft(None), prompt), logits_of(engine_of(base).model, prompt))


@both_ways
def test_after_adapters_were_used_the_base_is_that_of_a_fresh_load_to_the_bit(folder: Path, way: str) -> None:
    engine, fresh = engine_of(folder / "qwen2", way), engine_of(folder / "qwen2", way)
    prompt = list(range(5, 25))
    for adapter in ("qwen2-adapter", "other-adapter", "qwen2-adapter"):
        ids_of(engine, prompt, adapter=folder / adapter)
    if way == "lean":
        assert torch.equal(decoded(engine, prompt), decoded(fresh, prompt))
    assert torch.equal(logits_of(engine.through_peft(None), prompt), logits_of(fresh.model, prompt))


@both_ways
def test_an_adapter_that_does_not_fit_is_a_problem_and_the_engine_still_answers(
    folder: Path, tmp_path: Path, way: str
) -> None:
    wide = build_tiny_adapter(tmp_path / "adapter", build_tiny_model(tmp_path / "wide", hidden_size=128))
    deep = build_tiny_adapter(tmp_path / "deep-adapter", build_tiny_model(tmp_path / "deep", layers=3))
    flat = build_tiny_adapter(tmp_path / "flat-adapter", build_tiny_model(tmp_path / "flat", layers=1))
    other_rank, no_rank = (shutil.copytree(folder / "qwen2-adapter", tmp_path / name) for name in ("rank", "none"))
    edit_json(other_rank / "adapter_config.json", r=8)
    edit_json(no_rank / "adapter_config.json", r=None)
    engine = engine_of(folder / "qwen2", way)
    good, prompt = folder / "qwen2-adapter", [5, 6, 7]
    before = [ids_of(engine, prompt, adapter=adapter) for adapter in (None, good)]
    for bad in (wide, deep, flat, other_rank, no_rank):
        for ask in (engine.way, lambda adapter: engine.answer(prompt, FEW, threading.Event(), adapter)):
            with pytest.raises(Problem) as caught:
                ask(bad)
            assert caught.value.code == "adapter_mismatch"
    assert [ids_of(engine, prompt, adapter=adapter) for adapter in (None, good)] == before
    fresh = engine_of(folder / "qwen2", way)
    assert torch.equal(logits_of(engine.through_peft(None), prompt), logits_of(fresh.model, prompt))


@both_ways
def test_an_adapter_that_is_written_anew_is_read_anew(folder: Path, tmp_path: Path, way: str) -> None:
    adapter = build_tiny_adapter(tmp_path / "adapter", folder / "qwen2", seed=1)
    engine, prompt = engine_of(folder / "qwen2", way), [5, 6, 7]
    first = ids_of(engine, prompt, adapter=adapter)
    build_tiny_adapter(adapter, folder / "qwen2", seed=2)
    later = time.time() + 10
    os.utime(adapter / "adapter_model.safetensors", (later, later))
    second = ids_of(engine, prompt, adapter=adapter)
    assert second == ids_of(engine_of(folder / "qwen2", way), prompt, adapter=adapter) != first


def kind_of_adapter(folder: Path, tmp_path: Path, kind: str) -> Path:
    """An adapter that stands beside the base, or one that peft puts on."""
    adapter = build_tiny_adapter(tmp_path / "adapter", folder / "qwen2", seed=1)
    if kind == "peft":
        edit_json(adapter / "adapter_config.json", alpha_pattern={"q_proj": 16})
    return adapter


@pytest.mark.parametrize("kind", ["beside", "peft"])
def test_an_adapter_in_memory_outlives_its_folder_and_one_that_is_not_is_told_in_words(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    adapter = kind_of_adapter(folder, tmp_path, kind)
    engine, prompt = engine_of(folder / "qwen2"), list(range(5, 25))
    said = ids_of(engine, prompt, adapter=adapter)
    answer = iter(engine.answer(prompt, FEW, threading.Event(), adapter))
    first = next(answer)
    shutil.rmtree(adapter)
    assert [first, *answer] == said
    again = [*prompt, *said, 9, 10]
    same = kind_of_adapter(folder, tmp_path / "again", kind)
    assert ids_of(engine, again, adapter=adapter) == ids_of(engine_of(folder / "qwen2"), again, adapter=same)
    with pytest.raises(Problem) as caught:
        ids_of(engine_of(folder / "qwen2"), prompt, adapter=adapter)
    assert str(adapter) in caught.value.sentence("zh")


@pytest.mark.parametrize("kind", ["beside", "peft"])
def test_keys_of_an_adapter_that_is_written_anew_in_the_midst_of_an_answer_are_of_no_use(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    adapter = kind_of_adapter(folder, tmp_path, kind)
    engine, prompt = engine_of(folder / "qwen2"), list(range(5, 65))
    answer = iter(engine.answer(prompt, FEW, threading.Event(), adapter))
    said = [next(answer)]
    build_tiny_adapter(adapter, folder / "qwen2", seed=2)
    later = time.time() + 10
    os.utime(adapter / "adapter_model.safetensors", (later, later))
    said += answer
    again = [*prompt, *said, 9, 10]
    assert ids_of(engine, again, adapter=adapter) == ids_of(engine_of(folder / "qwen2"), again, adapter=adapter)


def test_switching_adapters_reads_no_base_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, prompt = engine_of(folder / "qwen2"), [5, 6, 7]
    weights = [weight.data_ptr() for weight in engine.model.parameters()]
    adapters = [folder / "qwen2-adapter", folder / "other-adapter"]
    expected = [ids_of(engine, prompt, adapter=adapter) for adapter in adapters]
    monkeypatch.setattr("trainer.decoding.read_adapter", None)  # both are beside the base by now
    began = time.perf_counter()
    for _ in range(50):
        for adapter in adapters:
            engine.way(adapter)
    assert (time.perf_counter() - began) / 100 < 0.01
    assert [ids_of(engine, prompt, adapter=adapter) for adapter in adapters] == expected
    assert [weight.data_ptr() for weight in engine.model.parameters()] == weights


def test_the_lean_pass_keeps_no_second_copy_of_the_weights(folder: Path) -> None:
    decoder = engine_of(folder / "qwen2").decoder
    for layer, ours in zip(decoder.model.model.layers, decoder.layers, strict=True):
        shared = {ours.weight[name].untyped_storage().data_ptr() for name in ours.weight}
        linear = [part.weight for part in layer.modules() if isinstance(part, torch.nn.Linear)]
        assert len(linear) == 7
        assert {weight.untyped_storage().data_ptr() for weight in linear} == shared
    assert decoder.output.data_ptr() == decoder.model.lm_head.weight.data_ptr() == decoder.embedding.data_ptr()


def test_a_config_without_what_the_pass_needs_is_no_error(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**(config | {"hidden_act": "relu"}))).eval()
    assert Engine(model).way() == "transformers"
