"""The image's entrypoint in a clean root: PID 1, environment, users, health, and what a stop leaves behind."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.container.sandbox import Container, missing
from tests.tiny import build_tiny_model
from trainer import run_folder
from trainer.events import Event, read_events

WHY_NOT = missing()
TRIED = pytest.mark.skipif(bool(WHY_NOT), reason=f"NOT TESTED, the image's entrypoint in a clean root: {WHY_NOT}")
pytestmark = [pytest.mark.slow, TRIED]
STEPS = 200
# A process that a run's folder names, and that does nothing.
LIVES = """
import os, time
from pathlib import Path
from trainer import run_folder
folder = Path("/workspace/runs/live")
folder.mkdir()
run_folder.write_identity(folder, run_folder.Identity.of(os.getpid()))
time.sleep(600)
"""
# As the page queues a run, or one to be resumed; the page starts it.
QUEUE = """
import json, sys
from pathlib import Path
from app.run_queue import Queue
from trainer.launch import Launch
from trainer.settings import parse
Queue(Path("/workspace/runs")).add(parse(json.loads(sys.argv[1])), Launch())
"""
# What the page's list of runs says, and its Train tab of the last one.
LIST = """
import json
from pathlib import Path
from app import runs
from app.run_list import RunList
runs_dir = Path("/workspace/runs")
shown = runs.latest(runs_dir)
print(json.dumps([[row.name, row.status, row.resumable] for row in RunList(runs_dir).rows()] + [[shown.status, shown.resumable]]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that every user can reach, as a data disk is."""
    base = tmp_path_factory.mktemp("container")
    for folder in (base, *base.parents):
        if folder.stat().st_uid == os.geteuid() and folder.is_relative_to(tmp_path_factory.getbasetemp().parent):
            folder.chmod(folder.stat().st_mode | 0o011)
    yield base
    shutil.rmtree(base)


def owned(folder: Path, uid: int) -> Path:
    """An empty folder that is `uid`'s alone."""
    folder.mkdir()
    folder.chmod(0o700)
    os.chown(folder, uid, uid)
    return folder


@pytest.fixture(scope="module")
def containers(place: Path) -> Iterator[Any]:
    """Starts containers that end with the tests."""
    started: list[Container] = []

    def start(volume: Path, *command: str, **more: Any) -> Container:
        started.append(Container(place, volume, *command, **more))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture(scope="module")
def volume(place: Path) -> Path:
    folder = owned(place / "volume", 1000)
    model = build_tiny_model(folder / "models" / "tiny")
    for path in (model.parent, model, *model.iterdir()):
        os.chown(path, 1000, 1000)
    return folder


@pytest.fixture(scope="module")
def first(containers: Any, volume: Path) -> Container:
    """`docker run IMAGE`, its page up; `healths`: what HEALTHCHECK found before and after."""
    container: Container = containers(volume, name="first")
    container.wait_for(lambda: container.run("test", "-s", "/tmp/tunedesk-port").returncode == 0, "the page to start")
    container.healths.append(container.healthy())
    container.wait_for(lambda: "?token=" in container.said(), "the page's address")
    container.wait_for(container.healthy, "healthy")
    container.healths.append(True)
    return container


def queue(container: Container, name: str, **more: Any) -> None:
    settings = {"model_name_or_path": "/workspace/models/tiny", "dataset_dir": "/workspace/data",
                "dataset": ["identity-pku-assistant"], "output_dir": f"/workspace/runs/{name}",
                "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "cutoff_len": 128, "logging_steps": 1,
                "save_steps": 10}  # fmt: skip
    done = container.run("python3", "-P", "-c", QUEUE, json.dumps(settings | more))
    assert done.returncode == 0, done.stderr


def events(volume: Path, name: str) -> list[Event]:
    return read_events(volume / "runs" / name / run_folder.EVENTS)[0]


def outcome(volume: Path, name: str) -> str | None:
    last = [event for event in events(volume, name) if event["event"] == "finished"]
    return last[-1]["outcome"] if last else None


def saved(volume: Path, name: str) -> list[Path]:
    """The checkpoints that the run can go on from."""
    return [path for path in run_folder.checkpoints(volume / "runs" / name) if run_folder.is_resumable(path)]


def listed(container: Container) -> Any:
    done = container.run("python3", "-P", "-c", LIST)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def listed_by_another(containers: Any, volume: Path, **more: str) -> Any:
    """What a container says that is there for a moment."""
    one = containers(volume, "python3", "-P", "-c", LIST, **more)
    assert one.process.wait(60) == 0, one.said()
    return json.loads(one.said())


def test_the_page_is_up_with_its_token_in_the_log(first: Container) -> None:
    assert re.search(r"http://127\.0\.0\.1:7860/\?token=[\w-]{16,}", first.said())


def test_health_turns_from_unhealthy_to_healthy(first: Container) -> None:
    assert first.healths == [False, True]


def test_process_1_is_the_init_and_everything_runs_as_the_user(first: Container) -> None:
    assert first.run("cat", "/proc/1/comm").stdout == "tini\n"
    lines = first.run("bash", "-c", "grep -h ^Uid: /proc/[0-9]*/status").stdout.splitlines()
    assert len(lines) >= 3
    assert {line.split()[1] for line in lines} == {"1000"}


def test_the_page_has_the_vendors_environment(first: Container) -> None:
    pid = first.run("pgrep", "-f", "app webui").stdout.strip()
    environment = dict(
        pair.split("=", 1) for pair in first.run("cat", f"/proc/{pid}/environ").stdout.split("\0") if pair
    )
    assert environment["FAKE_CANN"] == "sourced with 0 arguments"
    assert environment["FAKE_IR"] == "sourced with 0 arguments"
    assert environment["FAKE_NNAL"] == "--cxx_abi=1"
    assert environment["PYTHONPATH"] == "/usr/local/Ascend/python", "an empty entry would be the working folder"
    assert set(environment["LD_LIBRARY_PATH"].split(":")) == {
        f"/usr/local/Ascend/driver/{name}" for name in ("lib64", "lib64/common", "lib64/driver")
    }
    assert environment["HOME"] == "/home/tunedesk"


def test_orphans_are_reaped(first: Container) -> None:
    assert first.run("bash", "-c", "for i in {1..20}; do (sleep 0.2 &); done").returncode == 0
    states = ["bash", "-c", "cut -d' ' -f2,3 /proc/[0-9]*/stat"]

    def gone() -> bool:
        found = first.run(*states).stdout
        return "(sleep)" not in found and " Z" not in found

    first.wait_for(gone, "no zombie", 10)


def test_a_page_that_dies_is_started_again_while_a_run_trains(first: Container, volume: Path) -> None:
    first.run("bash", "-c", f"setsid python3 -P -c {shlex.quote(LIVES)} &>/dev/null &")
    first.wait_for(lambda: (volume / "runs" / "live" / "run.json").exists(), "a run")
    first.run("pkill", "-KILL", "-f", "app webui")
    first.wait_for(lambda: first.said().count("?token=") == 2, "the page's second address")
    assert "The page ended with code -9, but 1 of its runs still train" in first.said()
    assert len(set(re.findall(r"token=\S+", first.said()))) == 1, "who had it open is still let in"
    assert first.run("pkill", "-KILL", "-f", "run_folder").returncode == 0, "the run is as it was"
    shutil.rmtree(volume / "runs" / "live")


def test_a_stop_within_ten_seconds_leaves_a_resumable_run(first: Container, volume: Path) -> None:
    queue(first, "run", max_steps=STEPS)
    first.wait_for(lambda: saved(volume, "run"), "a checkpoint")
    before = saved(volume, "run")
    # Docker's ten seconds, and as many times more as the processors have too much to do.
    limit_s = 10 * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
    taken_s = first.stop(limit_s)
    assert first.process.returncode == 0, first.said()
    assert "run finishes its step and saves" in first.said()
    assert outcome(volume, "run") == "stopped", f"after {taken_s:.1f} of {limit_s:.0f} s"
    assert len(saved(volume, "run")) > len(before)
    owners = {path.stat().st_uid for path in (volume / "runs").rglob("*")}
    assert owners == {1000}


@pytest.fixture(scope="module")
def second(containers: Any, volume: Path) -> Container:
    """Another container with the same volume."""
    container: Container = containers(volume, name="second")
    container.wait_for(lambda: "?token=" in container.said(), "the page's address")
    return container


@pytest.mark.thorough
def test_the_next_container_offers_the_run_at_once_and_resumes_it_to_its_end(second: Container, volume: Path) -> None:
    assert listed(second) == [["run", "stopped", True], ["stopped", True]]
    queue(second, "run", max_steps=STEPS, resume_from_checkpoint="latest")
    second.wait_for(lambda: outcome(volume, "run") == "completed", "the end")
    steps = [event["step"] for event in events(volume, "run") if event["event"] == "step"]
    assert steps == list(range(1, STEPS + 1)), "no step twice and none left out"


@pytest.mark.thorough
def test_a_killed_containers_run_is_offered_at_once_and_a_living_ones_is_not(
    second: Container, containers: Any, volume: Path
) -> None:
    queue(second, "killed", max_steps=100_000)
    second.wait_for(lambda: saved(volume, "killed"), "a checkpoint")
    for host in ("third", second.host):
        seen = listed_by_another(containers, volume, name=f"beside-as-{host}", host=host)
        assert seen[0] == ["killed", "elsewhere", False]
    second.kill()
    for host in ("third", second.host):
        seen = listed_by_another(containers, volume, name=f"after-as-{host}", host=host)
        assert seen[0] == ["killed", "died", True]


def test_any_uid_writes_the_mounted_folders(containers: Any, place: Path) -> None:
    """One without a name and a home."""
    volume = owned(place / "somebodys", 54321)
    script = "touch /workspace/mine $HOME/mine && python3 -c 'import getpass; print(getpass.getuser())' && id -u"
    one = containers(volume, "bash", "-c", script, name="any-uid", uid=54321)
    assert one.process.wait(30) == 0, one.said()
    assert one.said().split() == ["tunedesk", "54321"]
    assert (volume / "mine").stat().st_uid == 54321
    assert (volume / "data" / "dataset_info.json").stat().st_uid == 54321
    (volume / "data" / "dataset_info.json").write_text("{}")
    again = containers(volume, "true", name="any-uid-again", uid=54321)
    assert again.process.wait(30) == 0
    assert (volume / "data" / "dataset_info.json").read_text() == "{}", "what is there is kept"


@pytest.mark.parametrize("flags", [("--host", "::1", "--root-path", "/tune"), ("--host", "127.0.0.2", "--port", "0")])
def test_health_is_asked_where_the_page_is(containers: Any, place: Path, flags: tuple[str, ...]) -> None:
    name = flags[1].replace(":", "")
    one = containers(owned(place / f"volume-at-{name}", 1000), *flags, name=f"at-{name}")
    one.wait_for(lambda: "token=" in one.said(), "the address")
    one.wait_for(one.healthy, "healthy", 30)
    one.run("pkill", "-STOP", "-f", "app webui")
    assert not one.healthy()
    one.kill()


def test_a_volume_of_another_user_is_told_with_what_to_do(containers: Any, place: Path) -> None:
    for uid, advice in ((54321, "--user 54321:54321, or give the mounted folder to 1000:1000"),
                        (0, "trained: give the mounted folder to 1000:1000")):  # fmt: skip
        volume = owned(place / f"volume-of-{uid}", uid)
        volume.chmod(0o755)
        one = containers(volume, "true", name=f"of-{uid}")
        assert one.process.wait(30) == 0
        assert advice in one.said()
        assert "mkdir:" not in one.said()


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("bash", "-c", "npu-smi info; exit 7"), 7, "the fake npu-smi: info"),
        (("train", "lerning_rate=1"), 2, "lerning_rate"),
        (("doctor", "--help"), 0, "usage: tunedesk doctor"),
        (("nothing-of-the-kind",), 2, "usage: tunedesk COMMAND"),
        (("--port", "none"), 2, "--port"),
    ],
)
def test_other_commands_work_too(containers: Any, place: Path, command: tuple[str, ...], code: int, said: str) -> None:
    name = "-".join(command)[:40].replace("/", "").replace(" ", "")
    one = containers(owned(place / f"volume-of-{name}", 1000), *command, name=name, host="command")
    assert one.process.wait(60) == code, one.said()
    assert said in one.said()


def test_a_signal_reaches_any_command(containers: Any, place: Path) -> None:
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    one = containers(owned(place / "trapping", 1000), "bash", "-c", script, name="trap")
    one.wait_for(lambda: "ready" in one.said(), "the trap", 20)
    one.stop(5)
    assert one.process.returncode == 9
