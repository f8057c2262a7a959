"""Chat on an accelerator, random models of Qwen2.5's shapes: tokens a second, adapter switches, second turns.

    python -m tests.bench.chat_gpu [--cases 7b 0.5b] [--rank 8] [--output results.json] [--plain]

Everything goes through the chat process and its pipes, as the page's replies do. `--plain`: also transformers' own
`generate` with TextIteratorStreamer, in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from tests.bench.workloads import ROOT, Shape, single_token_words

SHAPES = {"7b": Shape(), "0.5b": Shape(896, 24, 14, 2, 4864, 151936), "tiny": Shape(64, 2, 4, 2, 128, 8192, 4096)}
REQUIRED = {"7b": 150, "0.5b": 400, "tiny": 0}
SAMPLED = {"max_new_tokens": 256, "temperature": 0.95, "top_p": 0.7, "top_k": 50, "seed": 1}
QUESTION = [{"role": "user", "content": "你好，你是谁？"}]


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.bench.chat_gpu", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(SHAPES), default=["7b", "0.5b"])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tunedesk-bench")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--rank", type=int, default=8, help="of the adapters")
    options = parser.parse_args()
    results = []
    for name in options.cases:
        folder = prepare(options.work / f"chat-{name}", SHAPES[name], options.rank)
        results.append({"case": name, **measure(folder), **(plain(folder) if options.plain else {})})
        print(json.dumps(results[-1]), flush=True)
    if options.output:
        options.output.write_text(json.dumps(results, indent=1))
    print(table(results))
    return 0


def prepare(folder: Path, shape: Shape, rank: int) -> Path:
    """A model with a word for every id, so that every token drawn is text; and two adapters of `rank` for it."""
    program = (
        "import sys, json, torch\nfrom pathlib import Path\n"
        "from tests.bench.workloads import Shape, write_model\n"
        "write_model(Path(sys.argv[1]), Shape(**json.loads(sys.argv[2])), 'cuda' if torch.cuda.is_available() else 'cpu')\n"
    )
    argv = [sys.executable, "-c", program, str(folder), json.dumps(vars(shape))]
    subprocess.run(argv, cwd=ROOT, check=True)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    known = {*words.values(), *(token["id"] for token in tokenizer["added_tokens"])}
    words |= {f"Ġword{number}": number for number in range(shape.vocab_size) if number not in known}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    for number in (1, 2):
        write_adapter(folder, folder.with_name(f"{folder.name}-adapter-{number}"), shape, number, rank)
    return folder


def write_adapter(base: Path, folder: Path, shape: Shape, seed: int, rank: int) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    hidden, inner, head = shape.hidden_size, shape.intermediate_size, shape.hidden_size // shape.num_attention_heads
    sizes = {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (hidden, shape.num_key_value_heads * head),
             "self_attn.v_proj": (hidden, shape.num_key_value_heads * head), "self_attn.o_proj": (hidden, hidden),
             "mlp.gate_proj": (hidden, inner), "mlp.up_proj": (hidden, inner), "mlp.down_proj": (inner, hidden)}  # fmt: skip
    tensors = {}
    for layer in range(shape.num_hidden_layers):
        for name, (inputs, outputs) in sizes.items():
            at = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{at}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) * inputs**-0.5
            tensors[f"{at}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * 0.1
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 16, "lora_dropout": 0.0, "bias": "none",
              "base_model_name_or_path": str(base), "target_modules": [name.split(".")[1] for name in sizes]}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))


class Chat:
    """The chat process, spoken to in its own protocol."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trainer.chat"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if "-q" in sys.argv else None, env={**os.environ, "PYTHONPATH": path()},
        )  # fmt: skip
        self.number = 0

    def ask(self, request: dict[str, Any], answers: int = 1) -> Iterator[tuple[float, dict[str, Any]]]:
        """Events and when they came, up to the last of those that answer `request`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        began = time.perf_counter()
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == "problem":
                raise SystemExit(f"problem: {event}")
            yield time.perf_counter() - began, event
            answers -= event["event"] in ("loaded", "done")
            if not answers:
                return
        raise SystemExit("the chat process ended")

    def load(self, model: Path, adapter: Path | None = None) -> list[tuple[float, dict[str, Any]]]:
        return list(self.ask({"op": "load", "model": str(model), "adapter": str(adapter) if adapter else None}))

    def reply(self, messages: list[dict[str, str]], **values: Any) -> dict[str, Any]:
        """Text and figures as they look from outside."""
        self.number += 1
        events = list(self.ask({"op": "generate", "id": self.number, "messages": messages, **SAMPLED, **values}))
        deltas = [(when, event["text"]) for when, event in events if event["event"] == "delta"]
        done_at, done = events[-1]
        first = deltas[0][0]
        return {
            "text": "".join(text for _, text in deltas),
            "first_s": first,
            "tokens_per_second": (done["tokens"] - 1) / (done_at - first),
            "whole_tokens_per_second": done["tokens"] / done_at,
            "tokens": done["tokens"],
        }

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def measure(folder: Path) -> dict[str, Any]:
    adapters = [folder.with_name(f"{folder.name}-adapter-{number}") for number in (1, 2)]
    chat = Chat()
    loading = chat.load(folder)
    moments = {event.get("stage", event["event"]): round(when, 2) for when, event in loading}
    first = chat.reply(QUESTION)
    runs = [chat.reply(QUESTION) for _ in range(3)]
    again = chat.reply(QUESTION, seed=1)
    found: dict[str, Any] = {
        "way": loading[-1][1].get("way"),
        "moments_s": moments,
        "ready_after_weights_s": round(moments["loaded"] - moments.get("preparing", moments["loaded"]), 2),
        "first_reply_tokens_per_second": round(first["tokens_per_second"], 1),
        "tokens_per_second": round(sorted(run["tokens_per_second"] for run in runs)[1], 1),
        "whole_tokens_per_second": round(sorted(run["whole_tokens_per_second"] for run in runs)[1], 1),
        "first_token_s": round(runs[-1]["first_s"], 4),
        "tokens": first["tokens"],
        "seed_repeats": again["text"] == runs[0]["text"] == first["text"],
    }
    greedy = chat.reply(QUESTION, temperature=0)["text"]
    switches, rates = [], []
    for adapter in (*adapters, adapters[0]):
        switches.append(chat.load(folder, adapter)[-1][0])
        answer = chat.reply(QUESTION)
        rates.append(answer["tokens_per_second"])
    switches.append(chat.load(folder)[-1][0])
    found["switch_s"] = [round(seconds, 3) for seconds in switches]
    found["adapter_tokens_per_second"] = [round(rate, 1) for rate in rates]
    found["base_unchanged"] = chat.reply(QUESTION, temperature=0)["text"] == greedy
    found["compare"] = compare(chat, [None, *adapters])
    found["second_turn"] = second_turn(chat, folder)
    chat.end()
    return found


def compare(chat: Chat, adapters: list[Path | None]) -> dict[str, Any]:
    """Three columns at a time: tokens a second of all together, and whether each says what it says alone."""
    columns: list[dict[str, str | None]] = [{"adapter": str(adapter) if adapter else None} for adapter in adapters]
    chat.number += 1
    began = time.perf_counter()
    texts, done = [""] * len(columns), list[dict[str, Any]]()
    events = chat.ask({"op": "generate", "id": chat.number, "messages": QUESTION, "columns": columns, **SAMPLED},
                      answers=len(columns))  # fmt: skip
    for _, event in events:
        if event["event"] == "delta":
            texts[event["column"]] += event["text"]
        elif event["event"] == "done":
            done.append(event)
    seconds = time.perf_counter() - began
    alone = [chat.reply(QUESTION, columns=[column])["text"] for column in columns]
    return {"tokens_per_second_together": round(sum(event["tokens"] for event in done) / seconds, 1),
            "tokens_per_second_each": [event["tokens_per_second"] for event in done], "as_alone": texts == alone}  # fmt: skip


def second_turn(chat: Chat, folder: Path) -> dict[str, float]:
    """First-token times of a prompt of some 2,000 tokens and of the turn after it, best of three each."""
    words = single_token_words(AutoTokenizer.from_pretrained(folder))
    firsts, seconds = [], []
    for number in range(3):
        text = " ".join(words[(number + place) % len(words)] for place in range(1970))
        long = [{"role": "user", "content": text}]
        # An invented word is several tokens when it is read again: few of them, or the turn is long.
        first = chat.reply(long, max_new_tokens=4)
        turns = [*long, {"role": "assistant", "content": first["text"]}, {"role": "user", "content": "你好，你是谁？"}]
        second = chat.reply(turns, max_new_tokens=4)
        firsts.append(first["first_s"])
        seconds.append(second["first_s"])
    return {"first_s": round(min(firsts), 4), "second_s": round(min(seconds), 4),
            "ratio": round(min(seconds) / min(firsts), 3)}  # fmt: skip


def plain(folder: Path) -> dict[str, Any]:
    """transformers' generate, streamed by its TextIteratorStreamer."""
    program = """
import json, sys, threading, time, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer
device = "cuda" if torch.cuda.is_available() else "cpu"
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16, device_map=device)
ids = tokenizer.apply_chat_template([{"role": "user", "content": "你好，你是谁？"}], add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"].to(device)
rates = []
for _ in range(3):
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    thread = threading.Thread(target=lambda: model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=256, min_new_tokens=256, do_sample=True, temperature=0.95, top_p=0.7, top_k=50, streamer=streamer))
    began = time.perf_counter(); thread.start()
    for text in streamer: pass
    thread.join(); rates.append(256 / (time.perf_counter() - began))
print(json.dumps({"plain_generate_tokens_per_second": round(max(rates), 1)}))
"""
    argv = [sys.executable, "-c", program, str(folder)]
    output = subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def table(results: list[dict[str, Any]]) -> str:
    lines = ["| case | way | tokens/s | required | first token | ready after weights (≤ 3 s) | switch (≤ 1 s) | second turn / first (≤ 0.15) | plain generate |",
             "|" + " --- |" * 9]  # fmt: skip
    for result in results:
        cells = [result["case"], result["way"], result["tokens_per_second"], f"≥ {REQUIRED[result['case']]}",
                 f"{result['first_token_s']} s", f"{result['ready_after_weights_s']} s", f"{max(result['switch_s'])} s",
                 result["second_turn"]["ratio"], result.get("plain_generate_tokens_per_second", "–")]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
