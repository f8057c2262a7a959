"""The decoding loop against transformers' own, and text that arrives in whole characters."""

import math
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tests.tiny import Architecture, build_tiny_adapter, build_tiny_model, build_tiny_tokenizer
from trainer import sampling
from trainer.decoding import Engine
from trainer.detokenizer import Detokenizer
from trainer.draw import Draw
from trainer.generate import Finish, reply
from trainer.problems import Problem
from trainer.sampling import Sampling

pytestmark = pytest.mark.slow

PROMPTS = ["你好，你是谁？", "Hello, who are you?", "👩‍👩‍👧 天气 🌦️ one two"]
GREEDY = Sampling(max_new_tokens=100, temperature=0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny models gain nothing from more, and wait long for one that another process keeps busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for architecture in get_args(Architecture):
        build_tiny_model(root / architecture, architecture=architecture)
        build_tiny_adapter(root / f"{architecture}-adapter", root / architecture)
    return root


@pytest.fixture(scope="module")
def qwen2(folder: Path) -> Engine:
    return engine_of(folder / "qwen2")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Engine:
    """The same model, answered by transformers' forward."""
    return engine_of(folder / "qwen2", lean=False)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder / "qwen2")


def engine_of(folder: Path, lean: bool = True) -> Engine:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    if not lean:
        model.config.model_type = "unknown"
    engine = Engine(model)
    assert engine.way() == ("lean" if lean else "transformers")
    return engine


def generated(model: Any, ids: list[int], **values: Any) -> list[int]:
    """What transformers' own loop makes of it."""
    inputs = torch.tensor([ids])
    output = model.generate(input_ids=inputs, attention_mask=torch.ones_like(inputs), pad_token_id=0, **values)
    return output[0, len(ids) :].tolist()


def answer(
    engine: Engine,
    tokenizer: Any,
    ids: list[int],
    how: Sampling,
    stop: set[int] | None = None,
    adapter: Path | None = None,
) -> tuple[str, Finish]:
    *texts, finish = reply(engine, tokenizer, ids, how, stop or set(), adapter=adapter)
    assert isinstance(finish, Finish)
    return "".join(str(text) for text in texts), finish


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "transformers"])
def test_greedy_text_and_its_end_are_those_of_transformers_generate(folder: Path, tokenizer: Any, lean: bool) -> None:
    engine = engine_of(folder / "qwen2", lean)
    for prompt in PROMPTS:
        ids = tokenizer(prompt).input_ids
        expected = generated(engine.model, ids, max_new_tokens=100, do_sample=False, eos_token_id=2)
        text, finish = answer(engine, tokenizer, ids, GREEDY, {2})
        assert text == tokenizer.decode(expected, skip_special_tokens=True)
        assert finish.tokens == len([token for token in expected if token != 2])
        assert finish.reason == ("stop" if expected[-1] == 2 else "length")


def test_an_adapter_changes_the_answer(folder: Path, tokenizer: Any, qwen2: Engine) -> None:
    ids = tokenizer(PROMPTS[0]).input_ids
    adapted = answer(qwen2, tokenizer, ids, GREEDY, adapter=folder / "qwen2-adapter")
    assert adapted[0] != answer(qwen2, tokenizer, ids, GREEDY)[0]


def test_a_stop_token_ends_the_reply_and_is_not_shown(tokenizer: Any, qwen2: Engine) -> None:
    ids = tokenizer(PROMPTS[0]).input_ids
    stop = generated(qwen2.model, ids, max_new_tokens=9, do_sample=False, eos_token_id=None)[8]
    text, finish = answer(qwen2, tokenizer, ids, GREEDY, {stop})
    assert finish.reason == "stop"
    assert finish.tokens <= 8
    assert text == tokenizer.decode(generated(qwen2.model, ids, max_new_tokens=finish.tokens, do_sample=False))


def test_a_seed_repeats_and_the_global_random_state_does_not_matter(tokenizer: Any, qwen2: Engine) -> None:
    ids = tokenizer(PROMPTS[0]).input_ids
    first = answer(qwen2, tokenizer, ids, Sampling(max_new_tokens=50, seed=7))[0]
    torch.manual_seed(99)
    assert answer(qwen2, tokenizer, ids, Sampling(max_new_tokens=50, seed=7))[0] == first
    assert answer(qwen2, tokenizer, ids, Sampling(max_new_tokens=50, seed=8))[0] != first


def test_without_a_seed_every_reply_is_another(tokenizer: Any, qwen2: Engine) -> None:
    ids = tokenizer(PROMPTS[0]).input_ids
    torch.manual_seed(1)
    first = answer(qwen2, tokenizer, ids, Sampling(max_new_tokens=50))[0]
    torch.manual_seed(1)
    assert answer(qwen2, tokenizer, ids, Sampling(max_new_tokens=50))[0] != first


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("top_p", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("top_k", [0, 1, 50, 10**6])
def test_tokens_are_drawn_with_the_probabilities_of_transformers(penalty: float, top_p: float, top_k: int) -> None:
    logits = torch.randn(200, generator=torch.Generator().manual_seed(0)) * 3
    prompt = [3, 14, 15, 9, 3]
    how = Sampling(temperature=0.8, top_p=top_p, top_k=top_k, repetition_penalty=penalty)
    draw = Draw(how, prompt, 1, 200, torch.device("cpu"))
    probabilities, ids, _ = draw.distribution(logits if draw._seen is None else draw._penalised(logits, draw._seen))
    seen: Any = torch.tensor([prompt])
    steps = [RepetitionPenaltyLogitsProcessor(penalty), TemperatureLogitsWarper(0.8)]
    steps += [TopKLogitsWarper(top_k)] if top_k else []
    scores = LogitsProcessorList([*steps, TopPLogitsWarper(top_p)])(seen, logits[None])
    ours = torch.zeros(200).index_put((ids,), probabilities / probabilities.sum())
    torch.testing.assert_close(ours, scores[0].softmax(-1))


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-6])
def test_next_to_no_temperature_takes_the_likeliest_token(temperature: float) -> None:
    logits = torch.randn(200, generator=torch.Generator().manual_seed(0)) * 1e4
    for how in (Sampling(temperature=temperature, seed=1), Sampling(temperature=temperature, seed=1, top_k=0, top_p=1)):
        assert Draw(how, [], 1, 200, torch.device("cpu"))(logits).item() == logits.argmax()


def test_the_largest_chance_is_no_token_of_no_probability() -> None:
    draw = Draw(Sampling(temperature=1, top_p=0.5, seed=1), [], 1, 200, torch.device("cpu"))
    assert draw.chances.max() < 1
    draw.chances.fill_(1 - 2**-23)
    logits = torch.randn(200, generator=torch.Generator().manual_seed(0))
    token = draw(logits)
    probabilities, ids, _ = draw.distribution(logits)
    assert probabilities[ids == token] > 0


def test_repetition_penalty_in_a_whole_reply_is_that_of_transformers(tokenizer: Any, qwen2: Engine) -> None:
    ids = tokenizer(PROMPTS[1]).input_ids
    how = Sampling(max_new_tokens=60, temperature=0, repetition_penalty=1.5)
    expected = generated(
        qwen2.model, ids, max_new_tokens=60, do_sample=False, repetition_penalty=1.5, eos_token_id=None
    )
    assert answer(qwen2, tokenizer, ids, how)[0] == tokenizer.decode(expected, skip_special_tokens=True)


def test_a_reply_ends_at_the_models_context_limit(tmp_path: Path, tokenizer: Any) -> None:
    engine = engine_of(build_tiny_model(tmp_path, max_positions=40))
    ids = tokenizer("你好" * 5).input_ids
    finish = answer(engine, tokenizer, ids, GREEDY)[1]
    assert (finish.reason, finish.tokens) == ("context", 40 - len(ids))


def test_a_prompt_that_leaves_no_room_is_refused_before_anything_is_computed(qwen2: Engine, tokenizer: Any) -> None:
    with pytest.raises(Problem, match="512 tokens and the model takes 512") as caught:
        next(reply(qwen2, tokenizer, [5] * 512, GREEDY, set()))
    assert caught.value.code == "chat_too_long"


@pytest.mark.parametrize("way", ["qwen2", "plain"])
def test_a_cancelled_reply_keeps_its_text_and_says_so(request: Any, way: str, tokenizer: Any) -> None:
    engine = request.getfixturevalue(way)
    cancel = threading.Event()
    parts: list[str | Finish] = []
    for part in reply(engine, tokenizer, [5, 6, 7], GREEDY, set(), cancel=cancel):
        parts.append(part)
        if len(parts) == 3:
            cancel.set()
    *texts, finish = parts
    assert isinstance(finish, Finish)
    assert finish.reason == "cancelled"
    assert 3 <= finish.tokens < 100
    assert all(isinstance(text, str) for text in texts)


def test_a_long_prompt_is_left_at_the_next_layer(tmp_path: Path, tokenizer: Any) -> None:
    engine = engine_of(build_tiny_model(tmp_path, layers=6, max_positions=10**5), lean=False)
    cancel, reached = threading.Event(), []

    def after_layer(*_: Any) -> None:
        reached.append(1)
        cancel.set()

    for layer in engine.model.model.layers:
        layer.register_forward_hook(after_layer)
    (finish,) = reply(engine, tokenizer, [5] * 100, GREEDY, set(), cancel=cancel)
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.tokens, finish.first_token_s, len(reached)) == ("cancelled", 0, None, 1)
    assert not any(layer._forward_pre_hooks for layer in engine.model.model.layers)


class CancelledAfter(threading.Event):
    """Is set once it has been asked so many times."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_the_lean_pass_too_leaves_a_long_prompt_at_the_next_layer(tmp_path: Path, tokenizer: Any) -> None:
    engine = engine_of(build_tiny_model(tmp_path, layers=6, max_positions=10**5))
    cancel = CancelledAfter(3)
    (finish,) = reply(engine, tokenizer, [5] * 100, GREEDY, set(), cancel=cancel)
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.tokens, finish.first_token_s) == ("cancelled", 0, None)
    assert cancel.left >= -3  # the fourth layer is not begun


def test_a_model_that_computes_nan_is_reported_not_sampled(tmp_path: Path, tokenizer: Any) -> None:
    for lean in (True, False):
        engine = engine_of(build_tiny_model(tmp_path), lean)
        with torch.no_grad():
            engine.model.model.norm.weight.fill_(math.nan)
        for how in (GREEDY, Sampling()):
            with pytest.raises(Problem, match="instead of numbers"):
                next(reply(engine, tokenizer, [5, 6], how, set()))


def test_a_model_without_a_cache_gives_the_same_answer(plain: Engine, tokenizer: Any) -> None:
    class Cacheless:
        """Takes input ids alone and returns logits alone."""

        def __init__(self) -> None:
            model = plain.model
            self.config, self.device, self.modules = model.config, model.device, model.modules

        def forward(self, input_ids: torch.Tensor, past_key_values: None, use_cache: bool) -> Any:
            return type("Output", (), {"logits": plain.model(input_ids=input_ids, use_cache=False).logits})

        __call__ = forward

    how = Sampling(max_new_tokens=20, temperature=0)
    model: Any = Cacheless()
    assert answer(Engine(model), tokenizer, [5, 6], how)[0] == answer(plain, tokenizer, [5, 6], how)[0]


@pytest.mark.parametrize("way", ["qwen2", "plain"])
def test_the_loop_leaves_no_inference_mode_behind_while_suspended(request: Any, way: str, tokenizer: Any) -> None:
    running = reply(request.getfixturevalue(way), tokenizer, [5, 6], GREEDY, set())
    next(running)
    assert not torch.is_inference_mode_enabled()
    running.close()


def test_a_number_that_is_too_large_is_told_the_upper_end() -> None:
    with pytest.raises(Problem, match=f"to {2**63 - 1}"):
        sampling.parse({"seed": 2**64})
    with pytest.raises(Problem, match="at least -1"):
        sampling.parse({"seed": -2})


@pytest.mark.parametrize(
    ("values", "code"),
    [({"temperature": -1}, "setting_range"), ({"top_p": 1.5}, "setting_range"), ({"max_new_tokens": 0}, "setting_range"),
     ({"temperature": "hot"}, "setting_not_number"), ({"seed": 1.5}, "setting_not_integer"),
     ({"top_p": "nan"}, "setting_range"), ({"top_k": True}, "setting_not_number"),
     ({"max_new_tokens": "inf"}, "setting_range"), ({"seed": [1]}, "setting_not_number")],
)  # fmt: skip
def test_a_bad_sampling_value_is_refused_by_its_label(values: dict[str, Any], code: str) -> None:
    with pytest.raises(Problem) as caught:
        sampling.parse(values)
    assert caught.value.code == code
    assert sampling.label(next(iter(values)))["zh"] in caught.value.sentence("zh")


def test_sampling_values_come_as_text_or_numbers_and_unset_ones_are_defaults() -> None:
    values = {"temperature": "0.5", "max_new_tokens": 64.0, "seed": str(2**63 - 1), "top_p": None, "other": "x"}
    assert sampling.parse(values) == Sampling(max_new_tokens=64, temperature=0.5, seed=2**63 - 1)


# Characters of 1 to 4 bytes, joined and combining ones, and white space at both ends.
TEXTS = [
    "你好，世界！😀👩‍👩‍👧🇨🇳 é ñ e\u0301 \u200b",
    "  two  spaces\n\n\tand lines  ",
    "a",
    "😀" * 50,
    "天气很好 " * 40,
]


def byte_tokenizer(tmp_path: Path) -> Any:
    """One token a byte, as the worst of byte-level vocabularies."""
    return build_tiny_tokenizer(tmp_path, vocab_size=259)


def sentencepiece_tokenizer(tmp_path: Path) -> Any:
    """▁ for spaces, bytes as <0xE4> for what is not in the vocabulary, as Llama 2 has it."""
    pieces = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"aedinopstw", "好"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    inner = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>")


@pytest.mark.parametrize("make", [byte_tokenizer, sentencepiece_tokenizer])
@pytest.mark.parametrize("text", TEXTS)
def test_streamed_text_is_whole_characters_that_join_to_the_text(tmp_path: Path, make: Any, text: str) -> None:
    tokenizer = make(tmp_path)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    stream = Detokenizer(tokenizer)
    so_far = ""
    for token_id in ids:
        so_far += stream.push(token_id)
        assert "\ufffd" not in so_far
        assert text.startswith(so_far)
    assert so_far + stream.end() == text


@pytest.mark.parametrize("make", [byte_tokenizer, sentencepiece_tokenizer])
def test_a_character_arrives_with_its_last_byte(tmp_path: Path, make: Any) -> None:
    tokenizer = make(tmp_path)
    stream = Detokenizer(tokenizer)
    parts = [stream.push(token_id) for token_id in tokenizer("a😀", add_special_tokens=False).input_ids]
    assert [part for part in parts if part] == ["a", "😀"]
    assert parts[-1] == "😀"


def test_bytes_that_are_no_text_neither_stall_nor_spoil_what_follows(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(tmp_path)
    noise = random.Random(0)
    for _ in range(30):
        ids = [noise.randrange(3, 259) for _ in range(noise.randrange(200))]
        ids += tokenizer(" 你好😀").input_ids
        stream = Detokenizer(tokenizer)
        text = "".join(stream.push(token_id) for token_id in ids) + stream.end()
        assert text == tokenizer.decode(ids)
        assert text.endswith(" 你好😀")


def test_half_a_character_at_the_end_is_shown_as_such(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(tmp_path)
    stream = Detokenizer(tokenizer)
    assert "".join(stream.push(token_id) for token_id in tokenizer("好😀").input_ids[:-1]) == "好"
    assert stream.end() == "\ufffd"


def test_special_tokens_are_skipped_or_shown_as_asked_and_cost_no_space(tmp_path: Path) -> None:
    tokenizer = sentencepiece_tokenizer(tmp_path)
    ids = [*tokenizer("a test", add_special_tokens=False).input_ids]
    ids.insert(1, tokenizer.bos_token_id)
    for skip in (True, False):
        stream = Detokenizer(tokenizer, skip_special_tokens=skip)
        text = "".join(stream.push(token_id) for token_id in ids) + stream.end()
        assert text == tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)


def test_the_cost_of_a_token_does_not_grow_with_the_reply(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(tmp_path)
    longest = 0

    class Counting:
        def decode(self, ids: list[int], **values: Any) -> str:
            nonlocal longest
            longest = max(longest, len(ids))
            return tokenizer.decode(ids, **values)

    counting: Any = Counting()
    stream = Detokenizer(counting, skip_special_tokens=False)
    began = time.perf_counter()
    for token_id in tokenizer("天气很好 " * 200).input_ids:
        stream.push(token_id)
    assert longest <= 32
    assert time.perf_counter() - began < 5
