"""What people bring, recognised by looking or declared: layouts, kinds of file, folders, saved datasets, hub caches."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer import hub_datasets
from trainer.dataset_files import find_source, list_datasets
from trainer.problems import LANGUAGES, Problem
from trainer.records import BadRow, Record, check_stage, count_rows, iterate, preview, read_dataset

ROOT = Path(__file__).parents[2]
Q, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
TALK = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
CALL = {"type": "function", "function": {"name": "time", "arguments": {"city": "北京"}}}
TOOL = {
    "type": "function",
    "function": {"name": "time", "description": "", "parameters": {"type": "object", "properties": {}}},
}


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode())
    return path


def only(folder: Path, *rows: Any, **entry: Any) -> list[Record]:
    """The records of `rows`, declared by `entry` or by nothing."""
    write(folder, "d.json", list(rows))
    if entry:
        write(folder, "dataset_info.json", {"d": {"file_name": "d.json", **entry}})
    return read_dataset(folder, "d")


def said(record: Record) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in record.messages]


def refused(folder: Path, name: str = "d") -> Problem:
    with pytest.raises(Problem) as caught:
        read_dataset(folder, name)
    for language in LANGUAGES:
        assert "?" not in caught.value.sentence(language)
    return caught.value


# ---- layouts ----

CONVERSATIONS: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "q", "output": "a"},
    "alpaca with more": {"instruction": "q", "input": "", "output": "a", "history": [], "system": "", "id": 7},
    "prompt and completion": {"prompt": "q", "completion": "a"},
    "prompt and response": {"prompt": "q", "response": "a"},
    "prompt and completion as messages": {"prompt": [Q], "completion": [A]},
    "messages and a text": {"prompt": [Q], "completion": "a"},
    "sharegpt": TALK,
    "sharegpt by another name": {"conversation": TALK["conversations"]},
    "messages": {"messages": [Q, A]},
    "messages of parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, A]},
    "messages with empty keys": {"messages": [{**Q, "tool_calls": None, "name": None}, {**A, "tool_calls": []}]},
    "messages written as text": {"messages": json.dumps([Q, A])},
    "a label that is no truth": {"messages": [Q, A], "label": "spam", "text": "x"},
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_is_recognised_by_looking(tmp_path: Path, name: str) -> None:
    [record] = only(tmp_path, CONVERSATIONS[name])
    assert record.kind == "conversation"
    assert said(record) == [("user", "q"), ("assistant", "a")]
    assert record.raw == CONVERSATIONS[name]


def test_history_and_system_of_a_file_that_nothing_describes_are_used(tmp_path: Path) -> None:
    row = {"instruction": "q", "input": "more", "output": "a", "history": [["x", "y"]], "system": "s"}
    expected = [("system", "s"), ("user", "x"), ("assistant", "y"), ("user", "q\nmore"), ("assistant", "a")]
    assert said(only(tmp_path, row)[0]) == expected


def test_an_entry_that_names_a_file_alone_leaves_the_layout_to_the_rows(tmp_path: Path) -> None:
    assert said(only(tmp_path, TALK, num_samples=1)[0]) == [("user", "q"), ("assistant", "a")]


def test_the_first_row_that_can_be_recognised_says_what_the_others_are(tmp_path: Path) -> None:
    write(tmp_path, "x.json", [{"messages": []}, {"messages": [Q, A]}])
    found = list(iterate(find_source(tmp_path, "x")))
    assert [type(item) for item in found] == [BadRow, Record]
    assert "empty conversation" in found[0].reason["en"]  # type: ignore[union-attr]


def test_calls_of_tools_and_their_results_are_kept(tmp_path: Path) -> None:
    messages = [Q, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", **CALL}, {"id": "2", "function": {"name": "time", "arguments": '{"city": "北京"}'}}]},
        {"role": "tool", "content": "8:00", "tool_call_id": "1"}, {"role": "tool", "content": ""}, A]  # fmt: skip
    [record] = only(tmp_path, {"messages": messages, "tools": [{**TOOL, "strict": None}]})
    assert [message["role"] for message in record.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert record.messages[1] == {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}
    assert record.tools == (TOOL,)


@pytest.mark.parametrize("value", [
    '{"name": "time", "arguments": {"city": "北京"}}',
    '[{"name": "time", "arguments": "{\\"city\\": \\"北京\\"}"}]',
    '<tool_call>\n{"name": "time", "arguments": {"city": "北京"}}\n</tool_call>',
])  # fmt: skip
def test_sharegpt_calls_and_observations_are_read_as_llama_factory_has_them(tmp_path: Path, value: str) -> None:
    turns = [("human", "q"), ("function_call", value), ("observation", "8:00"), ("gpt", "a")]
    row = {"conversations": [{"from": role, "value": text} for role, text in turns],
           "tools": '[{"name": "time"}]', "system": "s"}  # fmt: skip
    declared = {
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "tools": "tools", "system": "system"},
    }
    for entry in (declared, {}):
        [record] = only(tmp_path, row, **entry)
        assert [message["role"] for message in record.messages] == ["system", "user", "assistant", "tool", "assistant"]
        assert record.messages[2]["tool_calls"] == [CALL]
        assert record.tools == (TOOL,)


@pytest.mark.parametrize(("tools", "words"), [
    ('[{"description": "x"}]', "lacks a name"), ("{", "not valid JSON"), ([{"name": "f"}, {"name": "f"}], "name of its own"),
    ("just text", "not valid JSON"),
])  # fmt: skip
def test_tools_that_are_none_make_a_bad_row(tmp_path: Path, tools: Any, words: str) -> None:
    write(tmp_path, "x.json", [{"messages": [Q, A], "tools": tools}])
    [bad] = iterate(find_source(tmp_path, "x"))
    assert isinstance(bad, BadRow)
    assert "`tools`" in bad.reason["zh"]
    assert words in bad.reason["en"]


def test_thoughts_in_a_key_of_their_own_stand_before_the_answer(tmp_path: Path) -> None:
    [record] = only(tmp_path, {"messages": [Q, {**A, "reasoning_content": "hm\n"}]})
    assert record.messages[1]["content"] == "<think>\nhm\n</think>\n\na"


def test_tags_are_read_as_declared(tmp_path: Path) -> None:
    row = {"log": [{"who": "S", "what": "s"}, {"who": "H", "what": "q"}, {"who": "F", "what": '{"name":"f","arguments":{}}'},
                   {"who": "O", "what": "o"}, {"who": "B", "what": "a"}]}  # fmt: skip
    tags = {"role_tag": "who", "content_tag": "what", "user_tag": "H", "assistant_tag": "B", "system_tag": "S",
            "function_tag": "F", "observation_tag": "O"}  # fmt: skip
    [record] = only(tmp_path, row, formatting="sharegpt", columns={"messages": "log"}, tags=tags)
    assert [message["role"] for message in record.messages] == ["system", "user", "assistant", "tool", "assistant"]


def test_texts_are_for_pre_training(tmp_path: Path) -> None:
    assert [said(record) for record in only(tmp_path, {"text": "abc"})] == [[("text", "abc")]]
    [record] = only(tmp_path, {"content": "abc"}, columns={"prompt": "content"})
    assert (record.kind, said(record)) == ("text", [("text", "abc")])


PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "alpaca": ({"instruction": "q", "input": "", "chosen": "a", "rejected": "b"}, {}),
    "alpaca, declared": ({"instruction": "q", "chosen": "a", "rejected": "b"},
                         {"ranking": True, "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}}),
    "sharegpt": ({"conversations": TALK["conversations"][:1], "chosen": {"from": "gpt", "value": "a"},
                  "rejected": {"from": "gpt", "value": "b"}}, {}),
    "sharegpt, declared": ({"conversations": TALK["conversations"][:1], "chosen": {"from": "gpt", "value": "a"},
                            "rejected": {"from": "gpt", "value": "b"}},
                           {"ranking": True, "formatting": "sharegpt", "columns": {
                               "messages": "conversations", "chosen": "chosen", "rejected": "rejected"}}),
    "trl, a prompt": ({"prompt": "q", "chosen": "a", "rejected": "b"}, {}),
    "trl, messages": ({"prompt": [Q], "chosen": [A], "rejected": [{**A, "content": "b"}]}, {}),
    "trl, whole conversations": ({"chosen": [Q, A], "rejected": [Q, {**A, "content": "b"}]}, {}),
    "all of them": ({"prompt": "q", "messages": [Q, A], "chosen": [Q, A], "rejected": [Q, {**A, "content": "b"}]}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_preference_pairs_are_recognised(tmp_path: Path, name: str) -> None:
    row, entry = PAIRS[name]
    [record] = only(tmp_path, row, **entry)
    assert (record.kind, said(record)) == ("preference", [("user", "q"), ("assistant", "a")])
    assert record.rejected == ({"role": "assistant", "content": "b"},)


@pytest.mark.parametrize(("row", "entry"), [
    ({"instruction": "q", "output": "a", "kto_tag": False}, {}),
    ({"messages": [Q, A], "label": False}, {}),
    ({"prompt": [Q], "completion": [A], "label": False}, {}),
    ({"prompt": "q", "completion": "a", "good": "False"},
     {"columns": {"prompt": "prompt", "response": "completion", "kto_tag": "good"}}),
])  # fmt: skip
def test_labelled_answers_are_recognised(tmp_path: Path, row: Any, entry: Any) -> None:
    [record] = only(tmp_path, row, **entry)
    assert (record.kind, said(record), record.desirable) == ("kto", [("user", "q"), ("assistant", "a")], False)


@pytest.mark.parametrize(("row", "stage", "words"), [
    ({"prompt": "q", "chosen": "a", "rejected": "b"}, "sft", "preference pairs"),
    ({"messages": [Q, A], "label": True}, "sft", "labelled answers"),
    ({"text": "x"}, "sft", "Set the stage to pt"),
    ({"messages": [Q, A]}, "pt", "Set the stage to sft"),
    ({"messages": [Q, A]}, "sft", ""),
    ({"text": "x"}, "pt", ""),
])  # fmt: skip
def test_what_a_stage_does_not_train_on_is_refused_with_what_to_do(
    tmp_path: Path, row: Any, stage: str, words: str
) -> None:
    write(tmp_path, "x.json", [row])
    source = find_source(tmp_path, "x")
    if not words:
        return check_stage(source, stage)
    with pytest.raises(Problem) as caught:
        check_stage(source, stage)
    assert words in caught.value.sentence("en")
    assert "请" in caught.value.sentence("zh")


# ---- kinds of file ----

ROWS = [{"instruction": f"第 {n} 题\n“,”", "output": f'a "{n}"'} for n in range(1, 701)]


def csv(delimiter: str) -> bytes:
    cells = [[row["instruction"], row["output"]] for row in [{"instruction": "instruction", "output": "output"}, *ROWS]]
    return "\n".join(delimiter.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in cells).encode()


def parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=300)


def arrow(path: Path, stream: bool) -> None:
    table = pa.Table.from_pylist(ROWS)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, table.schema) as file:
        file.write_table(table, max_chunksize=300)


FILES: dict[str, Callable[[Path], Any]] = {
    "x.json": lambda path: path.write_text(json.dumps(ROWS, indent=1, ensure_ascii=False)),
    "x.jsonl": lambda path: path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)),
    "x.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "x.jsonl.gz": lambda path: path.write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode())),
    "x.csv": lambda path: path.write_bytes(csv(",")),
    "x.tsv": lambda path: path.write_bytes(csv("\t")),
    "x.csv.gz": lambda path: path.write_bytes(gzip.compress(csv(","))),
    "x.parquet": parquet,
    "x.arrow": lambda path: arrow(path, True),
    "y.arrow": lambda path: arrow(path, False),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_read_paged_and_counted(tmp_path: Path, name: str) -> None:
    FILES[name](tmp_path / name)
    [dataset] = list_datasets(tmp_path)
    found = read_dataset(tmp_path, dataset)
    assert [record.raw for record in found] == ROWS
    for page in (176, 1, 175, 60, 174):  # behind the end, and to and fro
        records, _ = preview(tmp_path, dataset, page, 4)
        assert [record.row for record in records] == [row for row in range(page * 4 - 3, page * 4 + 1) if row <= 700]
        assert all(record.raw == ROWS[record.row - 1] for record in records if isinstance(record, Record))
    assert count_rows(find_source(tmp_path, dataset)) == 700
    assert [item.row for item in iterate(find_source(tmp_path, dataset), first=698)] == [699, 700]


def test_lines_of_a_text_file_are_texts_and_blank_ones_are_none(tmp_path: Path) -> None:
    write(tmp_path, "x.txt", "第一段\r\n\r\n  second\n \nthird".encode())
    assert [said(record) for record in read_dataset(tmp_path, "x")] == [
        [("text", text)] for text in ("第一段", "  second", "third")
    ]


def test_a_large_file_is_counted_when_somebody_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.row_files._COUNTED_BYTES", 100)
    FILES["x.jsonl"](tmp_path / "x.jsonl")
    assert preview(tmp_path, "x", 2, 4)[1] is None
    assert count_rows(find_source(tmp_path, "x")) == 700
    assert preview(tmp_path, "x", 2, 4)[1] == 700
    FILES["x.parquet"](tmp_path / "y.parquet")
    assert preview(tmp_path, "y", 2, 4)[1] == 700  # says so itself


@pytest.mark.slow
def test_progress_tells_rows_and_bytes(tmp_path: Path) -> None:
    rows = [ROWS[0]] * 5000
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"):
        text = "\n".join(map(json.dumps, rows)).encode()
        if name == "c.parquet":
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / name, compression="none", use_dictionary=False)
        else:
            write(tmp_path, name, gzip.compress(text) if name.endswith(".gz") else text)
        told: list[tuple[int, int, int]] = []
        source = find_source(tmp_path, name[0])
        assert sum(1 for _ in iterate(source, progress=lambda *numbers: told.append(numbers))) == 5000  # noqa: B023
        assert [row for row, _, _ in told] == list(range(1, 5001))
        assert {total for _, _, total in told} == {source.bytes()}
        assert told[0][1] == 0
        assert 0.7 * source.bytes() < told[-1][1] <= source.bytes(), name


# ---- several files, folders, saved datasets, hubs ----


def test_files_of_an_entry_and_of_a_folder_are_one_dataset(tmp_path: Path) -> None:
    write(tmp_path, "parts/b.jsonl", json.dumps(ROWS[1]).encode())
    write(tmp_path, "parts/a.json", [ROWS[0]])
    write(tmp_path, "parts/README.md", b"# about")
    assert list_datasets(tmp_path) == ["parts"]
    assert [record.raw for record in read_dataset(tmp_path, "parts")] == ROWS[:2]
    write(
        tmp_path,
        "dataset_info.json",
        {"all": {"file_name": "parts"}, "some": {"file_name": ["parts/b.jsonl", "parts/a.json"]}},
    )
    assert [record.raw for record in read_dataset(tmp_path, "all")] == ROWS[:2]
    assert [(record.row, record.raw) for record in read_dataset(tmp_path, "some")] == [(1, ROWS[1]), (2, ROWS[0])]


def test_a_bad_row_of_several_files_is_found_again(tmp_path: Path) -> None:
    write(tmp_path, "parts/a.json", [ROWS[0], ROWS[1]])
    write(tmp_path, "parts/b.json", [ROWS[0], {"instruction": "q"}])
    assert refused(tmp_path, "parts").values["row"] == 4
    assert "b.json, row 2 there" in refused(tmp_path, "parts").sentence("en")


@pytest.mark.parametrize("names", [["a.json", "../secret.json"], "linked", ["linked/secret.json"]])
def test_no_file_of_several_leads_out_of_the_data_folder(tmp_path: Path, names: Any) -> None:
    folder = tmp_path / "data"
    write(tmp_path, "elsewhere/secret.json", [ROWS[0]])
    write(tmp_path, "secret.json", [ROWS[0]])
    write(folder, "a.json", [ROWS[0]])
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    write(folder, "dataset_info.json", {"d": {"file_name": names}})
    assert refused(folder).code == "dataset_outside"
    (folder / "dataset_info.json").unlink()
    assert refused(folder, "linked").code == "dataset_outside"


def saved(folder: Path, rows: list[Any]) -> None:
    """As `datasets` saves one, its own dataset_info.json included."""
    folder.mkdir(parents=True)
    for number, part in enumerate((rows[:1], rows[1:])):
        table = pa.Table.from_pylist(part)
        with pa.ipc.new_stream(folder / f"data-0000{number}-of-00002.arrow", table.schema) as file:
            file.write_table(table)
    write(
        folder, "state.json", {"_data_files": [{"filename": f"data-0000{number}-of-00002.arrow"} for number in (0, 1)]}
    )
    write(folder, "dataset_info.json", {"citation": "", "features": {}})


def test_a_saved_folder_is_a_dataset_by_itself_in_a_folder_or_in_an_entry(tmp_path: Path) -> None:
    saved(tmp_path / "mine", ROWS[:3])
    assert list_datasets(tmp_path) == list_datasets(tmp_path / "mine") == ["mine"]
    for folder in (tmp_path, tmp_path / "mine"):
        assert [record.raw for record in read_dataset(folder, "mine")] == ROWS[:3]
    saved(tmp_path / "both" / "train", ROWS[:2])
    saved(tmp_path / "both" / "test", ROWS[4:6])
    write(tmp_path, "both/dataset_dict.json", {"splits": ["train", "test"]})
    write(tmp_path, "dataset_info.json", {"d": {"file_name": "both", "split": "test"}, "e": {"file_name": "both"}})
    assert [record.raw for record in read_dataset(tmp_path, "d")] == ROWS[4:6]
    assert [record.raw for record in read_dataset(tmp_path, "e")] == ROWS[:2]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches with a dataset each: Hugging Face's files, what `datasets` made of another, and ModelScope's."""
    for variable, place in {"HF_HOME": "hf", "HF_HUB_CACHE": "hf/hub", "HF_DATASETS_CACHE": "hf/datasets",
                            "MODELSCOPE_CACHE": "ms"}.items():  # fmt: skip
        monkeypatch.setenv(variable, str(tmp_path / place))
    repository = tmp_path / "hf" / "hub" / "datasets--org--talks"
    write(repository, "refs/main", b"abc123")
    for split, row in (("train", ROWS[0]), ("test", ROWS[1])):
        blob = write(repository, f"blobs/{split}", json.dumps(row).encode())
        link = repository / "snapshots" / "abc123" / "data" / f"{split}.jsonl"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    write(tmp_path / "ms" / "datasets" / "org" / "more", "train.jsonl", json.dumps(ROWS[2]).encode())
    made = tmp_path / "hf" / "datasets" / "Org___big_talks" / "default" / "0.0.0" / "0123"
    made.mkdir(parents=True)
    with pa.ipc.new_stream(made / "big_talks-train.arrow", pa.Table.from_pylist(ROWS[3:4]).schema) as file:
        file.write_table(pa.Table.from_pylist(ROWS[3:4]))
    folder = tmp_path / "data"
    write(folder, "dataset_info.json", {
        "talks": {"hf_hub_url": "org/talks", "ms_hub_url": "org/more"}, "test": {"hf_hub_url": "org/talks", "split": "test"},
        "more": {"ms_hub_url": "org/more"}, "big": {"hf_hub_url": "Org/BigTalks"}, "gone": {"hf_hub_url": "org/gone"},
        "gone-ms": {"ms_hub_url": "org/gone"}, "split": {"hf_hub_url": "org/talks", "split": "validation"},
        "up": {"hf_hub_url": "../org"}})  # fmt: skip
    return folder


@pytest.mark.slow
def test_what_a_hub_gave_before_is_read_from_its_cache(hub: Path) -> None:
    assert list_datasets(hub) == ["big", "more", "split", "talks", "test"]
    found = {
        name: [record.raw for record in read_dataset(hub, name)]
        for name in ("talks", "test", "more", "big", "org/talks")
    }
    expected = {"talks": ROWS[0], "test": ROWS[1], "more": ROWS[2], "big": ROWS[3], "org/talks": ROWS[0]}
    assert found == {name: [row] for name, row in expected.items()}
    assert "It has: test, train" in refused(hub, "split").sentence("en").replace("train, test", "test, train")


@pytest.mark.parametrize(("name", "command"), [
    ("gone", "`hf download --repo-type dataset org/gone`"), ("gone-ms", "`modelscope download --dataset org/gone`"),
    ("up", "`hf download"), ("org/nothing", "`hf download --repo-type dataset org/nothing`"),
])  # fmt: skip
def test_what_no_cache_has_is_told_with_the_command_that_brings_it(hub: Path, name: str, command: str) -> None:
    found = refused(hub, name)
    assert found.code == "dataset_not_here"
    assert command in found.sentence("en")
    assert command in found.sentence("zh")


@pytest.mark.slow
def test_a_file_of_a_cached_repository_that_leads_out_of_it_is_refused(hub: Path, tmp_path: Path) -> None:
    link = tmp_path / "hf" / "hub" / "datasets--org--talks" / "snapshots" / "abc123" / "data" / "train.jsonl"
    link.unlink()
    link.symlink_to(write(tmp_path, "secret.jsonl", json.dumps(ROWS[0]).encode()))
    assert refused(hub, "talks").code == "dataset_outside"


@pytest.mark.slow
def test_a_loading_script_in_a_repository_is_not_run(hub: Path, tmp_path: Path) -> None:
    repository = tmp_path / "ms" / "datasets" / "org" / "more"
    (repository / "train.jsonl").unlink()
    write(repository, "more.py", f"open({str(tmp_path / 'ran')!r}, 'w')".encode())
    assert refused(hub, "more").code == "dataset_no_split"
    assert not (tmp_path / "ran").exists()


GROWTH = """
import resource, sys
from pathlib import Path
from trainer.dataset_files import find_source
from trainer.records import iterate, preview
folder = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
preview(folder, "x", 1, 4)
assert sum(1 for _ in iterate(find_source(folder, "x"))) == 2000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.jsonl.gz"])
def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path, name: str) -> None:
    """60 MB, of which no more than some rows are held: the growth in KiB is that of what is read at a time."""
    rows = [{"instruction": "q" * 15_000, "output": "字" * 5_000}] * 2000
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    content = {
        "x.json": b"[" + text.replace(b"\n", b",") + b"]",
        "x.csv": b"instruction,output\n" + b"\n".join([b"q" * 15_000 + b"," + b"a" * 15_000] * 2000),
        "x.jsonl.gz": gzip.compress(text, 0),  # packed, it would be taken for a bomb
    }
    write(tmp_path, name, content[name])
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 30_000


def test_the_ids_of_what_the_hubs_gave_are_offered_and_read_by_either_hub(hub: Path) -> None:
    assert hub_datasets.cached() == ["org/more", "org/talks"]
    assert hub_datasets.are_here(hub_datasets.Wanted("org/more", "org/more"))


@pytest.mark.slow
def test_of_a_repository_of_several_subsets_it_is_told_which_there_are(hub: Path, tmp_path: Path) -> None:
    repository = tmp_path / "ms" / "datasets" / "org" / "more"
    for subset in ("zh", "en"):
        write(repository, f"{subset}/train.jsonl", json.dumps(ROWS[0]).encode())
    (repository / "train.jsonl").unlink()
    configs = "\n".join(f"- config_name: {name}\n  data_files: {name}/train.jsonl" for name in ("zh", "en"))
    write(repository, "README.md", f"---\nconfigs:\n{configs}\n---\n".encode())
    assert "It has: subset zh, subset en." in refused(hub, "more").sentence("en")
