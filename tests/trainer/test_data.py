"""Preparation: the same samples in the same order, however they are made, and everything that is wrong told."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import build_tiny_tokenizer
from trainer import data, encoding, sample_cache
from trainer.chat_template import ChatTemplate, Sample
from trainer.data import load_samples
from trainer.events import EventLog, read_events
from trainer.prepare import check
from trainer.problems import Problem, Problems
from trainer.records import read_dataset
from trainer.settings import TrainSettings, parse

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> ChatTemplate:
    return ChatTemplate.of(build_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer")))


class Work:
    """A data folder and the events of what is prepared from it."""

    def __init__(self, folder: Path, template: ChatTemplate) -> None:
        self.folder, self.template = folder, template
        (folder / "model").mkdir()
        (folder / "model" / "tokenizer.json").write_text("{}")

    def write(self, name: str, rows: list[Any]) -> None:
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def settings(self, dataset: str = "d", **values: Any) -> TrainSettings:
        given = {"dataset_dir": str(self.folder), "dataset": dataset, "cutoff_len": 100} | values
        return parse({"model_name_or_path": str(self.folder / "model"), **given})

    def load(self, settings: TrainSettings) -> tuple[list[Sample], list[Sample]]:
        found = load_samples(settings, self.template, EventLog(self.folder / "events.jsonl"))
        return list(found.train), list(found.validation)

    def warnings(self) -> list[dict[str, Any]]:
        events, _ = read_events(self.folder / "events.jsonl")
        return [event for event in events if event["event"] == "warning"]

    def texts(self, samples: list[Sample]) -> list[str]:
        return [self.template.tokenizer.decode(sample.input_ids) for sample in samples]


@pytest.fixture
def work(tmp_path: Path, template: ChatTemplate, monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Work(tmp_path, template)


def rows(count: int, prefix: str = "") -> list[dict[str, Any]]:
    return [{"instruction": f"{prefix}{number}", "output": "很好" * (number % 7 + 1)} for number in range(count)]


def expected(work: Work, settings: TrainSettings) -> tuple[list[Sample], list[Sample]]:
    """One record after the other, shuffled when a part is kept for validation."""
    found = [record for name in settings.dataset for record in read_dataset(work.folder, name, settings.max_samples)]
    kept = round(len(found) * settings.val_size)
    if kept:
        random.Random(settings.seed).shuffle(found)
    samples = [work.template.encode(list(record.messages), cutoff_len=settings.cutoff_len) for record in found]
    return samples[kept:], samples[:kept]


@pytest.mark.parametrize("values", [{}, {"val_size": 0.3}, {"max_samples": 5}, {"cutoff_len": 30, "val_size": 0.1}])
def test_samples_are_those_of_the_records_in_their_order(work: Work, values: dict[str, Any]) -> None:
    work.write("d", rows(20))
    work.write("e", rows(11, "e"))
    settings = work.settings("d,e", **values)
    assert work.load(settings) == expected(work, settings)


def test_num_samples_weighs_a_dataset(work: Work) -> None:
    work.write("d", rows(3))
    info = {"d": {"file_name": "d.jsonl", "num_samples": 7}}
    (work.folder / "dataset_info.json").write_text(json.dumps(info))
    settings = work.settings()
    assert work.load(settings) == expected(work, settings)
    assert len(work.load(settings)[0]) == 7


def test_datasets_can_be_interleaved(work: Work) -> None:
    work.write("d", rows(3, "d"))
    work.write("e", rows(3, "e"))
    (train, _) = work.load(work.settings("d,e", mix_strategy="interleave_under"))
    assert [text.split("user\n")[1][:2] for text in work.texts(train)] == ["d0", "e0", "d1", "e1", "d2", "e2"]


def test_plain_text_is_learnt_as_a_whole(work: Work) -> None:
    work.write("d", [{"text": "白日依山尽"}, {"text": "Hello"}])
    train, _ = work.load(work.settings(stage="pt"))
    assert all(sample.labels == sample.input_ids for sample in train)
    assert [text.removesuffix("<|im_end|>") for text in work.texts(train)] == ["白日依山尽", "Hello"]
    with pytest.raises(Problem) as raised:
        work.load(work.settings())
    assert raised.value.code == "dataset_stage"


def test_bad_rows_end_the_preparation_with_their_count_and_the_first_twenty(work: Work) -> None:
    work.write(
        "d", [{"instruction": "x", "output": None} if number % 2 else row for number, row in enumerate(rows(80))]
    )
    with pytest.raises(Problem) as raised:
        work.load(work.settings())
    assert raised.value.code == "rows_bad"
    for language, row, more in (("en", "Row {}:", "20 more"), ("zh", "第 {} 行：", "另有 20 行")):
        told = raised.value.sentence(language)  # type: ignore[arg-type]
        assert "40" in told
        assert all(row.format(number) in told for number in range(2, 42, 2))
        assert row.format(42) not in told
        assert more in told


def test_one_bad_row_is_told_by_its_own_sentence(work: Work) -> None:
    work.write("d", [*rows(3), {"instruction": "x", "output": None}])
    with pytest.raises(Problem) as raised:
        work.load(work.settings())
    assert (raised.value.code, raised.value.values["row"]) == ("dataset_row", 4)


def test_bad_rows_are_left_out_only_when_asked_and_said_so(work: Work) -> None:
    work.write("d", [*rows(3), {"instruction": "x", "output": None}, *rows(1)])
    train, _ = work.load(work.settings(skip_bad_rows=True))
    assert len(train) == 4
    [warning] = work.warnings()
    assert (warning["code"], warning["name"], warning["bad"], warning["rows"]) == ("samples_skipped", "d", 1, 5)
    assert "Row 4" in warning["shown"]["en"]
    work.write("d", [{"instruction": "x", "output": None}])
    with pytest.raises(Problem) as raised:
        work.load(work.settings(skip_bad_rows=True))
    assert raised.value.code == "dataset_all_bad"


def test_a_row_that_the_template_refuses_ends_the_preparation_or_is_skipped(work: Work) -> None:
    refusing = "{% if messages[0].content == '1' %}{{ raise_exception('no') }}{% endif %}" + work.template.source
    work.template = ChatTemplate(work.template.tokenizer, refusing, "refusing")
    work.write("d", rows(3))
    with pytest.raises(Problem) as raised:
        work.load(work.settings())
    assert (raised.value.code, raised.value.values["row"]) == ("template_failed", 2)
    assert len(work.load(work.settings(skip_bad_rows=True))[0]) == 2
    assert work.warnings()[0]["bad"] == 1


def test_an_unfilled_placeholder_stops_a_run_before_it_starts(work: Work) -> None:
    work.write("d", [*rows(2), {"instruction": "?", "output": "我是{{name}}，{{ author }}"}])
    settings = work.settings()
    for stopped in (lambda: work.load(settings), lambda: check(settings, output=False)):
        with pytest.raises((Problem, Problems)) as raised:
            stopped()
        told = str(raised.value)
        assert "{{author}}, {{name}} must be filled in" in told
    part = settings.model_copy(update={"placeholders": {"name": "小微"}})
    with pytest.raises(Problem, match=r"d: \{\{author\}\} must"):
        work.load(part)


def test_placeholders_are_filled_in_the_samples_and_not_in_the_file(work: Work) -> None:
    work.write("d", [{"instruction": "?", "output": "我是{{name}}，{{ author }}"}])
    before = (work.folder / "d.jsonl").read_bytes()
    train, _ = work.load(work.settings(placeholders={"name": "小微", "author": "她"}))
    assert "我是小微，她" in work.texts(train)[0]
    literal, _ = work.load(work.settings(literal_placeholders=True))
    assert "我是{{name}}，{{ author }}" in work.texts(literal)[0]
    assert (work.folder / "d.jsonl").read_bytes() == before


def test_what_is_cut_and_what_has_nothing_left_is_told(work: Work) -> None:
    work.write("d", [*rows(6), {"instruction": "x" * 200, "output": "?"}])
    whole, _ = expected(work, work.settings())
    short = min(len(sample.input_ids) for sample in whole) - 1
    train, _ = work.load(work.settings(cutoff_len=short))
    assert all(len(sample.input_ids) == short for sample in train)
    assert [(event["code"], event["count"]) for event in work.warnings()] == [
        ("samples_dropped", 1),
        ("samples_cut", 6),
    ]
    with pytest.raises(Problem) as raised:
        work.load(work.settings(cutoff_len=4))
    needed = raised.value.values["needed"]
    assert raised.value.code == "all_truncated"
    assert len(work.load(work.settings(cutoff_len=needed))[0]) >= 1
    with pytest.raises(Problem):
        work.load(work.settings(cutoff_len=needed - 1))


# ---- the cache ----


@pytest.fixture
def cached(work: Work, monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setattr(sample_cache, "LEAST_BYTES", 0)
    work.write("d", [*rows(20), {"instruction": "?", "output": None}])
    return work


def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each encoding took, from now on."""
    seen: list[int] = []
    encode = encoding.samples_of

    def counted(template: ChatTemplate, settings: TrainSettings, found: Any) -> list[Sample]:
        seen.append(len(found))
        return encode(template, settings, found)

    monkeypatch.setattr(encoding, "samples_of", counted)
    return seen


def test_a_second_start_encodes_nothing_and_tells_the_same(cached: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = encodings(monkeypatch)
    settings = cached.settings(skip_bad_rows=True, val_size=0.2)
    first, told = cached.load(settings), cached.warnings()
    assert seen == [20]
    assert cached.load(settings) == first
    assert [{**event, "time": 0} for event in cached.warnings()] == 2 * [{**event, "time": 0} for event in told]
    for change in ({"seed": 7}, {"val_size": 0.5}, {"cutoff_len": 20}):
        cached.load(settings.model_copy(update=change))
    assert seen == [20], "none of these changes what was encoded"


@pytest.mark.parametrize("change", [{"mask_history": True}, {"train_on_prompt": True}, {"max_samples": 5}])
def test_what_decides_the_samples_makes_another_entry(
    cached: Work, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = cached.settings(skip_bad_rows=True)
    cached.load(settings)
    seen = encodings(monkeypatch)
    cached.load(settings.model_copy(update=change))
    assert len(seen) == 1


def test_another_content_tokenizer_or_template_makes_another_entry(
    cached: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = cached.settings(skip_bad_rows=True)
    cached.load(settings)
    seen = encodings(monkeypatch)
    cached.write("d", rows(20, "other"))
    cached.load(settings)
    (cached.folder / "model" / "tokenizer.json").write_text('{"other": 1}')
    cached.load(settings)
    cached.template = ChatTemplate(cached.template.tokenizer, cached.template.source + "{# other #}", "other")
    cached.load(settings)
    assert seen == [20, 20, 20]


def test_a_broken_or_unwritable_cache_changes_nothing(cached: Work) -> None:
    settings = cached.settings(skip_bad_rows=True)
    first = cached.load(settings)
    [entry] = [path for path in sample_cache.folder().iterdir() if path.is_dir()]
    (entry / "ids").write_bytes(b"")
    assert cached.load(settings) == first
    assert (entry / "ids").stat().st_size, "it was made again"
    folder = sample_cache.folder()
    folder.rename(folder.with_name("away"))
    folder.write_text("a file where the cache should be")
    assert cached.load(settings) == first


def test_small_datasets_leave_nothing_behind(work: Work) -> None:
    work.write("d", rows(20))
    work.load(work.settings())
    assert not sample_cache.folder().exists()


@pytest.mark.slow
def test_several_processes_make_the_samples_of_one(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_BATCH_ROWS", 8)
    model = ROOT / "assets" / "demo-model"
    settings = work.settings(model_name_or_path=str(model), skip_bad_rows=True)
    work.template = encoding.load_template(settings)
    work.write("d", [{"instruction": "?", "output": 1}, *rows(100), *rows(100)])
    alone = work.load(settings)
    monkeypatch.setattr(encoding, "PARALLEL_BYTES", 0)
    monkeypatch.setattr(encoding.os, "sched_getaffinity", lambda _: {0, 1})
    started: list[Any] = []
    popen = encoding.subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(encoding.subprocess, "Popen", start)
    assert work.load(settings) == alone
    assert len(started) == 2
    assert [process.poll() for process in started] == [-9, -9], "none outlives the preparation"


def test_data_keeps_what_it_depends_on_in_one_place() -> None:
    known = TrainSettings.model_fields
    assert set(data._DECIDING) | set(encoding.DECIDING) <= set(known)
