"""A running page under attack, beside a folder with a secret, and what its process does meanwhile."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import ROOT, START_TIMEOUT_S
from tests.faults.audited_page import PROCESSES
from tests.tiny import build_hollow_model

TOKEN, MARK = "planted-token-6b1f", "outside-mark-77c2"
FLAGS = ["--runs-dir", "runs", "--data-dir", "data", "--model", "models/tiny"]
# What a process of Python may read wherever it runs; a handler of Gradio's asks for time zones and types of files.
SYSTEM = [sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev/null", "/dev/urandom", "/usr/share/zoneinfo", "/etc/mime.types", "/etc/ssl",
          "/usr/lib/ssl", "/etc/localtime", str(ROOT / "app"), str(ROOT / "trainer"), str(ROOT / "assets"),
          str(ROOT / ".venv")]  # fmt: skip
MOST_MEMORY = 6 * 2**30
TOOLS = ("nvidia-smi", "npu-smi")


@dataclass
class Hostile:
    """The page under attack. `outside`: a folder beside its own, which holds a secret."""

    client: httpx.Client
    log: Path
    inside: Path
    outside: Path
    stderr: Path
    components: dict[int, dict[str, Any]] = field(default_factory=dict)
    handlers: list[dict[str, Any]] = field(default_factory=list)
    _read: int = 0

    def look(self) -> None:
        config = self.client.get("zh/config").json()
        self.components = {one["id"]: one for one in config["components"]}
        self.handlers = [one for one in config["dependencies"] if one["backend_fn"]]
        first = next(one for one in self.handlers if one["inputs"] and not one["queue"])
        self.send(first, self.defaults(first))  # Gradio imports what it draws with
        self.happened()

    def happened(self) -> list[list[str]]:
        """What the process has done since the last call."""
        with self.log.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def wrong(self) -> list[list[str]]:
        """Of that what must not be."""
        allowed = [*SYSTEM, str(self.inside), str(Path(os.environ.get("GRADIO_TEMP_DIR", "/nowhere")))]
        found = []
        for event, about in self.happened():
            if event in PROCESSES:
                if Path(about).name not in TOOLS:
                    found.append([event, about])
            elif about.endswith(("/environ", "/mem")) or not any(
                about == root or about.startswith(f"{root}/") for root in allowed
            ):
                found.append([event, about])
        return found

    def defaults(self, handler: dict[str, Any]) -> list[Any]:
        return [self.components[one]["props"].get("value") for one in handler["inputs"]]

    def send(
        self, handler: dict[str, Any], values: list[Any], language: str = "zh", encoding: str = "", session: str = "hostile"
    ) -> str:  # fmt: skip
        """All that the page answers. `encoding`: of the JSON, whose characters are then all written as they are."""
        body: str | bytes = json.dumps({"fn_index": handler["id"], "data": values, "session_hash": session})
        if encoding:
            body = json.dumps(json.loads(body), ensure_ascii=False).encode(encoding, "surrogatepass")
        head = {"content-type": "application/json"}
        if not handler["queue"]:
            return self.client.post(f"{language}/gradio_api/run/predict", content=body, headers=head).text
        joined = self.client.post(f"{language}/gradio_api/queue/join", content=body, headers=head)
        if joined.status_code != 200:
            return joined.text
        said = []
        with self.client.stream("GET", f"{language}/gradio_api/queue/data?session_hash={session}") as stream:
            for line in stream.iter_lines():
                said.append(line)
                if '"process_completed"' in line or '"close_stream"' in line:
                    break
        return "\n".join(said)


@contextmanager
def attacked_page(base: Path) -> Iterator[Hostile]:
    """A page whose folders are all in `base`/inside."""
    inside, outside, elsewhere = base / "inside", base / "outside", base / "elsewhere"
    for folder in (inside / "data", inside / "runs" / "_settings", outside, elsewhere):
        folder.mkdir(parents=True)
    build_hollow_model(inside / "models" / "tiny")
    build_hollow_model(outside / "model")
    (outside / "secret.txt").write_text(MARK)
    (outside / "secret.json").write_text(json.dumps([{"instruction": MARK, "output": MARK}]))
    (outside / ".old.partial").mkdir()
    (outside / ".old.partial" / "events.jsonl").write_text(MARK)
    (inside / "data" / "good.json").write_text(json.dumps([{"instruction": "a", "output": "b"}]))
    (inside / "data" / "link.json").symlink_to(outside / "secret.json")
    (inside / "models" / "link").symlink_to(outside / "model")
    (inside / "link").symlink_to(outside)
    (inside / "runs" / "linked").symlink_to(outside)
    (inside / "runs" / "_settings" / "linked.yaml").symlink_to(outside / "secret.txt")
    log, stderr = base / "audit.jsonl", base / "stderr"
    argv = [sys.executable, "-m", "tests.faults.audited_page", str(log), "--port", "0", *FLAGS]
    environment = {**os.environ, "TUNEDESK_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "HF_HOME": str(inside / "hub"),
                   "MODELSCOPE_CACHE": str(inside / "hub"), "GRADIO_TEMP_DIR": str(inside / "temporary"),
                   "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(elsewhere)}  # fmt: skip
    with stderr.open("wb") as errors:
        process = subprocess.Popen(argv, cwd=inside, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    resource.prlimit(process.pid, resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
    watchdog.start()
    address = next((found for line in process.stdout if (found := re.search(r"http://[^?\s]+", line))), None)
    watchdog.cancel()
    assert address is not None, stderr.read_text()
    # A connection for each request: one that is kept may be closed by the server just as the next request is sent.
    idle = httpx.Limits(max_keepalive_connections=0)
    head = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=address.group(), headers=head, timeout=60, limits=idle) as client:
        page = Hostile(client, log, inside, outside, stderr)
        page.look()
        yield page
    process.send_signal(signal.SIGTERM)
    process.wait(20)
