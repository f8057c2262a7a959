"""Exports as the page sees them: status is derived from folders, whatever state their files are in."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import exports
from tests.tiny import build_hollow_model
from trainer import export_plan, run_folder
from trainer.events import EventLog
from trainer.export_plan import MODEL, partial
from trainer.export_settings import ExportSettings, parse
from trainer.problems import Problem
from trainer.run_folder import Identity


@pytest.fixture
def target(tmp_path: Path) -> Path:
    partial(tmp_path / "out").mkdir()
    return tmp_path / "out"


def events(target: Path, *found: dict[str, Any]) -> None:
    log = EventLog(partial(target) / run_folder.EVENTS)
    for event in found:
        log.append(event.pop("event"), **event)


def owned_by(target: Path, pid: int, started: float | None = None) -> None:
    identity = (
        Identity.of(pid) if started is None else Identity(pid, started, run_folder.boot_id(), os.uname().nodename)
    )
    run_folder.write_identity(partial(target), identity)


def ended(target: Path) -> exports.Export:
    """The export once it no longer runs."""
    until = time.monotonic() + 120
    while (found := exports.read(target)) and found.alive and time.monotonic() < until:
        time.sleep(0.05)
    assert found
    return found


def test_nothing_there_is_no_export(tmp_path: Path) -> None:
    assert exports.read(tmp_path / "out") is None
    assert exports.find(tmp_path / "nowhere") == []
    assert exports.cancel(tmp_path / "out") is False
    assert exports.discard(tmp_path / "out") is True


def test_while_one_export_runs_who_follows_it_starts_no_other(target: Path) -> None:
    owned_by(target, os.getpid())
    with pytest.raises(Problem, match="is running"):
        exports.check_ended(target)
    exports.check_ended(target.parent / "never begun")


def test_a_running_export_shows_its_stage_and_how_much_is_written(target: Path) -> None:
    owned_by(target, os.getpid())
    found = exports.read(target)
    assert found
    assert (found.status, found.stage, found.total) == ("running", "starting", 0)
    events(target, {"event": "stage", "stage": "starting", "bytes": 4000}, {"event": "stage", "stage": "saving", "bytes": 4000},
           {"event": "warning", "code": "export_effect_small"})  # fmt: skip
    (partial(target) / MODEL).mkdir()
    (partial(target) / MODEL / "model-00001-of-00002.safetensors").write_bytes(bytes(1000))
    found = exports.read(target)
    assert found
    assert (found.status, found.stage, found.written, found.total) == ("running", "saving", 1000, 4000)
    assert [event["code"] for event in found.warnings] == ["export_effect_small"]


def test_an_export_that_died_is_never_called_finished(target: Path) -> None:
    owned_by(target, os.getpid(), started=1.0)  # the pid is another process's by now
    events(target, {"event": "stage", "stage": "saving"})
    found = exports.read(target)
    assert found
    assert found.status == "died"
    assert isinstance(found.problem, Problem)
    assert found.problem.code == "export_died"


def test_a_failed_export_says_why_in_both_languages(target: Path) -> None:
    events(target, {"event": "finished", "outcome": "failed", "code": "export_disk_full", "path": "/o"})
    found = exports.read(target)
    assert found
    assert (found.status, found.problem) == ("failed", ("export_disk_full", {"path": "/o"}))
    assert exports.discard(target)
    assert exports.read(target) is None


def test_a_finished_export_is_told_by_its_record_whatever_lies_beside(target: Path) -> None:
    owned_by(target, os.getpid(), started=1.0)
    target.mkdir()
    (target / export_plan.RECORD).write_text(json.dumps({"bytes": 5, "difference": 0.01}))
    found = exports.read(target)
    assert found
    assert found.record
    assert (found.status, found.written, found.record["difference"]) == ("completed", 5, 0.01)
    (target / export_plan.RECORD).write_text("{")
    found = exports.read(target)
    assert found
    assert found.status == "died"


def test_exports_are_found_after_a_restart_of_the_page(target: Path, tmp_path: Path) -> None:
    done = tmp_path / "done"
    done.mkdir()
    (done / export_plan.RECORD).write_text("{}")
    os.utime(done, (1, 1))
    (tmp_path / "model").mkdir()
    (tmp_path / ".other").mkdir()
    assert exports.find(tmp_path) == [target, done]


def test_a_live_export_is_not_discarded(target: Path) -> None:
    held = run_folder.lock(partial(target))
    assert held
    with held:
        assert exports.discard(target) is False
    assert partial(target).is_dir()


def test_the_command_is_the_one_that_a_person_would_type() -> None:
    settings = parse({"model_name_or_path": "/m", "adapter_name_or_path": "/a", "export_dir": "/o", "export_size": 2})
    words = exports.command(settings)
    assert words[-9:] == ["export", "--model_name_or_path", "/m", "--adapter_name_or_path", "/a", "--export_dir", "/o",
                          "--export_size", "2"]  # fmt: skip


def test_what_cannot_start_is_refused_at_once(tmp_path: Path) -> None:
    base = build_hollow_model(tmp_path / "base")
    with pytest.raises(Problem) as caught:
        exports.start(parse({"model_name_or_path": str(base), "export_dir": str(base / "x")}))
    assert caught.value.code == "export_nothing"
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.slow
def test_the_page_follows_exports_without_torch() -> None:
    code = "import app.exports, sys; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'peft')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- real ones ----


@pytest.fixture(scope="module")
def settings_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], ExportSettings]:
    from tests.tiny import build_tiny_adapter, build_tiny_model

    folder = tmp_path_factory.mktemp("exports")
    base = build_tiny_model(folder / "base")
    adapter = build_tiny_adapter(folder / "adapter", base)

    def settings(target: Path) -> ExportSettings:
        return parse({"model_name_or_path": str(base), "adapter_name_or_path": str(adapter), "export_dir": str(target)})

    return settings


@pytest.mark.slow
def test_a_started_export_is_followed_to_its_end(
    settings_for: Callable[[Path], ExportSettings], tmp_path: Path
) -> None:
    target = exports.start(settings_for(tmp_path / "out"))
    assert target == tmp_path / "out"
    found = exports.read(target)
    assert found
    assert found.status == "running"
    assert exports.find(tmp_path) == [target]
    while (found := exports.read(target)) and found.alive and found.total == 0:
        time.sleep(0.01)  # until it has the folder
    with pytest.raises(Problem, match="another export"):
        exports.start(settings_for(target))
    found = ended(target)
    assert found.status == "completed", found
    assert found.record
    assert found.record["difference"] < 1e-4
    assert (target / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_cancelled_export_leaves_no_model_and_can_be_started_again(
    settings_for: Callable[[Path], ExportSettings], tmp_path: Path
) -> None:
    target = exports.start(settings_for(tmp_path / "out"))
    while (found := exports.read(target)) and found.alive and found.stage == "starting":
        time.sleep(0.01)
    assert exports.cancel(target)
    assert ended(target).status == "stopped"
    assert not target.exists()
    assert not (partial(target) / MODEL).exists()
    assert exports.cancel(target) is False
    exports.start(settings_for(target))
    found = exports.read(target)
    assert found
    assert found.status == "running", "not how the last one ended"
    exports.cancel(target)
    assert ended(target).status == "stopped"


@pytest.mark.slow
def test_a_killed_export_says_so_and_one_cancelled_at_once_is_stopped(
    settings_for: Callable[[Path], ExportSettings], tmp_path: Path
) -> None:
    target = exports.start(settings_for(tmp_path / "out"))
    identity = run_folder.read_identity(partial(target))
    assert identity
    os.kill(identity.pid, 9)
    found = ended(target)
    assert found.status == "died"
    assert isinstance(found.problem, Problem)
    assert found.problem.values == {"signal": "SIGKILL"}
    assert exports.discard(target)
    target = exports.start(settings_for(tmp_path / "out"))
    exports.cancel(target)
    assert ended(target).status == "stopped"
