"""Rebuilds assets/demo-model: writes the corpus, trains the tokenizer, trains the model from scratch, saves both.

Everything it learns comes from assets/demo_corpus; the questions in tests/demo_prompts.json are kept out of it.
"""

import argparse
import json
import math
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from demo_corpus.conversation import conversation, exchange, normalised
from demo_corpus.general import HANZI
from demo_corpus.surface import decorate
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

ROOT = Path(__file__).resolve().parent.parent
VOCAB_SIZE = 7680
MAX_LENGTH = 2048
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Qwen2's own splitting rule: the Qwen2 tokenizer class rebuilds it on loading, so the merges must be learned under it.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Tokenised conversations end to end: `ids` and `learn` are flat, `starts` has one more entry than rows."""

    ids: NDArray[np.int32]
    learn: NDArray[np.bool_]
    starts: NDArray[np.int64]


def held_out() -> frozenset[str]:
    """Normalised questions of the tests; they must not be taught."""
    prompts = json.loads((ROOT / "tests" / "demo_prompts.json").read_text(encoding="utf-8"))
    return frozenset(normalised(row["prompt"]) for rows in prompts.values() for row in rows)


def _chatml(rows: list[dict[str, str]]) -> str:
    return "".join(f"<|im_start|>{row['role']}\n{row['content']}<|im_end|>\n" for row in rows)


def _write_chunk(job: tuple[int, int, frozenset[str]]) -> list[str]:
    seed, count, excluded = job
    rng = random.Random(seed)
    return [_chatml(conversation(rng, excluded)) for _ in range(count)]


def write_conversations(count: int, seed: int) -> list[str]:
    """`count` conversations in ChatML; the same for a given seed whatever the number of processes."""
    size = 2000
    jobs = [(seed * 1_000_003 + i, min(size, count - at), held_out()) for i, at in enumerate(range(0, count, size))]
    with multiprocessing.get_context("fork").Pool(min(len(jobs), os.cpu_count() or 1)) as pool:
        return [text for chunk in pool.imap(_write_chunk, jobs) for text in chunk]


def _spaced(text: str) -> str:
    """Sets every Chinese character apart, so that no merge spans two of them and phrasings never differ in how they are cut.

    A digit does it: the splitting rule keeps digits alone, while it would glue a line break to punctuation.
    """
    return "".join(f"0{char}0" if ord(char) > 0x2E7F or char in "“”…" else char for char in text)


def train_tokenizer(folder: Path, seed: int) -> None:
    """Trains the byte-level BPE and writes tokenizer.json and tokenizer_config.json in Qwen2's layout."""
    rng = random.Random(seed)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    turns = (exchange(rng) for _ in range(60_000))
    texts = [_spaced(f"{decorate(rng, turn)}\n{turn.answer}\nassistant\nuser\nsystem\n") for turn in turns]
    texts.append(_spaced("".join(HANZI * 40)))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {
        str(i): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for i, token in enumerate(SPECIALS)
    }
    config = {
        "add_prefix_space": False, "added_tokens_decoder": added, "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None, "chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>",
        "errors": "replace", "model_max_length": MAX_LENGTH, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )


def tokenise(texts: list[str], folder: Path) -> Corpus:
    """Token ids of all texts, and which of them the model learns to produce: its own replies up to their end mark."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows: list[NDArray[np.int32]] = []
    # In portions: the tokenizer's own result objects take a hundred bytes a token.
    for at in range(0, len(texts), 50_000):
        portion = tokenizer.encode_batch_fast(texts[at : at + 50_000])
        rows.extend(np.asarray(row.ids[:MAX_LENGTH], dtype=np.int32) for row in portion)
    ids = np.concatenate(rows)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    begin, end, role = (tokenizer.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>", "assistant"))
    openings = np.flatnonzero((ids[:-2] == begin) & (ids[1:-1] == role))
    closings = np.flatnonzero(ids == end)
    after = np.searchsorted(closings, openings)
    openings, after = openings[after < len(closings)], after[after < len(closings)]
    edge = np.zeros(len(ids) + 1, dtype=np.int32)
    np.add.at(edge, openings + 3, 1)
    np.add.at(edge, closings[after] + 1, -1)
    return Corpus(ids, np.cumsum(edge[:-1]) > 0, starts)


def batches(
    corpus: Corpus, tokens: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Endless (ids, learn) arrays of shape (rows, length), about `tokens` each, rows of like length together."""
    lengths = np.diff(corpus.starts)
    while True:
        # The noise mixes neighbours in length, so that batches differ between passes.
        order = np.argsort(lengths * rng.uniform(0.9, 1.1, len(lengths)), kind="stable")
        cuts, at = [], 0
        while at < len(order):
            longest = int(lengths[order[min(at + tokens // 24, len(order) - 1)]])
            count = max(1, tokens // max(longest, 24))
            cuts.append(order[at : at + count])
            at += count
        for i in rng.permutation(len(cuts)):
            rows = cuts[i]
            width = int(lengths[rows].max())
            where = corpus.starts[rows][:, None] + np.arange(width)
            real = np.arange(width) < lengths[rows][:, None]
            where = np.where(real, where, 0)
            yield np.where(real, corpus.ids[where], 0).astype(np.int64), corpus.learn[where] & real


def new_model() -> Qwen2ForCausalLM:
    """An untrained model of about 6.7 million weights."""
    config = Qwen2Config(
        vocab_size=VOCAB_SIZE, hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=MAX_LENGTH, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=2, pad_token_id=0, use_sliding_window=False,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def reply_loss(model: Qwen2ForCausalLM, ids: Tensor, learn: Tensor) -> Tensor:
    """Mean cross-entropy over the tokens of the replies; logits are made for those alone."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    wanted = learn[:, 1:]
    logits = model.lm_head(hidden[:, :-1][wanted])
    return F.cross_entropy(logits.float(), ids[:, 1:][wanted])


def train(
    model: Qwen2ForCausalLM, corpus: Corpus, args: argparse.Namespace, device: torch.device, seconds: float
) -> None:
    """AdamW on endless batches, linear warm-up and decay to zero; fp32 weights, bf16 arithmetic.

    It ends after `args.steps` steps or `seconds`, whichever is first, and the decay has reached zero either way.
    """
    model.to(device).train()
    decay = [p for p in model.parameters() if p.dim() > 1]
    groups = [
        {"params": decay, "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, betas=(0.9, 0.95), fused=device.type == "cuda")
    warmup = min(200, args.steps // 10 + 1)
    began = time.monotonic()

    def left(step: int) -> float:
        return max(0.0, 1 - max(step / args.steps, (time.monotonic() - began) / seconds))

    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, left(step) * args.steps / max(1, args.steps - warmup))
    )
    source = batches(corpus, args.tokens_per_step, np.random.default_rng(args.seed))
    for step in range(args.steps):
        ids, learn = next(source)
        with torch.autocast(device.type, torch.bfloat16) if args.autocast else nullcontext():
            loss = reply_loss(model, torch.from_numpy(ids).to(device), torch.from_numpy(learn).to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        last = left(step + 1) == 0
        if last or step % args.log_every == 0:
            value = loss.item()
            assert math.isfinite(value), "the loss left the finite numbers"
            print(f"step {step} loss {value:.4f} seconds {time.monotonic() - began:.1f}", flush=True)
        if last:
            break


def save(model: Qwen2ForCausalLM, folder: Path) -> None:
    """Writes bf16 weights, config and generation settings; files readable by everyone."""
    model.to("cpu", torch.bfloat16).eval()
    model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=0, do_sample=False, max_new_tokens=256)
    model.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "assets" / "demo-model")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--tokens-per-step", type=int, default=49_152)
    parser.add_argument("--conversations", type=int, default=1_400_000)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument(
        "--most-seconds", type=float, default=math.inf, help="end the whole run, text and tokenizer included, by then"
    )
    parser.add_argument("--autocast", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    name = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    torch.manual_seed(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    train_tokenizer(args.output, args.seed)
    print(f"tokenizer seconds {time.monotonic() - began:.1f}", flush=True)
    corpus = tokenise(write_conversations(args.conversations, args.seed), args.output)
    print(
        f"corpus tokens {len(corpus.ids)} learned {int(corpus.learn.sum())} seconds {time.monotonic() - began:.1f}",
        flush=True,
    )
    model = new_model()
    print(f"weights {model.num_parameters()}", flush=True)
    train(model, corpus, args, torch.device(name), max(1.0, args.most_seconds - (time.monotonic() - began)))
    save(model, args.output)
    AutoTokenizer.from_pretrained(args.output)


if __name__ == "__main__":
    main()
