"""Client of `python -m trainer.look`: pages of a dataset as tokens, and checks of whole datasets. Never imports torch.

One per page server, shared by its tabs. Nobody waits here: whoever wants an answer asks again and again, and what was
asked before is known. The process starts when something is asked, ends when nothing is, and is replaced when it dies.
"""

import json
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from app.chat_worker import Event, Worker
from trainer.problems import SENTENCES, Problem

Values = dict[str, Any]
State = Literal["waiting", "running", "done", "stopped", "failed"]

# A tab that is not in sight may ask only once a minute.
FORGOTTEN_S = 90.0
# Where another check waits, one that nobody has asked for since then gives way.
GIVES_WAY_S = 1.5
STOPPING_S = 5.0
# Nothing heard for so long: it hangs.
SILENT_S = 300.0
IDLE_S = 20.0
# Times as long as its longest check took does it wait for another.
WORTH = 10
LOOK_S = 0.25
MOST_KEPT = 48
# A process that dies over a request is given it once more.
TRIES = 2


@dataclass(frozen=True)
class Answer:
    """`values`: the process's last event, that of its progress while it runs. `problem`: why it failed."""

    state: State = "waiting"
    values: Values = field(default_factory=dict)
    problem: Problem | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("done", "stopped", "failed")


@dataclass
class _Task:
    request: Values
    asked: float
    answer: Answer = field(default_factory=Answer)
    number: int = 0  # as the process knows it; 0 while it waits
    tries: int = 0
    heard: float = 0.0
    stopping: float = 0.0  # since when


class Look:
    """Safe to use from several threads."""

    def __init__(
        self, log: Path, command: Sequence[str] = (sys.executable, "-m", "trainer.look"), idle_s: float = IDLE_S
    ) -> None:
        """`log` receives what the process writes to stderr. `idle_s`: it ends after so long without a request."""
        self._log, self._command, self._idle_s = log, command, idle_s
        self._lock = threading.RLock()
        self._tasks: OrderedDict[str, _Task] = OrderedDict()
        self._worker: Worker | None = None
        self._used = 0.0
        # What it has read it keeps: for other cutoffs a check need not be made again.
        self._worth_s = 0.0
        self._numbers = 0

    @property
    def pid(self) -> int | None:
        with self._lock:
            return self._worker.pid if self._worker else None

    def page(self, settings: Values, dataset: str, page: int, page_size: int, state: str = "") -> Answer:
        """A page of `dataset` as tokens. `settings`: flat, by key; `state`: changes with the files that are read."""
        return self._ask({"op": "page", "settings": settings, "dataset": dataset, "page": page, "page_size": page_size},
                         state)  # fmt: skip

    def check(self, settings: Values, dataset: str, state: str = "") -> Answer:
        """The check of the whole dataset: rows, bad ones, tokens, lengths."""
        return self._ask({"op": "check", "settings": settings, "dataset": dataset}, state)

    def stop(self, settings: Values, dataset: str, state: str = "") -> None:
        """Ends the check: its answer says that it was stopped, until `again`."""
        with self._lock:
            task = self._tasks.get(_key({"op": "check", "settings": settings, "dataset": dataset}, state))
            if task and not task.answer.ended:
                self._stop(task)

    def again(self, settings: Values, dataset: str, state: str = "") -> None:
        """What is known of the check is forgotten: the next `check` begins it anew."""
        with self._lock:
            key = _key({"op": "check", "settings": settings, "dataset": dataset}, state)
            if key in self._tasks and self._tasks[key].answer.ended:
                del self._tasks[key]

    def close(self) -> None:
        """Ends the process, if there is one, and returns when it is gone. What is asked later starts another."""
        with self._lock:
            worker, self._worker = self._worker, None
            for task in self._tasks.values():
                task.number = 0
        if worker is not None:
            worker.end()

    # Below: with the lock held.

    def _ask(self, request: Values, state: str) -> Answer:
        with self._lock:
            key, now = _key(request, state), time.monotonic()
            task = self._tasks.setdefault(key, _Task(request, now))
            self._tasks.move_to_end(key)
            task.asked = self._used = now
            self._forget()
            self._advance()
            return task.answer

    def _forget(self) -> None:
        """The oldest answers make room; what is being computed stays."""
        for key in [key for key, task in self._tasks.items() if task.answer.ended or not task.number]:
            if len(self._tasks) <= MOST_KEPT:
                return
            del self._tasks[key]

    def _advance(self) -> None:
        """Sends what can be sent: pages at once, checks one after the other."""
        waiting = [task for task in self._tasks.values() if not task.answer.ended and not task.number]
        if not waiting:
            return
        if self._worker is None:
            self._start(waiting)
        checking = next((task for task in self._running() if task.request["op"] == "check"), None)
        for task in waiting:
            if task.request["op"] == "check":
                if checking is not None:
                    if time.monotonic() - checking.asked > GIVES_WAY_S:
                        self._stop(checking)
                    continue
                checking = task
            self._send(task)

    def _start(self, waiting: Sequence[_Task]) -> None:
        try:
            self._worker = worker = Worker(self._command, self._log, self._on_event, self._on_end)
        except OSError as error:  # no memory for a process
            why = Problem("python_error", kind=type(error).__name__, detail=str(error))
            for task in waiting:
                task.answer = Answer("failed", problem=why)
            return
        threading.Thread(target=self._keep, args=(worker,), name=f"look-keeper-{worker.pid}", daemon=True).start()

    def _send(self, task: _Task) -> None:
        if self._worker is None:
            return
        self._numbers += 1
        task.number, task.tries, task.heard = self._numbers, task.tries + 1, time.monotonic()
        task.answer = Answer("running", task.answer.values)
        self._worker.send({**task.request, "id": task.number})

    def _stop(self, task: _Task) -> None:
        if not task.number or self._worker is None:
            task.answer = Answer("stopped", task.answer.values)
        elif not task.stopping:
            task.stopping = time.monotonic()
            self._worker.send({"op": "stop", "id": task.number})

    def _running(self) -> list[_Task]:
        return [task for task in self._tasks.values() if task.number and not task.answer.ended]

    # Called by the worker's thread and by the keeper's.

    def _on_event(self, worker: Worker, event: Event) -> None:
        with self._lock:
            task = next((task for task in self._running() if task.number == event.get("id")), None)
            if worker is not self._worker or task is None:
                return
            task.heard = self._used = time.monotonic()
            kind = event.get("event")
            if kind == "progress":
                task.answer = Answer("running", event)
            elif kind in ("page", "checked"):
                task.answer = Answer("done", event)
                self._worth_s = max(self._worth_s, WORTH * float(event.get("seconds") or 0))
            elif kind == "stopped":
                task.answer = Answer("stopped", task.answer.values)
            elif kind == "problem":
                task.answer = Answer("failed", problem=_problem(event))
            self._advance()

    def _on_end(self, worker: Worker, why: Problem) -> None:
        with self._lock:
            if worker is not self._worker:
                return
            self._worker, self._worth_s = None, 0.0
            told = why if why.code == "out_of_host_memory" else Problem(
                "look_died", detail=why.values.get("detail") or why.values.get("signal", "?"), log=str(self._log)
            )  # fmt: skip
            for task in self._running():
                task.number = 0
                if task.stopping:
                    task.answer = Answer("stopped", task.answer.values)
                elif task.tries >= TRIES:
                    task.answer = Answer("failed", problem=told)
                else:
                    task.answer = Answer("waiting", task.answer.values)
            self._advance()

    def _keep(self, worker: Worker) -> None:
        """While `worker` lives: stops what nobody asks for any more, ends it when it is idle, kills it when it hangs."""
        while True:
            time.sleep(LOOK_S)
            with self._lock:
                if worker is not self._worker:
                    return
                now, running = time.monotonic(), self._running()
                for task in [task for task in self._tasks.values() if not task.answer.ended]:
                    if now - task.asked > FORGOTTEN_S:
                        self._stop(task)
                hanging = any(now - task.heard > SILENT_S or (task.stopping and now - task.stopping > STOPPING_S)
                              for task in running)  # fmt: skip
                idle = not running and now - self._used > max(self._idle_s, self._worth_s)
                self._advance()
                if idle:
                    self._worker, self._worth_s = None, 0.0
            if hanging:
                worker.kill()
            if idle:
                worker.end()
                return


def _key(request: Values, state: str) -> str:
    return json.dumps([request, state], sort_keys=True, default=str)


def _problem(event: Event) -> Problem:
    """An event of a process of another version may bring a sentence that is not known here."""
    code, values = str(event.get("code")), event.get("values") or {}
    if code in SENTENCES:
        return Problem(code, **values)
    return Problem("python_error", kind=code, detail=json.dumps(values, ensure_ascii=False, default=str))
