"""A run whose trainer only writes events: `python -m tests.faults.live_run FOLDER STEPS` until it is ended."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT
from trainer import run_folder
from trainer.events import EventLog, read_events

TOTAL = 100_000


def write(folder: Path, steps: int, pause_s: float = 0.2) -> None:
    """`steps` at once, then one after each pause."""
    run_folder.write_identity(folder, run_folder.Identity.of(os.getpid()))
    log = EventLog(folder / run_folder.EVENTS)
    log.stage("starting")
    log.stage("training", step=0, total_steps=TOTAL)
    for step in range(1, TOTAL):
        log.append("step", step=step, total_steps=TOTAL, loss=3.0 / step, learning_rate=1e-4, grad_norm=1.0,
                   epoch=step / 100, tokens_per_second=100.0, memory_gib=1.5)  # fmt: skip
        if step >= steps:
            time.sleep(pause_s)


@contextmanager
def live_run(folder: Path, steps: int = 1) -> "Iterator[subprocess.Popen[bytes]]":
    """Alive and past `steps` when it is given."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen([sys.executable, "-m", "tests.faults.live_run", str(folder), str(steps)], cwd=ROOT)
    deadline = time.monotonic() + 30
    while not any(event.get("step") == steps for event in read_events(folder / run_folder.EVENTS)[0]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
