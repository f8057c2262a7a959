"""A server in this process, on a free port, for tests: the application of `tunedesk serve` around any model."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.listener import Listener
from trainer.serve import Server, Uvicorn
from trainer.serve_worker import MOST_WAITING, Worker

KEY = "a-key"


@dataclass
class Served:
    url: str
    worker: Worker
    model: Any

    def settle(self, timeout_s: float) -> float:
        """The seconds until nothing is answered or waits any more."""
        began = time.monotonic()
        while not self.worker.idle:
            assert time.monotonic() - began < timeout_s
            time.sleep(0.001)
        return time.monotonic() - began


@contextmanager
def serving(
    model: Any, models: Mapping[str, Path | None], key: str | None = KEY, most_waiting: int = MOST_WAITING
) -> Iterator[Served]:
    listener = Listener("127.0.0.1", 0)
    worker = Worker(lambda: model, most_waiting)
    worker.start()
    listener.listen()
    application = Server(worker, models, "en").application(key)
    server = Uvicorn(application, worker)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener.socket]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    yield Served(f"{listener.url}/v1", worker, model)
    server.should_exit = True
    thread.join(5)
    worker.thread.join(5)
    listener.socket.close()
    assert not worker.thread.is_alive()
