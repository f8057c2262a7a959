"""How long machines, processes and devices wait for each other, and over which of its networks a machine is reached."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.nodes.machines import lacking, two_machines
from tests.trainer.test_train import ONE_THREAD, command, data, finished, model
from trainer import accelerators, address, device_kinds, run_folder, torchrun
from trainer.accelerators import Accelerator
from trainer.events import EventLog
from trainer.launch import Launch
from trainer.problems import Problem, Problems
from trainer.settings import parse

__all__ = ["data", "model"]  # fixtures
NEEDED = {"model_name_or_path": "m", "dataset": "d"}


@pytest.fixture
def waiting_npu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "accelerators", lambda: [Accelerator("npu", "0", "910B3", 64.0, 60.0)])
    for name in device_kinds.of("npu").waits:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("waiting_npu")
def test_a_device_that_would_give_up_sooner_waits_as_long_as_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun._let_devices_wait(3600)
    assert (os.environ["HCCL_EXEC_TIMEOUT"], os.environ["HCCL_EVENT_TIMEOUT"]) == ("3600", "3632")
    monkeypatch.delenv("HCCL_EVENT_TIMEOUT")
    monkeypatch.setenv("HCCL_EXEC_TIMEOUT", "7200")
    torchrun._let_devices_wait(3600)
    assert os.environ["HCCL_EXEC_TIMEOUT"] == "7200"
    assert "HCCL_EVENT_TIMEOUT" not in os.environ, "which must be above the other"


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", 2**31])
def test_a_ddp_timeout_that_is_none_is_refused(value: object) -> None:
    with pytest.raises((Problem, Problems), match="DDP timeout"):
        parse({**NEEDED, "ddp_timeout": value})


def test_a_ddp_timeout_may_be_changed_when_a_run_goes_on() -> None:
    from trainer.prepare import RESUME_MAY_CHANGE

    assert parse(NEEDED).ddp_timeout == 3600
    assert "ddp_timeout" in RESUME_MAY_CHANGE


@pytest.mark.slow
@pytest.mark.thorough
def test_the_endless_limit_of_published_settings_files_is_taken(model: Path, data: Path, tmp_path: Path) -> None:
    argv = command(model, data, tmp_path / "run", max_steps=2, ddp_timeout=180000000)
    subprocess.run(argv, env={**ONE_THREAD, "NPROC_PER_NODE": "2"}, timeout=200, check=True)
    assert finished(tmp_path / "run")["outcome"] == "completed"


def test_limits_that_were_set_for_the_page_go_with_every_machines_command() -> None:
    given = Launch.of({"NNODES": "2", "MASTER_ADDR": "a", "HEARTBEAT_TIMEOUT_S": "90", "MEET_TIMEOUT_S": "900"})
    assert Launch.of(given.environment(1)).heartbeat_timeout_s == 90
    assert Launch.of(given.environment(1)).meet_timeout_s == 900
    assert not {"HEARTBEAT_TIMEOUT_S", "MEET_TIMEOUT_S"} & Launch(nodes=2, master_addr="a").environment(0).keys()


def test_the_network_that_leads_to_the_first_machine_is_found() -> None:
    for there in ("127.0.0.1", "localhost", "no-such-host.invalid"):
        assert address.interface(Launch(nodes=2, master_addr=there)) is None
    outward = [(name, one.address) for name, found in psutil.net_if_addrs().items() for one in found
               if one.family == socket.AF_INET and not one.address.startswith("127.")]  # fmt: skip
    for name, own in outward:
        assert address.interface(Launch(nodes=2, master_addr=own)) == name


@pytest.mark.slow
@pytest.mark.skipif(bool(lacking()), reason=f"NOT TESTED: {lacking()}")
def test_both_machines_of_a_cable_take_its_network(tmp_path: Path) -> None:
    program = "from trainer import address; from trainer.launch import Launch; " \
              "print(address.interface(Launch(nodes=2, master_addr='10.231.77.1')))"  # fmt: skip
    with two_machines() as machines:
        for machine, name in enumerate(machines.names):
            argv = [sys.executable, "-c", program]
            assert machines.start(machine, argv, tmp_path / f"{machine}").wait(60) == 0
            assert (tmp_path / f"{machine}").read_text().strip() == name


# ---- whose folder it is ----


class Folder:
    """A run folder that a machine other than the first one finds."""

    def __init__(self, path: Path) -> None:
        from trainer.machines import Machines

        path.mkdir(exist_ok=True)
        self.events = EventLog(path / run_folder.EVENTS)
        self.machines = Machines(Launch(nodes=2, node_rank=1, master_addr="a"), self.events)

    def claimed(self) -> None:
        run_folder.write_identity(self.events.path.parent, run_folder.Identity.of(os.getpid()))

    def met(self) -> None:
        self.machines._watched, self.machines._owner = True, run_folder.read_identity(self.events.path.parent)

    def finished(self) -> bool:
        self.machines.finish("first_machine_lost", address="a:1")
        return self.events.path.exists()


@pytest.mark.slow
def test_the_end_is_written_only_into_a_folder_that_is_this_launchs(tmp_path: Path) -> None:
    unclaimed = Folder(tmp_path / "unclaimed")
    assert not unclaimed.finished(), "the first machine could not take it any more"
    own = Folder(tmp_path / "own")
    own.met()
    assert own.finished(), "a disk of its own"
    shared = Folder(tmp_path / "shared")
    shared.claimed()
    shared.met()
    assert shared.finished()
    away = Folder(tmp_path / "away")
    away.met()
    away.claimed()
    assert not away.finished(), "it was started again by somebody else"
