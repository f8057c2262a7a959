"""The formula of a pass's memory against the bytes of the tensors that autograd saves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny import LINEAR
from trainer.batching import collate
from trainer.chat_template import Sample
from trainer.device import DTYPES
from trainer.lora import speed_up
from trainer.loss import LabelLoss
from trainer.memory import Footprint
from trainer.model_size import model_size, read_model_size
from trainer.norm import fuse_norms
from trainer.settings import TrainSettings

pytestmark = pytest.mark.slow

SAMPLES, TOKENS, LABELS = 4, 200, 60
# (architecture, compute type, settings, what may be off by: dropout leaves the first layer's input alone)
CASES: list[tuple[str, str, dict[str, Any], float]] = [
    ("qwen2", "bf16", {}, 0.02),
    ("qwen3", "bf16", {"lora_rank": 32}, 0.02),
    ("llama", "fp32", {}, 0.02),
    ("llama", "pure_bf16", {"lora_target": ("q_proj", "v_proj")}, 0.02),
    ("qwen2", "bf16", {"lora_dropout": 0.1}, 0.06),
    ("qwen3", "bf16", {"use_dora": True}, 0.02),
    ("qwen3", "bf16", {"finetuning_type": "full"}, 0.02),
    ("qwen2", "fp32", {"finetuning_type": "full"}, 0.02),
    ("llama", "pure_bf16", {"finetuning_type": "full"}, 0.02),
]


def model_of(architecture: str, dtype: torch.dtype) -> Any:
    config = AutoConfig.for_model(
        architecture, vocab_size=512, hidden_size=128, intermediate_size=352, num_hidden_layers=3, head_dim=32,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")


def saved_bytes(model: Any, autocast: bool) -> int:
    """Bytes of all storages that one forward pass saves, beside the model's own."""
    ids = list(range(3, 3 + TOKENS))
    batch = collate([Sample(ids, [-100] * (TOKENS - LABELS) + ids[-LABELS:])] * SAMPLES, 0)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    loss_of = LabelLoss(model).train()
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        loss_of(batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(("architecture", "compute", "given", "off"), CASES, ids=str)
def test_the_formula_is_what_autograd_saves(architecture: str, compute: str, given: dict[str, Any], off: float) -> None:
    settings = TrainSettings.model_validate(given)
    whole = settings.finetuning_type == "full"
    mixed = compute == "bf16" and whole
    model = model_of(architecture, torch.float32 if mixed else DTYPES[compute])
    fuse_norms(model)
    size = model_size(model.config.to_dict(), {name: ("F32", list(p.shape)) for name, p in model.named_parameters()})
    assert size is not None
    one_node = False
    if not whole:
        targets = LINEAR if settings.lora_target == ("all",) else list(settings.lora_target)
        adapter = LoraConfig(task_type="CAUSAL_LM", r=settings.lora_rank, lora_dropout=settings.lora_dropout,
                             use_dora=settings.use_dora, target_modules=targets)  # fmt: skip
        model = get_peft_model(model, adapter, autocast_adapter_dtype=compute != "pure_bf16")
        one_node = speed_up(model)
    counted = saved_bytes(model, compute == "bf16" and not one_node)
    footprint = Footprint(size, settings, compute, "cpu")
    expected = footprint.saved(SAMPLES * TOKENS, SAMPLES * LABELS, checkpointed=False)
    if compute == "bf16":  # the copies of what is trained are parts of their own
        expected += 2 * (size.in_layers if whole else footprint.trained())
    assert expected == pytest.approx(counted, rel=off)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert footprint.trained() == trained


def test_the_size_read_from_a_folder_is_the_models(tmp_path: Path) -> None:
    model = model_of("qwen3", torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    size = read_model_size(tmp_path)
    assert size is not None
    assert size.parameters == model.num_parameters()
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
