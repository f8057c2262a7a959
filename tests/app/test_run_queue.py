"""The queue: in order, once, over restarts and kills, whoever else keeps it."""

import fcntl
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app import removal, run_queue, runs, runs_table
from app.run_queue import Keeper, Queue, start_now
from app.text import Text
from tests.app.run_folders import begun, lines, settings, small_command, write_run
from trainer import run_folder
from trainer.launch import Launch
from trainer.problems import Problem
from trainer.run_folder import Identity
from trainer.settings import TrainSettings
from trainer.settings_file import to_shell

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = Launch()


def anywhere(_: TrainSettings) -> None:
    """No path is refused."""


@pytest.fixture
def runs_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Small trainers instead of real ones; what is started ends with the test."""
    monkeypatch.setattr(runs, "command", small_command)
    monkeypatch.setattr(run_queue, "check", anywhere)
    yield tmp_path
    for process in psutil.process_iter(["cmdline"]):
        if any(word.startswith(str(tmp_path)) for word in process.info["cmdline"] or []):
            process.kill()


def add(runs_dir: Path, *names: str, launch: Launch = LAUNCH) -> None:
    for name in names:
        Queue(runs_dir).add(settings(runs_dir / name), launch)


def wait(condition: Any, what: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def end(runs_dir: Path, name: str) -> None:
    """Lets the small trainer `name` finish, and waits until its process is gone."""
    (runs_dir / name / "end").touch()
    wait(lambda: not alive(runs_dir / name) and (runs_dir / name / "run.json").exists(), f"{name} to end")


def alive(folder: Path) -> bool:
    identity = run_folder.read_identity(folder)
    return identity is not None and identity.is_alive()


def test_queued_runs_start_in_order_each_when_its_device_is_free(runs_dir: Path) -> None:
    add(runs_dir, "a", "b", "c")
    keeper = Keeper(runs_dir, anywhere)
    for started, left in [("a", ["b", "c"]), ("b", ["c"]), ("c", [])]:
        assert keeper.look() == runs_dir / started
        assert Queue(runs_dir).names() == left
        assert keeper.look() is None, "the device is taken"
        wait(lambda name=started: name in begun(runs_dir), "the trainer")
        end(runs_dir, started)
    assert begun(runs_dir) == ["a", "b", "c"]


def test_runs_on_other_devices_pass_but_none_overtakes_one_that_waits_for_its_device(runs_dir: Path) -> None:
    for name, devices in [("on 0", "0"), ("on both", "01"), ("also on 1", "1"), ("on 2", "2")]:
        add(runs_dir, name, launch=Launch(devices=tuple(devices)))
    keeper = Keeper(runs_dir, anywhere)
    assert [keeper.look() for _ in range(4)] == [runs_dir / "on 0", runs_dir / "on 2", None, None]
    wait(lambda: len(begun(runs_dir)) == 2, "both trainers")
    end(runs_dir, "on 0")
    assert keeper.look() == runs_dir / "on both"


def test_the_queue_is_reordered_and_cancelled(runs_dir: Path) -> None:
    add(runs_dir, "a", "b", "c")
    queue = Queue(runs_dir)
    assert queue.move("c", -1)
    assert queue.names() == ["a", "c", "b"]
    assert queue.move("a", -5)
    assert queue.move("a", 1)
    assert Queue(runs_dir).names() == ["c", "a", "b"], "kept on the disk"
    assert queue.cancel("a")
    assert not queue.cancel("a")
    assert not queue.move("a", 1)
    assert queue.names() == ["c", "b"]


def test_the_queued_command_is_the_previewed_one(tmp_path: Path) -> None:
    wanted = settings(tmp_path / "训练 ';$(x)", learning_rate=3e-4, val_size=0.1, lora_target="q_proj,v_proj",
                      resume_from_checkpoint="latest")  # fmt: skip
    launch = Launch(devices=("2", "0"), nodes=2, master_addr="host", master_port=1234)
    previewed = to_shell(runs.command(wanted, launch))
    Queue(tmp_path).add(wanted, launch)
    entry = Queue(tmp_path).entries()[0]
    assert entry.settings is not None
    assert to_shell(runs.command(entry.settings, entry.launch)) == previewed


def test_one_name_is_queued_once_and_not_started_besides(runs_dir: Path) -> None:
    add(runs_dir, "a", "b")
    for again in (lambda: add(runs_dir, "b"), lambda: start_now(runs_dir, settings(runs_dir / "b"), LAUNCH)):
        with pytest.raises(Problem, match="place 2") as caught:
            again()
        assert caught.value.code == "queued_already"


def test_a_second_start_on_a_device_that_trains_is_answered_with_the_run_that_trains_there(runs_dir: Path) -> None:
    one, two = Launch(devices=("0",)), Launch(devices=("1",))
    assert start_now(runs_dir, settings(runs_dir / "a"), one) is None
    busy = start_now(runs_dir, settings(runs_dir / "b"), one)
    assert busy is not None
    assert busy.name == "a"
    assert not (runs_dir / "b").exists()
    assert start_now(runs_dir, settings(runs_dir / "c"), two) is None


def test_what_cannot_start_says_why_and_lets_the_others_pass(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(wanted: TrainSettings) -> None:
        if wanted.output_dir.endswith("lost"):
            raise Problem("model_not_found", label="Model path", path="/m/tiny")

    monkeypatch.setattr(run_queue, "check", check)
    add(runs_dir, "lost", "good")
    keeper = Keeper(runs_dir, anywhere)
    assert [keeper.look(), keeper.look()] == [None, runs_dir / "good"]
    (row,) = runs_table.value([], Queue(runs_dir).entries(), Text("zh"))
    assert (row["name"], row["look"], row["state"]) == ("lost", "failed", "无法开始")
    assert "/m/tiny" in row["why"]
    assert Queue(runs_dir).cancel("lost")


def test_a_path_that_the_page_may_not_touch_is_refused_when_it_would_start(runs_dir: Path) -> None:
    def check_paths(_: TrainSettings) -> None:
        raise Problem("path_outside", label="Model path", path="/m/tiny")

    add(runs_dir, "a")
    assert Keeper(runs_dir, check_paths).look() is None
    assert Queue(runs_dir).entries()[0].refused[0][0] == "path_outside"
    assert begun(runs_dir) == []


@pytest.mark.parametrize(
    "junk",
    ["", "{", "null", "[]", '{"settings": {}}', '{"settings": {"x": 1}, "launch": {}, "added": 0}', "[" * 100_000],
)
def test_a_broken_file_is_shown_and_can_be_cancelled_and_stops_nobody(runs_dir: Path, junk: str) -> None:
    add(runs_dir, "a")
    (runs_dir / "_queue" / "broken.json").write_text(junk)
    (runs_dir / "_queue" / "order").write_text(junk)
    assert Keeper(runs_dir, anywhere).look() == runs_dir / "a"
    (row,) = runs_table.value([], Queue(runs_dir).entries(), Text("en"))
    assert "broken.json" in row["why"]
    assert Queue(runs_dir).cancel("broken")


def test_a_moved_runs_folder_takes_its_queue_along(runs_dir: Path) -> None:
    add(runs_dir / "old", "a")
    (runs_dir / "old").rename(runs_dir / "new")
    assert Keeper(runs_dir / "new", anywhere).look() == runs_dir / "new" / "a"


def test_a_queued_run_is_not_deleted(runs_dir: Path) -> None:
    write_run(runs_dir / "a", lines(1.0))
    add(runs_dir, "a")
    with pytest.raises(Problem) as caught:
        removal.remove(runs_dir, "a")
    assert caught.value.code == "run_is_queued"


def test_a_run_that_waits_to_be_resumed_keeps_its_figures_in_the_list(tmp_path: Path) -> None:
    from app.run_list import RunList

    write_run(tmp_path / "a", lines(2.0, 1.5))
    add(tmp_path, "a", "b")
    first, second = runs_table.value(RunList(tmp_path).rows(), Queue(tmp_path).entries(), Text("en"))
    assert (first["place"], first["loss"], first["new"], first["state"]) == (1, "1.5", False, "Queued, place 1")
    assert (second["place"], second["model"], second["new"]) == (2, "tiny", True)


# ---- once ----


def test_a_page_killed_between_the_start_and_the_note_of_it_starts_nothing_twice(runs_dir: Path) -> None:
    """Its trainer holds the lock of the queue's file. Until it has written which process it is, its devices count as
    awaited: nothing else starts on them."""
    add(runs_dir, "a", "b")
    with (runs_dir / "_queue" / "a.json").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        heir = subprocess.Popen(["sleep", "60"], pass_fds=(file.fileno(),))
    try:
        assert Keeper(runs_dir, anywhere).look() is None
        assert Queue(runs_dir).names() == ["a", "b"]
        (runs_dir / "a").mkdir()
        run_folder.write_identity(runs_dir / "a", Identity.of(heir.pid))
        assert Keeper(runs_dir, anywhere).look() is None
        assert Queue(runs_dir).names() == ["b"]
        assert begun(runs_dir) == []
    finally:
        heir.kill()
        heir.wait()


def test_a_run_that_has_begun_and_ended_meanwhile_is_not_started_again(runs_dir: Path) -> None:
    add(runs_dir, "a")
    write_run(runs_dir / "a", lines(1.0, time=time.time() + 1))
    assert Keeper(runs_dir, anywhere).look() is None
    assert Queue(runs_dir).names() == []
    assert begun(runs_dir) == []


def test_a_cancelled_run_does_not_start(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled while its data were being checked."""
    monkeypatch.setattr(run_queue, "check", lambda _: Queue(runs_dir).cancel("a"))
    add(runs_dir, "a")
    assert Keeper(runs_dir, anywhere).look() is None
    assert begun(runs_dir) == []


PAGE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from app import run_queue, runs
from tests.app.run_folders import small_command
runs.command, run_queue.check, run_queue.LOOK_S = small_command, lambda _: None, 0.01
keeper = run_queue.Keeper(Path(sys.argv[1]), lambda _: None)
print("ready", flush=True)
keeper._keep()
"""


def page(runs_dir: Path) -> "subprocess.Popen[str]":
    """A page process as far as the queue goes."""
    process = subprocess.Popen(
        [sys.executable, "-c", PAGE, str(runs_dir), str(ROOT)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_pages_one_of_them_killed_start_each_run_once_and_in_order(runs_dir: Path) -> None:
    names = [f"run {number}" for number in range(6)]
    pages = [page(runs_dir), page(runs_dir)]
    killed = 0
    try:
        add(runs_dir, *names)
        for number, name in enumerate(names):
            wait(lambda name=name: name in begun(runs_dir), f"{name} to start")
            wait(lambda name=name: alive(runs_dir / name), f"{name} to be known")
            for process in [one for one in pages if number % 2 and keeps(one, runs_dir)]:
                end_page(process)
                pages[pages.index(process)] = page(runs_dir)
                killed += 1
                assert alive(runs_dir / name), "a trainer outlives its page"
            end(runs_dir, name)
        time.sleep(0.3)
        assert killed == 3
        assert begun(runs_dir) == names
        assert Queue(runs_dir).names() == []
    finally:
        for process in pages:
            end_page(process)


def test_a_page_killed_at_any_moment_of_a_start_leaves_a_run_that_starts_once(runs_dir: Path) -> None:
    moments = random.Random(7)
    for number in range(5):
        name, process = f"run {number}", page(runs_dir)
        try:
            add(runs_dir, name)
            time.sleep(moments.uniform(0.0, 0.08))
            end_page(process)
            process = page(runs_dir)
            wait(lambda name=name: name in begun(runs_dir), f"{name} to start")
            wait(lambda: Queue(runs_dir).names() == [], "the queue to know")
            end(runs_dir, name)
        finally:
            end_page(process)
    assert begun(runs_dir) == [f"run {number}" for number in range(5)]


def end_page(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def keeps(process: "subprocess.Popen[str]", runs_dir: Path) -> bool:
    """Whether `process` has the keeper's lock, as the kernel tells."""
    inode = os.stat(runs_dir / "_queue" / "keeper").st_ino
    lines = Path("/proc/locks").read_text().splitlines()
    return any(f" {process.pid} " in line and line.split()[5].endswith(f":{inode}") for line in lines)


def test_an_identity_without_devices_takes_all(tmp_path: Path) -> None:
    """As runs have it that an older version started."""
    run_folder.write_identity(tmp_path, Identity.of(os.getpid()))
    found = json.loads((tmp_path / "run.json").read_text())
    del found["devices"]
    (tmp_path / "run.json").write_text(json.dumps(found))
    identity = run_folder.read_identity(tmp_path)
    assert identity is not None
    assert runs.share_devices(identity.devices, ("3",))
