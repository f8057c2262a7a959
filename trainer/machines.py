"""The machines of a run: how they find each other, and how one learns that another has failed or fallen silent."""

import contextlib
import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psutil
from torch.distributed import DistError, TCPStore

from trainer import run_folder
from trainer.events import EventLog
from trainer.launch import Launch
from trainer.peers import ENDED_KEY, of_attempt, say_ended
from trainer.problems import Problem

log = logging.getLogger("trainer")

LOOK_S, BEAT_S = 0.5, 2.0
CONNECT_TIMEOUT = timedelta(seconds=20)
# How long the word on the end may take to be written, when the folder may be beyond the same cut.
TELL_S = 10.0
# How long processes may take to end once one has said that the run has ended: one that hangs cannot.
END_S = 10.0


class Machines:
    """This machine among those of `launch`; the first one's launcher holds the store through which they speak."""

    def __init__(self, launch: Launch, events: EventLog) -> None:
        self._launch, self._events = launch, events
        self._address = f"{launch.master_addr}:{launch.master_port}"
        self._attempt = 0
        self._store: TCPStore | None = None
        self._watched = False
        self._owner = run_folder.read_identity(events.path.parent)
        # Of the first machine, heard by another one: when it has answered last, and that it has hung up.
        self._answered, self._gone = 0.0, threading.Event()
        # Since when it is known that the attempt has ended.
        self._ended = math.inf

    def meet(self, attempt: int) -> None:
        """Returns when all machines have come to `attempt`, telling meanwhile who is waited for. Raises Problem when
        they have not within the launch's limit."""
        self._attempt = attempt
        began = time.monotonic()
        here = 0
        while here < self._launch.nodes:
            found = self._here(began)
            if found != here:
                here = found
                self._tell(here)
            elif time.monotonic() - began > self._launch.meet_timeout_s:
                raise self._apart(here, "")
            else:
                time.sleep(LOOK_S)
        if not self._watched:
            self._watched = True
            self._owner = run_folder.read_identity(self._events.path.parent)
            threading.Thread(target=self._watch, daemon=True, name="machines").start()

    def end(self, code: str, values: dict[str, Any]) -> None:
        """Ends the run on every machine."""
        try:
            if self._store:
                say_ended(of_attempt(self._store, self._attempt), code, values)
        except DistError as error:  # the first machine is gone, and its processes end without our word
            log.warning("the first machine was not told: %s", error)

    def ended(self) -> dict[str, Any]:
        """Code and values of the problem that ended the attempt, as the first that noticed it has told."""
        assert self._store
        try:
            told: dict[str, Any] = json.loads(of_attempt(self._store, self._attempt).get(ENDED_KEY))
        except DistError:
            return {"code": "first_machine_lost", "address": self._address}
        return told

    def finish(self, code: str, **values: Any) -> None:
        """The finished event, where the folder is this launch's: a shared one may not be the first machine's yet, and
        it is another launch's when the run was started again while this machine was away."""
        owner = run_folder.read_identity(self._events.path.parent)
        if owner == self._owner and (owner or self._watched):
            self._events.finish_once("failed", code=code, **values)

    def _here(self, began: float) -> int:
        """How many machines have come; 0 while the first one cannot be reached."""
        nodes, rank = self._launch.nodes, self._launch.node_rank
        try:
            if not self._store:
                self._store = self._connected(began)
            store = of_attempt(self._store, self._attempt)
            store.set(f"here/{rank}", socket.gethostname())
            return sum(store.check([f"here/{number}"]) for number in range(nodes))
        except DistError as error:
            if rank == 0 or not self._store:
                raise self._apart(0, _first_line(error)) from None
            self._store = None  # the first machine was started anew
            return 0

    def _connected(self, began: float) -> TCPStore:
        launch = self._launch
        if launch.node_rank:
            self._reach(began)
        return TCPStore(launch.master_addr, launch.master_port, is_master=launch.node_rank == 0,
                        timeout=CONNECT_TIMEOUT, wait_for_workers=False, multi_tenant=True)  # fmt: skip

    def _reach(self, began: float) -> None:
        """Waits in Python, where a request to stop is heard, until the first machine answers."""
        self._tell(0)
        detail = ""
        while time.monotonic() - began < self._launch.meet_timeout_s:
            try:
                socket.create_connection(
                    (self._launch.master_addr, self._launch.master_port), timeout=LOOK_S * 4
                ).close()
                return
            except OSError as error:
                detail = error.strerror or str(error)
                time.sleep(LOOK_S)
        raise Problem("first_machine_silent", address=self._address, seconds=self._launch.meet_timeout_s, detail=detail)

    def _tell(self, here: int) -> None:
        """To the page, and to the terminal of a machine that has none."""
        self._events.stage("waiting_for_machines", address=self._address, here=here, machines=self._launch.nodes)
        if not here:
            log.warning("machine %d waits for the first one at %s", self._launch.node_rank, self._address)
        else:
            log.warning("%d of %d machines have come to %s", here, self._launch.nodes, self._address)

    def _apart(self, here: int, detail: str) -> Problem:
        if here:
            return Problem("machines_missing", address=self._address, here=here, machines=self._launch.nodes,
                           seconds=self._launch.meet_timeout_s)  # fmt: skip
        return Problem("machines_apart", address=self._address, detail=detail or "?")

    def _watch(self) -> None:
        """Gives signs of life; on the first machine, ends the run when another one gives none."""
        launch, limit = self._launch, self._launch.heartbeat_timeout_s
        silence = Silence(range(1, launch.nodes) if launch.node_rank == 0 else (), limit, time.monotonic)
        if launch.node_rank:
            self._answered = time.monotonic()
            threading.Thread(target=self._listen, daemon=True, name="first machine").start()
        try:
            store = TCPStore(launch.master_addr, launch.master_port, is_master=False, timeout=CONNECT_TIMEOUT,
                             wait_for_workers=False)  # fmt: skip
            while True:
                store.add(f"beat/{launch.node_rank}", 1)
                self._answered = time.monotonic()
                if (silent := silence.broken(lambda rank: store.add(f"beat/{rank}", 0))) is not None:
                    silent_one = {"machine": silent + 1, "seconds": limit}
                    say_ended(of_attempt(store, self._attempt), "machine_silent", silent_one)
                self._end_what_hangs(store)
                time.sleep(min(BEAT_S, limit / 5))
        except DistError:  # the first machine is gone: this one's processes notice it themselves, unless they hang
            self._gone.set()
            time.sleep(limit)
            _kill_processes()

    def _end_what_hangs(self, store: TCPStore) -> None:
        """Kills this machine's processes when they are still there a while after the run has ended elsewhere."""
        if of_attempt(store, self._attempt).check([ENDED_KEY]):
            self._ended = min(self._ended, time.monotonic())
            if time.monotonic() - self._ended > END_S:
                _kill_processes()

    def _listen(self) -> None:
        """Ends all on this machine when the first one does not answer any more.

        Nobody hangs up a connection that is cut: whatever waits on it, in whichever thread, waits for hours.
        """
        limit = self._launch.heartbeat_timeout_s
        while not self._gone.wait(LOOK_S):
            if time.monotonic() - self._answered > limit + 2 * BEAT_S:  # the first one's word comes first, where it can
                problem = Problem("machine_silent", machine=1, seconds=limit)
                log.error("%s", problem)
                last = threading.Timer(TELL_S, os._exit, [1])
                last.daemon = True
                last.start()
                self.finish(problem.code, **problem.values)
                os._exit(1)  # and the processes with their launcher


class Silence:
    """Which of `machines` has not been heard for `limit` seconds of `clock`."""

    def __init__(self, machines: "range | tuple[int, ...]", limit: float, clock: Callable[[], float]) -> None:
        self._limit, self._clock = limit, clock
        self._heard = {rank: (-1, clock()) for rank in machines}

    def broken(self, beats: Callable[[int], int]) -> int | None:
        """The rank of a silent machine, None when there is none. `beats`: how often a machine has been heard."""
        now = self._clock()
        for rank, (before, since) in self._heard.items():
            if (count := beats(rank)) != before:
                self._heard[rank] = (count, now)
            elif now - since > self._limit:
                return rank
        return None


def _kill_processes() -> None:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since
            child.kill()


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rsplit("message: ", 1)[-1][:200]
