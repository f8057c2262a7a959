"""`tunedesk download` against a hub on this machine: what arrives, what is said when it does not, and going on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.faults.small_disk import small_disk
from tests.hub import COMMIT, Hub, Repository, caches, model_files, serving
from trainer.download import chosen, folder_of, wanted
from trainer.download_reach import failure
from trainer.events import read_events
from trainer.model_folder import check_model_folder, missing_files
from trainer.problems import Problem, sentence

NAME = "org/small-model"
HUBS = ("huggingface", "modelscope")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub({NAME: Repository(model_files())})) as found:
        yield found


@dataclass
class Place:
    """Where a test downloads to. `environment`: added to that of the process."""

    path: Path
    environment: dict[str, str]

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "app", "download", *words, "--runs-dir", str(self.path / "runs")]

    def start(self, hub: Hub, kind: str, *words: str, typed: bool = False, **more: str) -> "subprocess.Popen[str]":
        """The download of NAME. `typed`: the address is given by a flag, not by the environment."""
        variable = {"huggingface": "HF_ENDPOINT", "modelscope": "MODELSCOPE_ENDPOINT"}[kind]
        address = {} if typed else {variable: hub.address}
        flags = ["--endpoint", hub.address] if typed else []
        words = words or (NAME,)
        return subprocess.Popen(self.command(*words, "--hub", kind, *flags), cwd=ROOT, text=True, stderr=subprocess.PIPE,
                                stdout=subprocess.PIPE, env={**os.environ, **self.environment, **address, **more})  # fmt: skip

    def download(self, hub: Hub, kind: str, *words: str, **more: Any) -> tuple[int, str]:
        process = self.start(hub, kind, *words, **more)
        try:
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
        return process.returncode, said

    def events(self, kind: str) -> list[dict[str, Any]]:
        return read_events(folder_of(self.path / "runs", wanted(kind, NAME)) / "events.jsonl")[0]

    def finished(self, kind: str) -> dict[str, Any]:
        return self.events(kind)[-1]

    def weights(self) -> list[Path]:
        return [path for path in self.path.rglob("*.safetensors") if path.exists()]

    def partial(self) -> int:
        return sum(path.stat().st_size for path in self.path.rglob("*.incomplete"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name in ("HF_TOKEN", "HF_ENDPOINT", "MODELSCOPE_ENDPOINT", "MODELSCOPE_API_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in caches(tmp_path).items():
        monkeypatch.setenv(name, value)
    return Place(
        tmp_path,
        {**caches(tmp_path), "NO_PROXY": "127.0.0.1,localhost", "LANG": "en_US.UTF-8", "LC_ALL": "en_US.UTF-8"},
    )


def wait_for(condition: Any, what: str, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kind", HUBS)
def test_a_model_arrives_in_the_hubs_own_cache_and_is_known_by_its_id(hub: Hub, place: Place, kind: str) -> None:
    status, said = place.download(hub, kind)
    assert status == 0, said
    folder = check_model_folder(NAME)
    assert folder == Path(place.finished(kind)["path"])
    files = hub.repositories[NAME].files
    here = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert here >= set(chosen(list(files)))
    assert all((folder / name).read_bytes() == files[name] for name in chosen(list(files)))
    assert not {name for name in here if name.endswith((".bin", ".pth", ".onnx", ".md")) or "consolidated" in name}
    assert not place.partial()
    assert "Downloaded to" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", HUBS)
def test_connections_that_break_off_cost_only_what_was_under_way(hub: Hub, place: Place, kind: str) -> None:
    hub.cut = 5
    status, said = place.download(hub, kind)
    assert status == 0, said
    assert not missing_files(check_model_folder(NAME))
    assert hub.cut == 0
    assert any(asked for asked in hub.sent("cdn" if kind == "huggingface" else "FilePath"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", HUBS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_download_that_was_ended_goes_on_where_it_was(hub: Hub, place: Place, kind: str, number: int) -> None:
    hub.bytes_per_second = 200_000
    process = place.start(hub, kind)
    wait_for(lambda: place.partial() > 200_000, "parts on the disk")
    process.send_signal(number)
    process.communicate(timeout=10)
    if number == signal.SIGTERM:
        assert process.returncode == 130
        assert place.finished(kind)["outcome"] == "stopped"
    kept = place.partial()
    assert kept > 100_000
    hub.bytes_per_second = 0
    hub.asked.clear()
    status, said = place.download(hub, kind)
    assert status == 0, said
    begun = [
        int(asked.split("=")[1].rstrip("-"))
        for asked in hub.sent("cdn" if kind == "huggingface" else "FilePath")
        if asked
    ]
    assert sum(begun) >= kept > 0
    assert not missing_files(check_model_folder(NAME))
    # The hub's libraries refuse what is not as announced; here once more.
    assert {path.read_bytes() for path in place.weights()} <= set(hub.repositories[NAME].files.values())


REFUSED = {
    "a model that is not there": ({}, ("org/other",), "download_no_model"),
    "a revision that is not there": ({}, (NAME, "--revision", "v9"), "download_no_revision"),
    "a hub that is out of order": ({"status": 404}, (NAME,), "download_"),
    "a hub that says nothing": ({"silent": True}, (NAME,), "download_unreachable"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HUBS)
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_had_is_said_in_a_sentence_within_ten_seconds(
    hub: Hub, place: Place, kind: str, case: str
) -> None:
    manner, words, code = REFUSED[case]
    for name, value in manner.items():
        setattr(hub, name, value)
    began = time.monotonic()
    status, said = place.download(hub, kind, *words)
    assert time.monotonic() - began < 10
    assert status == 1
    last = said.strip().splitlines()[-1]
    assert "Traceback" not in said
    folder = next((place.path / "runs" / "_downloads").iterdir())
    finished = read_events(folder / "events.jsonl")[0][-1]
    assert finished["code"].startswith(code), finished
    assert last == sentence(finished["code"], finished, "en")
    assert "?" not in sentence(finished["code"], finished, "zh")


@pytest.mark.slow
def test_a_hub_that_is_not_there_is_said_at_once(place: Place) -> None:
    began = time.monotonic()
    status, said = place.download(Hub(address="http://127.0.0.1:9"), "huggingface")
    assert (status, time.monotonic() - began < 10) == (1, True)
    assert "does not answer at http://127.0.0.1:9" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", HUBS)
def test_a_gated_model_opens_with_a_token_that_is_written_nowhere(hub: Hub, place: Place, kind: str) -> None:
    hub.repositories[NAME].gated = True
    variable = {"huggingface": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}[kind]
    assert place.download(hub, kind)[0] == 1
    assert place.finished(kind)["code"] == "download_gated"
    status, said = place.download(hub, kind, **{variable: "hf_wrong"})
    assert (status, place.finished(kind)["code"]) == (1, "download_token")
    assert "hf_wrong" not in said
    status, said = place.download(hub, kind, **{variable: hub.token})
    assert status == 0, said
    written = [path for path in (place.path / "runs").rglob("*") if path.is_file()]
    assert written
    assert all(hub.token.encode() not in path.read_bytes() for path in written)
    assert hub.token not in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", HUBS)
def test_an_address_that_was_only_typed_gets_no_token(hub: Hub, place: Place, kind: str) -> None:
    variable = {"huggingface": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}[kind]
    status, said = place.download(hub, kind, typed=True, **{variable: hub.token})
    assert status == 0, said
    assert {given for _, _, _, given in hub.asked} == {""}


@pytest.mark.slow
def test_contents_other_than_announced_are_refused(hub: Hub, place: Place) -> None:
    hub.spoiled = True
    status, said = place.download(hub, "huggingface")
    assert (status, place.finished("huggingface")["code"]) == (1, "download_corrupt"), said
    assert not place.weights()


@pytest.mark.slow
def test_a_hub_that_knows_no_ranges_is_asked_for_the_whole(hub: Hub, place: Place) -> None:
    hub.cut, hub.ranges = 2, False
    status, said = place.download(hub, "huggingface")
    assert status == 0, said
    assert not missing_files(check_model_folder(NAME))


@pytest.mark.slow
def test_a_model_without_safetensors_is_not_fetched(hub: Hub, place: Place) -> None:
    hub.repositories[NAME] = Repository({"config.json": b"{}", "pytorch_model.bin": b"x" * 100})
    assert place.download(hub, "huggingface")[0] == 1
    assert place.finished("huggingface")["code"] == "download_no_weights"
    assert not hub.sent("pytorch_model.bin")


@pytest.mark.slow
@pytest.mark.parametrize("kind", HUBS)
def test_a_disk_without_room_is_refused_before_anything_is_fetched(hub: Hub, place: Place, kind: str) -> None:
    hub.repositories[NAME] = Repository(model_files(4_000_000))
    with small_disk(place.path / "disk", 6000) as disk:
        place.environment |= caches(disk.path)
        status, said = place.download(hub, kind)
        assert (status, place.finished(kind)["code"]) == (1, "download_no_room"), said
        assert "8.0 MB" in said
        assert not place.weights()


@pytest.mark.slow
@pytest.mark.parametrize("kind", HUBS)
def test_a_disk_that_fills_up_meanwhile_keeps_what_has_arrived(
    hub: Hub, place: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories[NAME] = Repository(model_files(1_000_000))
    hub.bytes_per_second = 500_000
    with small_disk(place.path / "disk", 8000) as disk:
        place.environment |= caches(disk.path)
        process = place.start(hub, kind)
        wait_for(lambda: place.partial() > 100_000, "parts on the disk")
        filler = disk.fill()
        _, said = process.communicate(timeout=30)
        assert (process.returncode, place.finished(kind)["code"]) == (1, "download_disk_full"), said
        filler.unlink()
        hub.bytes_per_second = 0
        hub.asked.clear()
        status, said = place.download(hub, kind)
        assert status == 0, said
        assert any(hub.sent("cdn" if kind == "huggingface" else "FilePath"))


@pytest.mark.slow
def test_one_model_is_downloaded_once_at_a_time(hub: Hub, place: Place) -> None:
    hub.bytes_per_second = 40_000  # longer than the second takes to start
    first = place.start(hub, "huggingface")
    wait_for(lambda: place.partial() > 0, "parts on the disk")
    status, said = place.download(hub, "huggingface")
    assert status == 2
    assert "is being downloaded already" in said
    first.terminate()
    first.communicate(timeout=10)
    assert place.events("huggingface")[0]["event"] == "stage"
    assert place.finished("huggingface")["outcome"] == "stopped"


BAD: dict[str, tuple[tuple[str, str, str, str], str]] = {
    "no hub of ours": (("elsewhere", NAME, "", ""), "setting_choice"),
    "no id": (("huggingface", "model", "", ""), "download_id"),
    "a way out of the cache": (("huggingface", "../..", "", ""), "download_id"),
    "two names in one": (("huggingface", "a/b--c", "", ""), "download_id"),
    "a bad revision": (("huggingface", NAME, "../x", ""), "download_revision"),
    "no address": (("huggingface", NAME, "", "ftp://x"), "download_endpoint"),
    "an address with a password": (("huggingface", NAME, "", "https://me:secret@hub.example"), "download_endpoint"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_request_is_refused_in_both_languages(case: str) -> None:
    given, code = BAD[case]
    with pytest.raises(Problem) as caught:
        wanted(*given)
    assert caught.value.code == code
    for said in (caught.value.sentence("en"), caught.value.sentence("zh")):
        assert "secret" not in said
        assert "{" not in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", HUBS)
def test_what_a_hub_did_not_say_is_not_laid_at_its_door(kind: str) -> None:
    import importlib

    library = importlib.import_module(f"trainer.download_{kind}")
    asked = wanted(kind, NAME)
    assert library.explained(UnicodeEncodeError("ascii", "令", 0, 1, "x"), asked).code == "download_token"
    assert library.explained(json.JSONDecodeError("x", "<html>", 0), asked).code == "download_not_understood"


def test_why_a_hub_is_not_reached_is_said_in_the_users_language() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    problem = Problem("download_unreachable", hub="Hugging Face", address=address, detail=failure(address))
    assert "连接被拒绝" in problem.sentence("zh")
    assert "Errno" not in problem.sentence("en")


def test_of_a_repository_only_what_is_loaded_is_chosen() -> None:
    names = list(model_files())
    assert sorted(chosen(names)) == sorted(name for name in names if name.startswith(("model", "config", "tokenizer")))
    assert chosen(["consolidated.safetensors", "params.json"]) == ["consolidated.safetensors", "params.json"]


def test_requests_survive_their_folder(tmp_path: Path) -> None:
    from trainer.download import read_request, write_request

    asked = wanted("modelscope", NAME, "v1.0", "https://mirror.example/")
    write_request(tmp_path, asked)
    assert read_request(tmp_path) == asked
    (tmp_path / "request.json").write_text(json.dumps({"hub": "modelscope", "model": "../../x"}))
    assert read_request(tmp_path) is None
    assert COMMIT not in asked.folder_name
