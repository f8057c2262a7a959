"""What the tests share: a server process on a free port, a browser, where screenshots go."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

# What ignores them hands that on: under nohup, and behind a shell's &, processes of the tests would not hear them.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# Several test processes share few cores: libgomp's threads are to sleep while they wait, not to spin. Two tests that met
# took 106 s for what takes either 2.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 60


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", default=None, help="folder that the browser tests put their screenshots into")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make fast` does not even import the modules whose tests are all slow: they import torch."""
    if "not slow" not in config.getoption("markexpr") or not collection_path.name.startswith("test_"):
        return None
    whole = re.search(r"^pytestmark = .*(\n .*)*\bslow\b", collection_path.read_text(encoding="utf-8"), re.M)
    return True if whole or collection_path.parent.name == "faults" else None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keeps `make fast` fast: what imports these belongs to the slow tests."""
    if "not slow" in session.config.getoption("markexpr"):
        heavy = {"torch", "gradio", "openai", "datasets"} & set(sys.modules)
        if heavy:
            raise pytest.UsageError(f"imported by a module of fast tests: {', '.join(sorted(heavy))}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("FAULTS") != "all":
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(pytest.mark.skip("NOT TESTED: a long test, taken by `make faults`"))


@dataclass
class Server:
    """A real `tunedesk webui`. `address` is what it printed, with the token."""

    process: "subprocess.Popen[str]"
    address: str
    runs_dir: Path

    def stop(self) -> None:
        """Ends the page, and the trainers that it started, which would outlive it."""
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "train" in words and any(str(self.runs_dir) in word for word in words):
                process.kill()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_server(runs_dir: Path, *flags: str) -> Server:
    """Starts the page on a free port and waits for the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "webui", "--port", "0", "--runs-dir", str(runs_dir), *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TUNEDESK_TOKEN": "", "PYTHONFAULTHANDLER": "1"},
    )
    assert process.stdout is not None
    # It says where it stands when it is aborted.
    watchdog = threading.Timer(START_TIMEOUT_S, process.send_signal, [signal.SIGABRT])
    watchdog.start()
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if found := re.search(r"http://\S+", line):
            watchdog.cancel()
            return Server(process, found.group(), runs_dir)
    watchdog.cancel()
    raise AssertionError("the page did not start:\n" + "".join(lines))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that end with the test."""
    started: list[Server] = []

    def start(*flags: str, runs_dir: Path | None = None) -> Server:
        started.append(start_server(runs_dir or tmp_path / "runs", *flags))
        return started[-1]

    yield start
    for server in started:
        server.stop()
