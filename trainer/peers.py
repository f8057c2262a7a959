"""What the processes of a run tell each other beside the collectives, in which they may be waiting in vain.

It goes through the launcher's store (the first machine's, of several), which outlives every process.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn

from torch.distributed import DistError, PrefixStore, Store, TCPStore

from trainer.again import AGAIN
from trainer.torchrun import ATTEMPT

AGAIN_KEY, HEARD_KEY, ENDED_KEY = "again", "heard", "ended"
POLL_S = 0.5
# How long the processes wait for each other to have heard that they start again.
TOGETHER_S = 10


def of_attempt(store: Store, attempt: int) -> Store:
    """The part of `store` that belongs to one attempt: what an earlier one has left there is not read."""
    return PrefixStore(f"tunedesk/{attempt}", store)


class Peers:
    """The other processes of this one's run. Ends this process when one of them says that the run ends or starts
    again, or when the launcher of the first machine is gone."""

    def __init__(self, size: int) -> None:
        self._size, self.attempt = size, int(os.environ[ATTEMPT])
        self._store = of_attempt(_store(timedelta(minutes=1)), self.attempt)
        self._left = threading.Event()
        self.take: Callable[[dict[str, Any]], None] | None = None
        threading.Thread(target=self._watch, daemon=True, name="peers").start()

    def group_store(self, timeout: timedelta) -> Store:
        """A store for a process group: a connection of its own, because it is waited on."""
        return PrefixStore("group", of_attempt(_store(timeout), self.attempt))

    def start_again(self, warning: dict[str, Any]) -> NoReturn:
        """Ends every process, for their launchers to start them again; `warning` says with how much less room."""
        self._store.compare_set(AGAIN_KEY, "", json.dumps(warning))  # the first of several is heard
        time.sleep(2 * TOGETHER_S)  # our own watch ends us
        os._exit(AGAIN)

    def end(self, code: str, values: dict[str, Any]) -> None:
        """Ends every process, those of other machines too, and lets their launchers know why."""
        say_ended(self._store, code, values)

    def leave(self) -> None:
        """From now on the others may be gone."""
        self._left.set()

    def _watch(self) -> None:
        try:
            while not self._left.wait(POLL_S):
                if self._store.check([AGAIN_KEY]):
                    self._end_together(json.loads(self._store.get(AGAIN_KEY)))
                if self._store.check([ENDED_KEY]):
                    os._exit(1)
        except DistError:  # no store: no launcher of the first machine
            if not self._left.is_set():
                os._exit(1)

    def _end_together(self, warning: dict[str, Any]) -> NoReturn:
        """Waits until all have heard: the launcher ends the others, and its store, as soon as one has ended."""
        if self.take:
            self.take(warning)
        deadline = time.monotonic() + TOGETHER_S
        try:
            heard = self._store.add(HEARD_KEY, 1)
            while heard < self._size and time.monotonic() < deadline:
                time.sleep(POLL_S / 5)
                heard = self._store.add(HEARD_KEY, 0)
        except DistError:  # the first machine's have ended already
            pass
        os._exit(AGAIN)


def say_ended(store: Store, code: str, values: dict[str, Any]) -> None:
    """Leaves word of the end in an attempt's `store`, unless another was first."""
    store.compare_set(ENDED_KEY, "", json.dumps({"code": code, **values}, default=str))


def _store(timeout: timedelta) -> TCPStore:
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, is_master=False, timeout=timeout, wait_for_workers=False)
