"""Memory after unloading: `python -m tests.bench.chat_cycles [cycles]`, load, answer and unload in turn.

A process stands for the page: its memory, its children's, its threads and its open files, before the first load and after
the last unload. What the first cycle leaves (Python's own modules and pools) is not what cycles leave: both are shown.
"""

import gc
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.chat import ChatProcess

DEMO_MODEL = Path(__file__).parents[2] / "assets" / "demo-model"
MOST_GROWTH_MIB = 1.0


@dataclass(frozen=True)
class Held:
    """What this process and its children hold."""

    rss_mib: float
    threads: int
    files: int
    processes: int


def held() -> Held:
    gc.collect()
    me = psutil.Process()
    children = me.children(recursive=True)
    rss = sum(process.memory_info().rss for process in (me, *children))
    return Held(rss / 2**20, threading.active_count(), me.num_fds(), 1 + len(children))


def settled(wanted: Held) -> Held:
    """What is held once threads that are ending have ended."""
    until = time.monotonic() + 3
    found = held()
    while (found.threads, found.files, found.processes) != (wanted.threads, wanted.files, wanted.processes):
        if time.monotonic() > until:
            break
        time.sleep(0.02)
        found = held()
    return found


def cycle(chat: ChatProcess, model: Path) -> None:
    chat.load(model)
    parts = list(chat.generate([{"role": "user", "content": "你好"}], max_new_tokens=8))
    assert len(parts) >= 1
    chat.unload()


def run(model: Path, cycles: int, log: Path) -> tuple[Held, Held, Held]:
    """Before loading, after one cycle, and after all of them."""
    chat = ChatProcess(log)
    before = held()
    cycle(chat, model)
    first = settled(before)
    for _ in range(cycles - 1):
        cycle(chat, model)
    return before, first, settled(before)


def main(cycles: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        before, first, last = run(DEMO_MODEL, cycles, Path(folder) / "chat.log")
    print("| | memory MiB | threads | files | processes |\n| --- | --- | --- | --- | --- |")
    for name, found in (("before loading", before), ("after 1 cycle", first), (f"after {cycles} cycles", last)):
        print(f"| {name} | {found.rss_mib:.1f} | {found.threads} | {found.files} | {found.processes} |")
    same = (before.threads, before.files, before.processes) == (last.threads, last.files, last.processes)
    return 0 if same and last.rss_mib - before.rss_mib <= MOST_GROWTH_MIB else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
