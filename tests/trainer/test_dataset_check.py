"""A whole dataset checked: bad rows, lengths, duplicates, languages, in bounded memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import build_tiny_tokenizer
from trainer.chat_template import ChatTemplate
from trainer.check_terminal import lines
from trainer.dataset_check import Stopped, check
from trainer.dataset_stats import Duplicates, Lengths, Spread, histogram, language
from trainer.encoding import samples_of
from trainer.records import Record, read_dataset
from trainer.settings import TrainSettings, parse

ROOT = Path(__file__).resolve().parents[2]


def row(question: Any = "你好，你是谁？", answer: Any = "我是助手。") -> dict[str, Any]:
    return {"instruction": question, "output": answer}


def written(folder: Path, rows: list[Any], name: str = "d") -> TrainSettings:
    folder.joinpath(f"{name}.jsonl").write_text(
        "".join((item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)) + "\n" for item in rows)
    )
    return parse({"dataset_dir": str(folder), "dataset": name, "cutoff_len": 40})


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> ChatTemplate:
    return ChatTemplate.of(build_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_every_bad_row_is_counted_and_the_first_twenty_are_told(tmp_path: Path) -> None:
    rows = [row() if number % 2 else row(answer=None) for number in range(100)]
    rows[1] = '{"instruction": "cut sh'
    found = check(written(tmp_path, rows), "d", None).checked(40)
    assert (found.rows, found.bad, found.samples) == (100, 51, 49)
    assert [number for number, _ in found.bad_rows] == [1, 2, *range(3, 39, 2)]
    assert all(set(reason) == {"en", "zh"} and all(reason.values()) for _, reason in found.bad_rows)
    assert found.tokens is None, "without a model nobody can count tokens"


def test_token_figures_are_those_of_the_samples(tmp_path: Path, template: ChatTemplate) -> None:
    rows = [row(answer="很好" * (number % 30)) if number % 30 else row("问" * 60, "答") for number in range(120)]
    settings = written(tmp_path, rows)
    samples = samples_of(template, settings, read_dataset(tmp_path, "d"))
    lengths = [len(sample.input_ids) for sample in samples]
    survey = check(settings, "d", template)
    for cutoff_len in (20, 40, 1000):
        found = survey.checked(cutoff_len)
        cut = [sample.labels[1:cutoff_len] for sample in samples]
        assert found.tokens == sum(lengths)
        assert found.longest == max(lengths)
        assert found.trained_tokens == sum(label != -100 for sample in samples for label in sample.labels[1:])
        assert found.truncated == sum(length > cutoff_len for length in lengths)
        assert found.nothing_left == sum(set(labels) <= {-100} for labels in cut)
        assert sum(count for _, count in found.histogram) == len(samples)
        assert found.histogram[-1][0] >= max(lengths)
        assert found.sampled is None


def test_of_many_rows_an_evenly_spread_part_is_encoded_and_scaled_up() -> None:
    rows = 10_000
    lengths = Lengths(most=100)
    for row_number in range(rows):
        if lengths.wants(row_number):
            lengths.add([row_number], [(row_number, 1, row_number)])
    found = lengths.figures(rows, cutoff_len=rows // 4)
    assert found.sampled is not None
    assert 50 <= found.sampled <= 100
    assert found.tokens == pytest.approx(rows * (rows - 1) / 2, rel=0.02)
    assert found.truncated == pytest.approx(rows * 0.75, rel=0.03)
    assert found.trained_tokens == rows
    gaps = np.diff(lengths.spread.rows)
    assert len(set(gaps.tolist())) == 1, "as far from each other everywhere"


def test_up_to_the_limit_every_row_is_encoded() -> None:
    spread = Spread(most=8)
    assert [row_number for row_number in range(8) if spread.wants(row_number)] == list(range(8))


def test_rows_that_say_the_same_are_counted_however_they_are_written(tmp_path: Path) -> None:
    rows = [row(), json.dumps(row()), {**row(), "id": 7}, row("other"), row("other", "x"), row()]
    assert check(written(tmp_path, rows), "d", None).checked(40).duplicates == 3


def test_duplicates_are_found_across_what_is_packed() -> None:
    duplicates = Duplicates()
    for number in range(70_000):
        duplicates.add(record(f"{number % 69_990}"))
    assert duplicates.count() == 10


def record(text: str) -> Record:
    return Record("d", 1, "conversation", ({"role": "user", "content": text},), None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("请解释一下勾股定理。", "zh"),
        ("请用 Python 写一个快速排序函数 quicksort", "zh"),
        ("Explain the theorem of Pythagoras", "en"),
        ("Explain the word 勾 as used in this very long English question, please", "en"),
        ("これは日本語の文章です。漢字もあります。", "other"),
        ("Объясните теорему Пифагора", "other"),
        ("1 + 1 = 2", "other"),
    ],
)
def test_a_samples_language_is_told_by_its_script(text: str, expected: str) -> None:
    assert language(record(text)) == expected


def test_a_histogram_holds_every_sample_in_round_bars() -> None:
    lengths = np.array([*range(1, 1000), 100_000])
    found = histogram(lengths)
    assert sum(count for _, count in found) == 1000
    assert [upper for upper, _ in found[:3]] == [50, 100, 150]
    assert found[-1][0] == 100_000
    assert histogram(np.zeros(0, np.int64)) == []


def test_unfilled_placeholders_are_counted_and_filled_ones_are_not(tmp_path: Path) -> None:
    settings = written(tmp_path, [row(answer="我是{{name}}，由{{author}}开发。"), row(answer="{{ name }}")])
    assert check(settings, "d", None).checked(40).placeholders == {"name": 2, "author": 1}
    settings = settings.model_copy(update={"placeholders": {"name": "小微"}})
    assert check(settings, "d", None).checked(40).placeholders == {"author": 1}


def test_a_row_that_the_template_refuses_is_bad(tmp_path: Path, template: ChatTemplate) -> None:
    refusing = "{% if 'no' in messages[0].content %}{{ raise_exception('not this') }}{% endif %}" + template.source
    settings = written(tmp_path, [row(), row("no"), row()])
    found = check(settings, "d", ChatTemplate(template.tokenizer, refusing, "refusing")).checked(40)
    assert (found.rows, found.bad, found.samples, found.bad_rows[0][0]) == (3, 1, 2, 2)
    assert "not this" in found.bad_rows[0][1]["en"]


def test_a_check_reports_where_it_is_and_stops_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.dataset_check._PROGRESS_S", 0.0)
    settings = written(tmp_path, [row(f"{number} {'x' * 3000}") for number in range(2000)])
    seen: list[tuple[int, int, int]] = []
    size = (tmp_path / "d.jsonl").stat().st_size

    def progress(*numbers: int) -> None:
        seen.append(numbers)  # type: ignore[arg-type]

    with pytest.raises(Stopped):
        check(settings, "d", None, progress, lambda: len(seen) > 1900)
    assert 0 < seen[-1][0] < 2000
    assert seen == sorted(seen)
    assert {of for _, _, of in seen} == {size}
    assert 0 < seen[-1][1] <= size


@pytest.mark.parametrize("words", [("en", "Dataset d: 3 rows", "row 2:"), ("zh", "数据集 d：3 行", "第 2 行：")])
def test_the_terminal_says_what_was_found(tmp_path: Path, template: ChatTemplate, words: tuple[Any, str, str]) -> None:
    settings = written(tmp_path, [row(), row(answer=1), row(answer="{{name}}")])
    told = "\n".join(lines("d", check(settings, "d", template).checked(40), settings, words[0]))
    assert words[1] in told
    assert words[2] in told
    assert "{{name}} 1" in told


@pytest.mark.slow
def test_the_check_command_ends_with_1_when_rows_are_bad(tmp_path: Path) -> None:
    written(tmp_path, [row(), row(answer=1)])
    argv = [sys.executable, "-m", "app", "check", f"dataset_dir={tmp_path}", "output_dir=o"]
    bad = subprocess.run([*argv, "dataset=d"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stderr) == (1, "")
    assert "row 2: `output`" in bad.stdout
    none = subprocess.run([*argv, "dataset=nothing"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert none.returncode == 2
    assert "there is no dataset `nothing`" in none.stderr
