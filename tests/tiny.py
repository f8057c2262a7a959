"""Tiny random models with a real tokenizer and chat template, built in well under a second.

Real small things instead of mocks: whatever loads a model folder loads these. The same arguments
give the same bytes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

Architecture = Literal["qwen2", "qwen3", "llama"]

SENTENCES = [
    "你好，你是谁？我是北大人工智能助手，很高兴认识你。",
    "请问今天天气怎么样？今天天气很好，适合出去走走。",
    "Hello, who are you? I am PKU AI Assistant, glad to meet you.",
    "The quick brown fox jumps over the lazy dog, then says: one, two, three.",
]
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def build_tiny_model(
    folder: Path,
    *,
    architecture: Architecture = "qwen2",
    hidden_size: int = 64,
    layers: int = 2,
    vocab_size: int = 512,
    max_positions: int = 512,
    seed: int = 0,
    chat_template: str | None = CHATML,
    **config: Any,
) -> Path:
    """Write a random fp32 model of `architecture` and a byte-level BPE tokenizer into `folder`.

    `vocab_size` bounds the tokenizer's vocabulary; the model has one row for each of its tokens.
    `config` goes to the architecture's configuration. `chat_template` None: the tokenizer has none.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tiny_tokenizer(folder, vocab_size=vocab_size, chat_template=chat_template)
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden_size // 4,
        "max_position_embeddings": max_positions,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        # The default of 0.02 leaves so small a model repeating one token: nothing to compare.
        "initializer_range": 0.2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **(shape | config)))
    model.generation_config.eos_token_id = shape["eos_token_id"]
    model.save_pretrained(folder)
    return folder


def build_tiny_tokenizer(folder: Path, *, vocab_size: int = 512, chat_template: str | None = CHATML) -> Any:
    """A byte-level BPE tokenizer trained on SENTENCES: any text round-trips, rare characters span several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    return fast


def build_tiny_adapter(
    folder: Path, model: Path, *, rank: int = 4, seed: int = 1, scale: float = 0.5, targets: Sequence[str] = LINEAR,
    **config: Any,
) -> Path:  # fmt: skip
    """Write a random LoRA adapter for `model`, strong enough to change what the model says. `config`: more of peft's."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model)
    adapted = get_peft_model(
        base, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), task_type="CAUSAL_LM", **config)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale / rank)
    adapted.save_pretrained(str(folder))
    return folder


def build_hollow_model(folder: Path) -> Path:
    """A folder that looks like a model to whoever reads names, sizes and headers; made without torch."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    (folder / "tokenizer.json").write_text("{}")
    write_safetensors(folder / "model.safetensors")
    return folder


def build_hollow_adapter(folder: Path) -> Path:
    """The same for an adapter."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    write_safetensors(folder / "adapter_model.safetensors")
    return folder


def write_safetensors(file: Path, numbers: int = 16) -> None:
    """One fp32 tensor of zeros, header and data as the format has them."""
    data = bytes(4 * numbers)
    header = json.dumps({"w": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, len(data)]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + data)


def break_json(path: Path) -> None:
    """Leave half of a JSON file, as an interrupted copy does."""
    text = path.read_text()
    path.write_text(text[: len(text) // 2])


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
