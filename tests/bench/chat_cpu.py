"""Decoding on a processor against plain transformers, the same answers in turn: `python -m tests.bench.chat_cpu [repeats]`.

The demo model on one core, as the chat process runs it. Ours is `reply`, text as it streams; theirs is `generate` with a
TextIteratorStreamer, which is how it is streamed there. They take turns in one process, so that what else the machine
does burdens both alike; the ratio is the median of the turns' ratios. Then the first token of a second turn: a
conversation of 2,000 tokens, asked again with a few more, against the first time.
"""

import os
import statistics
import sys
import threading
import time
from typing import Any

import torch
from transformers import TextIteratorStreamer

from tests.bench.workloads import DEMO_MODEL
from trainer.decoding import Engine
from trainer.generate import Finish, reply
from trainer.model import load_model, load_tokenizer
from trainer.sampling import Sampling

REQUIRED, REQUIRED_SECOND_TURN = 1.5, 0.15
NEW, CONVERSATION, QUESTION = 200, 2000, 16
WAYS = {"sampled": Sampling(max_new_tokens=NEW, seed=1), "greedy": Sampling(max_new_tokens=NEW, temperature=0)}


def ours(engine: Engine, tokenizer: Any, prompt: list[int], how: Sampling) -> float:
    """Tokens a second of one streamed answer, its prompt included."""
    began = time.perf_counter()
    *_, finish = reply(engine, tokenizer, prompt, how, ())
    assert isinstance(finish, Finish)
    assert finish.tokens == NEW
    return NEW / (time.perf_counter() - began)


def theirs(model: Any, tokenizer: Any, prompt: list[int], how: Sampling) -> float:
    given = torch.tensor([prompt])
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    arguments: dict[str, Any] = {"do_sample": False}
    if how.temperature:
        arguments = {"do_sample": True, "temperature": how.temperature, "top_p": how.top_p, "top_k": how.top_k}
    arguments |= {"input_ids": given, "attention_mask": torch.ones_like(given), "streamer": streamer,
                  "max_new_tokens": NEW, "eos_token_id": None, "pad_token_id": 0}  # fmt: skip
    began = time.perf_counter()
    thread = threading.Thread(target=model.generate, kwargs=arguments)
    thread.start()
    for _ in streamer:
        pass
    thread.join()
    return NEW / (time.perf_counter() - began)


def first_token_s(engine: Engine, tokenizer: Any, prompt: list[int]) -> float:
    *_, finish = reply(engine, tokenizer, prompt, Sampling(max_new_tokens=8, temperature=0), ())
    assert isinstance(finish, Finish)
    assert finish.first_token_s is not None
    return finish.first_token_s


def second_turns(engine: Engine, tokenizer: Any, repeats: int) -> tuple[float, float]:
    """Median seconds to the first token: of a conversation's first turn, and of its second."""
    found: list[tuple[float, float]] = []
    for number in range(repeats):
        # Another first token each time: nothing of it is in a cache.
        prompt = [100 + number, *(7 * place % 5000 + 100 for place in range(CONVERSATION - 1))]
        first = first_token_s(engine, tokenizer, prompt)
        again = [*prompt, *range(300, 300 + QUESTION)]
        found.append((first, first_token_s(engine, tokenizer, again)))
    return statistics.median(first for first, _ in found), statistics.median(second for _, second in found)


def main(repeats: int) -> int:
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    tokenizer = load_tokenizer(DEMO_MODEL)
    engine, model = Engine(load_model(DEMO_MODEL, torch.float32, cpu)), load_model(DEMO_MODEL, torch.float32, cpu)
    assert engine.way() == "lean"
    prompt = tokenizer("你好，你是谁？请介绍一下你自己。").input_ids
    print(f"{time.strftime('%Y-%m-%d')}, 1 core, load {os.getloadavg()[0]:.1f}, {repeats} repeats")
    print("| tokens/s | ours | generate + streamer | ratio | required |\n| --- | --- | --- | --- | --- |")
    good = True
    for name, how in WAYS.items():
        turns = [(ours(engine, tokenizer, prompt, how), theirs(model, tokenizer, prompt, how)) for _ in range(repeats)]
        ratio = statistics.median(mine / other for mine, other in turns)
        mine, other = (statistics.median(rates) for rates in zip(*turns, strict=True))
        print(f"| {name} | {mine:.0f} | {other:.0f} | {ratio:.2f} | {REQUIRED} |", flush=True)
        good &= ratio >= REQUIRED
    limit = model.config.max_position_embeddings
    assert limit is None or limit > CONVERSATION + QUESTION
    first, second = second_turns(engine, tokenizer, repeats)
    print(f"first token of {CONVERSATION} tokens: {first:.3f} s, of {QUESTION} more in the second turn: {second:.4f} s, "
          f"ratio {second / first:.3f}, required {REQUIRED_SECOND_TURN}")  # fmt: skip
    return 0 if good and second / first <= REQUIRED_SECOND_TURN else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 7))
