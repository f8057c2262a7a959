"""Proxies in the environment without no_proxy: start, training and chat go on as if there were none.

The proxy is a port where nothing listens: whoever asked it would fail.
"""

import json
import os
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from app.chat import ChatProcess, Done
from tests.conftest import Server
from tests.tiny import build_tiny_model
from tests.trainer.test_train import command
from trainer import run_folder
from trainer.events import read_events

pytestmark = pytest.mark.slow
DEAD = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, scheme in (("http_proxy", "http"), ("https_proxy", "http"), ("all_proxy", "socks5")):
        monkeypatch.setenv(name, f"{scheme}://{DEAD}")
        monkeypatch.setenv(name.upper(), f"{scheme}://{DEAD}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


def test_the_page_starts_and_answers(serve: Callable[..., Server]) -> None:
    server = serve()
    base, token = server.address.split("?token=")
    asking = urllib.request.Request(f"{base}zh/config", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asking, timeout=20) as answer:
        assert json.load(answer)["api_prefix"]


@pytest.mark.thorough
def test_a_model_loads_and_answers(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "tiny")
    chat = ChatProcess(tmp_path / "chat.log")
    try:
        assert chat.load(model).state == "ready"
        *_, done = chat.generate([{"role": "user", "content": "你好"}], max_new_tokens=4)
        assert isinstance(done, Done)
    finally:
        chat.unload()


@pytest.mark.thorough
def test_a_run_trains(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "tiny")
    (tmp_path / "who.json").write_text(json.dumps([{"instruction": "你是谁？", "output": "助手"}] * 8))
    argv = command(model, tmp_path, tmp_path / "out", max_steps=1)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    events, _ = read_events(tmp_path / "out" / run_folder.EVENTS)
    assert events[-1]["outcome"] == "completed"
