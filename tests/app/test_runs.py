"""Runs: status is derived from the folder, whatever state its files are in."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app import monitor, removal, run_death, runs
from app.charts import chart
from app.run_list import RunList
from app.text import Text
from tests.app.run_folders import settings
from trainer import run_folder
from trainer.events import EventLog
from trainer.problems import Problem
from trainer.run_folder import Identity

ZH, EN = Text("zh"), Text("en")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def events(folder: Path, *found: dict[str, Any]) -> None:
    log = EventLog(folder / run_folder.EVENTS)
    for event in found:
        log.append(event.pop("event"), **event)


def training(step: int = 0, total: int = 60) -> list[dict[str, Any]]:
    return [
        {"event": "stage", "stage": "starting"},
        {"event": "stage", "stage": "training", "step": step, "total_steps": total},
    ]


def owned_by(folder: Path, pid: int) -> None:
    run_folder.write_identity(folder, Identity.of(pid))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_whose_process_lives_is_running(folder: Path) -> None:
    owned_by(folder, os.getpid())
    assert runs.read(folder).status == "starting"
    events(folder, *training())
    assert runs.read(folder).status == "running"


def test_a_run_that_died_without_a_word_is_never_called_finished(folder: Path) -> None:
    (folder / "run.json").write_text(json.dumps({"pid": dead_pid(), "started": 1.0, "boot_id": run_folder.boot_id(), "host": os.uname().nodename}))  # fmt: skip
    events(folder, *training(), {"event": "step", "step": 5, "total_steps": 60, "loss": 1.0})
    run = runs.read(folder)
    assert run.status == "died"
    assert "训练完毕" not in monitor.status(run, ZH)
    assert "突然消失" in monitor.status(run, ZH)


def test_a_pid_given_to_another_process_is_not_the_run(folder: Path) -> None:
    identity = Identity.of(os.getpid())
    run_folder.write_identity(folder, Identity(identity.pid, identity.started - 1000, identity.boot_id, identity.host))
    events(folder, *training())
    assert runs.read(folder).status == "died"


def test_a_restart_of_the_machine_is_told_apart(folder: Path) -> None:
    run_folder.write_identity(folder, Identity(os.getpid(), time.time(), "another boot", os.uname().nodename))
    events(folder, *training())
    problem = runs.read(folder).problem
    assert isinstance(problem, Problem)
    assert problem.code == "machine_restarted"


def on_another_machine(folder: Path, **changed: Any) -> None:
    owned_by(folder, os.getpid())
    identity = json.loads((folder / run_folder.IDENTITY).read_text())
    there = {"host": "node-17", "boot_id": "of node-17", "pid": 2**22 + 1, "started": 1.0}
    (folder / run_folder.IDENTITY).write_text(json.dumps(identity | there | changed))


def test_another_machines_run_is_said_to_be_there_while_it_is_heard_of(folder: Path) -> None:
    on_another_machine(folder)
    events(folder, *training(), {"event": "progress", "step": 30, "total_steps": 60})
    run = runs.read(folder)
    assert (run.status, run.alive, run.resumable) == ("elsewhere", False, False)
    for text in (ZH, EN):
        shown = monitor.status(run, text)
        assert "node-17" in shown
        assert 'data-state="failed"' not in shown
        later = monitor.status(run, text, now=time.time() + 300)
        assert {"zh": "5 分钟前", "en": "5 minutes ago"}[text.language] in later
    assert runs.stop(folder), "through the folder"
    assert (folder / run_folder.STOP_WANTED).exists()
    with pytest.raises(Problem) as refused:
        runs.start(settings(folder))
    assert refused.value.code == "output_in_use_elsewhere"
    with pytest.raises(Problem) as kept:
        removal.remove(folder.parent, folder.name)
    assert kept.value.code == "run_trains_elsewhere"
    events(folder, {"event": "finished", "outcome": "completed", "step": 60, "loss": 0.1})
    assert runs.read(folder).status == "completed"


def test_another_machines_run_that_has_fallen_silent_can_be_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_another_machine(folder)
    events(folder, *training())
    listed = RunList(folder.parent)
    monkeypatch.setattr(runs, "SILENT_S", 0.0)
    for text in (ZH, EN):
        assert "node-17" in monitor.why(runs.read(folder), text)
    assert [row.status for row in listed.rows()] == ["died"]
    monkeypatch.setattr(runs, "SILENT_S", 600.0)
    listed.forget()
    assert [row.status for row in listed.rows()] == ["elsewhere"], "it may be heard of again"


def test_a_lock_that_is_seen_here_tells_that_another_pods_run_lives(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_another_machine(folder, boot_id=run_folder.boot_id())
    events(folder, *training())
    monkeypatch.setattr(runs, "SILENT_HERE_S", 0.0)
    held = run_folder.lock(folder)
    assert held is not None
    with held:
        assert runs.read(folder).status == "elsewhere"
    assert runs.read(folder).status == "died"


def test_a_run_of_a_container_that_has_ended_can_be_resumed_at_once(folder: Path) -> None:
    """Its trainer had begun, so it had the lock, which is seen here."""
    on_another_machine(folder, boot_id=run_folder.boot_id())
    events(folder, *training())
    checkpoint = folder / "checkpoint-30"
    checkpoint.mkdir()
    for name in ("adapter_model.safetensors", *run_folder.RESUME_FILES):
        (checkpoint / name).touch()
    run = runs.read(folder)
    assert (run.status, run.resumable) == ("died", True)
    for text in (ZH, EN):
        assert "node-17" in monitor.why(run, text)
    assert [(row.status, row.resumable) for row in RunList(folder.parent).rows()] == [("died", True)]


def test_a_container_whose_trainer_has_not_begun_is_waited_for(folder: Path) -> None:
    on_another_machine(folder, boot_id=run_folder.boot_id(), started=time.time() + 1)
    events(folder, *training())
    assert runs.read(folder).status == "elsewhere", "the events are an earlier attempt's"


def test_a_lock_is_trusted_only_on_the_same_file_system(folder: Path) -> None:
    on_another_machine(folder, boot_id=run_folder.boot_id(), filesystem=-1)
    events(folder, *training())
    assert runs.read(folder).status == "elsewhere"


def test_two_containers_that_go_by_one_name_are_told_apart(folder: Path) -> None:
    here = {"host": os.uname().nodename, "boot_id": run_folder.boot_id(), "pid_namespace": "pid:[1]"}
    on_another_machine(folder, **here)
    events(folder, *training())
    held = run_folder.lock(folder)
    assert held is not None
    with held:
        assert runs.read(folder).status == "elsewhere"
    assert runs.read(folder).status == "died"
    on_another_machine(folder, **here | {"boot_id": "another boot"})
    assert runs.read(folder).status == "died", "a machine of this name that was started again is this one"


def test_a_damaged_record_is_named_instead_of_a_cause(folder: Path) -> None:
    owned_by(folder, os.getpid())
    identity = json.loads((folder / run_folder.IDENTITY).read_text())
    (folder / run_folder.IDENTITY).write_text(json.dumps(identity | {"pid": dead_pid()}))
    (folder / run_folder.EVENTS).write_bytes(b"\xff\x00{" * 50)
    run = runs.read(folder)
    assert run.status == "died"
    for text in (ZH, EN):
        assert "events.jsonl" in monitor.why(run, text)


@pytest.mark.parametrize(
    ("seconds", "zh", "en"),
    [(0, "1 分钟", "1 minute"), (150, "2 分钟", "2 minutes"), (7300, "2 小时", "2 hours"), (1e6, "11 天", "11 days")],
)
def test_spans_of_time_are_said_in_words(seconds: float, zh: str, en: str) -> None:
    assert run_death.ago(seconds) == {"zh": zh, "en": en}


def test_a_traceback_at_the_end_of_the_log_is_the_cause(folder: Path) -> None:
    (folder / "train.log").write_text("Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'torch'\n")  # fmt: skip
    assert "ModuleNotFoundError" in monitor.status(runs.read(folder), EN)


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe\x00", b"{", b"null", b'{"pid": "x"}', b"[]"])
@pytest.mark.parametrize("name", ["run.json", "events.jsonl", "config.yaml", "train.log"])
def test_a_corrupt_file_never_breaks_the_list(folder: Path, name: str, junk: bytes) -> None:
    owned_by(folder, os.getpid())
    (folder / name).write_bytes(junk)
    for run in runs.find(folder.parent):
        monitor.status(runs.read(run), ZH)
    runs.latest(folder.parent)
    runs.alive(folder.parent)


def test_the_machines_that_are_waited_for_are_shown_with_the_time_that_it_takes(folder: Path) -> None:
    owned_by(folder, os.getpid())
    waiting = {"stage": "waiting_for_machines", "address": "10.0.0.1:29500", "here": 1, "machines": 2}
    events(folder, {"event": "stage", "stage": "starting"}, {"event": "stage", **waiting})
    run = runs.read(folder)
    for text in (ZH, EN):
        words = monitor.status(run, text, now=run.events[0]["time"] + 75)
        assert "10.0.0.1:29500" in words
        assert "0:01:15" in words
    assert "1 of 2" in monitor.status(run, EN)


def test_a_run_that_has_started_again_is_loading_and_counts_its_steps_once(folder: Path) -> None:
    owned_by(folder, os.getpid())
    step = {"event": "step", "total_steps": 60, "loss": 1.0}
    events(folder, *training(), {**step, "step": 6}, {"event": "warning", "code": "token_budget_halved", "budget": 64},
           {"event": "stage", "stage": "starting", "attempt": 1}, {"event": "stage", "stage": "loading_model"})  # fmt: skip
    assert "6/60" not in monitor.status(runs.read(folder), EN)
    events(folder, {"event": "stage", "stage": "training", "step": 5, "total_steps": 60}, {**step, "step": 6})
    run = runs.read(folder)
    assert chart(run.events)["step"] == [6]
    assert "6/60" in monitor.status(run, EN)
    assert "64" in monitor.warnings(run, EN)


def test_events_with_missing_fields_never_break_the_monitor(folder: Path) -> None:
    owned_by(folder, os.getpid())
    for name in ("stage", "step", "progress", "evaluated", "saved", "warning", "finished", "unheard_of"):
        events(folder, {"event": name})
        run = runs.read(folder)
        monitor.status(run, ZH), monitor.metrics(run, ZH), monitor.warnings(run, ZH)


def test_progress_is_told_as_in_the_tutorials(folder: Path) -> None:
    owned_by(folder, os.getpid())
    events(folder, *training(), {"event": "step", "step": 5, "total_steps": 60, "loss": 1.0})
    run = runs.read(folder)
    began, latest = run.events[1], run.events[2]
    began["time"], latest["time"] = 100.0, 104.0
    assert "Running 5/60: 0:00:04 &lt; 0:00:44" in monitor.status(run, EN, now=104.0)


def test_stop_reaches_the_trainer_and_only_it(folder: Path) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print(1, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    owned_by(folder, process.pid)
    assert runs.stop(folder)
    assert process.wait(10) == 7
    process.stdout.close()
    assert not runs.stop(folder), "nothing is left to stop"


def test_the_newest_run_is_the_one_that_every_page_shows(tmp_path: Path) -> None:
    for number, name in enumerate(["old", "new", "middle"]):
        (tmp_path / name).mkdir()
        owned_by(tmp_path / name, os.getpid())
        os.utime(tmp_path / name / "run.json", (number, {"old": 1, "new": 3, "middle": 2}[name]))
    latest = runs.latest(tmp_path)
    assert latest is not None
    assert latest.name == "new"


def test_the_log_shown_is_its_end_in_whole_lines(folder: Path) -> None:
    (folder / "train.log").write_text("".join(f"line {number}\n" for number in range(10_000)))
    tail = runs.log_tail(folder)
    assert tail.endswith("line 9999")
    assert len(tail) <= runs.LOG_TAIL_BYTES
    assert tail.splitlines()[0].startswith("line ")


def test_the_previewed_command_is_quoted_for_a_shell(tmp_path: Path) -> None:
    import shlex

    from trainer.settings import parse
    from trainer.settings_file import to_shell

    argv = runs.command(parse({"model_name_or_path": "/a b/$(touch x)'", "dataset": "d", "output_dir": "/r/训练 ;x"}))
    assert shlex.split(to_shell(argv).replace("\\\n", "")) == argv


def evaluations(*losses: float, every: int = 10) -> list[dict[str, Any]]:
    return [{"event": "evaluated", "step": every * number, "eval_loss": loss} for number, loss in enumerate(losses, 1)]


def test_the_best_evaluation_is_told_with_its_step(folder: Path) -> None:
    owned_by(folder, os.getpid())
    events(folder, *training(), {"event": "step", "step": 30, "total_steps": 60, "loss": 1.0})
    assert "Eval loss" not in monitor.metrics(runs.read(folder), EN)
    events(folder, *evaluations(2.0, 1.25, 1.75))
    words = monitor.metrics(runs.read(folder), EN)
    assert "<dt>Eval loss</dt><dd>1.75</dd>" in words
    assert "<dt>★ Best eval loss</dt><dd>1.25 · step 20</dd>" in words
    assert "<dd>1.25 · 第 20 步</dd>" in monitor.metrics(runs.read(folder), ZH)


def finished_run(folder: Path, **values: Any) -> runs.Run:
    end = {"event": "finished", "outcome": "completed", "step": 30, "loss": 1.0, "seconds": 5.0}
    events(folder, *training(), {"event": "step", "step": 30, "total_steps": 60, "loss": 1.0})
    events(folder, *evaluations(2.0, 1.25, 1.75), end | values)
    return runs.read(folder)


def test_a_run_that_was_stopped_early_is_completed_and_says_why(folder: Path) -> None:
    run = finished_run(folder, code="stopped_early", evaluations=1, result_step=30)
    assert run.status == "completed"
    assert not run.resumable
    english, chinese = monitor.status(run, EN), monitor.status(run, ZH)
    assert "Stopped early at step 30: eval loss had not improved in 1 evaluation(s)" in english
    assert "★ best eval loss 1.25 at step 20" in english
    assert "第 30 步提前停止：验证损失已连续 1 次验证没有改善" in chinese
    assert "★ 最低验证损失 1.25（第 20 步）" in chinese
    assert 'aria-valuenow="100"' in english


def test_a_result_that_is_the_best_checkpoints_says_so(folder: Path) -> None:
    assert f"the weights of step 20 are saved in {folder}" in monitor.status(finished_run(folder, result_step=20), EN)


def test_a_finished_run_without_validation_speaks_of_none(folder: Path) -> None:
    events(folder, *training(), {"event": "finished", "outcome": "completed", "step": 60, "loss": 1.0, "seconds": 5.0})
    words = monitor.status(runs.read(folder), EN)
    assert f"Final loss 1 · 0:00:05 · saved in {folder}" in words
    assert "eval" not in words


@pytest.mark.parametrize(("result", "marked"), [(30, False), (20, True)])
def test_the_best_checkpoint_is_marked_in_the_list(folder: Path, result: int, marked: bool) -> None:
    from app import models
    from trainer.settings import parse
    from trainer.settings_file import to_yaml

    (folder / "config.yaml").write_text(to_yaml(parse({"model_name_or_path": "/m", "val_size": 0.1})))
    owned_by(folder, os.getpid())
    finished_run(folder, result_step=result)
    for name in ("", "checkpoint-10", "checkpoint-20", "checkpoint-30"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "adapter_model.safetensors").touch()
    names = [name for name, _ in models.Checkpoints(folder.parent).of("/m", EN)]
    assert names == [
        "run (result) ★ best" if marked else "run (result)",
        "run / checkpoint-30",
        "run / checkpoint-20 ★ best",
        "run / checkpoint-10",
    ]


def test_a_checkpoint_is_listed_as_soon_as_it_is_there_while_the_run_trains(folder: Path) -> None:
    from app import models
    from trainer.settings import parse
    from trainer.settings_file import to_yaml

    (folder / "config.yaml").write_text(to_yaml(parse({"model_name_or_path": "/m"})))
    owned_by(folder, os.getpid())
    events(folder, *training())
    listed = models.Checkpoints(folder.parent)
    assert listed.of("/m", EN) == []
    saving = folder / ".checkpoint-10.saving"
    saving.mkdir()
    (saving / "adapter_model.safetensors").touch()
    assert listed.of("/m", EN) == [], "a half-written one is none"
    saving.rename(folder / "checkpoint-10")
    assert listed.of("/m", EN) == [("run / checkpoint-10", str(folder / "checkpoint-10"))]
    assert listed.of("/other", EN) == []


def test_only_templates_that_can_be_told_to_think_are_said_to_know_it(tmp_path: Path) -> None:
    from app.models import knows_thinking

    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{% if enable_thinking %}"}')
    assert knows_thinking(str(tmp_path), "auto")
    assert not knows_thinking(str(tmp_path), "chatml")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert not knows_thinking(str(tmp_path), "auto"), "the file goes before the tokenizer's own"
    assert not knows_thinking(str(tmp_path / "nowhere"), "auto")
    assert knows_thinking(str(tmp_path / "nowhere"), "qwen3")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"model_type": "qwen3"}')
    assert knows_thinking(str(tmp_path / "base"), "auto"), "its family's template is used"
