"""Datasets as people bring them, good and broken: what is read, and which sentence tells what is wrong."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainer.problems import LANGUAGES, Problem
from trainer.records import BadRow, list_datasets, preview, read_dataset

ROOT = Path(__file__).parents[2]
GOOD = {"instruction": "q", "input": "", "output": "a"}
ROLES = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode())
    return path


def declare(folder: Path, rows: Any, **entry: Any) -> Path:
    """A folder with the dataset `d` in d.json."""
    write(folder, "d.json", rows)
    write(folder, "dataset_info.json", {"d": {"file_name": "d.json", **entry}})
    return folder


def contents(folder: Path, name: str = "d", **options: Any) -> list[list[tuple[str, str]]]:
    return [[(m["role"], m["content"]) for m in record.messages] for record in read_dataset(folder, name, **options)]


def problem(folder: Path, name: str = "d", **options: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        read_dataset(folder, name, **options)
    for language in LANGUAGES:
        assert "?" not in caught.value.sentence(language).replace("`?`", "")  # every value is filled in
    return caught.value


def shared(*turns: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(turns)]


# ---- formats ----


def test_alpaca_joins_instruction_and_input_and_keeps_placeholders(tmp_path: Path) -> None:
    rows = [
        {"instruction": "译", "input": "hi", "output": "我是{{name}}"},
        {"instruction": "", "input": "x", "output": "y"},
    ]
    folder = declare(tmp_path, rows)
    assert contents(folder) == [
        [("user", "译\nhi"), ("assistant", "我是{{name}}")],
        [("user", "x"), ("assistant", "y")],
    ]


def test_alpaca_history_and_system_are_read_where_they_are_declared(tmp_path: Path) -> None:
    row = {"q": "c", "a": "d", "past": [["a", "b"]], "sys": "s"}
    columns = {"prompt": "q", "response": "a", "history": "past", "system": "sys"}
    folder = declare(tmp_path, [row, {"q": "c", "a": "d", "past": None, "sys": ""}], columns=columns)
    assert contents(folder)[0] == [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", "d"),
    ]
    assert contents(folder)[1] == [("user", "c"), ("assistant", "d")]


def test_naming_a_column_unsets_those_not_named(tmp_path: Path) -> None:
    folder = declare(tmp_path, [{**GOOD, "input": "unused"}], columns={"prompt": "instruction", "response": "output"})
    assert contents(folder) == [[("user", "q"), ("assistant", "a")]]


def test_sharegpt_takes_its_system_from_the_column_or_the_first_message(tmp_path: Path) -> None:
    rows = [
        {"conversations": shared("q", "a"), "system": "s"},
        {"conversations": [{"from": "system", "value": "t"}, *shared("q", "a")], "system": "s"},
    ]
    folder = declare(tmp_path, rows, formatting="sharegpt", columns={"messages": "conversations", "system": "system"})
    assert [turns[0] for turns in contents(folder)] == [("system", "s"), ("system", "t")]


@pytest.mark.parametrize("formatting", ["sharegpt", "openai"])
def test_openai_messages_are_read_with_tags_or_by_formatting(tmp_path: Path, formatting: str) -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    extra = {"tags": {**ROLES, "system_tag": "system"}} if formatting == "sharegpt" else {}
    folder = declare(
        tmp_path, [{"messages": messages}], formatting=formatting, columns={"messages": "messages"}, **extra
    )
    assert contents(folder) == [[("system", "s"), ("user", "q"), ("assistant", "a")]]


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        {"instruction": "q", "output": "a"},
        {"prompt": "q", "completion": "a"},
        {"prompt": "q", "response": "a", "history": []},
        {"conversations": shared("q", "a")},
        {"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "id": 1},
    ],
)
@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_a_bare_folder_is_served_by_looking(tmp_path: Path, row: Any, name: str) -> None:
    write(
        tmp_path, name, [row, row] if name == "x.json" else json.dumps(row).encode() + b"\n" + json.dumps(row).encode()
    )
    assert list_datasets(tmp_path) == ["x"]
    assert contents(tmp_path, "x") == [[("user", "q"), ("assistant", "a")]] * 2


def test_question_and_answer_columns_are_not_guessed(tmp_path: Path) -> None:
    write(tmp_path, "x.json", [{"question": "q", "answer": "a"}])
    found = problem(tmp_path, "x")
    assert (found.code, found.values["row"], found.values["columns"]) == ("dataset_layout", 1, "question, answer")


def test_files_of_one_stem_are_listed_by_their_full_names(tmp_path: Path) -> None:
    for name in ("x.json", "x.jsonl", "y.JSON", ".hidden.json", "z.csv", "z.csv.gz", "README.md"):
        write(tmp_path, name, [GOOD])
    assert list_datasets(tmp_path) == ["x.json", "x.jsonl", "y", "z.csv", "z.csv.gz"]
    assert len(read_dataset(tmp_path, "x.jsonl")) == 1


# ---- files ----


def test_jsonl_under_a_json_name_is_read_and_the_other_way_round(tmp_path: Path) -> None:
    line = json.dumps(GOOD).encode()
    write(tmp_path, "lines.json", b"\n" + line + b"\r\n\r\n" + line)
    write(tmp_path, "list.jsonl", json.dumps([GOOD, GOOD], indent=2).encode())
    assert len(read_dataset(tmp_path, "lines")) == len(read_dataset(tmp_path, "list")) == 2


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_a_byte_order_mark_does_no_harm(tmp_path: Path, name: str) -> None:
    body = json.dumps([GOOD] if name == "x.json" else GOOD).encode()
    write(tmp_path, name, b"\xef\xbb\xbf" + body)
    assert len(read_dataset(tmp_path, "x")) == len(preview(tmp_path, "x", 1, 5)[0]) == 1
    write(tmp_path, "dataset_info.json", b"\xef\xbb\xbf" + json.dumps({"d": {"file_name": name}}).encode())
    assert list_datasets(tmp_path) == ["d"]


def test_line_and_row_numbers_are_right_across_blank_lines(tmp_path: Path) -> None:
    line, bad = (
        json.dumps({**GOOD, "output": "u2028 \u2028"}, ensure_ascii=False).encode(),
        json.dumps({"instruction": "q"}),
    )
    write(tmp_path, "x.jsonl", b"\n" + line + b"\n\n  \r\n" + bad.encode() + b"\n")
    assert problem(tmp_path, "x").values["row"] == 2
    write(tmp_path, "x.jsonl", b"\n" + line + b"\n\n" + line[:-1] + b"\n" + line)
    assert problem(tmp_path, "x").values["row"] == 2
    assert "line 4 is not valid JSON" in problem(tmp_path, "x").sentence("en")


def test_broken_json_is_told_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, "x.json", b'[\n  {"instruction": "q", "output": "a"},\n  {"instruction": "q" "output": "a"}\n]')
    found = problem(tmp_path, "x")
    assert (found.code, found.values["line"]) == ("dataset_json_broken", 3)


@pytest.mark.parametrize(
    "content",
    [
        b'[{"instruction": "q"',
        b"[",
        b"[" * 100_000,
        b"[" + b"1" * 5000 + b"]",
        b'{"a": 1}',
        b"1",
        b'[{"a": 1}] x',
        b"\0",
    ],
)
@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_no_broken_file_raises_anything_but_a_problem(tmp_path: Path, content: bytes, name: str) -> None:
    write(tmp_path, name, content)
    codes = ("dataset_json_broken", "dataset_row", "dataset_row_broken", "dataset_layout", "dataset_file_broken")
    assert problem(tmp_path, "x").code in codes
    with pytest.raises(Problem):
        preview(tmp_path, "x", 1, 10)


@pytest.mark.parametrize("text", ["[\n" + json.dumps(GOOD), json.dumps({**GOOD, "output": "汉"}, ensure_ascii=False)])
@pytest.mark.parametrize("encoding", ["utf-16", "gb18030", "utf-32"])
def test_other_encodings_are_told_with_the_byte(tmp_path: Path, text: str, encoding: str) -> None:
    content = (text + "汉").encode(encoding)
    write(tmp_path, "x.jsonl", content)
    found = problem(tmp_path, "x")
    assert found.code == "dataset_encoding"
    with pytest.raises(UnicodeDecodeError):
        content[: found.values["byte"] + 3].decode()


@pytest.mark.parametrize("content", [b"", b"[]", b"\n\n \n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_a_file_without_rows_is_empty(tmp_path: Path, content: bytes, name: str) -> None:
    write(tmp_path, name, content)
    assert problem(tmp_path, "x").code == "dataset_empty"


# ---- which datasets ----


def test_entries_that_cannot_be_served_are_left_out_and_say_why_when_asked(tmp_path: Path) -> None:
    served = {"file_name": "d.json"}
    entries = {
        "pictures": {**served, "columns": {"prompt": "a", "response": "b", "images": "images"}},
        "sheet": {"file_name": "d.xlsx"},
        "folder": {"file_name": "sub"},
        "script": {**served, "script_url": "x.py"},
        "other": {**served, "formatting": "parquet"},
    }
    (tmp_path / "sub").mkdir()
    declare(tmp_path, [GOOD])
    write(tmp_path, "dataset_info.json", {**entries, "d": served, "a": served})
    assert list_datasets(tmp_path) == ["a", "d"]
    for name in entries:
        found = problem(tmp_path, name)
        assert found.code == "dataset_unsupported"
        assert found.values["remedy"]["en"] in found.sentence("en")


@pytest.mark.parametrize(
    "info",
    [b"{", b"[1]", b"\xff\xfe{", b'{"d": 1}', b'{"d": {}}', b'{"d": {"file_name": 5}}',
     b'{"d": {"file_name": "d.json", "columns": [1]}}', b'{"d": {"file_name": "d.json", "tags": {"role_tag": 1}}}',
     b'{"d": {"file_name": "d.json", "num_samples": "5"}}'],
)  # fmt: skip
def test_a_broken_dataset_info_is_told_as_such(tmp_path: Path, info: bytes) -> None:
    write(tmp_path, "d.json", [GOOD])
    write(tmp_path, "dataset_info.json", info)
    assert problem(tmp_path).code == "dataset_info_broken"


def test_one_broken_entry_does_not_hide_the_others(tmp_path: Path) -> None:
    write(tmp_path, "dataset_info.json", {"a": 1, "b": {"file_name": "b.json"}})
    assert list_datasets(tmp_path) == ["b"]


def test_unknown_missing_and_outside_datasets_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    outside = write(tmp_path, "secret.json", [GOOD])
    declare(folder, [GOOD])
    (folder / "link.json").symlink_to(outside)
    files = {"gone": "gone.json", "up": "../secret.json", "root": str(outside), "link": "link.json", "in": "./d.json"}
    write(folder, "dataset_info.json", {name: {"file_name": file} for name, file in files.items()})
    assert problem(folder, "nobody").values["found"] == "gone, in, link, root, up"
    assert problem(folder, "gone").code == "dataset_file_missing"
    assert {problem(folder, name).code for name in ("up", "root", "link")} == {"dataset_outside"}
    assert len(read_dataset(folder, "in")) == 1


def test_a_data_folder_behind_a_link_is_served(tmp_path: Path) -> None:
    declare(tmp_path / "real", [GOOD])
    (tmp_path / "mount").symlink_to(tmp_path / "real")
    assert len(read_dataset(tmp_path / "mount", "d")) == 1


@pytest.mark.parametrize("name", ["../secret", "secret.json", "", "/etc/passwd"])
def test_a_bare_folder_serves_nothing_but_its_files(tmp_path: Path, name: str) -> None:
    write(tmp_path, "secret.json", [GOOD])
    write(tmp_path / "data", "x.json", [GOOD])
    assert problem(tmp_path / "data", name).code == "dataset_unknown"


def test_a_missing_data_folder_is_told(tmp_path: Path) -> None:
    assert problem(tmp_path / "none").code == "data_dir_missing"
    with pytest.raises(Problem):
        list_datasets(write(tmp_path, "file", b""))


# ---- rows ----

LAYOUTS: dict[str, dict[str, Any]] = {
    "alpaca": {},
    "full": {"columns": {"prompt": "instruction", "response": "output", "history": "history", "system": "system"}},
    "sharegpt": {"formatting": "sharegpt"},
}


@pytest.mark.parametrize(
    ("layout", "row", "said"),
    [
        ("alpaca", {"instruction": "q"}, "`output` is missing"),
        ("alpaca", {"output": "a"}, "`instruction` is missing"),
        ("alpaca", {**GOOD, "output": 5}, "`output` is `number` (`5`), not text"),
        ("alpaca", {**GOOD, "output": None}, "`output` is `null`"),
        ("alpaca", {**GOOD, "instruction": ["q"]}, "`instruction` is `list`"),
        ("alpaca", {**GOOD, "input": {}}, "`input` is `object`"),
        ("alpaca", {**GOOD, "output": ""}, "answer (message 2) is empty"),
        ("alpaca", {**GOOD, "output": " \n"}, "answer (message 2) is empty"),
        ("alpaca", {**GOOD, "instruction": ""}, "prompt (message 1) is empty"),
        ("alpaca", {**GOOD, "output": "\ud83d"}, "half a character (\\ud83d)"),
        ("alpaca", ["q", "a"], "it is `list`, not an object"),
        ("alpaca", None, "it is `null`"),
        ("alpaca", {}, "is missing"),
        ("full", {**GOOD, "history": [["q"]]}, "not a list of [question, answer] pairs"),
        ("full", {**GOOD, "history": "q"}, "not a list of [question, answer] pairs"),
        ("full", {**GOOD, "history": [["q", 1]]}, "`history` is `number`"),
        ("full", {**GOOD, "system": 1}, "`system` is `number`"),
        ("sharegpt", {"messages": []}, "`conversations` is missing"),
        ("sharegpt", {"conversations": []}, "empty conversation"),
        ("sharegpt", {"conversations": "q"}, "`string`, not a list of messages"),
        ("sharegpt", {"conversations": ["q"]}, "`conversations`[1] must have `from` and `value`"),
        ("sharegpt", {"conversations": [{"from": "human"}]}, "must have `from` and `value`"),
        ("sharegpt", {"conversations": [{"from": "bot", "value": "x"}]}, "role `bot`; known are system, human, gpt"),
        ("sharegpt", {"conversations": [{"from": None, "value": "x"}]}, "role `null`"),
        ("sharegpt", {"conversations": [{"from": ["a"], "value": "x"}]}, "role"),
        ("sharegpt", {"conversations": shared("q", "a", "q")}, "ends without an answer"),
        ("sharegpt", {"conversations": shared("q")}, "ends without an answer"),
        ("sharegpt", {"conversations": shared("q", "a")[1:]}, "message 1 is of the role assistant where user must"),
        ("sharegpt", {"conversations": shared("q")[:1] * 2}, "message 2 is of the role user where assistant must"),
        ("sharegpt", {"conversations": shared("q", "a") + shared("q", "a")[1:]}, "message 3"),
        ("sharegpt", {"conversations": [{"from": "system", "value": "s"}]}, "ends without an answer"),
        ("sharegpt", {"conversations": [{"from": "system", "value": ""}]}, "ends without an answer"),
        (
            "sharegpt",
            {"conversations": [*shared("q", "a"), {"from": "system", "value": "s"}]},
            "role system where user",
        ),
        ("sharegpt", {"conversations": shared("q", " ")}, "answer (message 2) is empty"),
        ("sharegpt", {"conversations": [{"from": "human", "value": 3}]}, "`conversations`[1].value is `number`"),
    ],
)
def test_a_bad_row_is_told_with_its_number_its_fault_and_its_columns(
    tmp_path: Path, layout: str, row: Any, said: str
) -> None:
    good = {"conversations": shared("q", "a")} if layout == "sharegpt" else GOOD
    write(tmp_path, "d.json", json.dumps([good, row]).encode())
    write(tmp_path, "dataset_info.json", {"d": {"file_name": "d.json", **LAYOUTS[layout]}})
    found = problem(tmp_path)
    assert (found.code, found.values["row"]) == ("dataset_row", 2)
    assert said in found.sentence("en")
    assert found.sentence("zh") != found.sentence("en")
    assert all(column in found.sentence("zh") for column in (row if isinstance(row, dict) else ()))


def test_max_samples_takes_the_first_rows_and_checks_no_others(tmp_path: Path) -> None:
    folder = declare(tmp_path, [{**GOOD, "output": str(n)} for n in range(5)] + [{"bad": 1}])
    assert [turns[-1][1] for turns in contents(folder, max_samples=3)] == ["0", "1", "2"]
    assert problem(folder).values["row"] == 6
    write(tmp_path, "d.json", json.dumps(GOOD).encode() + b"\n{broken")
    assert len(read_dataset(folder, "d", max_samples=1)) == 1


@pytest.mark.parametrize(
    ("count", "wanted", "rows"), [(2, None, [1, 2]), (5, None, [1, 2, 3, 1, 2]), (5, 4, [1, 2, 3, 1])]
)
def test_num_samples_takes_so_many_beginning_again_at_the_end(
    tmp_path: Path, count: int, wanted: Any, rows: list
) -> None:
    folder = declare(tmp_path, [GOOD] * 3, num_samples=count)
    assert [record.row for record in read_dataset(folder, "d", max_samples=wanted)] == rows


# ---- preview ----


@pytest.mark.parametrize("lines", [False, True])
def test_preview_turns_pages_and_counts_the_rows_of_the_file(tmp_path: Path, lines: bool) -> None:
    rows = [{**GOOD, "output": str(n)} for n in range(1, 8)]
    write(tmp_path, "x.json", "\n\n".join(map(json.dumps, rows)).encode() if lines else rows)
    pages = [preview(tmp_path, "x", page, 3) for page in (1, 2, 3, 4)]
    assert [[record.row for record in records] for records, _ in pages] == [[1, 2, 3], [4, 5, 6], [7], []]
    assert [records[0].messages[-1]["content"] for records, _ in pages[:3]] == ["1", "4", "7"]
    assert {total for _, total in pages} == {7}
    assert pages[1][0][0].raw == rows[3]


@pytest.mark.parametrize("lines", [False, True])
def test_preview_meets_a_bad_row_only_on_its_page_and_sees_a_corrected_file(tmp_path: Path, lines: bool) -> None:
    def save(rows: list[Any]) -> None:
        write(tmp_path, "x.json", "\n".join(map(json.dumps, rows)).encode() if lines else rows)

    save([GOOD, GOOD, {"instruction": 1}])
    assert preview(tmp_path, "x", 1, 2)[1] == 3
    [bad] = preview(tmp_path, "x", 2, 2)[0]
    assert isinstance(bad, BadRow)
    assert (bad.row, bad.problem.values["row"], bad.raw_excerpt) == (3, 3, '{"instruction": 1}')
    assert "`output` is missing" in bad.reason["en"]
    save([GOOD, GOOD, GOOD, GOOD])
    assert [record.row for record in preview(tmp_path, "x", 2, 2)[0]] == [3, 4]


# ---- what is bundled ----


def test_the_bundled_datasets_are_bilingual_and_large_enough() -> None:
    data = ROOT / "data"
    assert list_datasets(data) == ["everyday-openai", "general-chat", "identity", "identity-pku-assistant"]
    for name, least in {"everyday-openai": 40, "general-chat": 40, "identity": 60}.items():
        records = read_dataset(data, name)
        chinese = sum(any("\u4e00" <= letter <= "\u9fff" for letter in str(record.messages)) for record in records)
        assert len(records) >= least
        assert least // 4 <= chinese <= len(records) - least // 4
    assert all("{{" in str(record.messages) for record in read_dataset(data, "identity"))
    turns = [len(record.messages) for record in read_dataset(data, "general-chat")]
    assert min(turns) >= 4
    assert any(record.messages[0]["role"] == "system" for record in read_dataset(data, "general-chat"))


def test_reading_datasets_needs_no_torch_and_no_datasets_library() -> None:
    code = "import sys, trainer.records; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'datasets')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
