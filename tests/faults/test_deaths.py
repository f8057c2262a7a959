"""Each kind of death by its own sentence, for the page that started the run and for one that was started since."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app import chat_death, monitor, runs
from app.text import Text
from tests.faults.live_run import live_run
from tests.faults.small_disk import small_disk
from trainer import oom, run_folder
from trainer.events import EventLog
from trainer.problems import SENTENCES, Problem
from trainer.run_folder import Identity
from trainer.settings import parse

ZH, EN = Text("zh"), Text("en")
TRAINS = """
import faulthandler, os, signal, sys, time
from pathlib import Path
from trainer.events import EventLog
faulthandler.enable()
log = EventLog(Path({folder!r}) / "events.jsonl")
log.stage("starting")
log.stage("training", step=0, total_steps=60)
log.append("step", step=5, total_steps=60, loss=1.0)
{then}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "run"


def start(folder: Path, then: str, monkeypatch: pytest.MonkeyPatch, code: str = TRAINS) -> runs.Run:
    """The run of a trainer that does `then`, once it is dead."""
    program = code.format(folder=str(folder), then=then)
    monkeypatch.setattr(runs, "command", lambda *_: [sys.executable, "-c", program])
    runs.start(parse({"model_name_or_path": "/m", "dataset": "d", "output_dir": str(folder)}))
    deadline = time.monotonic() + 30
    while (run := runs.read(folder)).alive:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return run


def code_of(run: runs.Run) -> str:
    return run.problem.code if isinstance(run.problem, Problem) else run.problem[0] if run.problem else ""


def both(run: runs.Run, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The code that the page which started it gives, and that of one that was started since."""
    first = code_of(run)
    monkeypatch.setattr(runs, "_children", {})
    again = runs.read(run.folder)
    for found in (run, again):
        assert found.status in ("died", "failed")
        for text in (ZH, EN):
            shown = monitor.status(found, text)
            assert 'data-state="failed"' in shown
            assert text("status.completed") not in shown
            assert found.name in shown
            assert "?" not in monitor.why(found, text), "every value of the sentence is there"
    return first, code_of(again)


DEATHS = {
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "killed", "killed_unseen"),
    "terminated": ("os.kill(os.getpid(), signal.SIGTERM)", "killed", "killed_unseen"),
    "hung up": ("os.kill(os.getpid(), signal.SIGHUP)", "killed", "killed_unseen"),
    "real-time signal": ("os.kill(os.getpid(), 40)", "killed", "killed_unseen"),
    "crashed": ("import ctypes; ctypes.string_at(0)", "crashed", "crashed"),
    "aborted": ("os.abort()", "crashed", "crashed"),
    "python error": ("raise RuntimeError('the cat sat on the cable')", "python_error", "python_error"),
    "exit without a word": ("os._exit(3)", "died", "killed_unseen"),
    "killed while saving": ("log.stage('stopping'); os.kill(os.getpid(), signal.SIGKILL)",
                            "killed_while_stopping", "killed_while_stopping"),
    "out of device memory": ("log.finish_once('failed', code='out_of_device_memory', device='NPU 0')",
                             "out_of_device_memory", "out_of_device_memory"),
    "dataset": ("log.finish_once('failed', code='dataset_row', name='d', row=3, detail='no output', columns='a')",
                "dataset_row", "dataset_row"),
    "disk full": ("log.finish_once('failed', code='disk_full', path='/runs')", "disk_full", "disk_full"),
    "node lost": ("log.finish_once('failed', code='machine_silent', machine=2, seconds=60)",
                  "machine_silent", "machine_silent"),
}  # fmt: skip


@pytest.mark.parametrize("death", DEATHS)
def test_each_death_has_its_own_sentence(folder: Path, death: str, monkeypatch: pytest.MonkeyPatch) -> None:
    then, first, later = DEATHS[death]
    run = start(folder, then, monkeypatch)
    assert both(run, monkeypatch) == (first, later)


def test_the_signal_and_the_exception_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "SIGHUP" in monitor.why(start(folder, DEATHS["hung up"][0], monkeypatch), EN)
    run = start(folder.with_name("other"), DEATHS["python error"][0], monkeypatch)
    assert "RuntimeError: the cat sat on the cable" in monitor.why(run, EN)
    assert "RuntimeError：the cat sat on the cable" in monitor.why(run, ZH)


def test_what_is_wrong_before_the_run_begins_is_quoted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; print('Dataset: there is no dataset x. Choose another.', file=sys.stderr); sys.exit(2)"
    run = start(folder, "", monkeypatch, code)
    assert both(run, monkeypatch) == ("not_started", "not_started")
    assert "there is no dataset x" in monitor.why(run, EN)


def test_what_an_earlier_attempt_has_logged_is_not_the_cause(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(folder, DEATHS["python error"][0], monkeypatch)
    run = start(folder, DEATHS["killed"][0], monkeypatch)
    assert both(run, monkeypatch) == ("killed", "killed_unseen")


@contextmanager
def short_group(limit: int) -> Iterator[Path]:
    """A control group with `limit` bytes of memory; skipped where we may make none."""
    own = oom.counter().parent
    group = own / "tunedesk-test"
    try:
        group.mkdir()
        name = "memory.limit_in_bytes" if oom.counter().name == "memory.oom_control" else "memory.max"
        (group / name).write_text(str(limit))
    except OSError as error:
        pytest.skip(f"NOT TESTED: want of memory needs a control group, which only root may make ({error})")
    try:
        yield group
    finally:
        deadline = time.monotonic() + 5
        while (group / "cgroup.procs").read_text().strip() and time.monotonic() < deadline:
            time.sleep(0.02)
        group.rmdir()


OUT_OF_MEMORY = """
Path({group!r}, "cgroup.procs").write_text(str(os.getpid()))
from trainer import run_folder
run_folder.write_identity(log.path.parent, run_folder.Identity.of(os.getpid()))
held = bytearray(os.urandom(2**20)) * 200
"""


def test_want_of_memory_is_told_by_the_kernels_word(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with short_group(64 * 2**20) as group:
        run = start(folder, OUT_OF_MEMORY.format(group=str(group)), monkeypatch)
        assert both(run, monkeypatch) == ("out_of_host_memory", "out_of_host_memory")


def test_where_the_kernels_word_is_gone_both_causes_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(folder, DEATHS["killed"][0], monkeypatch)
    identity = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(identity | {"oom_counter": "/gone/with/the/job"}))
    assert both(run, monkeypatch) == ("killed", "vanished")


@pytest.mark.parametrize(
    ("text", "kills"),
    [("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", 7), ("low 0\noom 3\noom_kill 2\n", 2), ("", None)],
)
def test_the_kernels_counters_are_read(tmp_path: Path, text: str, kills: int | None) -> None:
    (tmp_path / "counter").write_text(text)
    assert oom.kills(tmp_path / "counter") == kills
    assert oom.kills(tmp_path / "gone") is None


def test_the_counter_is_that_of_the_own_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oom, "CGROUPS", tmp_path)
    assert oom.counter() == oom.MACHINE
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.oom_control").write_text("oom_kill 0\n")
    (tmp_path / "memory.events").write_text("oom_kill 0\n")
    assert oom.counter().parent in (tmp_path / "memory", tmp_path), "a container sees its group at the root"


def dead(folder: Path, **values: Any) -> runs.Run:
    """A run whose process is gone, with a run.json of other `values`."""
    with live_run(folder):
        pass
    identity = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(identity | values))
    return runs.read(folder)


def test_another_boot_another_machine_and_a_full_disk_are_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert both(dead(folder, boot_id="another"), monkeypatch)[1] == "machine_restarted"
    assert both(dead(folder.with_name("c"), host="another container"), monkeypatch)[1] == "container_ended"
    monkeypatch.setattr(runs, "SILENT_S", 0.0)
    assert both(dead(folder.with_name("b"), host="elsewhere", boot_id="of elsewhere"), monkeypatch)[1] == "host_silent"
    with small_disk(tmp_path / "disk", 256) as disk:
        dead(disk.path / "run")
        disk.fill()
        assert both(runs.read(disk.path / "run"), monkeypatch)[1] == "disk_full"


def test_a_stop_from_outside_is_told_apart_from_the_pages(folder: Path) -> None:
    from trainer.command import StopOnSignals

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for asked, warned in ((False, True), (True, False)):
            path = folder / str(asked) / "events.jsonl"
            path.parent.mkdir(parents=True)
            if asked:
                (path.parent / run_folder.STOP_ASKED).touch()
            StopOnSignals(signal.SIGTERM, signal.SIGINT).tell(EventLog(path))
            os.kill(os.getpid(), signal.SIGTERM)
            run_folder.write_identity(path.parent, Identity.of(os.getpid()))
            assert ("SIGTERM" in monitor.warnings(runs.read(path.parent), EN)) is warned
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_page_leaves_word_that_it_asked(folder: Path) -> None:
    with live_run(folder) as process:
        assert runs.stop(folder)
        assert (folder / run_folder.STOP_ASKED).exists()
        process.wait(10)


@pytest.mark.parametrize(
    ("returncode", "before", "code"),
    [(-9, 4, "out_of_host_memory"), (-9, 5, "chat_killed"), (-15, 4, "chat_killed"), (-11, 5, "chat_died"),
     (-40, 5, "chat_killed"), (1, 5, "chat_died"), (0, 5, "chat_died")],
)  # fmt: skip
def test_the_chats_deaths_are_told_apart(
    returncode: int, before: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_death, "oom_kills", lambda: 5)
    assert chat_death.reason(returncode, before, Path("log")).code == code


def test_the_chat_out_of_memory_is_told_by_the_kernels_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a real control group, in which the page and its chat process are."""
    code = """
import os, sys
from pathlib import Path
Path({group!r}, "cgroup.procs").write_text(str(os.getpid()))
from app.chat_death import oom_kills, reason
import subprocess
before = oom_kills()
died = subprocess.run([sys.executable, "-c", "import os; held = bytearray(os.urandom(2**20)) * 200"])
print(reason(died.returncode, before, Path("log")).code)
"""
    import subprocess

    with short_group(96 * 2**20) as group:
        done = subprocess.run([sys.executable, "-c", code.format(group=str(group))], capture_output=True, text=True,
                              check=True, timeout=60)  # fmt: skip
    assert done.stdout.strip() == "out_of_host_memory"


def test_each_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = {code for _, *found in DEATHS.values() for code in found if code != "python_error"}
    codes -= {"dataset_row"}  # says which row of which file: that is what to correct
    for code in codes | {
        "out_of_host_memory",
        "machine_restarted",
        "vanished",
        "killed_while_stopping",
        "process_died",
    }:
        english, chinese = SENTENCES[code]
        assert any(word in english for word in ("Resume", "resume", "Start", "Close", "Lower", "Look")), code
        assert "请" in chinese, code


@pytest.mark.parametrize(("kills", "code"), [(3, "out_of_host_memory"), (2, "process_died")])
def test_one_of_several_processes_that_was_out_of_memory_is_told_apart(tmp_path: Path, kills: int, code: str) -> None:
    from types import SimpleNamespace

    from trainer import torchrun

    (tmp_path / "counter").write_text(f"oom_kill {kills}\n")
    identity = Identity.of(os.getpid())
    run_folder.write_identity(tmp_path, replace(identity, oom_counter=str(tmp_path / "counter"), oom_kills=2))
    failed: Any = SimpleNamespace(get_first_failure=lambda: (1, SimpleNamespace(exitcode=-9)))
    torchrun._report(EventLog(tmp_path / "events.jsonl"), failed, None)
    assert code_of(runs.read(tmp_path)) == code


@pytest.mark.slow
def test_a_folder_that_was_moved_while_it_was_written_to_is_told_as_such(tmp_path: Path) -> None:
    from trainer.train import _explained

    settings = parse({"model_name_or_path": "/m", "dataset": "d", "output_dir": str(tmp_path / "gone")})
    assert _explained(FileNotFoundError("events.jsonl"), settings).code == "run_folder_gone"
