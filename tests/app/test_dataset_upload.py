"""Datasets that come through the page: names made harmless, types and sizes held, others left as they are."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app import dataset_upload, upload_routes
from app.dataset_entry import inserted
from app.upload_routes import add_upload_routes
from tests import loops
from trainer import records
from trainer.dataset_files import INFO, list_datasets
from trainer.problems import Problem

GOOD = [{"instruction": "你好", "output": "你好！"}]
NAMES = [
    ("data.json", "data.json"),
    ("../../etc/passwd.json", "passwd.json"),
    ("C:\\Users\\me\\my data.JSONL", "my data.jsonl"),
    (".hidden.csv", "hidden.csv"),
    ("-rf.tsv", "rf.tsv"),
    ("对话数据.parquet", "对话数据.parquet"),
    ("a\0b\nc.txt", "a_b_c.txt"),
    ('<img src=x onerror="x">.json', "_img src=x onerror=_x__.json"),
    ("rows.csv.gz", "rows.csv.gz"),
    ("a,b[c]{d}$e`f.arrow", "a_b_c__d__e_f.arrow"),
    ("dataset_info.json", "dataset_info-data.json"),
    (".json", "dataset.json"),
    ("\ud800x.json", "x.json"),
]


@pytest.mark.parametrize(("given", "kept"), NAMES)
def test_names_are_made_harmless(given: str, kept: str) -> None:
    assert dataset_upload.file_name(given) == kept


def test_long_names_are_cut_between_characters() -> None:
    name = dataset_upload.file_name("数" * 300 + ".json")
    assert len(name.encode()) <= dataset_upload.MOST_NAME_BYTES + 5
    assert name == "数" * 33 + ".json"


@pytest.mark.parametrize(
    ("name", "code"),
    [("x.zip", "upload_archive"), ("x.tar.gz", "upload_archive"), ("x.tgz", "upload_archive"), ("x.7z", "upload_archive"),
     ("x.exe", "upload_type"), ("x.html", "upload_type"), ("x", "upload_type"), ("x.json.exe", "upload_type"),
     ("x.parquet.gz", "upload_type"), ("x.gz", "upload_type"), ("json", "upload_type")],
)  # fmt: skip
def test_archives_and_other_types_are_refused(name: str, code: str, tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        dataset_upload.begin(tmp_path, name, 0)
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []


def staged(runs_dir: Path, rows: Any = GOOD, name: str = "mine.json") -> dataset_upload.Staged:
    number, path = dataset_upload.begin(runs_dir, name, 0)
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows, ensure_ascii=False))
    return dataset_upload.staged(runs_dir, number)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "old.json").write_text(json.dumps(GOOD))
    return folder


WRITTEN = '{\n    "old" : {"file_name": "old.json",\n             "columns": {"prompt":"instruction", "response":"output"}}\n}\n'


def test_what_was_sent_is_a_dataset_of_its_own_until_it_is_added(tmp_path: Path, data: Path) -> None:
    found = staged(tmp_path / "runs")
    assert (found.name, found.proposed) == ("mine", "mine")
    row = dataset_upload.first_rows(found, 3)[0]
    assert isinstance(row, records.Record)
    assert list_datasets(data) == ["old"]
    assert dataset_upload.add(found, data, "mine") == "mine"
    assert list_datasets(data) == ["mine", "old"]
    assert not (data / INFO).exists(), "a folder without a list needs none"
    dataset_upload.remove(tmp_path / "runs", found.id)
    with pytest.raises(Problem):
        dataset_upload.staged(tmp_path / "runs", found.id)
    assert records.read_dataset(data, "mine")[0].messages[0]["content"] == "你好"


def test_other_entries_stay_as_they_are_written(tmp_path: Path, data: Path) -> None:
    (data / INFO).write_text(WRITTEN)
    os.chmod(data / INFO, 0o640)
    dataset_upload.add(staged(tmp_path / "runs"), data, "我的 数据")
    text = (data / INFO).read_text()
    assert text.startswith(WRITTEN.rstrip().removesuffix("}").rstrip() + ",")
    assert json.loads(text)["我的 数据"] == {"file_name": "我的 数据.json"}
    assert (data / INFO).stat().st_mode & 0o777 == 0o640
    assert len(records.read_dataset(data, "我的 数据")) == 1
    assert sorted(path.name for path in data.iterdir()) == [dataset_upload.LOCK, INFO, "old.json", "我的 数据.json"]


@pytest.mark.parametrize(
    "text",
    ["{}", '{"a": {"file_name": "a.json"}}', '\ufeff{\r\n\t"a": 1\r\n}\r\n', '{"a": {}, "a": {"b": 2}}', "{ }\n\n"],
)
def test_an_entry_finds_its_place_in_any_list(text: str) -> None:
    written = inserted(text, "b", {"file_name": "b.json"})
    before = json.loads(text.removeprefix("\ufeff"))
    assert json.loads(written.removeprefix("\ufeff")) == before | {"b": {"file_name": "b.json"}}
    assert written.startswith("\ufeff") == text.startswith("\ufeff")
    assert ("\r\n" in written) == ("\r\n" in text)


SHAREGPT = [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"}]
LAYOUTS: list[tuple[str, Any, dict[str, Any]]] = [
    ("alpaca", [{"instruction": "a", "input": "b", "output": "c"}], {}),
    ("alpaca with history", [{"instruction": "a", "input": "", "output": "c", "history": [["d", "e"]], "system": "s"}],
     {"columns": {"prompt": "instruction", "query": "input", "response": "output", "system": "system", "history": "history"}}),
    ("sharegpt", SHAREGPT, {"formatting": "sharegpt", "columns": {"messages": "conversations", "system": "system"}}),
    ("sharegpt of other names", [{"conversations": [{"from": "user", "value": "a"}, {"from": "assistant", "value": "b"}]}],
     {"formatting": "sharegpt", "columns": {"messages": "conversations"},
      "tags": {"user_tag": "user", "assistant_tag": "assistant"}}),
    ("openai", [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}],
     {"formatting": "sharegpt", "columns": {"messages": "messages"},
      "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
               "system_tag": "system"}}),
    ("prompt and completion", [{"prompt": "a", "completion": "b"}], {"columns": {"prompt": "prompt", "response": "completion"}}),
    ("text", [{"text": "once upon a time"}], {"columns": {"prompt": "text"}}),
    ("pairs", [{"prompt": "a", "chosen": "b", "rejected": "c"}],
     {"columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}, "ranking": True}),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "rows", "entry"), LAYOUTS, ids=[layout for layout, *_ in LAYOUTS])
def test_an_entry_describes_the_rows_as_llama_factory_would(
    layout: str, rows: Any, entry: dict[str, Any], tmp_path: Path, data: Path
) -> None:
    (data / INFO).write_text(WRITTEN)
    found = staged(tmp_path / "runs", rows)
    seen = dataset_upload.first_rows(found, 3)
    dataset_upload.add(found, data, "new")
    written = json.loads((data / INFO).read_text())["new"]
    told = {key: value if key != "columns" else {k: value[k] for k in value} for key, value in written.items()}
    assert told == {"file_name": "new.json", **entry}
    after = records.preview(data, "new", 1, 3)[0]
    assert [(row.messages, row.rejected, row.kind) for row in after if isinstance(row, records.Record)] == [
        (row.messages, row.rejected, row.kind) for row in seen
    ]


def test_nothing_is_overwritten(tmp_path: Path, data: Path) -> None:
    (data / INFO).write_text(WRITTEN)
    (data / "stray.json").write_text("mine")
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    for name in ("old", "stray"):
        with pytest.raises(Problem) as caught:
            dataset_upload.add(staged(tmp_path / "runs"), data, name)
        assert caught.value.code == "upload_name_taken"
        assert name in caught.value.sentence("zh")
    for name in ("", "../x", "a/b", ".x", "dataset_info", "x" * 101, "a,b"):
        with pytest.raises(Problem) as caught:
            dataset_upload.add(staged(tmp_path / "runs"), data, name)
        assert caught.value.code == "upload_name_bad"
    assert before.items() <= {path.name: path.read_bytes() for path in data.iterdir()}.items()


def test_a_broken_list_is_left_alone(tmp_path: Path, data: Path) -> None:
    (data / INFO).write_text('{"old": ')
    with pytest.raises(Problem) as caught:
        dataset_upload.add(staged(tmp_path / "runs"), data, "new")
    assert caught.value.code == "dataset_info_broken"
    assert not (data / "new.json").exists()


def test_a_list_that_cannot_be_written_leaves_no_file(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / INFO).write_text(WRITTEN)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset_upload.os, "replace", full)
    with pytest.raises(Problem) as caught:
        dataset_upload.add(staged(tmp_path / "runs"), data, "new")
    assert "No space left" in caught.value.sentence("en")
    assert (data / INFO).read_text() == WRITTEN
    assert sorted(path.name for path in data.iterdir()) == [dataset_upload.LOCK, INFO, "old.json"]


def test_writers_at_once_lose_nothing(tmp_path: Path, data: Path) -> None:
    (data / INFO).write_text(WRITTEN)
    found = [staged(tmp_path / "runs", name=f"n{number}.json") for number in range(12)]
    outcomes: list[str] = []

    def add(one: dataset_upload.Staged, name: str) -> None:
        try:
            outcomes.append(dataset_upload.add(one, data, name))
        except Problem as problem:
            outcomes.append(problem.code)

    threads = [threading.Thread(target=add, args=(one, f"n{at // 2}")) for at, one in enumerate(found)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == sorted([*(f"n{number}" for number in range(6)), *["upload_name_taken"] * 6])
    assert next(iter(json.loads((data / INFO).read_text()))) == "old"
    assert list_datasets(data) == ["n0", "n1", "n2", "n3", "n4", "n5", "old"]


def test_another_disk_is_copied_to(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_disk(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(dataset_upload.os, "link", other_disk)
    dataset_upload.add(staged(tmp_path / "runs"), data, "new")
    assert json.loads((data / "new.json").read_text()) == GOOD
    assert list_datasets(data) == ["new", "old"]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('{"instruction": "a", "output": "b"}\n{"instruction": "c", "output": "d"}', 2),
        ('[{"instruction": "a", "output": "b"}]', 1),
        ('{\n  "instruction": "a",\n  "output": "b"\n}', 1),
        ('{"instruction": "a\u2028", "output": "\ud800"}', 1),
    ],
)
def test_pasted_rows_are_a_list_an_object_or_objects_line_by_line(text: str, rows: int, tmp_path: Path) -> None:
    found = dataset_upload.staged(tmp_path, dataset_upload.pasted(tmp_path, text))
    assert len(dataset_upload.first_rows(found, 9)) == rows


def test_nothing_pasted_is_said(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        dataset_upload.pasted(tmp_path, " \n")
    assert caught.value.code == "paste_empty"


@pytest.mark.parametrize("number", ["", "..", "../data", "0" * 16, "x" * 16])
def test_an_id_leads_nowhere_else(number: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("[]")
    with pytest.raises(Problem) as caught:
        dataset_upload.staged(tmp_path, number)
    assert caught.value.code == "upload_gone"
    dataset_upload.remove(tmp_path, number)
    assert (tmp_path / "mine.json").exists()


def test_what_nobody_adds_is_removed_after_a_day(tmp_path: Path) -> None:
    old, new = staged(tmp_path), staged(tmp_path)
    os.utime(old.folder, (1, 1))
    dataset_upload.remove_old(tmp_path)
    assert (old.folder.exists(), new.folder.exists()) == (False, True)


# ---- the routes ----


@pytest.fixture
def api(tmp_path: Path) -> FastAPI:
    app = FastAPI()
    add_upload_routes(app, tmp_path / "runs")
    return app


def ask(api: FastAPI, method: str, path: str, **more: Any) -> httpx.Response:

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(api)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **more)

    return loops.run(send())


def test_a_file_is_received_whole(api: FastAPI, tmp_path: Path) -> None:
    body = json.dumps(GOOD * 100_000).encode()
    answer = ask(api, "PUT", "/files/upload?name=a%20b.json", content=body)
    assert answer.status_code == 200
    found = dataset_upload.staged(tmp_path / "runs", answer.json()["id"])
    assert found.path.read_bytes() == body
    assert found.proposed == "a b"


def test_a_file_that_is_too_large_is_refused_before_and_while_it_comes(
    api: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_upload, "MOST_BYTES", 10)

    async def unannounced() -> Any:
        yield b"x" * 6
        yield b"x" * 6

    for content in (b"x" * 11, unannounced()):
        answer = ask(api, "PUT", "/files/upload?name=a.json", content=content)
        assert answer.status_code == 422
        assert set(answer.json()) == {"en", "zh"}
        assert "a.json" in answer.json()["zh"]
    assert list((tmp_path / "runs").rglob("*.json")) == []


def test_an_empty_file_a_full_disk_and_a_crowd_are_said(
    api: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "empty" in ask(api, "PUT", "/files/upload?name=a.json").json()["en"]
    monkeypatch.setattr(dataset_upload, "RESERVE_BYTES", 2**60)
    assert "disk" in ask(api, "PUT", "/files/upload?name=a.json", content=b"[]").json()["en"]
    monkeypatch.setattr(upload_routes, "MOST_AT_ONCE", 0)
    crowded = FastAPI()
    add_upload_routes(crowded, tmp_path / "runs")
    assert "already" in ask(crowded, "PUT", "/files/upload?name=a.json", content=b"[]").json()["en"]
    assert list((tmp_path / "runs" / dataset_upload.FOLDER).glob("*")) == []


def test_the_bundled_examples_can_be_had_and_nothing_else(api: FastAPI) -> None:
    names = [path.name for path in upload_routes.examples()]
    assert {"identity.json", "everyday_openai.jsonl"} <= set(names)
    assert INFO not in names
    answer = ask(api, "GET", "/files/example/identity.json")
    assert answer.json()
    assert 'filename="identity.json"' in answer.headers["content-disposition"]
    for name in (INFO, "README.md", "..%2fpyproject.toml", "nothing.json"):
        assert ask(api, "GET", f"/files/example/{name}").status_code == 404
