"""What a page has to say of machines that it does not run on: their commands, and how a run there is stopped."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app import runs
from app.command_preview import KUBERNETES, preview
from app.text import Text
from tests.app.run_folders import DEAD, lines, settings, write_run
from tests.conftest import ROOT
from trainer import run_folder
from trainer.launch import Launch
from trainer.problems import Language

# As trainer.command.main waits for a request to stop.
WAITS = """
import signal, sys
from pathlib import Path
from trainer.command import StopOnSignals
stop = StopOnSignals(signal.SIGTERM)
stop.look_into(Path(sys.argv[1]))
print("looking", flush=True)
sys.exit(0 if stop.asked.wait(30) else 1)
"""


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("nodes", [2, 4])
def test_each_machine_has_a_line_of_its_own_that_a_shell_takes(nodes: int, language: Language, tmp_path: Path) -> None:
    wanted = settings(tmp_path / "a run 名")
    launch = Launch(nodes=nodes, master_addr="10.0.0.1", master_port=29511, heartbeat_timeout_s=90)
    shown = preview(wanted, launch, Text(language)).replace("\\\n", "")  # lines that go on
    commands = [line for line in shown.splitlines() if line and not line.startswith("#")]
    assert [shlex.split(line) for line in commands] == [runs.command(wanted, launch, rank) for rank in range(nodes)]
    for rank, line in enumerate(commands):
        assert f"NODE_RANK={rank} MASTER_ADDR=10.0.0.1 MASTER_PORT=29511 HEARTBEAT_TIMEOUT_S=90 " in " ".join(
            line.split()
        )
    comments = "".join(line for line in shown.splitlines() if line.startswith("#"))
    assert KUBERNETES in comments
    assert (ROOT / KUBERNETES).is_file()
    assert ("5 分钟" if language == "zh" else "5 minutes") in comments


def test_one_machine_has_the_command_and_nothing_else(tmp_path: Path) -> None:
    wanted = settings(tmp_path / "run")
    shown = preview(wanted, Launch(), Text("en"))
    assert shlex.split(shown.replace("\\\n", "")) == runs.command(wanted)


@pytest.mark.slow
def test_a_run_of_another_machine_is_stopped_through_the_folder(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", lines(2.0, 1.0, time=time.time()))
    (folder / run_folder.IDENTITY).write_text(json.dumps(DEAD | {"host": "node-17", "boot_id": "of node-17"}))
    assert runs.read(folder).status == "elsewhere"
    trainer = subprocess.Popen([sys.executable, "-c", WAITS, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == "looking\n"
    assert runs.stop(folder)
    assert trainer.wait(20) == 0
    trainer.stdout.close()
    assert (folder / run_folder.STOP_ASKED).exists(), "it was no signal from outside"


def test_a_run_that_has_ended_is_asked_nothing(tmp_path: Path) -> None:
    ended = {"event": "finished", "time": 1.0, "outcome": "completed", "step": 60}
    folder = write_run(tmp_path / "run", [*lines(1.0), ended])
    (folder / run_folder.IDENTITY).write_text(json.dumps(DEAD | {"host": "node-17", "boot_id": "of node-17"}))
    assert not runs.stop(folder)
    assert not (folder / run_folder.STOP_WANTED).exists()


@pytest.mark.slow
def test_a_trainer_of_this_machine_is_still_asked_by_a_signal(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", lines(1.0))
    heard = subprocess.Popen([sys.executable, "-c", WAITS, str(tmp_path / "nowhere")], stdout=subprocess.PIPE,
                             text=True, cwd=ROOT)  # fmt: skip
    assert heard.stdout is not None
    assert heard.stdout.readline() == "looking\n"
    run_folder.write_identity(folder, run_folder.Identity.of(heard.pid))
    assert runs.stop(folder)
    assert heard.wait(20) == 0
    heard.stdout.close()
    assert not (folder / run_folder.STOP_WANTED).exists(), "a second request would end it at once"
