"""Whatever lies in a run's folder: the page shows that run as far as it can, and the others as if nothing were."""

import contextlib
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import runs
from tests.faults import shown
from tests.faults.conftest import ALL, EXAMPLES, sample
from tests.tiny import build_hollow_adapter
from trainer import run_folder
from trainer.events import FIELDS, MOST_LINE_BYTES, EventLog, read_events
from trainer.problems import Problem, Problems

FILES = ("run.json", "events.jsonl", "config.yaml", "train.log", "checkpoint-5/trainer_state.json",
         "checkpoint-5/optimizer.pt", "checkpoint-5/rng_state.pt", "checkpoint-5/adapter_config.json",
         "checkpoint-5/adapter_model.safetensors", "checkpoint-5", ".lock")  # fmt: skip
CONFIG = "model_name_or_path: /model\ndataset_dir: /data\ndataset: [who]\nlearning_rate: 0.0001\noutput_dir: /x\n"


def build_run(folder: Path) -> Path:
    """A run that died at step 7 with a checkpoint, as its files tell; made without torch."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "train.log").write_text("2026-01-01 step 5/60 loss 1.0\n" * 50)
    (folder / ".lock").touch()
    log = EventLog(folder / "events.jsonl")
    log.stage("starting")
    log.stage("training", step=0, total_steps=60)
    for step in range(1, 8):
        log.append("step", step=step, total_steps=60, loss=3.0 / step, learning_rate=1e-4, grad_norm=1.0, epoch=0.1,
                   tokens_per_second=100.0, memory_gib=1.5)  # fmt: skip
    log.append("evaluated", step=5, eval_loss=1.0)
    log.append("warning", code="samples_cut", count=3, cutoff_len=512)
    log.append("saved", step=5, path="checkpoint-5")
    checkpoint = build_hollow_adapter(folder / "checkpoint-5")
    (checkpoint / "trainer_state.json").write_text('{"step": 5}')
    for name in ("optimizer.pt", "rng_state.pt"):
        (checkpoint / name).write_bytes(b"PK\x03\x04" + bytes(100))
    dead = {"pid": 2**22 + 1, "started": 1.0, "boot_id": run_folder.boot_id(), "host": os.uname().nodename}
    (folder / "run.json").write_text(json.dumps(dead))
    return folder


def lengths(data: bytes) -> list[int]:
    """Where a truncation is interesting: empty, in the middle, and around the end of each line and value."""
    ends = [position for position, byte in enumerate(data) if byte in b'\n,:{}"']
    around = {end + shift for end in ends for shift in (0, 1)}
    kept = sorted(
        {0, 1, len(data) // 2, len(data) - 1}
        | (around if ALL else set(random.Random(0).sample(sorted(around), min(12, len(around)))))
    )
    return [length for length in kept if 0 <= length < len(data)]


def sparse(path: Path) -> None:
    """1 GB in a single line; a tenth of it in the sample."""
    with path.open("r+b") as file:
        file.truncate(10**9 if ALL else 10**8)


def replaced(path: Path, make: Callable[[Path], Any]) -> None:
    if path.is_dir():
        path.rename(path.with_name("elsewhere"))
    else:
        path.unlink()
    make(path)


REPLACEMENTS: dict[str, Callable[[Path], Any]] = {
    "empty": Path.touch,
    "gone": lambda path: None,
    "folder": Path.mkdir,
    "fifo": os.mkfifo,
    "dangling": lambda path: path.symlink_to("/nowhere/at/all"),
    "loop": lambda path: path.symlink_to(path.name),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "random": lambda path: path.write_bytes(random.Random(1).randbytes(5000)),
    "gigabyte": lambda path: (path.touch(), sparse(path)),
    "nested": lambda path: path.write_text("[" * 100_000 + "\n"),
    "nested object": lambda path: path.write_text('{"a":' * 100_000 + "\n"),
    "null": lambda path: path.write_text("null\n"),
    "list": lambda path: path.write_text("[]\n"),
    "number": lambda path: path.write_text("1e400\n"),
    "nul": lambda path: path.write_bytes(bytes(3000)),
    "utf-16": lambda path: path.write_text("训练\n", encoding="utf-16"),
}


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    for name in ("good", "victim"):
        build_run(tmp_path / "runs" / name)
    return tmp_path / "runs"


@pytest.mark.parametrize(("name", "kind"), sample(24, FILES, REPLACEMENTS))
@pytest.mark.timeout(120)
def test_a_file_that_is_something_else_breaks_neither_the_page_nor_other_runs(
    runs_dir: Path, name: str, kind: str
) -> None:
    before = shown.of(runs_dir)
    replaced(runs_dir / "victim" / name, REPLACEMENTS[kind])
    began = time.process_time()
    after = shown.of(runs_dir)
    assert time.process_time() - began < 8
    assert after["good"] == before["good"]
    assert after["victim"][0] == "died", "a run is never lost, nor anything but what it was"


@pytest.mark.parametrize("name", [name for name in FILES if name not in (".lock", "checkpoint-5")])
def test_a_file_cut_short_anywhere_breaks_neither_the_page_nor_other_runs(runs_dir: Path, name: str) -> None:
    before, path = shown.of(runs_dir), runs_dir / "victim" / name
    data = path.read_bytes()
    for length in lengths(data):
        path.write_bytes(data[:length])
        after = shown.of(runs_dir)
        assert after["good"] == before["good"]
        assert after["victim"][0] == "died", length


@pytest.mark.parametrize(("name", "kind"), sample(12, (*FILES[:4], ".lock"), REPLACEMENTS))
@pytest.mark.timeout(120)
def test_starting_in_a_broken_folder_is_refused_in_words_or_works(
    runs_dir: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer's claim, and the page's own part before it."""
    from trainer.command import claim
    from trainer.settings import parse
    from trainer.settings_file import read_yaml

    folder = runs_dir / "victim"
    replaced(folder / name, REPLACEMENTS[kind])
    monkeypatch.setattr(runs, "command", lambda *_: ["true"])
    settings_now = parse(
        {"model_name_or_path": "/m", "dataset": "d", "output_dir": str(folder), "resume_from_checkpoint": "latest"}
    )
    for start in (
        lambda: read_yaml(folder / "config.yaml"),
        lambda: runs.start(settings_now),
        lambda: claim(folder, settings_now),
    ):
        with contextlib.suppress(Problem, Problems):  # whatever else is raised is no sentence
            start()


# ---- properties ----

WORDS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
VALUES = st.recursive(
    WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(sorted({key for keys in FIELDS.values() for key in keys} | {
    "event", "time", "stage", "learning_rate", "grad_norm", "epoch", "tokens_per_second", "memory_gib", "seconds",
    "evaluations", "result_step", "eval_loss", "attempt", "address", "here", "machines", "samples", "count"}))  # fmt: skip
KINDS = st.sampled_from([*FIELDS, "estimate", "unheard of"])
EVENTS = st.builds(
    lambda kind, at, values: {"event": kind, "time": at} | values,
    KINDS,
    st.one_of(st.floats(), st.integers(), st.just(1.8e9)),
    st.dictionaries(KEYS, VALUES, max_size=8),
)
MILD = settings(max_examples=EXAMPLES, deadline=None, derandomize=True,
                suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip


@MILD
@given(events=st.lists(EVENTS, max_size=8))
def test_events_with_any_values_break_nothing(runs_dir: Path, events: list[dict[str, Any]]) -> None:
    path = runs_dir / "victim" / "events.jsonl"
    path.unlink()
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    after = shown.of(runs_dir)
    assert after["good"][0] == "died"
    assert "victim" in after


@MILD
@given(identity=st.dictionaries(st.sampled_from(["pid", "started", "boot_id", "host", "devices", "ticks", "folder", "inode", "ends_before", "oom_counter", "oom_kills", "copied"]), VALUES))  # fmt: skip
def test_a_run_json_with_any_values_breaks_nothing(runs_dir: Path, identity: dict[str, Any]) -> None:
    (runs_dir / "victim" / "run.json").write_text(json.dumps(identity))
    assert shown.of(runs_dir)["victim"][0] == "died"


@MILD
@given(data=st.binary(max_size=300), name=st.sampled_from(FILES[:4]))
def test_any_bytes_break_nothing(runs_dir: Path, data: bytes, name: str) -> None:
    (runs_dir / "victim" / name).write_bytes(data)
    assert "victim" in shown.of(runs_dir)


RECORDS = st.dictionaries(
    st.sampled_from(["path", "bytes", "files", "difference", "tolerance", "effect", "dtype", "seconds"]), VALUES
)


@MILD
@given(events=st.lists(EVENTS, max_size=4), record=st.none() | RECORDS | VALUES)
def test_an_export_with_any_events_and_record_breaks_nothing(
    tmp_path: Path, events: list[dict[str, Any]], record: Any
) -> None:
    from app import exports

    target = tmp_path / "exported"
    beside = exports.partial(target)
    for folder in (target, beside):
        folder.mkdir(exist_ok=True)
    (beside / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (target / exports.export_plan.RECORD).unlink(missing_ok=True)
    if record is not None:
        (target / exports.export_plan.RECORD).write_text(json.dumps(record))
    found = exports.read(target)
    if ALL:  # drawing takes Gradio, whose import takes seconds
        from app.export_tab import export_html

        for text in shown.TEXTS:
            export_html(found, text).encode()


@MILD
@given(pieces=st.lists(st.binary(max_size=40), max_size=6), cuts=st.lists(st.integers(1, 200), min_size=1, max_size=6))
def test_a_log_read_in_any_pieces_gives_each_whole_event_once(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], cuts: list[int]
) -> None:
    """Junk between events, and a file that grows by any number of bytes between two readings."""
    path = tmp_path_factory.getbasetemp() / "grown.jsonl"
    data = b""
    for number, junk in enumerate(pieces):
        data += junk + b"\n" + json.dumps({"event": "mine", "time": 1, "step": number}).encode() + b"\n"
    found, offset, written = [], 0, 0
    path.write_bytes(b"")
    while written < len(data):
        written += cuts[written % len(cuts)]
        path.write_bytes(data[:written])
        new, offset = read_events(path, offset)
        found += [event["step"] for event in new if event["event"] == "mine"]
    assert found == list(range(len(pieces)))


def test_an_endless_line_is_passed_over_and_what_follows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"x" * (3 * MOST_LINE_BYTES))
    events, offset = read_events(path)
    assert not events
    assert offset >= 2 * MOST_LINE_BYTES, "it is not read again each second"
    EventLog(path).stage("starting")
    assert [event["stage"] for event in read_events(path, offset)[0]] == ["starting"]


def test_many_readings_of_a_broken_gigabyte_do_not_read_it_again(runs_dir: Path) -> None:
    replaced(runs_dir / "victim" / "events.jsonl", REPLACEMENTS["gigabyte"])
    runs.read(runs_dir / "victim")
    began = time.process_time()
    for _ in range(20):
        runs.read(runs_dir / "victim")
    assert time.process_time() - began < 1
