"""How large a decoder model is, from its config and the headers of its safetensors. Light: reads no weights."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.model_folder import INDEX, WEIGHTS

# What configs of different families call the same number.
NAMES = {
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "intermediate": ("moe_intermediate_size", "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads", "multi_query_group_num"),
    "experts": ("num_experts_per_tok", "num_experts_per_token", "moe_topk"),
}
BITS = {"F64": 64, "F32": 32, "BF16": 16, "F16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "I64": 64, "I32": 32, "I8": 8, "U8": 8}
# Modules that hold a table of learnt positions; and families whose code makes one as long as the config says.
POSITION_TABLES = (["wpe"], ["embed_positions"], ["positions_embed"], ["position_embeddings"])
TABLES_IN_CODE = ("gptj", "codegen", "mpt")
# What is loaded in the type that is computed in.
LOADED = {"F64", "F32", "BF16", "F16"}


@dataclass(frozen=True)
class Linear:
    """The linear layers of one name: `inputs` × `outputs` each, `count` in the whole model."""

    name: str
    inputs: int
    outputs: int
    count: int


@dataclass(frozen=True)
class ModelSize:
    """`width`: of the feed-forward part that one token goes through, all of its experts together."""

    hidden: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    head_norms: bool
    parameters: int
    embedding: int
    active: int
    stored_bytes: int | None
    linears: tuple[Linear, ...]

    @property
    def query(self) -> int:
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def in_layers(self) -> int:
        """Parameters that are neither the input embedding nor the output layer."""
        return self.parameters - self.embedding * (1 if self.tied else 2)


def read_model_size(folder: Path) -> ModelSize | None:
    """The size of the model in `folder`; None when its config does not tell, as no known decoder's."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return model_size(config, tensors(folder))


def tensors(folder: Path) -> dict[str, tuple[str, list[int]]]:
    """dtype and shape of every tensor in the safetensors files of `folder`, by name."""
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in stored_tensors(folder)}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: `size` bytes of `file` from `start`."""

    name: str
    dtype: str
    shape: list[int]
    file: Path
    start: int
    size: int


def stored_tensors(folder: Path) -> list[StoredTensor]:
    """Every tensor in the safetensors files of `folder` (https://github.com/huggingface/safetensors#format)."""
    if (folder / WEIGHTS).is_file():
        files = [WEIGHTS]
    else:
        files = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    found: list[StoredTensor] = []
    for file in (folder / name for name in files):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name, item in header.items():
            start, end = item["data_offsets"]
            found.append(StoredTensor(name, item["dtype"], item["shape"], file, 8 + length + start, end - start))
    return found


def most_positions(folder: Path) -> int | None:
    """The length of the table in which the model looks up positions: longer texts it cannot read at all. None when it
    computes positions, as rotary embeddings do."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rows = [shape[0] for name, (_, shape) in tensors(folder).items() if name.split(".")[-2:-1] in POSITION_TABLES]
    if not rows and config.get("model_type") not in TABLES_IN_CODE:
        return None
    # Some tables begin with rows for padding.
    named = [config[name] for name in ("max_position_embeddings", "n_positions", "max_seq_len") if config.get(name)]
    return min([*rows, *named], default=None)


def weight_bytes(found: dict[str, tuple[str, list[int]]], element: int) -> int:
    """Bytes of these tensors once loaded: `element` for a number, packed ones as they are stored."""
    return sum(_product(shape) * (element if dtype in LOADED else BITS.get(dtype, 16) // 8)
               for dtype, shape in found.values())  # fmt: skip


def stored_type(found: dict[str, tuple[str, list[int]]]) -> str | None:
    """The one dtype of these tensors, as safetensors names it; None when they differ."""
    kinds = {dtype for dtype, _ in found.values()}
    return kinds.pop() if len(kinds) == 1 else None


def model_size(config: dict[str, Any], found: dict[str, tuple[str, list[int]]]) -> ModelSize | None:
    """The size of the model with this config.json and these tensors; None when the config does not tell."""
    text = config | (config.get("text_config") or {})
    number = {key: next((text[name] for name in names if text.get(name)), None) for key, names in NAMES.items()}
    hidden, layers, heads = number["hidden"], number["layers"], number["heads"]
    vocabulary = text.get("vocab_size")
    if not (hidden and layers and heads and vocabulary and found):
        return None
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
    counted = {name: shape for name, (_, shape) in found.items() if not (tied and name.endswith("lm_head.weight"))}
    numbers = {name: _product(shape) for name, shape in counted.items()}
    experts = sum(count for name, count in numbers.items() if ".experts." in name)
    share = (number["experts"] or 1) / (text.get("num_experts") or text.get("num_local_experts") or 1)
    width = number["intermediate"] or 4 * hidden
    embedding = vocabulary * hidden
    parameters = sum(numbers.values())
    return ModelSize(
        hidden=hidden,
        width=width * (number["experts"] or 1) if experts else text.get("intermediate_size") or width,
        layers=layers,
        heads=heads,
        kv_heads=number["kv_heads"] or heads,
        head_dim=text.get("head_dim") or hidden // heads,
        vocabulary=vocabulary,
        tied=tied,
        head_norms=any(name.endswith("q_norm.weight") for name in counted),
        parameters=parameters,
        embedding=embedding,
        active=parameters - round(experts * (1 - share)) - embedding * (1 if tied else 2),
        stored_bytes=_bytes(found) if config.get("quantization_config") else None,
        linears=_linears(counted, vocabulary),
    )


def _linears(counted: dict[str, list[int]], vocabulary: int) -> tuple[Linear, ...]:
    """By name and shape; without the embedding, the output layer and experts, which are no layers of their own."""
    layers = Counter(
        (name.split(".")[-2], shape[1], shape[0])
        for name, shape in counted.items()
        if name.endswith(".weight") and len(shape) == 2 and shape[0] != vocabulary and ".experts." not in name
    )
    return tuple(Linear(*layer, count) for layer, count in sorted(layers.items()))


def _product(shape: list[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


def _bytes(found: dict[str, tuple[str, list[int]]]) -> int:
    return sum(_product(shape) * BITS.get(dtype, 16) // 8 for dtype, shape in found.values())
