"""Start and memory of the page against a bare Gradio app of one text box, in alternation: `make bench`.

    python -m tests.bench.page [rounds]

Prints seconds from the start command to HTTP 200, resident memory when idle, and the ratios of the medians.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
IDLE_S = 3.0
START_LIMIT, MEMORY_LIMIT = 1.3, 1.5
BARE = """
import sys, gradio as gr
with gr.Blocks(analytics_enabled=False) as page:
    gr.Textbox()
page.launch(server_port=int(sys.argv[1]), quiet=True)
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def measure(argv: list[str], port: int, path: str) -> tuple[float, float]:
    """(seconds to HTTP 200, MiB resident when idle) of the server that `argv` starts on `port`."""
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "no_proxy": "127.0.0.1,localhost"}
    began = time.perf_counter()
    process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _answers(f"http://127.0.0.1:{port}{path}"):
            assert process.poll() is None, "the server ended"
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        time.sleep(IDLE_S)
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        return seconds, sum(item.memory_info().rss for item in tree) / 2**20
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def main(rounds: int) -> int:
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as runs:
        for number in range(rounds + 1):
            port = free_port()
            argv = [sys.executable, "-m", "app", "webui", "--port", str(port), "--no-token", "--runs-dir", runs]
            first = measure(argv, port, "/zh/")
            port = free_port()
            second = measure([sys.executable, "-c", BARE, str(port)], port, "/")
            if number:  # the first round warms the disk cache
                ours.append(first)
                bare.append(second)
    start = [statistics.median(item[0] for item in items) for items in (ours, bare)]
    memory = [statistics.median(item[1] for item in items) for items in (ours, bare)]
    print(
        f"start to HTTP 200: {start[0]:.2f} s, bare Gradio {start[1]:.2f} s, ratio {start[0] / start[1]:.2f} (limit 1.3)"
    )
    print(
        f"idle memory: {memory[0]:.0f} MiB, bare Gradio {memory[1]:.0f} MiB, ratio {memory[0] / memory[1]:.2f} (limit 1.5)"
    )
    return 0 if start[0] / start[1] <= START_LIMIT and memory[0] / memory[1] <= MEMORY_LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
