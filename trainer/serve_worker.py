"""One thread holds the model and answers requests one at a time, in the order in which they came."""

import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from trainer.chat_failure import as_problem
from trainer.problems import Problem

if TYPE_CHECKING:
    from trainer.chat_model import ChatModel

MOST_WAITING = 32


class Job:
    """Something for the thread to do with the model. Subclasses say what; `cancel` may be set by any thread."""

    def __init__(self) -> None:
        self.cancel = threading.Event()

    def run(self, model: "ChatModel") -> None:
        raise NotImplementedError

    def failed(self, problem: Problem) -> None:
        """Called in place of the rest of `run` when that raised."""
        raise NotImplementedError


class Worker:
    """The thread and its queue. Loading, too, happens in it: torch keeps some of its state by thread."""

    def __init__(self, load: Callable[[], "ChatModel"], most_waiting: int = MOST_WAITING) -> None:
        self._load, self._most_waiting = load, most_waiting
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._ending = False
        self._last_s = 1.0  # what the last job took
        self._loaded = threading.Event()
        self._failure: Exception | None = None
        self.thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        """Returns when the model is loaded. Raises what loading met."""
        self.thread.start()
        self._loaded.wait()
        if self._failure is not None:
            raise self._failure

    def submit(self, job: Job) -> None:
        """Raises Problem serve_full, with the seconds after which there may be room, or serve_ending."""
        with self._changed:
            if self._ending:
                raise Problem("serve_ending")
            if len(self._waiting) >= self._most_waiting:
                raise Problem("serve_full", waiting=len(self._waiting), seconds=math.ceil(min(self._last_s, 60)))
            self._waiting.append(job)
            self._changed.notify()

    def drop(self, job: Job) -> None:
        """Nobody waits for `job` any more: it ends where it is, or never begins."""
        job.cancel.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    @property
    def idle(self) -> bool:
        with self._changed:
            return self._running is None and not self._waiting

    def end(self) -> None:
        """Whatever runs is cancelled, whatever waits is told, and the thread ends."""
        with self._changed:
            self._ending = True
            waiting, self._waiting = self._waiting, deque()
            if self._running is not None:
                self._running.cancel.set()
            self._changed.notify()
        for job in waiting:
            job.failed(Problem("serve_ending"))

    def _work(self) -> None:
        try:
            model = self._load()
        except Exception as error:  # told to whoever waits in `start`
            self._failure = error
            return
        finally:
            self._loaded.set()
        while (job := self._next()) is not None:
            began = time.monotonic()
            try:
                job.run(model)
            except Exception as error:  # the next request may do better; this one's client is told
                if not isinstance(error, Problem):
                    traceback.print_exc()
                job.failed(as_problem(error))
            self._last_s = time.monotonic() - began

    def _next(self) -> Job | None:
        with self._changed:
            self._running = None
            self._changed.wait_for(lambda: self._waiting or self._ending)
            if not self._ending:
                self._running = self._waiting.popleft()
            return self._running
