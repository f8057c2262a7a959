"""The tutorial on an NPU that is a fake: the device layer's branch for it is taken, and nothing in the trainer knows less.

What this cannot show: that the vendor's kernels compute the same, how fast, and in how much memory.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.npu.fake import Fake
from tests.tiny import build_tiny_model
from tests.trainer.forks import Forks, forks
from tests.trainer.test_chat_process import Process, generate, load
from tests.trainer.test_distributed import in_one_process
from tests.trainer.test_train import command, data, finished, steps
from trainer import run_folder, torch_import
from trainer.events import read_events

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # the first one waits for the compiler
__all__ = ["data"]  # a fixture

NAME = "Ascend910B3 (fake)"
PROCESS_TIMEOUT_S = 120
SETTINGS = {"max_steps": 12, "save_steps": 4, "val_size": 0.2, "learning_rate": 3e-3, "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2, "lora_dropout": 0.2}  # fmt: skip
EXACT = SETTINGS | {"compute_type": "fp32", "lora_dropout": 0, "max_steps": 6, "adam_epsilon": 1e-3}


def run(argv: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PROCESS_TIMEOUT_S,
                          check=False)  # fmt: skip


@contextmanager
def two_processes(npu: Fake, argv: list[str]) -> Iterator[None]:
    """Runs `argv` by two processes while the body runs, and waits for their end."""
    process = subprocess.Popen(
        argv, cwd=ROOT, env=npu.environment(NPROC_PER_NODE="2"), stderr=subprocess.PIPE, text=True
    )
    try:
        yield
        _, complaint = process.communicate(timeout=PROCESS_TIMEOUT_S)
        assert process.returncode == 0, complaint
    finally:
        process.kill()


def assert_close(found: dict[int, tuple[float, float]], expected: dict[int, tuple[float, float]]) -> None:
    """Of each step the loss and the gradients' norm."""
    assert found.keys() == expected.keys()
    for step, numbers in found.items():
        assert numbers == pytest.approx(expected[step], abs=1e-4), step


def values_of(notes: list[dict[str, Any]], what: str, key: str) -> list[Any]:
    return [note[key] for note in notes if note["what"] == what]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@contextmanager
def on(environment: dict[str, str]) -> Iterator[None]:
    """What is started meanwhile has `environment`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def fork(npu: Fake) -> Iterator[Forks]:
    """Trainings that need not import torch again."""
    with on(npu.environment()), forks() as found:
        yield found


@pytest.fixture(scope="module")
def whole(fork: Forks, model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert fork.train(command(model, data, folder, **SETTINGS)[3:], folder).status == 0
    return folder


@pytest.fixture(scope="module")
def stopped(npu: Fake, model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same through the command that the page starts, stopped after some steps; its notes are beside it."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    npu.take_notes()
    argv = [sys.executable, "-m", "app", "train", *command(model, data, folder, **SETTINGS)[3:]]
    process = subprocess.Popen(argv, cwd=ROOT, env=npu.environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PROCESS_TIMEOUT_S
    while max(steps(folder), default=0) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PROCESS_TIMEOUT_S) == 0
    (folder.parent / "notes.json").write_text(json.dumps(npu.take_notes()))
    return folder


def test_training_takes_the_way_of_the_npu(stopped: Path, whole: Path) -> None:
    notes = json.loads((stopped.parent / "notes.json").read_text())
    assert values_of(notes, "imported", "alloc_conf") == ["expandable_segments:True"]
    assert values_of(notes, "set_compile_mode", "jit_compile") == [False]
    [calls] = values_of(notes, "ended", "attention")
    assert set(calls) == {"TND"}, "unpadded attention, and no other"
    assert calls["TND"] > 2 * max(steps(stopped)), "in every layer of every step"
    for run in (stopped, whole):
        events, _ = read_events(run / run_folder.EVENTS)
        [loading] = [event for event in events if event.get("stage") == "loading_model"]
        assert (loading["device"], loading["compute_type"]) == (NAME, "bf16")
        assert all(event["memory_gib"] > 0 for event in events if event["event"] == "step")
    losses = [loss for loss, _ in steps(whole).values()]
    assert losses[-1] < losses[0]
    assert finished(whole)["outcome"] == "completed"


def test_a_run_that_was_stopped_goes_on_with_the_losses_of_the_uninterrupted_one(
    fork: Forks, stopped: Path, whole: Path, model: Path, data: Path
) -> None:
    end = finished(stopped)
    assert end["outcome"] == "stopped"
    assert end["step"] < SETTINGS["max_steps"]
    last = run_folder.checkpoints(stopped)[-1]
    assert last.name == f"checkpoint-{end['step']}"
    argv = command(model, data, stopped, **SETTINGS, resume_from_checkpoint=last)[3:]
    assert fork.train(argv, stopped).status == 0
    assert steps(stopped) == steps(whole)


@pytest.mark.thorough
def test_losses_in_fp32_are_those_of_a_processor(
    npu: Fake, fork: Forks, model: Path, data: Path, tmp_path: Path
) -> None:
    halves = EXACT | {"gradient_accumulation_steps": 1}
    npu.take_notes()
    with two_processes(npu, command(model, data, tmp_path / "two", **halves)):
        in_one_process(command(model, data, tmp_path / "cpu", **EXACT))
        assert fork.train(command(model, data, tmp_path / "one", **EXACT)[3:], tmp_path / "one").status == 0
    expected = steps(tmp_path / "cpu")
    assert len(expected) == EXACT["max_steps"]
    assert_close(steps(tmp_path / "one"), expected)
    assert_close(steps(tmp_path / "two"), expected)
    notes = npu.take_notes()
    assert sorted(values_of(notes, "hccl", "rank")) == [0, 1]
    used = {note["device"] for note in notes if note["what"] == "ended" and note["peak"]}
    assert used == {0, 1}, "each process has a device of its own"


@pytest.mark.thorough
def test_weights_cut_over_two_npus_learn_as_whole_ones_do(npu: Fake, model: Path, data: Path, tmp_path: Path) -> None:
    settings = EXACT | {"finetuning_type": "full", "max_steps": 4, "save_steps": 2}
    halves = settings | {"gradient_accumulation_steps": 1, "fsdp": "true"}
    npu.take_notes()
    with two_processes(npu, command(model, data, tmp_path / "two", **halves)):
        in_one_process(command(model, data, tmp_path / "cpu", **settings))
    assert_close(steps(tmp_path / "two"), steps(tmp_path / "cpu"))
    assert sorted(values_of(npu.take_notes(), "hccl", "rank")) == [0, 1]
    from safetensors.torch import load_file

    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "cpu"))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].allclose(weight, atol=1e-3), name


def test_a_sliding_window_is_kept_where_the_unpadded_attention_would_leave_it_out(
    fork: Forks, data: Path, tmp_path: Path
) -> None:
    model = build_tiny_model(tmp_path / "model", use_sliding_window=True, sliding_window=20, max_window_layers=0)
    settings = EXACT | {"compute_type": "bf16", "max_steps": 1, "learning_rate": 1e-5}
    in_one_process(command(model, data, tmp_path / "cpu", **settings))
    assert fork.train(command(model, data, tmp_path / "npu", **settings)[3:], tmp_path / "npu").status == 0
    [(expected, _)], [(loss, _)] = steps(tmp_path / "cpu").values(), steps(tmp_path / "npu").values()
    assert loss == pytest.approx(expected, abs=0.01)


@contextmanager
def chat(environment: dict[str, str]) -> Iterator[Process]:
    """`python -m trainer.chat`, which the page talks to."""
    with on(environment):
        process = Process()
    yield process
    assert process.close() == 0


def test_chat_answers_swaps_adapters_and_ends(npu: Fake, model: Path, whole: Path) -> None:
    adapters = [None, whole / "checkpoint-4", whole, None, whole / "checkpoint-4"]
    npu.take_notes()
    answers = []
    with chat(npu.environment()) as process:
        for adapter in adapters:
            loaded = process.ask(load(model.parent, adapter and str(adapter), model.name))
            assert loaded["event"] == "loaded", loaded
            assert (loaded["device"], loaded["dtype"]) == (NAME, "bf16")
            done = process.ask(generate(max_new_tokens=24))
            assert done["event"] == "done", done
            answers.append(process.text())
    assert answers[0] == answers[3]
    assert answers[1] == answers[4]
    assert len(set(answers)) > 1, "an adapter changes something"
    assert values_of(npu.take_notes(), "set_compile_mode", "jit_compile") == [False]


@pytest.mark.thorough
def test_an_export_on_the_npu_is_the_model_that_was_trained(
    npu: Fake, model: Path, whole: Path, tmp_path: Path
) -> None:
    values = {"model_name_or_path": model, "adapter_name_or_path": whole, "export_dir": tmp_path / "out",
              "export_device": "auto"}  # fmt: skip
    npu.take_notes()
    argv = [sys.executable, "-m", "app", "export", *(f"{key}={value}" for key, value in values.items())]
    done = run(argv, npu.environment())
    assert done.returncode == 0, done.stderr
    assert values_of(npu.take_notes(), "ended", "peak") > [0], "merged on the device"
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(whole)).merge_and_unload()
    exported = load_file(tmp_path / "out" / "model.safetensors")
    for name, weight in merged.state_dict().items():
        if name in exported:
            assert exported[name].float().allclose(weight.float(), atol=1e-2), name


def test_a_release_that_no_table_has_is_tried_first_and_then_used(npu: Fake) -> None:
    npu.take_notes()
    program = """
from trainer import torch_import
print(torch_import.prepare())
from trainer import device
print(device.current().type)
"""
    environment = npu.environment()
    del environment[torch_import.TRIED]
    done = run([sys.executable, "-c", program], environment)
    assert done.stdout.split() == ["None", "npu"], done.stderr
    assert len(values_of(npu.take_notes(), "imported", "devices")) == 2


@pytest.mark.parametrize(
    ("version", "expected"),
    [("9.1.0", ["ascend_well"]), ("8.5.0", ["cann_old"]), ("9.2.0", ["cann_new"]), (None, ["cann_missing"])],
)
def test_doctor_holds_the_npu_against_the_cann_that_is_there(
    npu: Fake, tmp_path: Path, version: str | None, expected: list[str]
) -> None:
    """In a process that sees it installed as a release of the table."""
    if version:
        (tmp_path / "aarch64-linux").mkdir()
        (tmp_path / "aarch64-linux" / "ascend_toolkit_install.info").write_text(f"version={version}\n")
    program = """
import json
from importlib import metadata
real = metadata.version
metadata.version = lambda name: "2.12.0" if name in ("torch", "torch-npu") else real(name)
from app import doctor_devices
from trainer import cann
cann.HOMES = ()
print(json.dumps([one.code for one in (*doctor_devices.toolkit(), *doctor_devices.torch_devices(60))]))
"""
    done = run([sys.executable, "-c", program], npu.environment(ASCEND_TOOLKIT_HOME=str(tmp_path)))
    assert json.loads(done.stdout) == [*expected, "torch_well"], done.stderr


@pytest.mark.parametrize(("visible", "count"), [("1", 1), ("1,0", 0), ("0,7", 1)])
def test_the_visibility_variable_is_read_as_the_driver_reads_it(npu: Fake, visible: str, count: int) -> None:
    program = "import torch; print(torch.npu.device_count(), torch.accelerator.is_available())"
    done = run([sys.executable, "-c", program], npu.environment(ASCEND_RT_VISIBLE_DEVICES=visible))
    assert done.stdout.split() == [str(count), str(count > 0)], done.stderr
