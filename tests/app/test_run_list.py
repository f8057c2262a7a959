"""The list of runs: quick for many, never broken by one, and in accord with what the monitor says of a run."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from app import comparison, continuation, monitor, removal, runs, runs_table
from app.charts import chart
from app.course import Course
from app.run_list import RunList
from app.run_queue import Queue
from app.text import Text
from tests.app.run_folders import lines, settings, write_run
from trainer import run_folder
from trainer.events import parsed
from trainer.launch import Launch
from trainer.problems import Problem
from trainer.run_folder import Identity

pytestmark = pytest.mark.slow

EN, ZH = Text("en"), Text("zh")


def rows(runs_dir: Path) -> dict[str, Any]:
    return {row.name: row for row in RunList(runs_dir).rows()}


def test_500_runs_are_listed_within_a_second_and_again_in_a_tenth(tmp_path: Path) -> None:
    events = lines(*(2.0 / (1 + step / 50) + step * 7919 % 101 / 500 for step in range(120)))
    first = write_run(tmp_path / "run 0", events)
    for number in range(1, 500):
        shutil.copytree(first, tmp_path / f"run {number}", copy_function=shutil.copyfile)
    found = RunList(tmp_path)
    began = time.process_time()
    assert len(found.rows()) == 500
    assert time.process_time() - began < 1.0
    found.forget()
    began = time.process_time()
    assert found.rows()[0].step == 120
    assert time.process_time() - began < 0.25


def test_a_growing_run_is_read_on_and_a_rewritten_one_anew(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", lines(3.0, 2.0))
    found = RunList(tmp_path)
    assert found.rows()[0].step == 2
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps(lines(3.0, 2.0, 1.0)[-1]) + "\n" + '{"event": "step", "ti')
    found.forget()
    assert (found.rows()[0].step, found.rows()[0].best) == (3, (3, 1.0))
    write_run(folder, lines(9.0))
    found.forget()
    assert (found.rows()[0].step, found.rows()[0].best) == (1, (1, 9.0))


JUNK = [b"", b"\xff\xfe\x00", b"{", b"null", b"[]", b'{"event": "step", "loss": x}\n' * 3, b"[" * 5000, b"- " * 5000]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
@pytest.mark.parametrize("name", ["run.json", "events.jsonl", "config.yaml", "checkpoint-2/trainer_state.json"])
def test_broken_files_of_one_run_leave_it_a_row_and_the_others_theirs(tmp_path: Path, name: str, junk: bytes) -> None:
    write_run(tmp_path / "good", lines(2.0, 1.0))
    folder = write_run(tmp_path / "bad", lines(2.0, 1.0))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(junk)
    found = rows(tmp_path)
    assert found["good"].loss == 1.0
    assert found["good"].model == "tiny"
    assert not found["bad"].alive
    for text in (EN, ZH):
        assert len(runs_table.value(list(found.values()), [], text)) == 2
        comparison.table([tmp_path / "good", folder], [found["good"], found["bad"]], text)
    comparison.curves([tmp_path / "good", folder])


@pytest.mark.parametrize("cut", [1, 30, 200, 500])
def test_a_truncated_event_file_shows_what_is_whole(tmp_path: Path, cut: int) -> None:
    folder = write_run(tmp_path / "run", lines(3.0, 2.0, 1.0))
    data = (folder / "events.jsonl").read_bytes()[:-cut]
    (folder / "events.jsonl").write_bytes(data)
    whole = [event for line in data.splitlines()[: data.count(b"\n")] if (event := parsed(line))]
    assert rows(tmp_path)["run"].step == max((event.get("step", 0) for event in whole), default=0)


def test_a_folder_whose_name_is_no_text_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "good", lines(1.0))
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")) / "run.json").write_text("{}")
    assert list(rows(tmp_path)) == ["good"]


def resumed() -> list[dict[str, Any]]:
    """Stopped after step 4, gone on from step 2, with an evaluation that no longer holds."""
    evaluated = {"event": "evaluated", "time": 1004.5, "step": 4, "eval_loss": 0.1}
    first = [
        *lines(4.0, 3.0, 0.5, 2.0),
        evaluated,
        {"event": "finished", "time": 1005.0, "outcome": "stopped", "step": 4},
    ]
    again = lines(9.0, 9.0, 2.5, 2.25, time=2000.0)
    again[1]["step"] = 2
    return [*first, *again[:2], *again[4:], {"event": "evaluated", "time": 2005.0, "step": 4, "eval_loss": 0.7}]


def test_the_best_loss_is_of_the_steps_that_still_hold(tmp_path: Path) -> None:
    row = rows(write_run(tmp_path / "run", resumed()).parent)["run"]
    assert row.best == (4, 0.7)
    assert row.validated
    assert row.loss == 2.25
    assert row.seconds == 5 + 5, "both attempts, not the time between"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_lines_read_in_bulk_say_what_each_event_says(size: int) -> None:
    events = resumed() + lines(*(float("nan"), 5.0, 4.0, 4.5, -1.0), time=3000.0)
    events += [{"event": "progress", "time": 3010.0, "step": 6, "total_steps": 60}]
    data = [json.dumps(event).encode() for event in events]
    data.insert(9, b'{"event": "step", "time": 1, "loss": oops,')
    bulk, single = Course(), Course()
    for begin in range(0, len(data), size):
        bulk.take_lines(data[begin : begin + size])
    single.take(event for line in data if (event := parsed(line)))
    assert bulk == single
    assert (bulk.best, bulk.step, bulk.loss) == ((5, -1.0), 6, -1.0)


def test_the_list_and_the_monitor_agree_on_every_state(tmp_path: Path) -> None:
    for outcome in ("completed", "stopped", "failed"):
        write_run(
            tmp_path / outcome,
            [*lines(1.0), {"event": "finished", "time": 1e9, "outcome": outcome, "code": "vanished"}],
        )
    write_run(tmp_path / "died", lines(1.0))
    for name in ("starting", "running"):
        folder = write_run(tmp_path / name, lines(1.0) if name == "running" else [])
        run_folder.write_identity(folder, Identity.of(os.getpid()))
    found = rows(tmp_path)
    assert {name: row.status for name, row in found.items()} == {name: name for name in found}
    for name, row in found.items():
        assert runs.read(tmp_path / name).status == row.status
        assert comparison.state_words(row, ZH) in monitor.status(runs.read(tmp_path / name), ZH)


# ---- compare ----


def test_compare_shows_the_settings_that_differ_and_no_others(tmp_path: Path) -> None:
    first = write_run(tmp_path / "<b>first", lines(2.0), learning_rate=1e-3)
    second = write_run(tmp_path / "second", lines(1.0), learning_rate=5e-4, lora_rank=16)
    found = dict(comparison.differing([first, second], EN))
    assert found == {"Learning rate": ["0.001", "0.0005"], "LoRA rank": ["8", "16"]}
    listed = rows(tmp_path)
    html = comparison.table([first, second], [listed["<b>first"], listed["second"]], EN)
    assert "&lt;b&gt;first" in html
    assert "<b>" not in html
    assert [run["name"] for run in comparison.curves([first, second])["runs"]] == ["<b>first", "second"]
    assert comparison.curves([first])["runs"][0]["step"] == chart(runs.read(first).events)["step"]


def test_compare_says_whose_settings_are_lost_instead_of_that_all_are_the_same(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, []) for name in ("first", "lost")]
    (folders[1] / "config.yaml").unlink()
    found = rows(tmp_path)
    chosen = [found[folder.name] for folder in folders]
    for text in (EN, ZH):
        shown = comparison.table(folders, chosen, text)
        assert text("runs.unread", names="lost") in shown
        assert text("runs.same") not in shown
        assert "0/0" not in shown


def test_a_run_names_those_that_went_on_from_it(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", lines(2.0))
    write_run(tmp_path / "second", lines(2.0), adapter_name_or_path=str(first / "checkpoint-1"))
    write_run(tmp_path / "third", lines(2.0), model_name_or_path=str(first))
    Queue(tmp_path).add(settings(tmp_path / "fourth", adapter_name_or_path=str(tmp_path / "second")), Launch())
    value = runs_table.value(RunList(tmp_path).rows(), Queue(tmp_path).entries(), EN)
    needed = {one["name"]: sorted(one.get("needed_by", [])) for one in value}
    assert needed == {"fourth": [], "third": [], "second": ["fourth"], "first": ["second", "third"]}


def test_a_queued_run_has_not_started(tmp_path: Path) -> None:
    Queue(tmp_path).add(settings(tmp_path / "waits"), Launch())
    [waits] = runs_table.value([], Queue(tmp_path).entries(), EN)
    assert waits["started"] == 0


@pytest.mark.parametrize("count", [0, 1, 6])
def test_compare_takes_two_to_five(count: int) -> None:
    with pytest.raises(Problem, match="2 to 5"):
        comparison.check_count(["x"] * count)


# ---- continue with changes ----


def test_continuing_fills_the_form_with_settings_that_start_accepts(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run", lines(1.0), learning_rate=3e-4, use_dora=True, additional_target="lm_head", lora_rank=16
    )
    (folder / "adapter_model.safetensors").touch()
    (folder / "adapter_config.json").write_text(json.dumps({"r": 24, "lora_alpha": 32, "lora_dropout": 0.1}))
    values, checkpoint = continuation.values(folder)
    assert checkpoint == values["adapter_name_or_path"] == str(folder)
    assert float(values["learning_rate"]) == 3e-4
    assert (values["lora_rank"], values["lora_alpha"], values["lora_dropout"]) == ("24", "32", "0.1")
    assert not values["use_dora"]
    assert values["additional_target"] == ""
    assert values["output_dir"] != "run"


def test_continuing_a_run_that_left_nothing_begins_anew(tmp_path: Path) -> None:
    values, checkpoint = continuation.values(write_run(tmp_path / "run", lines(1.0), use_dora=True))
    assert checkpoint == values["adapter_name_or_path"] == ""
    assert values["use_dora"]


def test_a_run_whose_settings_are_lost_cannot_be_continued_and_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", lines(1.0))
    (folder / "config.yaml").write_text("\x00")
    with pytest.raises(Problem, match=r"run: its config\.yaml"):
        continuation.values(folder)


# ---- delete ----


def test_a_deleted_run_is_gone_at_once_and_its_room_soon(tmp_path: Path) -> None:
    write_run(tmp_path / "名字 'a'; $(b) 🎉", lines(1.0))
    removal.remove(tmp_path, "名字 'a'; $(b) 🎉").join(10)
    assert rows(tmp_path) == {}
    assert list((tmp_path / "_trash").iterdir()) == []


@pytest.mark.parametrize("name", ["..", ".", "", "/etc", "../outside", "_settings", "missing"])
def test_only_a_run_of_the_runs_folder_can_be_deleted(tmp_path: Path, name: str) -> None:
    write_run(tmp_path / "outside", lines(1.0))
    write_run(tmp_path / "runs" / "run", lines(1.0))
    write_run(tmp_path / "runs" / "_settings", lines(1.0))
    with pytest.raises(Problem) as caught:
        removal.remove(tmp_path / "runs", name)
    assert caught.value.code == "run_gone"
    assert (tmp_path / "outside" / "run.json").exists()
    assert (tmp_path / "runs" / "_settings" / "run.json").exists()


def test_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    outside = write_run(tmp_path / "outside", lines(1.0))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(outside)
    with pytest.raises(Problem) as caught:
        removal.remove(tmp_path / "runs", "link")
    assert caught.value.code == "run_elsewhere"
    assert (outside / "run.json").exists()


@pytest.mark.parametrize("sign", ["process", "lock"])
def test_a_live_run_is_never_deleted(tmp_path: Path, sign: str) -> None:
    folder = write_run(tmp_path / "run", lines(1.0))
    held = run_folder.lock(folder) if sign == "lock" else None
    if sign == "process":
        run_folder.write_identity(folder, Identity.of(os.getpid()))
    with pytest.raises(Problem) as caught:
        removal.remove(tmp_path, "run")
    assert caught.value.code == "run_is_training"
    assert (folder / "events.jsonl").exists()
    if held:
        held.close()


# ---- devices ----


@pytest.mark.parametrize(
    ("environment", "taken"),
    [
        ({}, ()),
        ({"CUDA_VISIBLE_DEVICES": "1, 3"}, ("1", "3")),
        ({"ASCEND_RT_VISIBLE_DEVICES": "2"}, ("2",)),
        ({"CUDA_VISIBLE_DEVICES": ""}, ("cpu",)),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ("cpu",)),
        ({"NPROC_PER_NODE": "2"}, ("0", "1")),
        ({"CUDA_VISIBLE_DEVICES": "4,5,6", "NPROC_PER_NODE": "2"}, ("4", "5")),
    ],
)
def test_a_run_records_the_devices_that_it_takes(
    tmp_path: Path, environment: dict[str, str], taken: tuple[str, ...]
) -> None:
    from trainer.accelerators import chosen

    assert chosen(environment) == taken
    run_folder.write_identity(tmp_path, Identity.of(os.getpid(), chosen(environment)))
    identity = run_folder.read_identity(tmp_path)
    assert identity is not None
    assert identity.devices == taken


def test_a_run_on_other_devices_is_not_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    folder = write_run(tmp_path / "run", lines(1.0))
    run_folder.write_identity(folder, Identity.of(os.getpid(), ("0", "1")))
    for devices, names in [(("2",), []), (("1", "2"), ["run"]), ((), ["run"])]:
        asked = runs.devices_of(Launch(devices=devices))
        assert [run.name for run in runs.training_on(tmp_path, asked)] == names
