"""DeepSpeed's stages 2 and 3 (two gloo processes, on the processor): the steps of one process, checkpoints that any
run goes on from, and what they cannot do refused by name."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.tiny import build_hollow_model
from tests.trainer.test_distributed import SETTINGS, in_one_process
from tests.trainer.test_estimate import H200, of, qwen
from tests.trainer.test_train import ONE_THREAD, command, data, finished, model, steps
from trainer import deepspeed_config, run_folder
from trainer.prepare import absolute, check
from trainer.problems import Problem, Problems
from trainer.settings import parse, shown

__all__ = ["data", "model"]  # fixtures

lacking = deepspeed_config.missing()
with_deepspeed = pytest.mark.skipif(lacking is not None, reason=f"NOT TESTED: ZeRO stages 2 and 3 need {lacking}")

# A tiny model's tensors would all be too small to be cut, and all go in one bucket.
SMALL_BUCKETS = {"stage3_param_persistence_threshold": 10, "stage3_prefetch_bucket_size": 5000,
                 "reduce_bucket_size": 5000, "allgather_bucket_size": 5000}  # fmt: skip
HOST = {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
KINDS: dict[str, dict[str, Any]] = {
    "lora-2": {"deepspeed": "2"},
    "lora-3": {"deepspeed": "small-3.json", "gradient_checkpointing": "false"},
    "full-2": {"finetuning_type": "full", "deepspeed": "small-2.json", "weight_decay": 0.01},
    "full-3": {"finetuning_type": "full", "deepspeed": "small-3.json", "weight_decay": 0.01},
    "host-2": {"finetuning_type": "full", "deepspeed": "2", "ds_offload": "true", "weight_decay": 0.01},
    "dora-3": {"deepspeed": "host-3.json", "use_dora": "true", "pissa_init": "true", "additional_target": "norm",
               "loraplus_lr_ratio": 4},
    "freeze-3": {"finetuning_type": "freeze", "deepspeed": "3", "freeze_trainable_layers": 1,
                 "freeze_extra_modules": "embed_tokens"},
}  # fmt: skip
# One process keeps the residual stream of a whole model in fp32: the same run only roughly.
IN_16_BITS: dict[str, dict[str, Any]] = {
    "bf16-2": {"finetuning_type": "full", "deepspeed": "2", "compute_type": "bf16", "ds_offload": "true"},
    "bf16-3": {"deepspeed": "small-3.json", "compute_type": "bf16"},
}
FROM_ONE, RESUMED = ("full-2", "dora-3"), ("full-2", "full-3", "dora-3", "bf16-2", "bf16-3")


def write(path: Path, stage: Any = 2, more: dict[str, Any] | None = None, **zero: Any) -> Path:
    """A configuration as LLaMA-Factory's examples are."""
    file = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "fp16": {"enabled": "auto", "loss_scale": 0, "initial_scale_power": 16, "min_loss_scale": 1},
        "bf16": {"enabled": "auto"},
        "zero_optimization": {"stage": stage, "contiguous_gradients": True, "reduce_bucket_size": "auto", **zero},
    }
    path.write_text(json.dumps(file | (more or {})))
    return path


def alone(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in ("deepspeed", "ds_offload")}


@pytest.fixture(scope="module")
def trained(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind by one process (one-…) and by two (two-…); some by two from their own checkpoint (again-…), and by
    three from a checkpoint of one (three-…)."""
    folder = tmp_path_factory.mktemp("runs")
    write(folder / "small-2.json", 2, **SMALL_BUCKETS)
    write(folder / "small-3.json", 3, **SMALL_BUCKETS)
    write(folder / "host-3.json", 3, **SMALL_BUCKETS, **HOST)
    files: dict[int, list[str]] = {2: [], 3: []}
    for kind, settings in (KINDS | IN_16_BITS).items():
        one = folder / f"one-{kind}"
        in_one_process(command(model, data, one, **SETTINGS, **alone(settings), gradient_accumulation_steps=4))
        if settings["deepspeed"].endswith("json"):
            settings = settings | {"deepspeed": folder / settings["deepspeed"]}
        runs: dict[str, dict[str, Any]] = {
            "two": {},
            "again": {"resume_from_checkpoint": folder / f"two-{kind}" / "checkpoint-5"},
            "three": {"resume_from_checkpoint": one / "checkpoint-5"},
        }
        for name, more in runs.items():
            if (name == "three" and kind not in FROM_ONE) or (name == "again" and kind not in RESUMED):
                continue
            words = command(model, data, folder / f"{name}-{kind}", **SETTINGS, **settings, **more,
                            gradient_accumulation_steps=2)[3:]  # fmt: skip
            file = folder / f"{name}-{kind}.yaml"
            file.write_text("\n".join(word.replace("=", ": ", 1) for word in words))
            files[3 if name == "three" else 2].append(str(file))
    for count, some in files.items():
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        done = subprocess.run([*torchrun, "-m", "tests.trainer.two_with_trials", *some], cwd=ROOT, env=ONE_THREAD,
                              capture_output=True, text=True, timeout=250, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
    return folder


@with_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"), [*(("two", kind) for kind in KINDS | IN_16_BITS), *(("three", kind) for kind in FROM_ONE)]
)
def test_several_processes_take_the_steps_of_one(trained: Path, name: str, kind: str) -> None:
    one, two = steps(trained / f"one-{kind}"), steps(trained / f"{name}-{kind}")
    assert list(two) == list(range(1 if name == "two" else 6, 13))
    near = 5e-2 if kind in IN_16_BITS else 1e-5
    for step, values in two.items():
        assert values == pytest.approx(one[step], rel=near)
    ends = [finished(trained / f"{who}-{kind}")["eval_loss"] for who in (name, "one")]
    assert ends[0] == pytest.approx(ends[1], rel=near)


@with_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("kind", RESUMED)
def test_a_resumed_run_takes_the_very_steps(trained: Path, kind: str) -> None:
    whole, resumed = steps(trained / f"two-{kind}"), steps(trained / f"again-{kind}")
    assert resumed == {step: values for step, values in whole.items() if step > 5}


@with_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS | IN_16_BITS)
def test_what_two_processes_save_is_what_one_saves(trained: Path, kind: str) -> None:
    import torch
    from safetensors.torch import load_file

    [name] = [name for name in run_folder.WEIGHT_FILES if (trained / f"one-{kind}" / name).exists()]
    one, two = load_file(trained / f"one-{kind}" / name), load_file(trained / f"two-{kind}" / name)
    assert {key: (tensor.shape, tensor.dtype) for key, tensor in two.items()} == {
        key: (tensor.shape, tensor.dtype) for key, tensor in one.items()
    }
    for key, tensor in one.items() if kind in KINDS else ():
        torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-5)
    assert run_folder.is_resumable(run_folder.checkpoints(trained / f"two-{kind}")[-1])


@with_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("kind", FROM_ONE)
def test_one_process_goes_on_without_deepspeed(trained: Path, model: Path, data: Path, kind: str) -> None:
    back = trained / f"back-{kind}"
    more = {"gradient_accumulation_steps": 4, "resume_from_checkpoint": trained / f"two-{kind}" / "checkpoint-5"}
    in_one_process(command(model, data, back, **SETTINGS, **alone(KINDS[kind]), **more))
    assert max(steps(back)) == SETTINGS["max_steps"]
    for step, values in steps(back).items():
        assert values == pytest.approx(steps(trained / f"one-{kind}")[step], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", [-1.0, float("inf"), float("nan")])
def test_a_step_that_deepspeed_would_pass_over_ends_the_run(norm: float) -> None:
    from trainer.deepspeed import Zero

    zero = object.__new__(Zero)
    zero._engine = SimpleNamespace(step=lambda: None, get_global_grad_norm=lambda: norm)
    with pytest.raises(Problem, match="step 7"):
        zero.step(7)


@with_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("processes", ["", "2"])
def test_the_command_starts_it_and_the_log_stays_readable(
    model: Path, data: Path, tmp_path: Path, processes: str
) -> None:
    run = tmp_path / "run"
    argv = command(model, data, run, deepspeed="3", ds_offload="true", num_train_epochs=1)
    done = subprocess.run(argv, env=ONE_THREAD | {"NPROC_PER_NODE": processes}, capture_output=True, text=True,
                          timeout=200, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert finished(run)["outcome"] == "completed"
    assert "DeepSpeed" not in (run / "train.log").read_text() + done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    ("values", "first", "second"),
    [
        ({"deepspeed": "2", "fsdp": True}, "deepspeed", "fsdp"),
        ({"deepspeed": 3, "quantization_bit": 4}, "deepspeed", "quantization_bit"),
        ({"deepspeed": "3", "compute_type": "fp16"}, "deepspeed", "compute_type"),
        ({"deepspeed": "3", "pure_bf16": True}, "deepspeed", "compute_type"),
        ({"deepspeed": "ds_z2_config.json", "ds_offload": True}, "ds_offload", "deepspeed"),
        ({"ds_offload": True}, "ds_offload", "deepspeed"),
    ],
)
def test_what_it_cannot_be_together_with_is_named(values: dict[str, Any], first: str, second: str) -> None:
    with pytest.raises(Problems) as raised:
        parse(values)
    [problem] = raised.value.problems
    for key in (first, second):
        assert shown(key).en in problem.sentence("en")
        assert shown(key).zh in problem.sentence("zh")


def test_a_device_that_chooses_16_bits_it_cannot_keep_is_told() -> None:
    with pytest.raises(Problem) as raised:
        deepspeed_config.config(parse({"deepspeed": "2"}), "fp16", 2)
    assert f"{shown('compute_type').en} `fp16`" in raised.value.sentence("en")


@pytest.mark.parametrize(
    ("file", "code", "key"),
    [
        ({"gradient_clipping": 0.5}, "deepspeed_differs", "gradient_clipping"),
        ({"gradient_accumulation_steps": 4}, "deepspeed_differs", "gradient_accumulation_steps"),
        ({"train_micro_batch_size_per_gpu": 1}, "deepspeed_differs", "train_micro_batch_size_per_gpu"),
        ({"fp16": {"enabled": True}}, "deepspeed_differs", "fp16.enabled"),
        ({"bf16": {"enabled": False}}, "deepspeed_differs", "bf16.enabled"),
        ({"wall_clock_breakdown": True}, "deepspeed_key", "wall_clock_breakdown"),
        ({"optimizer": {"type": "Lion"}}, "deepspeed_key", "optimizer.type"),
        ({"scheduler": {"type": "WarmupLR"}}, "deepspeed_key", "scheduler.type"),
        ({"train_batch_size": 99}, "deepspeed_key", "train_batch_size"),
        ({"zero_optimization": {"stage": 1}}, "deepspeed_stage", "zero_optimization.stage"),
        ({"zero_optimization": "auto"}, "deepspeed_stage", "zero_optimization.stage"),
        ({"zero_optimization": {"stage": 3, "zero_quantized_weights": True}}, "deepspeed_key", "zero_quantized_weights"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}, "deepspeed_key", "offload_param"),
    ],
)  # fmt: skip
def test_a_file_that_says_otherwise_is_refused_by_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: dict[str, Any], code: str, key: str
) -> None:
    monkeypatch.setattr(deepspeed_config, "missing", lambda: None)
    path = write(tmp_path / "ds.json", more=file)
    with pytest.raises((Problem, Problems)) as raised:
        deepspeed_config.check(parse({"deepspeed": str(path)}))
    problem = raised.value.problems[0] if isinstance(raised.value, Problems) else raised.value
    assert problem.code == code
    assert key in problem.values["key"]
    for language in ("en", "zh"):
        assert str(path) in problem.sentence(language)  # type: ignore[arg-type]


def test_what_a_file_leaves_open_comes_from_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepspeed_config, "missing", lambda: None)
    path = write(
        tmp_path / "ds.json", 3, {"gradient_clipping": 0.5}, offload_param={"device": "none"}, sub_group_size=7
    )
    settings = parse({"deepspeed": str(path), "max_grad_norm": 0.5})
    deepspeed_config.check(settings)
    found = deepspeed_config.config(settings, "bf16", 4)
    assert found["gradient_clipping"] == 0.5
    assert found["bf16"] == {"enabled": True}
    assert found["train_batch_size"] == 4
    assert found["zero_optimization"] == {"stage": 3, "contiguous_gradients": True, "sub_group_size": 7}


def test_a_path_is_meant_from_where_the_command_is_given() -> None:
    assert absolute(parse({"deepspeed": "ds_z3_config.json"})).deepspeed == str(Path("ds_z3_config.json").absolute())
    assert absolute(parse({"deepspeed": 3})).deepspeed == "3"
    assert absolute(parse({"deepspeed": "none"})).deepspeed is None


def test_the_estimate_shares_out_what_a_stage_cuts() -> None:
    devices = replace(H200, count=2)

    def parts(**values: Any) -> dict[str, float]:
        return of(hardware=devices, finetuning_type="full", **values).parts

    numbers = qwen().parameters / 2**30
    second, third, hosted = parts(deepspeed="2"), parts(deepspeed="3"), parts(deepspeed="2", ds_offload=True)
    assert second["weights"] == pytest.approx((2 + 4 / 2) * numbers)
    assert second["optimizer"] == third["optimizer"] == pytest.approx(8 / 2 * numbers)
    assert (2 / 2 + 4 / 2) * numbers < third["weights"] < second["weights"]
    assert hosted["weights"] == pytest.approx(2 * numbers)
    assert hosted["optimizer"] == 0


@pytest.mark.parametrize("content", [None, "[]", "{"])
def test_a_path_that_holds_no_configuration_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    monkeypatch.setattr(deepspeed_config, "missing", lambda: None)
    if content is not None:
        (tmp_path / "ds.json").write_text(content)
    with pytest.raises(Problem) as raised:
        deepspeed_config.check(parse({"deepspeed": str(tmp_path / "ds.json")}))
    assert raised.value.sentence("zh").startswith("DeepSpeed 阶段：")


def test_the_extra_asks_for_the_version_that_the_trainer_asks_for() -> None:
    wanted = f"deepspeed>={'.'.join(map(str, deepspeed_config.LEAST_VERSION))}"
    assert f'deepspeed = ["{wanted}"]' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("version", [None, "0.16.9"])
def test_without_deepspeed_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    found = object() if version else None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    folder = build_hollow_model(tmp_path / "model")
    with pytest.raises(Problems) as raised:
        check(parse({"deepspeed": "2", "model_name_or_path": str(folder), "output_dir": str(tmp_path / "run")}))
    [problem] = [one for one in raised.value.problems if one.code == "deepspeed_missing"]
    assert "deepspeed>=0.19.8" in problem.sentence("en")
