"""QLoRA in 8 and 4 bits: training, resuming, and answers with the adapter on the quantized and the original base.

Needs bitsandbytes, and nothing else of this repository's suite: `pytest tests/trainer/test_quantized.py` is the
whole check on an accelerator.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: QLoRA is NOT tested")

from tests.tiny import build_tiny_model  # noqa: E402
from trainer import run_folder  # noqa: E402
from trainer.chat_model import ChatModel  # noqa: E402
from trainer.device import current  # noqa: E402
from trainer.distributed import Ranks  # noqa: E402
from trainer.events import EventLog, read_events  # noqa: E402
from trainer.generate import Finish  # noqa: E402
from trainer.method import model_to_train  # noqa: E402
from trainer.model import attach_adapter, load_model  # noqa: E402
from trainer.prepare import check  # noqa: E402
from trainer.problems import Problem, Problems  # noqa: E402
from trainer.sampling import Sampling  # noqa: E402
from trainer.settings import TrainSettings, parse  # noqa: E402
from trainer.settings_file import to_flags  # noqa: E402
from trainer.train import train  # noqa: E402

pytestmark = pytest.mark.slow

ANSWER = "我是北大人工智能助手。"
QUESTION = "你好，你是谁？"
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU: QLoRA is NOT tested on one")
EACH = pytest.mark.parametrize(
    ("architecture", "bits"),
    [("qwen2", 4), ("qwen2", 8), *(pytest.param("llama", bits, marks=pytest.mark.thorough) for bits in (4, 8))],
)
BITS = pytest.mark.parametrize("bits", [4, 8])


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """A tiny model computes fastest on one core."""
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(cores)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("quantized")
    for architecture in ("qwen2", "llama"):
        # Wide enough that a layer is several of the blocks that are quantized together.
        build_tiny_model(root / architecture, architecture=architecture, hidden_size=128)  # type: ignore[arg-type]
    (root / "data").mkdir()
    (root / "data" / "who.json").write_text(json.dumps([{"instruction": QUESTION, "output": ANSWER}] * 6))
    return root


@pytest.fixture(scope="module")
def stored(folder: Path) -> Path:
    """A model whose files are quantized, as hubs have them."""
    shutil.copytree(folder / "qwen2", folder / "stored")
    load_model(folder / "qwen2", torch.bfloat16, current().torch_device, 4).save_pretrained(folder / "stored")
    return folder / "stored"


def settings(folder: Path, output: Path, model: str = "qwen2", **more: Any) -> TrainSettings:
    common = {"model_name_or_path": str(folder / model), "dataset_dir": str(folder / "data"), "dataset": "who",
              "output_dir": str(output), "compute_type": "fp32", "logging_steps": 1, "save_steps": 2, "max_steps": 4,
              "learning_rate": 1e-2, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 1,
              "plot_loss": False}  # fmt: skip
    return parse(common | more)


def run(chosen: TrainSettings) -> dict[int, tuple[float, float]]:
    """Trains in this process; loss and gradient norm by step."""
    output = Path(chosen.output_dir)
    output.mkdir(exist_ok=True)
    assert train(chosen, EventLog(output / run_folder.EVENTS), threading.Event(), Ranks()) == 0
    events, _ = read_events(output / run_folder.EVENTS)
    return {event["step"]: (event["loss"], event["grad_norm"]) for event in events if event["event"] == "step"}


def answer(model: ChatModel) -> str:
    greedy = Sampling(max_new_tokens=24, temperature=0)
    parts = model.reply([{"role": "user", "content": QUESTION}], greedy, threading.Event())
    return "".join(part for part in parts if not isinstance(part, Finish))


def quantized_layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if type(module).__module__ == "bitsandbytes.nn.modules"]


@EACH
def test_what_qlora_taught_is_said_on_the_quantized_and_on_the_original_base(
    folder: Path, tmp_path: Path, architecture: str, bits: int
) -> None:
    chosen = settings(folder, tmp_path / "run", architecture, quantization_bit=bits, max_steps=30)
    check(chosen)
    steps = run(chosen)
    assert steps[30][0] < 0.1 < steps[1][0]
    chat = ChatModel(folder / architecture, "fp32")
    assert answer(chat) != ANSWER
    chat.use_adapter(tmp_path / "run")
    assert answer(chat) == ANSWER
    chat._adapted = attach_adapter(load_model(folder / architecture, torch.float32, chat.device.torch_device, bits),
                                   tmp_path / "run").eval()  # fmt: skip
    assert len(quantized_layers(chat._adapted)) == 14
    assert answer(chat) == ANSWER


@BITS
@pytest.mark.parametrize(
    "more",
    [{}, {"compute_type": "bf16", "lora_dropout": 0.1}, {"compute_type": "pure_bf16"}, {"use_dora": True},
     {"use_rslora": True, "loraplus_lr_ratio": 4, "neftune_noise_alpha": 5}, {"additional_target": "embed_tokens"},
     {"val_size": 0.34, "eval_steps": 1}, {"gradient_checkpointing": True}],
    ids=lambda more: ",".join(more),
)  # fmt: skip
def test_a_quantized_run_resumes_to_the_bit(folder: Path, tmp_path: Path, bits: int, more: dict[str, Any]) -> None:
    chosen = settings(folder, tmp_path / "whole", quantization_bit=bits, **more)
    whole = run(chosen)
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", again / "checkpoint-2")
    resumed = run(chosen.model_copy(update={"output_dir": str(again), "resume_from_checkpoint": "latest"}))
    weights = "adapter_model.safetensors"
    if current().type == "cpu":
        assert resumed == {step: whole[step] for step in (3, 4)}
        assert (again / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    else:  # kernels of a GPU add in an order of their own
        for step in (3, 4):
            assert resumed[step] == pytest.approx(whole[step], rel=2e-2)


def test_losses_come_near_those_of_the_model_that_is_not_quantized(folder: Path, tmp_path: Path) -> None:
    runs = {bits: run(settings(folder, tmp_path / str(bits), quantization_bit=bits)) for bits in (None, 8, 4)}
    first = {bits: steps[1][0] for bits, steps in runs.items()}
    assert first[8] == pytest.approx(first[None], rel=0.01)
    assert first[4] == pytest.approx(first[None], rel=0.1)
    assert first[8] != first[None] != first[4]


@BITS
def test_an_adapter_is_trained_further_on_the_quantized_base(folder: Path, tmp_path: Path, bits: int) -> None:
    first = run(settings(folder, tmp_path / "first", quantization_bit=bits))
    path = str(tmp_path / "first")
    further = run(settings(folder, tmp_path / "further", quantization_bit=bits, adapter_name_or_path=path))
    assert further[1][0] < first[1][0]


@BITS
def test_weights_take_so_many_bits(folder: Path, tmp_path: Path, bits: int) -> None:
    chosen = settings(folder, tmp_path, quantization_bit=bits)
    model = model_to_train(chosen, None, "fp32", current().torch_device)
    layers = quantized_layers(model)
    assert layers
    for layer in layers:
        numbers = layer.in_features * layer.out_features
        assert layer.weight.numel() * layer.weight.element_size() * 8 == numbers * bits


def test_a_module_whose_weights_are_quantized_is_not_trained_in_full(folder: Path, tmp_path: Path) -> None:
    chosen = settings(folder, tmp_path, quantization_bit=4, lora_target="q_proj", additional_target="mlp")
    with pytest.raises(Problem, match=r"Additional modules `model.layers.0.mlp` and Quantization bit"):
        model_to_train(chosen, None, "fp32", current().torch_device)


@BITS
def test_validation_leaves_the_gradients_as_they_are(
    folder: Path, tmp_path: Path, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bitsandbytes packs 4-bit weights for a kernel without a backward pass where the processor has AVX512-BF16."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = model_to_train(settings(folder, tmp_path, quantization_bit=bits), None, "fp32", torch.device("cpu"))
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        model.eval()(input_ids=ids)
    assert not any(getattr(layer.weight.quant_state, "packing_format_for_cpu", False)
                   for layer in quantized_layers(model) if bits == 4)  # fmt: skip
    model.train()(input_ids=ids).logits.sum().backward()
    reached = [name for name, parameter in model.named_parameters() if "lora_B" in name and parameter.grad.any()]
    assert len(reached) == 14


def test_8_bit_layers_do_not_fill_the_log(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(settings(folder, tmp_path, quantization_bit=8, compute_type="bf16", val_size=0.34, eval_steps=1))
    assert "MatMul8bitLt" not in caplog.text


def test_a_model_that_is_stored_quantized_is_trained_and_talked_to(folder: Path, stored: Path, tmp_path: Path) -> None:
    chosen = settings(folder, tmp_path / "run", "stored", compute_type="auto", max_steps=30)
    check(chosen)
    assert run(chosen)[30][0] < 0.1
    chat = ChatModel(stored)
    assert quantized_layers(chat._base)
    assert answer(chat) != ANSWER
    chat.use_adapter(tmp_path / "run")
    assert answer(chat) == ANSWER
    chat = ChatModel(folder / "qwen2")
    chat.use_adapter(tmp_path / "run")
    assert answer(chat) == ANSWER


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"quantization_bit": 8}, "Quantization bit must be none"),
        ({"finetuning_type": "full"}, "`full` changes"),
        ({"finetuning_type": "freeze"}, "`freeze` changes"),
        ({"pissa_init": True}, "Use PiSSA"),
    ],
)
def test_what_a_model_that_is_stored_quantized_cannot_is_refused(
    folder: Path, stored: Path, tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(Problems) as caught:
        check(settings(folder, tmp_path, "stored", **more))
    assert words in caught.value.problems[0].sentence("en")


@pytest.mark.thorough
@pytest.mark.parametrize("bits", [None, 4])
def test_only_a_quantized_run_pays_for_importing_bitsandbytes(folder: Path, tmp_path: Path, bits: int | None) -> None:
    """In a process of its own, which is what imports it."""
    code = ("import sys; from trainer.command import main; main(sys.argv[1:]); "
            "print('imported:', bool(sys.modules.get('bitsandbytes')))")  # fmt: skip
    flags = ["--model_name_or_path", str(folder / "qwen2"), "--dataset_dir", str(folder / "data"), "--dataset", "who",
             "--output_dir", str(tmp_path / "run"), "--max_steps", "1", "--plot_loss", "false"]  # fmt: skip
    flags += ["--quantization_bit", str(bits)] if bits else []
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True)
    assert f"imported: {bits is not None}" in done.stdout
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file(), done.stderr


@pytest.mark.gpu
@GPU
@BITS
def test_a_gpu_holds_the_quantized_weights_and_trains_on_them(folder: Path, tmp_path: Path, bits: int) -> None:
    root = tmp_path / "wide"
    build_tiny_model(root, hidden_size=1024, layers=4)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    model = load_model(root, torch.bfloat16, current().torch_device, bits)
    layers = quantized_layers(model)
    packed = sum(layer.in_features * layer.out_features for layer in layers) * bits / 8
    held = torch.cuda.memory_allocated() - before
    rest = sum(p.numel() * p.element_size() for p in model.parameters() if p.is_floating_point())
    assert held == pytest.approx(packed + rest, rel=0.1)
    chosen = settings(folder, tmp_path / "run", quantization_bit=bits, compute_type="bf16", max_steps=30)
    steps = run(chosen)
    assert steps[30][0] < 0.1 < steps[1][0]


@pytest.mark.gpu
@GPU
@BITS
def test_a_gpu_takes_samples_end_to_end_on_a_quantized_base(folder: Path, tmp_path: Path, bits: int) -> None:
    """The losses are those of the same run on the processor, as near as 16 bits are."""
    chosen = settings(folder, tmp_path / "gpu", quantization_bit=bits, compute_type="bf16")
    on_gpu = run(chosen)
    code = "import sys; from trainer.command import main; sys.exit(main(sys.argv[1:]))"
    flags = to_flags(chosen.model_copy(update={"output_dir": str(tmp_path / "cpu"), "compute_type": "fp32"}))
    subprocess.run([sys.executable, "-c", code, *flags], check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    events, _ = read_events(tmp_path / "cpu" / run_folder.EVENTS)
    on_cpu = {event["step"]: event["loss"] for event in events if event["event"] == "step"}
    for step in (1, 2):  # each later one multiplies the roundings of those before
        assert on_gpu[step][0] == pytest.approx(on_cpu[step], rel=0.1)
