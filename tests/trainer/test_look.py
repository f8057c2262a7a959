"""The process that shows datasets as the trainer sees them: its protocol, over real pipes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainer.records import read_dataset

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "assets" / "demo-model"


class Look:
    """The process and its two pipes."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trainer.look"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(
        self, op: str, number: int, folder: Path = ROOT / "data", dataset: str = "general-chat", **values: Any
    ) -> None:
        settings = {"model_name_or_path": str(MODEL), "dataset_dir": str(folder)} | values.pop("settings", {})
        assert self.process.stdin is not None
        request = {"op": op, "id": number, "settings": settings, "dataset": dataset, **values}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def hear(self, *events: str) -> dict[str, Any]:
        """The next event, progress aside unless it is one of `events`."""
        assert self.process.stdout is not None
        while True:
            event = json.loads(self.process.stdout.readline())
            if event["event"] != "progress" or "progress" in events:
                assert not events or event["event"] in events, event
                return event


@pytest.fixture(scope="module")
def look() -> Iterator[Look]:
    started = Look()
    yield started
    assert started.process.stdin is not None
    started.process.stdin.close()
    assert started.process.wait(20) == 0, "the end of stdin ends it"


def test_a_page_has_the_tokens_of_the_trainers_own_samples(look: Look) -> None:
    look.ask("page", 1, page=2, page_size=3, settings={"cutoff_len": 60})
    found = look.hear("page")
    records = read_dataset(ROOT / "data", "general-chat")
    assert (found["id"], found["total"]) == (1, len(records))
    assert [sample["row"] for sample in found["samples"]] == [4, 5, 6]
    for sample, record in zip(found["samples"], records[3:6], strict=True):
        tokens = sample["tokens"]
        assert (sample["kind"], sample["bad"], sample["length"]) == ("conversation", None, len(tokens))
        answers = [message["content"] for message in record.messages if message["role"] == "assistant"]
        trained = "".join(text for _, text, is_trained, _ in tokens if is_trained)
        assert [answer for answer in answers if answer not in trained] == []
        assert sample["cut_at"] == (60 if len(tokens) > 60 else None)
        assert sample["trained"] == sum(is_trained and kept for _, _, is_trained, kept in tokens)


def test_a_bad_row_is_shown_as_such_among_the_others(look: Look, tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "b"}, {"instruction": "a", "output": 7}, {"text": "t"}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    look.ask("page", 2, tmp_path, "d", page=1, page_size=4)
    good, bad, other = look.hear("page")["samples"]
    assert good["bad"] is None
    for sample in (bad, other):
        assert sample["bad"]["en"] != sample["bad"]["zh"]
        assert (sample["tokens"], sample["length"]) == ([], 0)


def test_a_check_tells_figures_and_another_cutoff_is_told_at_once(look: Look) -> None:
    look.ask("check", 3, dataset="identity", settings={"cutoff_len": 2048})
    first = look.hear("checked")
    assert (first["id"], first["rows"], first["samples"], first["bad"], first["bad_rows"]) == (3, 72, 72, 0, [])
    assert set(first["placeholders"]) == {"name", "author"}
    assert (first["truncated"], first["nothing_left"], first["sampled"]) == (0, 0, None)
    assert sum(count for _, count in first["histogram"]) == 72
    assert sum(first["languages"].values()) == pytest.approx(1, abs=0.001)
    look.ask("check", 4, dataset="identity", settings={"cutoff_len": 20})
    second = look.hear("checked")
    assert second["truncated"] == sum(1 for _ in range(72))
    assert second["seconds"] == first["seconds"], "nothing was read again"


def test_a_check_without_a_model_counts_rows_alone(look: Look) -> None:
    look.ask("check", 5, settings={"model_name_or_path": ""})
    found = look.hear("checked")
    assert (found["rows"], found["tokens"], found["histogram"]) == (42, None, [])


def test_pages_are_turned_while_a_check_runs_and_a_stop_ends_it(look: Look, tmp_path: Path) -> None:
    row = json.dumps({"instruction": "How are you? " * 40, "output": "很好，谢谢。" * 40}, ensure_ascii=False)
    (tmp_path / "long.jsonl").write_text((row + "\n") * 20_000)
    look.ask("check", 6, tmp_path, "long")
    event = look.hear("progress")
    assert 0 < event["rows"] < 20_000
    assert event["of_bytes"] == (tmp_path / "long.jsonl").stat().st_size
    look.ask("page", 7, page=1, page_size=1)
    assert look.hear()["id"] == 7
    look.ask("stop", 6)
    assert look.hear("stopped")["id"] == 6


@pytest.mark.parametrize(
    ("op", "values", "code"),
    [
        ("page", {"dataset": "nothing"}, "dataset_unknown"),
        ("check", {"dataset": "nothing"}, "dataset_unknown"),
        ("page", {"settings": {"cutoff_len": 1}}, "setting_range"),
        ("page", {"settings": {"model_name_or_path": "/nowhere"}}, "model_not_found"),
        ("sing", {}, "look_protocol"),
    ],
)
def test_what_fails_is_a_problem_with_the_requests_id(look: Look, op: str, values: dict[str, Any], code: str) -> None:
    look.ask(op, 8, **values)
    event = look.hear("problem")
    assert (event["id"], event["code"]) == (8, code)
    assert event["values"]
