"""Downloads as the page starts, follows, pauses and cancels them: a process of its own, known by its folder alone."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import downloads
from app.download_panel import status_html
from app.text import Text
from tests.hub import Hub, Repository, caches, model_files, serving
from trainer.download import read_plan, take_lock, wanted, write_request
from trainer.events import EventLog
from trainer.hub_caches import hugging_face_cache
from trainer.model_folder import check_model_folder, missing_files
from trainer.problems import Problem
from trainer.run_folder import EVENTS, read_identity

pytestmark = pytest.mark.slow

NAME = "org/small-model"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub({NAME: Repository(model_files())})) as found:
        yield found


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> Path:
    for name, value in {**caches(tmp_path), "HF_ENDPOINT": hub.address, "NO_PROXY": "127.0.0.1,localhost"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    # As the page sets it for itself.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "runs"


def follow(folder: Path, status: str, seconds: float = 30) -> downloads.Download:
    until = time.monotonic() + seconds
    while True:
        found = downloads.read(folder)
        assert found
        if found.status == status:
            return found
        assert time.monotonic() < until, (found, (folder / "download.log").read_text())
        time.sleep(0.05)


def parts(runs: Path, least: int = 100_000) -> None:
    until = time.monotonic() + 20
    while sum(path.stat().st_size for path in runs.parent.rglob("*.incomplete")) < least:
        assert time.monotonic() < until, "nothing has arrived"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_download_is_found_followed_paused_and_taken_up_again(hub: Hub, runs: Path) -> None:
    hub.bytes_per_second = 200_000
    folder = downloads.start(wanted("huggingface", NAME), runs)
    assert downloads.find(runs) == [folder]
    with pytest.raises(Problem) as caught:
        downloads.start(wanted("huggingface", NAME), runs)
    assert caught.value.code == "download_in_use"
    parts(runs)
    time.sleep(1.2)
    found = follow(folder, "running")
    assert 0 < found.here < found.total
    assert "left" in status_html(found, Text("en"))
    assert "剩余" in status_html(found, Text("zh"))
    assert downloads.pause(folder)
    paused = follow(folder, "stopped", 3)
    assert paused.total == found.total
    assert not downloads.pause(folder)
    hub.bytes_per_second = 0
    downloads.start(wanted("huggingface", NAME), runs)
    done = follow(folder, "completed")
    assert check_model_folder(done.path) == check_model_folder(NAME)
    downloads.dismiss(folder)
    assert downloads.find(runs) == []
    assert not missing_files(check_model_folder(NAME))


@pytest.mark.slow
def test_a_killed_download_is_told_and_goes_on(hub: Hub, runs: Path) -> None:
    hub.bytes_per_second = 200_000
    folder = downloads.start(wanted("huggingface", NAME), runs)
    parts(runs)
    identity = read_identity(folder)
    assert identity
    assert os.getsid(identity.pid) == identity.pid  # no signal to the page's group reaches it
    os.kill(identity.pid, signal.SIGKILL)
    assert "kept" in status_html(follow(folder, "died"), Text("en"))
    hub.bytes_per_second = 0
    downloads.start(wanted("huggingface", NAME), runs)
    follow(folder, "completed")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["huggingface", "modelscope"])
def test_cancelling_removes_what_the_download_brought(
    hub: Hub, runs: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.address)
    hub.bytes_per_second = 200_000
    folder = downloads.start(wanted(kind, NAME), runs)
    parts(runs)
    downloads.cancel(folder)
    assert not folder.exists()
    assert not [path for path in runs.parent.rglob("*") if path.suffix in (".incomplete", ".safetensors")]


@pytest.mark.slow
def test_cancelling_an_update_leaves_the_model_that_was_there(hub: Hub, runs: Path) -> None:
    folder = downloads.start(wanted("huggingface", NAME), runs)
    follow(folder, "completed")
    before = check_model_folder(NAME)
    downloads.dismiss(folder)
    files = hub.repositories[NAME].files
    newer = {name: data[:-4] + b"new!" if name.endswith("safetensors") else data for name, data in files.items()}
    hub.repositories[NAME] = Repository(newer, commit="d" * 40)
    hub.bytes_per_second = 200_000
    downloads.start(wanted("huggingface", NAME), runs)
    parts(runs)
    # An update that is not whole yet does not replace what is.
    assert check_model_folder(NAME) == before
    downloads.cancel(folder)
    assert check_model_folder(NAME) == before
    assert (hugging_face_cache() / "models--org--small-model" / "refs" / "main").read_text() == before.name
    assert not list(runs.parent.rglob("*.incomplete"))
    assert not [path for path in runs.parent.rglob("*") if "d" * 40 in path.name and path.is_dir()]


@pytest.mark.slow
def test_what_the_hub_refuses_is_shown_in_both_languages(hub: Hub, runs: Path) -> None:
    folder = downloads.start(wanted("huggingface", "org/absent"), runs)
    found = follow(folder, "failed")
    assert "has no model org/absent" in status_html(found, Text("en"))
    assert "没有可供你查看的模型 org/absent" in status_html(found, Text("zh"))


@pytest.mark.parametrize("kind", ["huggingface", "modelscope"])
def test_a_revision_is_used_beside_the_main_one(
    hub: Hub, runs: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.address)
    follow(downloads.start(wanted(kind, NAME), runs), "completed")
    main = check_model_folder(NAME)
    hub.repositories[NAME] = Repository(model_files(40_000), commit="e" * 40, tags=("v1",))
    folder = downloads.start(wanted(kind, NAME, "v1"), runs)
    done = follow(folder, "completed")
    assert f"{NAME} @ v1" in status_html(done, Text("en"))
    theirs = check_model_folder(done.path)
    assert (theirs / "model-00001-of-00002.safetensors").stat().st_size < 50_000
    assert check_model_folder(NAME) == main != theirs
    # Whoever asks for the same again, by the command or on the page, is at the same download.
    assert downloads.command(wanted(kind, NAME, "v1"), runs)[-4:-2] == ["--revision", "v1"]


def test_a_download_that_cannot_write_anywhere_says_so(runs: Path) -> None:
    runs.parent.mkdir(exist_ok=True)
    (runs.parent / "runs").write_text("a file")
    with pytest.raises(Problem) as caught:
        downloads.start(wanted("huggingface", NAME), runs)
    assert caught.value.code == "download_not_started"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"hub": "huggingface"}', '{"hub": "huggingface", "model": "../../etc"}', "\0" * 100]
)
def test_a_folder_that_holds_no_download_is_none(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "runs" / "_downloads" / "x"
    folder.mkdir(parents=True)
    (folder / "request.json").write_text(content)
    (folder / "events.jsonl").write_text(content)
    assert downloads.read(folder) is None
    assert downloads.find(tmp_path / "runs") == []
    downloads.cancel(folder)
    assert folder.exists()


@pytest.mark.parametrize("values", [{"bytes": "x", "total": None}, {"bytes": -1, "total": 1e300}, {"bytes": [1]}])
def test_figures_that_are_none_are_not_shown(tmp_path: Path, values: dict[str, Any]) -> None:
    write_request(tmp_path, wanted("huggingface", NAME))
    EventLog(tmp_path / EVENTS).append("downloaded", **values)
    found = downloads.read(tmp_path)
    assert found
    assert (found.here, found.total) == (0, 0)
    assert "interrupted" in status_html(found, Text("en"))


def test_a_plan_that_leads_elsewhere_removes_nothing(tmp_path: Path, runs: Path) -> None:
    folder = runs / "_downloads" / "huggingface--org--small-model"
    write_request(folder, wanted("huggingface", NAME))
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    for repository in (precious, hugging_face_cache()):
        text = (
            f'{{"model": "x", "repository": "{repository}", "snapshot": "{precious}", "commit": "c", "fresh": true, '
            f'"fresh_snapshot": true, "files": [{{"name": "f", "size": 1, "target": "{precious}/file", "partial": ""}}]}}'
        )
        (folder / "plan.json").write_text(text)
        assert read_plan(folder)
        take_lock(wanted("huggingface", NAME)).close()
        downloads.cancel(folder)
        assert (precious / "file").exists()
        assert hugging_face_cache().is_dir()
        write_request(folder, wanted("huggingface", NAME))
