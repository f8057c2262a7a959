"""Machines that would not train the same are refused before the first step, with what differs, on all of them."""

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.nodes.machines import lacking, two_machines
from tests.nodes.test_two_nodes import TWO, ended, settings, told
from tests.trainer.test_train import data, model
from trainer import alike, run_folder
from trainer.events import EventLog, FollowerLog, read_events
from trainer.launch import Launch
from trainer.problems import LANGUAGES, Problem
from trainer.settings import TrainSettings

__all__ = ["data", "model"]  # fixtures
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wanted(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainSettings:
    return settings(model, data, tmp_path_factory.mktemp("out") / "run")


def on_two(first: TrainSettings, second: TrainSettings, first_nodes: int = 2, second_nodes: int = 2) -> Problem | None:
    launches = Launch(nodes=first_nodes, master_addr="a"), Launch(nodes=second_nodes, node_rank=1, master_addr="a")
    facts = [
        json.loads(json.dumps(alike.facts(one, launch))) for one, launch in zip((first, second), launches, strict=True)
    ]
    return alike.difference(facts[0], facts[1], 2)


def test_machines_of_the_same_settings_are_alike_wherever_their_folders_lie(
    wanted: TrainSettings, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(wanted.model_name_or_path, tmp_path / "a copy"))
    places = {"model_name_or_path": str(copied), "output_dir": str(tmp_path / "o"), "dataset_dir": str(tmp_path)}
    assert on_two(wanted, wanted.model_copy(update=places)) is None


@pytest.mark.parametrize(
    ("changed", "named", "values"),
    [({"learning_rate": 5e-3}, ("Learning rate", "学习率"), ("`0.001`", "`0.005`")),
     ({"dataset": ("other",)}, ("Dataset", "数据集"), ('`["who"]`', '`["other"]`')),
     ({"save_steps": 7}, ("Save steps", "保存间隔"), ("`10`", "`7`"))],
)  # fmt: skip
def test_a_setting_that_differs_is_named_with_both_values(
    wanted: TrainSettings, changed: dict[str, Any], named: tuple[str, str], values: tuple[str, str]
) -> None:
    problem = on_two(wanted, wanted.model_copy(update=changed))
    assert problem is not None
    for label, language in zip(named, LANGUAGES, strict=True):
        sentence = problem.sentence(language)
        assert all(word in sentence for word in (label, *values)), sentence
        assert ("machine 2" if language == "en" else "第 2 台") in sentence


def test_another_number_of_machines_and_another_version_are_refused(
    wanted: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = on_two(wanted, wanted, 2, 3)
    assert problem is not None
    assert problem.values == {"label": "NNODES", "first": "`2`", "machine": 2, "value": "`3`"}
    here = alike.facts(wanted, TWO)
    monkeypatch.setattr(alike, "version", lambda name: "2.12.0+cpu" if name == "torch" else "1")
    there = alike.facts(wanted, TWO)
    problem = alike.difference({**here, "values": {**there["values"], "torch": "2.13.0"}}, there, 2)
    assert problem is not None
    assert (problem.values["label"], problem.values["value"]) == ("torch", "`2.12.0`"), "how it was built is no matter"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_model_of_the_same_shape_with_other_weights_is_another_one(
    wanted: TrainSettings, tmp_path: Path, file: str
) -> None:
    copied = Path(shutil.copytree(wanted.model_name_or_path, tmp_path / "copy"))
    content = bytearray((copied / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / file).write_bytes(content)
    problem = on_two(wanted, wanted.model_copy(update={"model_name_or_path": str(copied)}))
    assert problem is not None
    assert problem.code == "machines_weights_differ"
    assert str(copied) in str(problem)


# ---- at the first machine's store ----


@pytest.fixture
def harmless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A launcher's threads end its process, and what that has started: here they only give signs of life."""
    from torch.distributed import DistError

    from trainer.machines import Machines

    over = threading.Event()

    def beat(machines: Any) -> None:
        while not over.wait(0.2):
            try:
                machines._store.add(f"beat/{machines._launch.node_rank}", 1)
            except DistError:
                return

    monkeypatch.setattr(Machines, "_watch", beat)
    monkeypatch.setattr(Machines, "_listen", lambda machines: None)
    yield
    over.set()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Meeting:
    """Launchers' parts of meeting at one address; `problems`: what each has raised, by name."""

    def __init__(self, folder: Path, **launch: Any) -> None:
        self._folder, self._launch = (
            folder,
            {"nodes": 2, "master_addr": "127.0.0.1", "master_port": free_port(), **launch},
        )
        self._kept: list[Any] = []
        self.problems: dict[str, Problem | None] = {}
        self.threads: dict[str, threading.Thread] = {}

    def come(self, name: str, rank: int, about: dict[str, Any]) -> None:
        from trainer.machines import Machines

        folder = self._folder / name
        folder.mkdir()
        log = (FollowerLog if rank else EventLog)(folder / run_folder.EVENTS)
        machines = Machines(Launch(**self._launch, node_rank=rank), log, about)

        def meet() -> None:
            try:
                machines.meet(0)
                self.problems[name] = None
            except Problem as problem:
                self.problems[name] = problem
            self._kept.append(machines)  # the store is the first one's, and goes with it

        self.threads[name] = threading.Thread(target=meet, daemon=True)
        self.threads[name].start()

    def ended(self, *names: str) -> list[Problem | None]:
        for name in names:
            self.threads[name].join(60)
        return [self.problems[name] for name in names]


ABOUT = {"values": {"NNODES": 2}, "settings": {"seed": 1}, "folders": {}}


@pytest.mark.usefixtures("harmless")
def test_machines_that_are_alike_meet(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    meeting.come("second", 1, ABOUT)
    meeting.come("first", 0, ABOUT)
    assert meeting.ended("first", "second") == [None, None]


@pytest.mark.usefixtures("harmless")
def test_all_hear_of_a_difference(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path, nodes=3)
    for rank, name in enumerate(["first", "second", "third"]):
        meeting.come(name, rank, {**ABOUT, "settings": {"seed": 1 + rank // 2}})
    for problem in meeting.ended("first", "second", "third"):
        assert problem is not None
        assert (problem.code, problem.values["machine"]) == ("machines_differ", 3)


@pytest.mark.usefixtures("harmless")
def test_a_machine_that_counts_more_of_them_does_not_wait_for_those(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    meeting.come("first", 0, ABOUT)
    meeting._launch["nodes"] = 3
    meeting.come("second", 1, {**ABOUT, "values": {"NNODES": 3}})
    assert [problem and problem.values["label"] for problem in meeting.ended("first", "second")] == ["NNODES", "NNODES"]


@pytest.mark.usefixtures("harmless")
def test_a_number_that_is_taken_is_refused_and_the_run_goes_on(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    meeting.come("second", 1, ABOUT)
    meeting.come("first", 0, ABOUT)
    assert meeting.ended("first", "second") == [None, None]
    meeting.come("again", 1, ABOUT)
    [problem] = meeting.ended("again")
    assert problem is not None
    assert problem.code == "node_rank_taken"
    assert not (tmp_path / "again" / run_folder.EVENTS).exists()


@pytest.mark.usefixtures("harmless")
def test_the_number_of_a_launcher_that_has_ended_is_free(tmp_path: Path) -> None:
    from datetime import timedelta

    from torch.distributed import TCPStore

    meeting = Meeting(tmp_path)
    meeting.come("first", 0, ABOUT)
    time.sleep(1)
    store = TCPStore("127.0.0.1", meeting._launch["master_port"], is_master=False, timeout=timedelta(seconds=9),
                     wait_for_workers=False)  # fmt: skip
    store.add("launchers/1", 1)
    store.add("beat/1", 3)
    meeting.come("second", 1, ABOUT)
    assert meeting.ended("first", "second") == [None, None]


@pytest.mark.usefixtures("harmless")
def test_another_program_at_the_port_is_told_from_the_first_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from trainer import machines

    monkeypatch.setattr(machines, "CONNECT_TIMEOUT", timedelta(seconds=2))
    meeting = Meeting(tmp_path)
    with socket.create_server(("127.0.0.1", meeting._launch["master_port"])):  # it takes what comes and says nothing
        meeting.come("second", 1, ABOUT)
        [problem] = meeting.ended("second")
    assert problem is not None
    assert problem.code == "first_machine_other"


@pytest.mark.parametrize("watched", [False, True])
def test_a_machine_that_has_not_met_the_first_writes_nothing_into_a_folder_that_somebody_has(
    tmp_path: Path, watched: bool
) -> None:
    from trainer.machines import Machines

    run_folder.write_identity(tmp_path, run_folder.Identity.of(os.getpid()))
    machines = Machines(Launch(nodes=2, node_rank=1, master_addr="a"), EventLog(tmp_path / run_folder.EVENTS))
    machines._watched = watched
    machines.finish("first_machine_lost", address="a:1")
    assert (tmp_path / run_folder.EVENTS).exists() is watched


# ---- once samples are tokens ----


def ranks_with(*gathered: tuple[int, str, int, int]) -> Any:
    from trainer.distributed import Ranks

    class Asked(Ranks):
        def gathered(self, value: Any) -> list[Any]:
            return list(gathered)

    return Asked(0, len(gathered))


def test_samples_and_checkpoints_of_another_machine_are_told() -> None:
    from trainer.packed import PackedSamples, Part

    part = Part(np.array([1, 2, 3], np.int32), np.ones(3, np.uint8), np.array([0, 1, 3]))
    samples = PackedSamples([part], 10)
    same = (2, samples.digest(), 0, 1)
    ranks_with(same, same).agree(samples, 0)
    for other, code in (((2, "x", 0, 2), "machines_data_differ"), ((1, same[1], 0, 2), "machines_data_differ"),
                        ((2, same[1], 5, 2), "machines_checkpoint_differs")):  # fmt: skip
        with pytest.raises(Problem) as raised:
            ranks_with(same, other).agree(samples, 0)
        assert (raised.value.code, raised.value.values["machine"]) == (code, 2)


def test_what_is_learnt_and_in_which_order_is_part_of_the_digest() -> None:
    from trainer.packed import PackedSamples, Part

    ids, offsets = np.array([1, 2, 3], np.int32), np.array([0, 1, 3])
    part = Part(ids, np.ones(3, np.uint8), offsets)
    others = [Part(ids, np.array([0, 1, 1], np.uint8), offsets), Part(ids + 1, part.trained, offsets),
              Part(ids, part.trained, np.array([0, 2, 3]))]  # fmt: skip
    digests = {PackedSamples([one], 10).digest() for one in (part, *others)}
    digests.add(PackedSamples([part], 10, np.array([1, 0])).digest())
    assert len(digests) == 5
    assert PackedSamples([part], 10).digest() == PackedSamples([Part(ids.copy(), part.trained, offsets)], 10).digest()


# ---- why a process has ended ----


@pytest.mark.parametrize(
    ("exitcode", "code"),
    [(1, "process_failed"), (-signal.SIGABRT, "process_failed"), (-signal.SIGKILL, "process_died")],
)
def test_a_process_that_failed_by_itself_is_not_said_to_be_ended_from_outside(
    tmp_path: Path, exitcode: int, code: str
) -> None:
    from trainer import torchrun

    failed: Any = SimpleNamespace(get_first_failure=lambda: (3, SimpleNamespace(exitcode=exitcode)))
    torchrun._report(EventLog(tmp_path / run_folder.EVENTS), failed, None)
    [event] = read_events(tmp_path / run_folder.EVENTS)[0]
    assert (event["code"], event["rank"]) == (code, 3)


def test_an_ipv6_address_is_written_as_one() -> None:
    assert Launch(nodes=2, master_addr="fd00::1").address == "[fd00::1]:29500"
    assert Launch(nodes=2, master_addr="n0", master_port=1).address == "n0:1"


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(lacking()), reason=f"NOT TESTED: {lacking()}")
def test_other_data_on_the_second_machine_end_the_run_on_both_before_its_first_step(
    model: Path, data: Path, tmp_path: Path
) -> None:
    """With fewer samples there it ended its epoch sooner, and the first machine waited for an hour."""
    fewer = tmp_path / "data"
    fewer.mkdir()
    (fewer / "who.json").write_text(json.dumps(json.loads((data / "who.json").read_text())[:20]))
    wanted = settings(model, data, tmp_path / "run")
    with two_machines() as machines:
        flags = [[f"{key}={value}" for key, value in
                  {"dataset_dir": folder, "num_train_epochs": 2, "max_steps": -1}.items()] for folder in (data, fewer)]  # fmt: skip
        from app import runs

        launchers = [machines.start(rank, [*runs.command(wanted, TWO, rank), *flags[rank]], tmp_path / f"terminal{rank}")
                     for rank in range(2)]  # fmt: skip
        assert ended(launchers) == [1, 1]
    assert told(tmp_path / "run", resumable=False) == ("machines_data_differ", {"machine": 2, "count": 20, "first": 40})
    assert "other training samples (20)" in (tmp_path / "terminal1").read_text()
