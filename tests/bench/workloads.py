"""Datasets and models of given sizes for the training benchmarks: what counts is how long samples are."""

import json
import math
import random
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from trainer.chat_template import ChatTemplate, Sample

ROOT = Path(__file__).resolve().parents[2]
DEMO_MODEL = ROOT / "assets" / "demo-model"
WORKLOADS = Path(__file__).with_name("workloads.json")
SHARD_BYTES = 5 * 10**9

Lengths = list[tuple[int, int]]


@dataclass(frozen=True)
class Shape:
    """A Qwen2 model's sizes; the defaults are Qwen2.5-7B's."""

    hidden_size: int = 3584
    num_hidden_layers: int = 28
    num_attention_heads: int = 28
    num_key_value_heads: int = 4
    intermediate_size: int = 18944
    vocab_size: int = 152064
    max_position_embeddings: int = 32768

    @property
    def parameters(self) -> int:
        return sum(math.prod(dimensions) for dimensions in tensors(self).values())


def read_workloads(path: Path) -> dict[str, Lengths]:
    """[prompt tokens, response tokens] of each sample by workload name."""
    found = json.loads(path.read_text())
    return {name: [(prompt, response) for prompt, response in found[name]] for name in found if name != "note"}


def write_datasets(folder: Path, workloads: dict[str, Lengths], seed: int = 0) -> None:
    """Alpaca-format datasets, one a workload, whose samples our template encodes to exactly those lengths."""
    folder.mkdir(parents=True, exist_ok=True)
    template = ChatTemplate.of(AutoTokenizer.from_pretrained(DEMO_MODEL), "auto", str(DEMO_MODEL))
    words = single_token_words(template.tokenizer)
    # What the template adds around one word each of system, user and assistant; None: no system prompt.
    added = {system: _lengths(encode(template, system and [words[0]], [words[0]], [words[0]])) for system in (None, 1)}
    chance, info = random.Random(seed), {}
    for name, lengths in workloads.items():
        rows = []
        for prompt, response in lengths:
            room = prompt - added[1][0]
            system = chance.choices(words, k=1 + room // 2) if room >= 0 else None
            user = chance.choices(words, k=1 + room - room // 2 if room >= 0 else 1 + prompt - added[None][0])
            answer = chance.choices(words, k=1 + response - added[1][1])
            found = _lengths(encode(template, system, user, answer))
            assert found == (prompt, response), f"{name}: {found} tokens instead of {(prompt, response)}"
            rows.append({"instruction": " ".join(user), "output": " ".join(answer)})
            rows[-1] |= {"system": " ".join(system)} if system else {}
        (folder / f"{name}.json").write_text(json.dumps(rows))
        info[name] = {"file_name": f"{name}.json", "columns": {"prompt": "instruction", "response": "output", "system": "system"}}  # fmt: skip
    (folder / "dataset_info.json").write_text(json.dumps(info))


def encode(template: ChatTemplate, system: Any, user: Sequence[str], answer: Sequence[str]) -> Sample:
    contents = [("system", system), ("user", user), ("assistant", answer)]
    messages = [{"role": role, "content": " ".join(words)} for role, words in contents if words]
    return template.encode(messages, cutoff_len=2**20)


def _lengths(sample: Sample) -> tuple[int, int]:
    prompt = next(position for position, label in enumerate(sample.labels) if label != -100)
    return prompt, len(sample.labels) - prompt


def single_token_words(tokenizer: Any) -> list[str]:
    """Words that are one token each, with a space before them and without."""
    known = tokenizer.get_vocab()
    words = [token[1:] for token in known if token.startswith("Ġ") and token[1:] in known]
    return sorted(word for word in words if len(word) > 3 and word.isascii() and word.isalpha() and word.islower())


def write_model(folder: Path, shape: Shape, device: str) -> None:
    """A random bf16 Qwen2 model of `shape` with the demo model's tokenizer, made on `device`; kept if it is there."""
    whole = folder / "shape.json"
    if whole.exists() and json.loads(whole.read_text()) == asdict(shape):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO_MODEL / name, folder)
    config = {
        **asdict(shape), "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "dtype": "bfloat16",
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "use_sliding_window": False,
        "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}, "bos_token_id": 0, "eos_token_id": 2,
        "pad_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    _write_weights(folder, shape, device)
    whole.write_text(json.dumps(asdict(shape)))


def _write_weights(folder: Path, shape: Shape, device: str) -> None:
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, dimensions in tensors(shape).items():
        length = 2 * math.prod(dimensions)
        if size + length > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = dimensions
        size += length
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    # Writing is copying to the page cache, which one thread a shard does while the others draw numbers.
    with ThreadPoolExecutor(len(shards)) as pool:
        list(pool.map(lambda name, shard: _write_shard(folder / name, shard, device), names, shards))
    weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Names and sizes as Qwen2's checkpoints have them."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    head = hidden // shape.num_attention_heads
    query, key = shape.num_attention_heads * head, shape.num_key_value_heads * head
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab_size, hidden)}
    for layer in range(shape.num_hidden_layers):
        at = f"model.layers.{layer}."
        found |= {at + "input_layernorm.weight": (hidden,), at + "post_attention_layernorm.weight": (hidden,)}
        for name, rows in (("q", query), ("k", key), ("v", key)):
            found |= {f"{at}self_attn.{name}_proj.weight": (rows, hidden), f"{at}self_attn.{name}_proj.bias": (rows,)}
        found |= {
            f"{at}self_attn.o_proj.weight": (hidden, query),
            f"{at}mlp.gate_proj.weight": (inner, hidden),
            f"{at}mlp.up_proj.weight": (inner, hidden),
            f"{at}mlp.down_proj.weight": (hidden, inner),
        }
    return found | {"model.norm.weight": (hidden,), "lm_head.weight": (shape.vocab_size, hidden)}


def _write_shard(path: Path, shard: dict[str, tuple[int, ...]], device: str) -> None:
    """One safetensors file, tensor by tensor, so that no shard is in memory as a whole."""
    import torch

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dimensions in shard.items():
        start, end = end, end + 2 * math.prod(dimensions)
        header[name] = {"dtype": "BF16", "shape": dimensions, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, dimensions in shard.items():
            tensor = torch.empty(dimensions, dtype=torch.bfloat16, device=device)
            if "norm" in name:
                tensor.fill_(1)
            elif name.endswith("bias"):
                tensor.zero_()
            else:
                tensor.normal_(std=0.02)
            file.write(tensor.view(torch.uint8).cpu().numpy().data)
