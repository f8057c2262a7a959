"""The page process: no torch in it, 401 without the token, both languages answered."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Server, start_server

pytestmark = pytest.mark.slow

HEAVY = ("torch", "transformers", "peft", "accelerate", "matplotlib", "datasets")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_server(tmp_path_factory.mktemp("page") / "runs")
    yield server
    server.stop()


def test_the_running_page_process_maps_no_torch_library(page: Server) -> None:
    base, token = page.address.split("?token=")
    request = urllib.request.Request(base, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    with open(f"/proc/{page.process.pid}/maps") as maps:
        assert "libtorch" not in maps.read()


def test_without_the_token_every_address_is_401(page: Server) -> None:
    base = re.sub(r"\?.*", "", page.address)
    for path in ("", "zh/", "en/", "zh/config", "zh/gradio_api/info", "openapi.json", "zh/gradio_api/file=/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(base + path)
        assert caught.value.code == 401, path


def test_without_a_token_others_are_let_in_only_when_asked_for_by_name(serve: Callable[..., Server]) -> None:
    server = serve("--no-token", "--host", "0.0.0.0", "--insecure")
    with urllib.request.urlopen(server.address) as answer:
        assert answer.status == 200
    asked = urllib.request.Request(server.address, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked)
    assert caught.value.code == 403


def test_the_page_imports_no_torch_and_hands_its_token_to_nothing_that_it_starts(tmp_path: object) -> None:
    code = f"""
import os, sys
os.environ["TUNEDESK_TOKEN"] = "a-planted-token"
import uvicorn
from app import starting
from app.arguments import page_parser
uvicorn.Server.run = lambda *_, **__: print(
    "a-planted-token" in os.environ.values(), [name for name in {HEAVY!r} if name in sys.modules]
)
starting.serve(page_parser().parse_args(["--port", "0", "--runs-dir", {str(tmp_path)!r}]), "en")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False []")
    assert "token=a-planted-token" in done.stdout


def test_no_token_is_for_loopback_only() -> None:
    argv = [sys.executable, "-m", "app", "webui", "--no-token", "--host", "0.0.0.0", "--port", "0"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--no-token" in done.stderr


def test_a_port_in_use_is_said_in_one_line(page: Server) -> None:
    port = re.search(r":(\d+)/", page.address)
    assert port is not None
    argv = [sys.executable, "-m", "app", "webui", "--port", port.group(1)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert port.group(1) in done.stderr


def test_an_address_of_another_machine_is_refused_by_its_flag() -> None:
    argv = [sys.executable, "-m", "app", "webui", "--host", "203.0.113.7", "--port", "0"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("--host 203.0.113.7")


def test_what_cannot_be_served_is_refused_before_gradio_is_imported() -> None:
    code = """
import sys
from app.__main__ import main
sys.argv = ["tunedesk", "webui", "--trusted-proxies", "nobody", "--port", "0"]
print(main(), "gradio" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]
    assert "nobody" in done.stderr


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_runs_folder_that_cannot_be_written_is_said_at_the_start(language: str) -> None:
    argv = [sys.executable, "-m", "app", "webui", "--port", "0", "--runs-dir", "/proc/nothing/runs"]
    environment = {**os.environ, "LANG": {"en": "C.UTF-8", "zh": "zh_CN.UTF-8"}[language]}
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert "--runs-dir" in said
        assert "/proc/nothing/runs" in said
        assert bool(re.search("[\u4e00-\u9fff]", said)) == (language == "zh")
    finally:
        process.kill()
        process.wait()
