"""What a page and its runs leave on the disk: readable by whom umask lets, and no secret in it, nor in any process."""

import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from app import runs
from app.run_queue import Queue
from tests.conftest import Server
from tests.faults.conftest import ALL
from tests.faults.tab import Tab
from tests.trainer.test_train import data, model
from trainer import run_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not ALL, reason="make faults: tests/trainer/test_train.py looks at modes, test_hostile.py for secrets"
    ),
]
__all__ = ["data", "model"]  # fixtures

SETTINGS = {"num_train_epochs": "100000", "max_samples": "10", "save_steps": "1", "logging_steps": "1", "val_size": "0.2",
            "learning_rate": "1e-3"}  # fmt: skip
UMASK = 0o027
SECRET = f"planted-{secrets.token_hex(8)}"
ENVIRONMENT = {"HF_TOKEN": SECRET, "MODELSCOPE_API_TOKEN": SECRET, "OPENAI_API_KEY": SECRET,
               "https_proxy": f"http://user:{SECRET}@127.0.0.1:9"}  # fmt: skip


@pytest.fixture
def umask() -> Iterator[None]:
    """A folder that a group shares: the group reads, others nothing."""
    before = os.umask(UMASK)
    yield
    os.umask(before)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_all_that_is_written_can_be_read_by_the_group_and_holds_no_secret(
    serve: Callable[..., Server],
    model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    umask: None,
    figure: Callable[[str], None],
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    runs_dir = tmp_path / "shared" / "runs"
    server = serve("--model", str(model), "--data-dir", str(data), runs_dir=runs_dir)
    token = server.address.partition("token=")[2].partition("&")[0]
    assert len(token) > 20
    tab = Tab(server.address)
    for key, value in {**SETTINGS, "output_dir": "run", "dataset": ["who"], "config_path": "saved"}.items():
        tab.put(key, value)
    tab.put("server_url", "http://127.0.0.1:1")
    tab.put("server_key", SECRET)
    for button in ("save_arguments", "preview_command", "load_model", "start"):
        tab.click(button)
    until(lambda: run_folder.checkpoints(runs_dir / "run"), "a checkpoint")
    tab.put("output_dir", "waiting")
    tab.click("start")
    tab.click("offer_queue")
    children = [child.cmdline() for child in psutil.Process(server.process.pid).children(recursive=True)]
    assert any("train" in words for words in children)
    for word in (word for words in children for word in words):
        assert SECRET not in word
        assert token not in word
    shown = repr([value for name, value in tab.shown().items() if name != "server_key"])
    written = sorted(runs_dir.rglob("*"))
    queued = Queue(runs_dir)
    assert stat.S_IMODE((queued.folder / "waiting.json").stat().st_mode) == 0o666 & ~UMASK
    assert queued.cancel("waiting")
    tab.click("abort")
    until(lambda: not runs.read(runs_dir / "run").alive, "the run to stop")
    written = sorted({*written, *runs_dir.rglob("*")} - {queued.folder / "waiting.json"})
    names = {path.name for path in written}
    assert {"run.json", "events.jsonl", "config.yaml", "train.log", "adapter_model.safetensors", "optimizer.pt", "_chat.log",
            "saved.yaml"} <= names  # fmt: skip
    written = [path for path in written if path.exists()]
    wrong = {str(path.relative_to(runs_dir)): oct(mode) for path in written
             if (mode := stat.S_IMODE(path.stat().st_mode)) != (0o777 if path.is_dir() else 0o666) & ~UMASK}  # fmt: skip
    assert wrong == {}
    for planted in (SECRET, token):
        assert planted not in shown
        for path in written:
            assert path.is_dir() or planted.encode() not in path.read_bytes(), path
    figure(
        f"{len(written)} files and folders of a page and its run: modes as umask says, no token, key or password in any"
    )
