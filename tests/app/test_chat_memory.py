"""Whether a model fits is said before it is loaded, with the figures and who holds the memory."""

import os
from pathlib import Path

import pytest

from app import chat_memory
from app.chat import Status
from app.text import Text
from tests.tiny import build_hollow_model, write_safetensors
from trainer import run_folder
from trainer.estimate import Hardware
from trainer.events import EventLog
from trainer.run_folder import Identity

EN, ZH = Text("en"), Text("zh")
NUMBERS = 300_000_000  # 1.2 GB as fp32, half as bf16


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = build_hollow_model(tmp_path / "model")
    header = b'{"w":{"dtype":"BF16","shape":[%d],"data_offsets":[0,%d]}}' % (NUMBERS, 2 * NUMBERS)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2 * NUMBERS)  # sparse: only its header is read
    return folder


def with_free(monkeypatch: pytest.MonkeyPatch, free_gib: float) -> None:
    machine = Hardware("cuda", "A Card", free_gib, total_gib=8.0)
    monkeypatch.setattr(chat_memory.Hardware, "of", lambda _: machine)


def test_what_is_missing_is_said_with_the_run_that_holds_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 1.5)
    run = tmp_path / "runs" / "busy"
    run.mkdir(parents=True)
    run_folder.write_identity(run, Identity.of(os.getpid()))
    log = EventLog(run / run_folder.EVENTS)
    log.append("stage", stage="training", step=0, total_steps=10)
    log.append("step", step=1, total_steps=10, loss=1.0, memory_gib=6.25)
    found = chat_memory.shortage(model, None, "bf16", Status(), run.parent)
    assert found
    assert found.needed_gib == pytest.approx(2 * NUMBERS / 2**30 + 1.53)
    words = found.words(EN)
    for part in (
        "2.09 GiB",
        "A Card has 1.50 GiB of 8.00 GiB free",
        "busy is training now and holds 6.25 GiB",
        "abort",
    ):
        assert part in words
    assert "busy 正在训练，占用 6.25 GiB" in found.words(ZH)


@pytest.mark.parametrize(("dtype", "free", "fits"), [("bf16", 2.2, True), ("fp32", 2.2, False), ("fp32", 2.7, True)])
def test_the_data_type_decides_how_much_is_needed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, free: float, fits: bool
) -> None:
    with_free(monkeypatch, free)
    assert (chat_memory.shortage(model, None, dtype, Status(), tmp_path) is None) == fits


def test_what_the_chat_process_holds_counts_as_free_and_what_is_loaded_is_not_weighed_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 0.5)
    other = Status("ready", model=tmp_path / "other", dtype="bf16", memory_gib=2.0)
    assert chat_memory.shortage(model, None, "bf16", other, tmp_path) is None
    same = Status("ready", model=model, dtype="bf16", memory_gib=0.1)
    assert chat_memory.shortage(model, None, "bf16", same, tmp_path) is None
    assert chat_memory.shortage(model, None, "bf16", Status(), tmp_path) is not None


def test_an_adapter_is_weighed_too(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 2.1)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    assert chat_memory.shortage(model, None, "bf16", Status(), tmp_path) is None
    write_safetensors(adapter / "adapter_model.safetensors", 10_000_000)
    assert chat_memory.shortage(model, adapter, "bf16", Status(), tmp_path) is not None
