"""Training methods: each resumes to the bit, and what it saves gives the trained model on the original base."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.tiny import LINEAR, build_tiny_adapter, build_tiny_model  # noqa: E402
from tests.trainer.test_batching import samples  # noqa: E402
from trainer import batching, run_folder  # noqa: E402
from trainer.accelerators import Accelerator  # noqa: E402
from trainer.adapter import save_adapter  # noqa: E402
from trainer.device import Device  # noqa: E402
from trainer.distributed import Ranks  # noqa: E402
from trainer.events import EventLog, read_events  # noqa: E402
from trainer.loss import LabelLoss  # noqa: E402
from trainer.method import CPU, draws_random_numbers, model_to_train  # noqa: E402
from trainer.model import attach_adapter, load_model  # noqa: E402
from trainer.neftune import Neftune  # noqa: E402
from trainer.optimizer import adamw, groups  # noqa: E402
from trainer.prepare import check_model  # noqa: E402
from trainer.problems import Problem, Problems  # noqa: E402
from trainer.settings import TrainSettings, parse  # noqa: E402
from trainer.train import train  # noqa: E402

pytestmark = pytest.mark.slow

LORA: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True, "lora_rank": 9, "lora_alpha": 7},
    "dora": {"use_dora": True},
    "pissa": {"pissa_init": True},
    "pissa-rslora-dora": {"pissa_init": True, "use_rslora": True, "use_dora": True, "lora_rank": 6},
    "additional": {"additional_target": "embed_tokens,lm_head"},
    "stacked": {"create_new_adapter": True},
    "stacked-pissa": {"create_new_adapter": True, "pissa_init": True, "lora_alpha": 5},
    "stacked-dora": {"create_new_adapter": True, "use_dora": True},
    "continued": {"lora_rank": 4},
}
METHODS = LORA | {
    "pissa-pure": {"pissa_init": True, "compute_type": "pure_bf16"},
    "stacked-bf16": {"create_new_adapter": True, "compute_type": "bf16", "lora_dropout": 0.1},
    "loraplus": {"loraplus_lr_ratio": 16, "weight_decay": 0.01, "use_dora": True},
    "neftune": {"neftune_noise_alpha": 5},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "freeze_extra_modules": "norm,lm_head"},
    "freeze-bf16": {"finetuning_type": "freeze", "freeze_trainable_layers": -1, "compute_type": "bf16",
                    "freeze_trainable_modules": "mlp,q_proj", "neftune_noise_alpha": 3},
}  # fmt: skip
GIVEN = ("stacked", "continued")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """A tiny model computes fastest on one core."""
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(cores)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("methods") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    return build_tiny_adapter(base.parent / "adapter", base)


@pytest.fixture(scope="module")
def data(base: Path) -> Path:
    rows = [{"instruction": f"你好{'？' * (n % 5)}", "output": f"我是助手{'！' * (n % 7)}"} for n in range(12)]
    (base.parent / "data").mkdir()
    (base.parent / "data" / "who.json").write_text(json.dumps(rows))
    return base.parent / "data"


def settings(base: Path, adapter: Path, name: str, **more: Any) -> TrainSettings:
    given = {"adapter_name_or_path": str(adapter)} if name.startswith(GIVEN) else {}
    return parse({"model_name_or_path": str(base), "compute_type": "fp32", **given, **METHODS[name], **more})


def logits(model: Any) -> Any:
    ids = torch.randint(3, 200, (2, 11), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def train_somewhat(model: Any) -> None:
    """Moves every trained weight, by as much as a long training would."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("name", LORA)
def test_the_saved_adapter_gives_the_trained_model_on_the_original_base(
    base: Path, adapter: Path, tmp_path: Path, name: str
) -> None:
    torch.manual_seed(0)
    model = model_to_train(settings(base, adapter, name), None, "fp32", CPU)
    plain = load_model(base, torch.float32, CPU)
    start = attach_adapter(load_model(base, torch.float32, CPU), adapter) if name.startswith(GIVEN) else plain
    torch.testing.assert_close(logits(model), logits(start), rtol=1e-4, atol=1e-4)
    train_somewhat(model)
    save_adapter(model, tmp_path / "saved")
    trained = logits(model)
    assert not torch.allclose(trained, logits(start), atol=0.1)
    torch.testing.assert_close(logits(attach_adapter(plain, tmp_path / "saved")), trained, rtol=1e-3, atol=1e-3)


def run(base: Path, data: Path, adapter: Path, name: str, folder: Path, **more: Any) -> dict[int, Any]:
    """Trains in this process; loss and gradient norm by step."""
    folder.mkdir(exist_ok=True)
    values = {"dataset_dir": str(data), "dataset": "who", "output_dir": str(folder), "logging_steps": 1, "save_steps": 2,
              "max_steps": 4, "learning_rate": 3e-3, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 1,
              "plot_loss": False}  # fmt: skip
    chosen = settings(base, adapter, name, **values, **more)
    assert train(chosen, EventLog(folder / run_folder.EVENTS), threading.Event(), Ranks()) == 0
    events, _ = read_events(folder / run_folder.EVENTS)
    return {event["step"]: (event["loss"], event["grad_norm"]) for event in events if event["event"] == "step"}


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("dora", "pissa", "stacked-dora")])
def test_every_method_resumes_to_the_bit(base: Path, data: Path, adapter: Path, tmp_path: Path, name: str) -> None:
    whole = run(base, data, adapter, name, tmp_path / "whole")
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", again / "checkpoint-2")
    resumed = run(base, data, adapter, name, again, resume_from_checkpoint="latest")
    assert resumed == {step: whole[step] for step in (3, 4)}
    weights = "model.safetensors" if "freeze" in name else "adapter_model.safetensors"
    assert (again / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


def test_freezing_trains_what_it_says_and_nothing_else(base: Path, data: Path, adapter: Path, tmp_path: Path) -> None:
    run(base, data, adapter, "freeze-bf16", tmp_path / "run")
    before, after = (load_model(folder, torch.bfloat16, CPU).state_dict() for folder in (base, tmp_path / "run"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".layers.0." in name and ("mlp" in name or "q_proj" in name) for name in changed), changed


def test_tied_output_layer_is_trained_by_its_own_name(base: Path, adapter: Path) -> None:
    model = model_to_train(settings(base, adapter, "freeze"), None, "fp32", CPU)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= trained
    assert not any(".layers.0." in name for name in trained)


@pytest.mark.parametrize("stored", ["bfloat16", "float32"])
def test_what_is_to_be_sharded_is_read_as_it_is_stored(base: Path, adapter: Path, tmp_path: Path, stored: str) -> None:
    """A copy in another type would be in memory once for each process."""
    load_model(base, getattr(torch, stored), CPU).save_pretrained(tmp_path)
    chosen = settings(tmp_path, adapter, "freeze").model_copy(update={"finetuning_type": "full"})
    for as_stored, expected in ((True, stored), (False, "float32")):
        model = model_to_train(chosen, None, "bf16", CPU, as_stored)
        assert {str(parameter.dtype) for parameter in model.parameters()} == {f"torch.{expected}"}


def test_loraplus_moves_the_b_matrices_so_many_times_as_fast(base: Path, adapter: Path) -> None:
    chosen = settings(base, adapter, "rslora", loraplus_lr_ratio=16, learning_rate=1e-3)
    model = model_to_train(chosen, None, "fp32", CPU)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = adamw(model, chosen)
    assert optimizer.param_groups[0]["lr"] == 1e-3, "the rate that is logged"
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    for name, parameter in model.named_parameters():
        moved = (parameter - before[name]).abs().max().item()
        assert moved == pytest.approx(1.6e-2 if "lora_B" in name else 1e-3 if "lora_A" in name else 0, rel=1e-3)
    assert len(groups(model, settings(base, adapter, "rslora", weight_decay=0.1))) == 1


class _Embeds(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(512, 32)

    def forward(self, batch: batching.Batch) -> Any:
        return self.embedding(batch.input_ids)


def test_noise_is_as_strong_as_a_samples_own_tokens_say_however_it_is_batched() -> None:
    model = _Embeds()
    plain = _Embeds()
    plain.load_state_dict(model.state_dict())
    Neftune(model, model.embedding, 5.0)
    chosen = samples(6)
    for batch in (batching.collate(chosen, 0), batching.flatten(chosen)):
        noise = (model.train()(batch) - plain(batch)).detach()
        parts = noise if batch.starts is None else noise[0].split(list(batch.lengths))
        for sample, part in zip(chosen, parts, strict=True):
            most = 5.0 / (len(sample.input_ids) * 32) ** 0.5
            found = part[: len(sample.input_ids)].abs().max().item()
            assert 0.9 * most < found <= most * 1.0001
        assert torch.equal(model.eval()(batch), plain(batch))


def test_noise_reaches_the_embeddings_of_a_real_model(base: Path, adapter: Path) -> None:
    for name in ("dora", "additional", "freeze"):
        model = model_to_train(settings(base, adapter, name), None, "fp32", CPU)
        loss_of = LabelLoss(model).train()
        batch = batching.collate(samples(4), 0)
        Neftune(loss_of, model.get_input_embeddings(), 5.0)
        assert loss_of(batch).item() != loss_of(batch).item()
        assert loss_of.eval()(batch).item() == loss_of(batch).item()


def test_dropout_of_a_continued_adapter_counts_as_randomness(base: Path, adapter: Path, tmp_path: Path) -> None:
    from tests.tiny import edit_json

    assert not draws_random_numbers(model_to_train(settings(base, adapter, "dora"), None, "fp32", CPU))
    shutil.copytree(adapter, tmp_path / "adapter")
    edit_json(tmp_path / "adapter" / "adapter_config.json", lora_dropout=0.1)
    assert draws_random_numbers(model_to_train(settings(base, tmp_path / "adapter", "continued"), None, "fp32", CPU))


def test_all_stands_for_every_linear_layer_beside_others(base: Path) -> None:
    chosen = parse({"model_name_or_path": str(base), "lora_target": "all,lm_head"})
    names = {name.split(".lora_A")[0] for name, _ in model_to_train(chosen, None, "fp32", CPU).named_parameters()
             if "lora_A" in name}  # fmt: skip
    assert {name.rsplit(".", 1)[-1] for name in names} == {*LINEAR, "lm_head"}


@pytest.mark.parametrize(
    ("architecture", "shape", "layers"),
    [
        (
            "gpt2",
            {"n_embd": 64, "n_layer": 2, "n_head": 4},
            {"c_attn", "c_proj", "c_fc"},
        ),  # their weights are (in, out)
        ("gemma2", {}, set(LINEAR)),  # torch's attention kernel is not for its capped scores
    ],
)
def test_families_of_another_make_are_trained_as_well(
    architecture: Any, shape: dict[str, int], layers: set[str], tmp_path: Path
) -> None:
    folder = build_tiny_model(tmp_path / "model", architecture=architecture, **shape)
    model = model_to_train(parse({"model_name_or_path": str(folder)}), None, "fp32", CPU)
    assert {name.split(".lora_A")[0].rsplit(".", 1)[-1] for name, _ in model.named_parameters()
            if "lora_A" in name} == layers  # fmt: skip
    LabelLoss(model)(batching.collate(samples(2), 0)).backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in model.parameters() if one.requires_grad)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"create_new_adapter": True, "lora_target": "q_proj"}, "leaves out"),
        ({"pissa_init": True, "lora_rank": 100, "create_new_adapter": True}, "has rank 32"),
        ({"pissa_init": True, "create_new_adapter": True, "lora_target": "q_proj,k_proj,v_proj,o_proj,up_proj,"
          "gate_proj,down_proj,embed_tokens"}, "embed_tokens is none"),
        ({"create_new_adapter": True, "additional_target": "mlp"}, "LoRA modules"),
        ({"create_new_adapter": True, "additional_target": "mlp.q_proj"}, "no module named mlp.q_proj"),
        ({"create_new_adapter": True, "lora_target": "mlp.q_proj"}, "mlp.q_proj is no layer"),
    ],
)  # fmt: skip
def test_what_cannot_be_exact_is_refused_in_words(base: Path, adapter: Path, more: dict[str, Any], words: str) -> None:
    chosen = parse({"model_name_or_path": str(base), "adapter_name_or_path": str(adapter), **more})
    with pytest.raises(Problem, match=words):
        model_to_train(chosen, None, "fp32", CPU)


def test_a_dora_adapter_is_not_stacked_on(base: Path, adapter: Path, tmp_path: Path) -> None:
    save_adapter(model_to_train(settings(base, adapter, "dora"), None, "fp32", CPU), tmp_path)
    with pytest.raises(Problem, match="more than plain LoRA"):
        model_to_train(settings(base, tmp_path, "stacked"), None, "fp32", CPU)
    with pytest.raises(Problem, match="more than plain LoRA"):
        check_model(settings(base, tmp_path, "stacked"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lora_target": "no_such_layer"}, "no_such_layer"),
        ({"lora_target": "q_proj,norm"}, "norm is no layer"),
        ({"lora_target": "self_attn"}, "self_attn is no layer"),
        ({"dataset_dir": "d" * 300}, "too long"),
        ({"output_dir": "d\0d"}, "d?d"),
        ({"additional_target": "lm_haed"}, "lm_haed"),
        ({"additional_target": "all"}, "no module named all"),
        ({"finetuning_type": "freeze", "freeze_trainable_modules": "mpl"}, "mpl"),
        ({"finetuning_type": "freeze", "freeze_extra_modules": "nrom"}, "nrom"),
        ({"finetuning_type": "freeze", "freeze_extra_modules": "all"}, "no module named all"),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": -3}, "2 layers"),
        ({"create_new_adapter": True}, "Checkpoint path"),
        ({"pissa_init": True, "lora_rank": 100}, "has rank 32"),
        ({"additional_target": "mlp"}, "`mlp` and LoRA modules"),
        ({"additional_target": "q_proj", "lora_target": "v_proj,q_proj"}, "`q_proj` and LoRA modules"),
        ({"additional_target": "mlp", "lora_target": "q_proj", "quantization_bit": 4}, "`mlp` and Quantization bit"),
        (
            {"create_new_adapter": True, "adapter_name_or_path": "ADAPTER", "lora_target": "q_proj"},
            "leaves out down_proj",
        ),
        ({"compute_type": "fp16"}, "fp16 does not work on"),
        ({"use_rslora": True, "adapter_name_or_path": "ADAPTER"}, "Use rslora"),
        ({"additional_target": "lm_head", "adapter_name_or_path": "ADAPTER"}, "Create new adapter"),
        ({"lora_rank": 16, "adapter_name_or_path": "ADAPTER"}, "has `4`"),
        ({"lora_target": "q_proj", "adapter_name_or_path": "ADAPTER"}, "v_proj"),
    ],
)
def test_what_the_model_or_machine_lacks_is_said_before_anything_starts(
    base: Path, data: Path, adapter: Path, tmp_path: Path, values: dict[str, Any], words: str
) -> None:
    from trainer.prepare import check

    values = {key: str(adapter) if value == "ADAPTER" else value for key, value in values.items()}
    common = {"model_name_or_path": str(base), "dataset_dir": str(data), "dataset": "who", "output_dir": str(tmp_path)}
    with pytest.raises(Problems) as caught:
        check(parse(common | values))
    assert words in caught.value.problems[0].sentence("en")
    check(parse(common | {"lora_target": "q_proj,v_proj", "additional_target": "lm_head,embed_tokens"}))


@pytest.mark.parametrize(
    ("installed", "kind", "words"),
    [
        (None, "cuda", "not installed"),
        ("0.47.9", "cuda", "0.48 or newer"),
        ("0.50.2", "npu", "does not run on this machine"),
    ],
)
def test_quantization_is_refused_with_the_reason_where_it_does_not_run(
    base: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: str | None,
    kind: str,
    words: str,
) -> None:
    from trainer import quantization
    from trainer.prepare import check

    def version(name: str) -> str:
        assert name == "bitsandbytes"
        if installed is None:
            raise quantization.importlib.metadata.PackageNotFoundError
        return installed

    monkeypatch.setattr(quantization.importlib.metadata, "version", version)
    monkeypatch.setattr(quantization, "accelerators", lambda: [Accelerator(kind, "0", "", 1, 1)])
    chosen = {"model_name_or_path": str(base), "dataset_dir": str(data), "dataset": "who", "output_dir": str(tmp_path)}
    check(parse(chosen))
    with pytest.raises(Problems) as caught:
        check(parse(chosen | {"quantization_bit": 4}))
    assert words in caught.value.problems[0].sentence("en")
    assert caught.value.problems[0].sentence("zh").startswith("量化等级：4 ")
    monkeypatch.setattr(quantization, "accelerators", list)
    monkeypatch.setattr(quantization.importlib.metadata, "version", lambda _: "0.48.0")
    check(parse(chosen | {"quantization_bit": 4}))


@pytest.mark.parametrize("method", [{}, {"finetuning_type": "full"}, {"finetuning_type": "freeze"}])
def test_fp16_makes_a_step_again_that_overflowed_and_so_follows_fp32(
    base: Path, data: Path, adapter: Path, tmp_path: Path, method: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "compute_types", lambda self: ["fp16", "fp32"])  # slow on a processor, but it works
    monkeypatch.setitem(METHODS, "plain", method)
    half, whole = (run(base, data, adapter, "plain", tmp_path / kind, compute_type=kind) for kind in ("fp16", "fp32"))
    assert half.keys() == whole.keys()
    for step, (loss, norm) in whole.items():
        assert half[step] == (pytest.approx(loss, rel=5e-3), pytest.approx(norm, rel=2e-2))
