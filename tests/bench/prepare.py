"""Preparing generated ShareGPT conversations on two cores, against datasets.map calling apply_chat_template.

    taskset -c 0,1 python -m tests.bench.prepare [rows] [rounds]

Each round prepares the same file with both, and once more from our cache. Prints seconds (of all rounds the least),
their ratio, and the most memory that a preparation's processes had together. Theirs makes token ids alone; ours marks
what is learnt and checks every row as well. Fails above a ratio of 1, 1 GB, or 1 s from the cache.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.bench.workloads import DEMO_MODEL, ROOT

ROWS, CORES = 100_000, 2
MOST_RATIO, MOST_GB, MOST_CACHED_S = 1.0, 1.0, 1.0
WORDS = [
    "the",
    "of",
    "and",
    "is",
    "you",
    "that",
    "for",
    "as",
    "with",
    "at",
    "this",
    "have",
    "from",
    "word",
    "not",
    "what",
    "explain",
    "function",
    "model",
    "train",
    "answer",
    "question",
    "example",
    "because",
    "however",
    "result",
    "people",
]
CHARACTERS = "你好请问今天天气怎么样我是助手很高兴认识可以帮做什么数学题目历史地理文章写作代码程序解释一下这个问题原因以及解决办法谢谢"
OURS = """
import json, sys, time
from trainer.encoding import go_without_torch, load_template
from trainer.settings import parse
go_without_torch()
settings = parse(json.loads(sys.argv[1]))
template = load_template(settings)
from pathlib import Path
from trainer.data import load_samples
from trainer.events import EventLog
began = time.perf_counter()
samples = load_samples(settings, template, EventLog(Path(sys.argv[2])))
print(json.dumps({"seconds": time.perf_counter() - began, "samples": len(samples.train),
                  "tokens": int(samples.train.lengths.sum())}))
"""
THEIRS = """
import json, sys, time
import datasets
from transformers import AutoTokenizer
datasets.disable_progress_bars()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
roles = {"human": "user", "gpt": "assistant"}
def encode(row):
    messages = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
    return {"input_ids": tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)}
if __name__ == "__main__":
    began = time.perf_counter()
    rows = datasets.load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[3])
    found = rows.map(encode, num_proc=2, remove_columns=rows.column_names, load_from_cache_file=False)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "samples": len(found), "tokens": sum(map(len, found["input_ids"]))}))
"""


def write_conversations(path: Path, rows: int, seed: int = 0) -> None:
    """ShareGPT lines of one to four turns in English and Chinese, some 900 bytes each."""
    chance = random.Random(seed)

    def text(length: int) -> str:
        if chance.random() < 0.4:
            return "".join(chance.choices(CHARACTERS, k=length)) + "。"
        return " ".join(chance.choices(WORDS, k=length)).capitalize() + "."

    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            turns = []
            for _ in range(chance.randint(1, 4)):
                turns.append({"from": "human", "value": text(chance.randint(5, 40))})
                turns.append({"from": "gpt", "value": text(chance.randint(10, 80))})
            file.write(json.dumps({"conversations": turns}, ensure_ascii=False) + "\n")


def measured(argv: list[str], **environment: str) -> tuple[dict[str, float], float]:
    """What a Python program printed last, and the most bytes that it and its children held together."""
    process = subprocess.Popen([sys.executable, *argv], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               env={**os.environ, **environment}, text=True)  # fmt: skip
    most = 0
    while process.poll() is None:
        most = max(most, held(process.pid))
        time.sleep(0.2)
    assert process.returncode == 0, f"it ended with {process.returncode}: {argv[:2]}"
    assert process.stdout is not None
    return json.loads(process.stdout.read().strip().splitlines()[-1]), most


def held(pid: int) -> int:
    """Bytes of a process and its children; what they share counts once."""
    total = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            total += process.memory_full_info().pss
    except psutil.Error:  # one has just ended
        return total
    return total


def main(rows: int, rounds: int) -> int:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    times: dict[str, list[float]] = {"ours": [], "cached": [], "theirs": []}
    memory = dict.fromkeys(times, 0.0)
    tokens = set()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        (folder / "data").mkdir()
        write_conversations(folder / "data" / "chats.jsonl", rows)
        settings = json.dumps({"model_name_or_path": str(DEMO_MODEL), "dataset_dir": str(folder / "data"),
                               "dataset": "chats", "max_samples": rows, "cutoff_len": 131072})  # fmt: skip
        (folder / "theirs.py").write_text(THEIRS)
        for number in range(rounds):
            cache = {"XDG_CACHE_HOME": str(folder / f"cache-{number}")}
            ours = ["-c", OURS, settings, str(folder / "events.jsonl")]
            theirs = [str(folder / "theirs.py"), str(folder / "data" / "chats.jsonl"), str(DEMO_MODEL),
                      str(folder / f"hub-{number}")]  # fmt: skip
            for name, argv in (("ours", ours), ("cached", ours), ("theirs", theirs)):
                found, peak = measured(argv, **cache)
                times[name].append(found["seconds"])
                memory[name] = max(memory[name], peak / 1e9)
                tokens.add((found["samples"], found["tokens"]))
                print(f"{name:7} {found['seconds']:7.2f} s  {peak / 1e9:.2f} GB", flush=True)
    assert len(tokens) == 1, f"not the same samples: {tokens}"
    best = {name: min(found) for name, found in times.items()}
    ratio = best["ours"] / best["theirs"]
    print(f"{rows} conversations on {CORES} cores: ours {best['ours']:.2f} s, datasets.map {best['theirs']:.2f} s, "
          f"ratio {ratio:.2f} (limit {MOST_RATIO}); from the cache {best['cached']:.2f} s (limit {MOST_CACHED_S})")  # fmt: skip
    print(f"peak memory: ours {memory['ours']:.2f} GB (limit {MOST_GB}), datasets.map {memory['theirs']:.2f} GB")
    kept = ratio <= MOST_RATIO and memory["ours"] <= MOST_GB and best["cached"] <= MOST_CACHED_S
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS, int(sys.argv[2]) if len(sys.argv) > 2 else 1))
