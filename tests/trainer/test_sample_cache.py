"""The cache of encoded samples: found by content, bounded, never half there, safe to delete."""

import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from trainer import sample_cache
from trainer.chat_template import Sample
from trainer.packed import PackedSamples, Part, Writer, frame, label_counts_of, lengths_of

SAMPLES = [Sample([5, 6, 7], [-100, 6, 7]), Sample([8], [8]), Sample([], []), Sample([9, 2**31 - 1], [-100, -100])]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return sample_cache.folder()


def stored(name: str, samples: list[Sample] = SAMPLES) -> sample_cache.Entry:
    with sample_cache.draft(name) as draft:
        draft.writer.add(frame(samples))
        entry = draft.store({"bad": 1})
    assert entry is not None
    return entry


def read(part: Part, cutoff_len: int = 100) -> list[Sample]:
    return list(PackedSamples([part], cutoff_len))


def in_memory(samples: list[Sample]) -> Part:
    writer = Writer()
    writer.add(frame(samples))
    return writer.part()


def test_what_is_stored_is_found_again_as_it_was(place: Path) -> None:
    stored("one")
    entry = sample_cache.find("one")
    assert entry is not None
    assert entry.info == {"bad": 1}
    assert read(entry.part) == SAMPLES
    assert isinstance(entry.part.ids, np.memmap)
    assert [path.name for path in place.iterdir()] == ["one"], "nothing is left of the draft"


def test_a_draft_that_is_not_stored_leaves_nothing(place: Path) -> None:
    with sample_cache.draft("one") as draft:
        draft.writer.add(frame(SAMPLES))
    assert list(place.iterdir()) == []
    assert sample_cache.find("one") is None


@pytest.mark.parametrize("broken", ["ids", "trained", "offsets", "info.json"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_an_entry_that_is_not_whole_is_none_and_is_replaced(place: Path, broken: str, how: str) -> None:
    stored("one")
    path = place / "one" / broken
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    assert sample_cache.find("one") is None
    stored("one")
    entry = sample_cache.find("one")
    assert entry is not None
    assert read(entry.part) == SAMPLES


def test_samples_outlive_the_deletion_of_the_cache(place: Path) -> None:
    entry = stored("one")
    shutil.rmtree(place)
    assert read(entry.part) == SAMPLES
    assert sample_cache.find("one") is None
    assert read(stored("one").part) == SAMPLES


def test_the_least_recently_used_entries_make_room(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = [Sample([1] * 2000, [1] * 2000)]
    for age, name in ((3, "oldest"), (2, "older"), (1, "old")):
        stored(name, long)
        then = time.time() - 1000 * age
        os.utime(place / name / "info.json", (then, then))
    assert sample_cache.find("oldest") is not None, "used now, it is the youngest"
    monkeypatch.setattr(sample_cache, "MOST_BYTES", 35_000)  # three of some 10,000
    stored("new", long)
    assert sorted(path.name for path in place.iterdir()) == ["new", "old", "oldest"]


def test_remains_of_dead_processes_are_removed(place: Path) -> None:
    stored("one")
    for name, age in (("dead.tmp", 10**6), ("alive.tmp", 10)):
        (place / name).mkdir()
        (place / name / "ids").write_bytes(b"x")
        os.utime(place / name, (time.time() - age,) * 2)
    stored("two")
    assert sorted(path.name for path in place.iterdir()) == ["alive.tmp", "one", "two"]


def test_content_is_told_by_bytes_and_not_by_name_or_time(tmp_path: Path) -> None:
    first, copy = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"same")
    copy.write_bytes(b"same")
    os.utime(copy, (0, 0))
    before = sample_cache.content(first)
    assert before == sample_cache.content(copy)
    times = first.stat()
    first.write_bytes(b"diff")
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert sample_cache.content(first) != before, "the size and the time are those it had"


def test_a_key_depends_on_every_part() -> None:
    assert sample_cache.key(a=1, b="x") == sample_cache.key(b="x", a=1)
    assert len({sample_cache.key(a=1, b="x"), sample_cache.key(a=2, b="x"), sample_cache.key(a=1, b="y")}) == 3


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_CACHE_HOME": "/data/cache", "HF_HOME": "/data/hf"}, "/data/cache/tunedesk/samples"),
        ({"HF_HOME": "/data/hf"}, "/data/hf/tunedesk/samples"),
        ({"XDG_CACHE_HOME": "not/absolute"}, f"{Path.home()}/.cache/tunedesk/samples"),
        ({}, f"{Path.home()}/.cache/tunedesk/samples"),
    ],
)
def test_the_cache_lies_where_the_environment_says(environment: dict[str, str], expected: str) -> None:
    assert str(sample_cache.folder(environment)) == expected


def test_others_wait_until_an_entry_is_made() -> None:
    order: list[str] = []

    def second() -> None:
        with sample_cache.one_at_a_time("one"):
            order.append("second")

    thread = threading.Thread(target=second)
    with sample_cache.one_at_a_time("one"):
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_cache_that_cannot_be_written_keeps_nobody_waiting(place: Path) -> None:
    place.parent.parent.mkdir()
    place.parent.write_text("a file where the folder should be")
    with sample_cache.one_at_a_time("one"):
        assert sample_cache.find("one") is None
    with pytest.raises(OSError, match="directory"), sample_cache.draft("one"):
        pass


@pytest.mark.parametrize("cutoff_len", [1, 2, 3, 100])
def test_packed_samples_are_the_samples(cutoff_len: int) -> None:
    cut = [Sample(sample.input_ids[:cutoff_len], sample.labels[:cutoff_len]) for sample in SAMPLES]
    packed = PackedSamples([in_memory(SAMPLES[:1]), in_memory(SAMPLES[1:])], cutoff_len)
    assert list(packed) == cut
    assert list(packed[1:3]) == cut[1:3]
    assert list(packed.chosen(np.array([3, 0, 0]))) == [cut[3], cut[0], cut[0]]
    assert lengths_of(packed) == lengths_of(cut)
    assert label_counts_of(packed) == label_counts_of(cut)
    assert packed[::2].lengths.tolist() == lengths_of(cut[::2])
    assert packed.first_labels.tolist() == [1, -1, -1, -1], "what stands first is predicted by nothing"
