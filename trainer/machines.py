"""The machines of a run: how they find each other, and how one learns that another has failed or fallen silent."""

import contextlib
import json
import logging
import math
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psutil
from torch.distributed import DistError, Store, TCPStore

from trainer import alike, run_folder
from trainer.events import EventLog
from trainer.launch import Launch
from trainer.peers import ENDED_KEY, of_attempt, say_ended
from trainer.problems import SENTENCES, Problem

log = logging.getLogger("trainer")

LOOK_S, BEAT_S = 0.5, 2.0
CONNECT_TIMEOUT = timedelta(seconds=20)
# How long the word on the end may take to be written, when the folder may be beyond the same cut.
TELL_S = 10.0
# How long processes may take to end once one has said that the run has ended: one that hangs cannot.
END_S = 10.0
# How long the first machine keeps its store once it has refused to train with the others.
REFUSED_S = 5.0


class Machines:
    """This machine among those of `launch`; the first one's launcher holds the store through which they speak.

    `about`: alike.facts of this machine."""

    def __init__(self, launch: Launch, events: EventLog, about: dict[str, Any] | None = None) -> None:
        self._launch, self._events, self._about = launch, events, about or {}
        self._address = launch.address
        self._attempt, self._listening = 0, False
        self._store: TCPStore | None = None
        self._watched = False
        self._owner = run_folder.read_identity(events.path.parent)
        # Of the first machine, heard by another one: when it has answered last (infinity: nothing was asked of it), and
        # that it has hung up.
        self._answered, self._gone = math.inf, threading.Event()
        # Since when it is known that the attempt has ended.
        self._ended = math.inf

    def meet(self, attempt: int) -> None:
        """Returns when all machines have come to `attempt`, telling meanwhile who is waited for. Raises Problem when
        they have not within the launch's limit, or when they are not alike in what they must be."""
        self._attempt = attempt
        try:
            self._meet(time.monotonic())
        except Problem:
            self._gone.set()  # nobody is listened to any more
            raise
        if not self._watched:
            self._watched = True
            self._owner = run_folder.read_identity(self._events.path.parent)
            threading.Thread(target=self._watch, daemon=True, name="machines").start()

    def _meet(self, began: float) -> None:
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
        if not self._attempt:
            self._agree(began)

    def end(self, code: str, values: dict[str, Any]) -> None:
        """Ends the run on every machine."""
        try:
            if self._store:
                say_ended(of_attempt(self._store, self._attempt), code, values)
        except DistError as error:  # the first machine is gone, and its processes end without our word
            log.warning("the first machine was not told: %s", error)

    def told(self) -> Problem | None:
        """The problem that ended the attempt, as far as the first machine has heard of it."""
        if self._store and self.leads and of_attempt(self._store, self._attempt).check([ENDED_KEY]):
            told = self.ended()
            return Problem(told.pop("code"), **told)
        return None

    @property
    def leads(self) -> bool:
        """Whether this is the first machine."""
        return self._launch.node_rank == 0

    def ended(self) -> dict[str, Any]:
        """Code and values of the problem that ended the attempt, as the first that noticed it has told."""
        assert self._store
        try:
            told: dict[str, Any] = json.loads(of_attempt(self._store, self._attempt).get(ENDED_KEY))
        except DistError:
            return {"code": "first_machine_lost", "address": self._address}
        return told

    def finish(self, code: str, **values: Any) -> None:
        """The finished event, where the folder is this launch's: a shared one may be another launch's as long as this
        machine has not met the first one, and when the run was started again while this machine was away."""
        owner = run_folder.read_identity(self._events.path.parent)
        if owner == self._owner and (self._watched or not self._launch.node_rank):
            self._events.finish_once("failed", code=code, **values)

    def _here(self, began: float) -> int:
        """How many machines have come; 0 while the first one cannot be reached."""
        nodes, rank = self._launch.nodes, self._launch.node_rank
        try:
            if not self._store:
                self._store = self._connected(began)
            self._answered = time.monotonic()
            store = of_attempt(self._store, self._attempt)
            self._store.add(f"beat/{rank}", 1)
            store.set(f"about/{rank}", json.dumps(self._about))
            store.set(f"here/{rank}", socket.gethostname())
            self._raise_the_end(store)
            return sum(store.check([f"here/{number}"]) for number in range(nodes))
        except DistError as error:
            if rank == 0 or not self._store:
                raise self._apart(0, _first_line(error)) from None
            self._store, self._answered = None, math.inf  # the first machine was started anew
            return 0

    def _connected(self, began: float) -> TCPStore:
        launch = self._launch
        if launch.node_rank:
            self._reach(began)
        store = self._opened()
        if launch.node_rank and not self._listening:
            self._listening = True
            threading.Thread(target=self._listen, daemon=True, name="first machine").start()
        self._take_the_number(store)
        return store

    def _opened(self) -> TCPStore:
        """Raises DistError, or Problem when another program has the port: torch may wait for that one without end."""
        launch = self._launch
        found: queue.SimpleQueue[TCPStore | DistError] = queue.SimpleQueue()

        def connect() -> None:
            try:
                found.put(TCPStore(launch.master_addr, launch.master_port, is_master=launch.node_rank == 0,
                                   timeout=CONNECT_TIMEOUT, wait_for_workers=False, multi_tenant=True))  # fmt: skip
            except DistError as error:
                found.put(error)

        threading.Thread(target=connect, daemon=True, name="store").start()
        try:
            answer = found.get(timeout=CONNECT_TIMEOUT.total_seconds() * 1.5)
        except queue.Empty:
            raise Problem("first_machine_other", address=self._address) from None
        if isinstance(answer, DistError):
            if "Ping failed" in str(answer):
                raise Problem("first_machine_other", address=self._address) from None
            raise answer
        return answer

    def _take_the_number(self, store: TCPStore) -> None:
        """Raises Problem when another launcher has this machine's number, and lives: the same command was given twice."""
        rank = self._launch.node_rank
        if store.add(f"launchers/{rank}", 1) == 1:
            return
        before = store.add(f"beat/{rank}", 0)
        time.sleep(2 * BEAT_S)
        if store.add(f"beat/{rank}", 0) != before:
            raise Problem("node_rank_taken", value=rank, address=self._address, last=self._launch.nodes - 1)

    def _agree(self, began: float) -> None:
        """The first machine compares the others with itself; all raise the Problem that it finds."""
        assert self._store
        store, others = of_attempt(self._store, self._attempt), range(1, self._launch.nodes)
        if self._launch.node_rank == 0:
            told = {number: json.loads(store.get(f"about/{number}")) for number in others}
            found = [alike.difference(self._about, about, number + 1) for number, about in told.items()]
            if problem := next(filter(None, found), None):
                say_ended(store, problem.code, problem.values)
                self._until_heard(store)
                raise problem
            store.set("agreed", "")
        while not store.check(["agreed"]):
            self._answered = time.monotonic()
            self._raise_the_end(store)
            if time.monotonic() - began > self._launch.meet_timeout_s:
                raise Problem("first_machine_lost", address=self._address)
            time.sleep(LOOK_S / 5)

    def _raise_the_end(self, store: Store) -> None:
        """Raises the Problem for which the first machine has refused to train with the others."""
        if self._launch.node_rank and store.check([ENDED_KEY]):
            told = self.ended()
            store.add("refused", 1)
            code = told.pop("code")
            raise Problem(code, **told) if code in SENTENCES else Problem("first_machine_lost", address=self._address)

    def _until_heard(self, store: Store) -> None:
        until = time.monotonic() + REFUSED_S
        while store.add("refused", 0) < self._launch.nodes - 1 and time.monotonic() < until:
            time.sleep(LOOK_S / 5)

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
        self._answered = time.monotonic()
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
