"""A disk that is full, or read-only, at any moment: what was complete stays so, the reason is told, and it goes on later."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app import runs, saved_settings
from app.chat import ChatProcess
from tests.app.test_chat_client import ECHO, answer
from tests.faults import shown
from tests.faults.conftest import ALL
from tests.faults.small_disk import Disk, small_disk
from tests.tiny import build_hollow_model
from tests.trainer.forks import Forks
from tests.trainer.test_resume import SETTINGS, told
from tests.trainer.test_train import command, data, finished, model
from trainer import run_folder
from trainer.events import SPARE, EventLog, read_events
from trainer.problems import Problem
from trainer.settings import parse

__all__ = ["data", "model"]  # fixtures


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", 512) as found:
        yield found


def test_events_on_a_full_disk_stay_whole_and_the_last_one_has_room(disk: Disk) -> None:
    log = EventLog(disk.path / "events.jsonl")
    log.keep_room()
    log.stage("starting")
    filler = disk.fill()
    written = 0

    def write_on() -> None:
        nonlocal written
        while True:
            log.append("step", step=written, total_steps=10_000, loss=1.0)
            written += 1

    with pytest.raises(OSError, match="No space"):
        write_on()
    assert (disk.path / "events.jsonl").read_bytes()[-1:] != b"\n", "the last line is torn"
    log.append("finished", outcome="failed", code="disk_full", path=str(disk.path))
    events, _ = read_events(disk.path / "events.jsonl")
    assert events[-1]["code"] == "disk_full"
    assert [event["step"] for event in events[1:-1]] == list(range(written))
    assert not (disk.path / SPARE).exists()
    filler.unlink()
    log.stage("starting")
    assert read_events(disk.path / "events.jsonl")[0][-1]["stage"] == "starting"


def test_a_run_is_not_started_without_room_for_its_end(disk: Disk) -> None:
    disk.fill()
    with pytest.raises(OSError, match="No space"):
        EventLog(disk.path / "events.jsonl").keep_room()


def test_settings_are_saved_whole_or_not_at_all(disk: Disk) -> None:
    filler, values = (
        disk.fill(),
        parse({"model_name_or_path": "/m", "lora_target": ",".join(f"m{n}" for n in range(3000))}),
    )
    with pytest.raises(Problem, match="No space left"):
        saved_settings.save(disk.path, "mine", values, {})
    assert saved_settings.names(disk.path) == []
    assert not list(saved_settings.folder(disk.path).glob(".*")), "nothing is left beside"
    filler.unlink()
    saved_settings.save(disk.path, "mine", values, {})
    assert saved_settings.load(disk.path, "mine")[0] == values


def test_starting_on_a_full_disk_is_refused_in_words(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "command", lambda *_: ["true"])
    filler = disk.fill()
    settings = parse({"model_name_or_path": "/m", "dataset": "d", "output_dir": str(disk.path / "run")})
    with pytest.raises(Problem, match="No space left"):
        runs.start(settings)
    shown.of(disk.path)
    filler.unlink()
    assert runs.start(settings) == disk.path / "run"


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_the_chat_does_not_need_its_log(disk: Disk, state: str, tmp_path: Path) -> None:
    model = build_hollow_model(tmp_path / "model")
    disk.fill() if state == "full" else disk.read_only()
    chat = ChatProcess(disk.path / "runs" / "_chat.log", ECHO)
    try:
        chat.load(model)
        assert answer(chat, "say x")[0] == "x"
        assert "x" * 9 in answer(chat, "shout " + "x" * 9)[0], (
            "what libraries print has nowhere to go, and does no harm"
        )
    finally:
        chat.unload()


def test_a_read_only_runs_folder_is_shown_and_refused_in_words(disk: Disk) -> None:
    from tests.faults.test_corrupt import build_run

    build_run(disk.path / "old")
    disk.read_only()
    assert shown.of(disk.path)["old"][0] == "died"
    for name in ("old", "new"):
        settings = parse({"model_name_or_path": "/m", "dataset": "d", "output_dir": str(disk.path / name)})
        with pytest.raises(Problem, match="Read-only"):
            runs.start(settings)
    with pytest.raises(Problem, match="Read-only"):
        saved_settings.save(disk.path, "mine", settings, {})


# ---- training ----


MORE = {**SETTINGS, "save_total_limit": 9}


@pytest.fixture(scope="module")
def whole(fork: Forks, model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert fork.train(command(model, data, folder, **MORE)[3:], folder).status == 0
    return folder


def kib_of(folder: Path) -> int:
    return sum(path.stat().st_blocks for path in folder.rglob("*")) // 2


def check_complete(folder: Path) -> None:
    from trainer import checkpoint

    for path in run_folder.checkpoints(folder):
        assert checkpoint.read_state(path).step == run_folder.step_of(path)
        assert set(checkpoint.read_training(path)) == {"optimizer", "scheduler", "scaler"}
        from safetensors.torch import load_file

        assert load_file(path / "adapter_model.safetensors")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_whose_disk_is_full_stops_with_the_reason_and_goes_on_when_there_is_room(
    fork: Forks,
    whole: Path,
    model: Path,
    data: Path,
    tmp_path: Path,
    figure: Callable[[str], None],
) -> None:
    """At sizes from too small for the first file to nearly enough, so that each kind of file is the one that fails."""
    most, draw = kib_of(whole), random.Random(4)
    sizes = [draw.randint(4, most - 8) for _ in range(25 if ALL else 2)]
    sizes += [4, 72, 76, 80, most - 12] if ALL else []
    stopped = 0
    for number, size in enumerate(sizes):
        with small_disk(tmp_path / f"disk{number}", size) as disk:
            run = disk.path / "run"
            argv = command(model, data, run, **MORE)[3:]
            status = fork.train(argv, run).status
            shown.of(disk.path)
            if status == 1:
                stopped += 1
                end = runs.read(run)
                assert (end.status, end.problem and end.problem[0]) == ("failed", "disk_full"), size
                assert finished(run)["code"] == "disk_full"
            else:
                assert status == 2, "refused before it began"
                assert not run_folder.checkpoints(run)
            check_complete(run)
            assert not [path.name for path in run.iterdir() if path.suffix in (".saving", ".removing", ".tmp")]
            disk.resize(4 * most)
            if run_folder.checkpoints(run):
                argv = [*argv, "resume_from_checkpoint=latest"]
            else:
                import shutil

                shutil.rmtree(run)
            assert fork.train(argv, run).status == 0
            assert told(run) == told(whole), size
            assert runs.read(run).status == "completed"
            assert (run / "adapter_model.safetensors").read_bytes() == (
                whole / "adapter_model.safetensors"
            ).read_bytes()
    assert stopped
    figure(
        f"disk full at {len(sizes)} sizes: {stopped} runs stopped with the reason, {len(sizes)} ended as undisturbed"
    )
