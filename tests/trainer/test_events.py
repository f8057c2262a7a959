"""Events: whole lines, any number, torn and corrupt files."""

import math
from pathlib import Path

from trainer.events import EventLog, read_events


def test_not_a_number_and_infinity_survive_the_round_trip(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append("step", step=1, total_steps=9, loss=math.nan, grad_norm=math.inf)
    [event], _ = read_events(tmp_path / "events.jsonl")
    assert math.isnan(event["loss"])
    assert event["grad_norm"] == math.inf


def test_a_reader_goes_on_from_its_offset_and_leaves_a_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventLog(path).append("progress", step=1, total_steps=9)
    first, offset = read_events(path)
    with path.open("a") as file:
        file.write('{"event": "step", "ti')
    assert read_events(path, offset) == ([], offset)
    EventLog(path).append("progress", step=2, total_steps=9)  # a resumed run's writer
    second, _ = read_events(path, offset)
    assert [event["step"] for event in first + second] == [1, 2]


def test_corrupt_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(
        b'\xff\xfe\n[1]\nnull\n{"event": 3}\n{"event": "step", "time": 1}\n{"event": "step", "time": 1, "step": "x"}\n{"event": "new kind", "time": 1}\n'
    )
    assert [event["event"] for event in read_events(path)[0]] == ["new kind"]


def test_a_missing_file_has_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none.jsonl") == ([], 0)
