"""The machines of a run: how they find each other, and how one learns that another has failed or fallen silent."""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, TCPStore

from trainer.events import EventLog
from trainer.launch import Launch
from trainer.peers import ENDED_KEY, of_attempt, say_ended
from trainer.problems import Problem

log = logging.getLogger("trainer")

LOOK_S, BEAT_S = 0.5, 2.0
# So long may a machine be without a sign of life: longer than a short break of the network.
SILENCE_S = 60.0
CONNECT_TIMEOUT = timedelta(seconds=20)


class Machines:
    """This machine among those of `launch`; the first one's launcher holds the store through which they speak."""

    def __init__(self, launch: Launch, events: EventLog) -> None:
        self._launch, self._events = launch, events
        self._address = f"{launch.master_addr}:{launch.master_port}"
        self._attempt = 0
        self._store: TCPStore | None = None
        self._watched = False

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
        launch = self._launch
        store = TCPStore(launch.master_addr, launch.master_port, is_master=False, timeout=CONNECT_TIMEOUT,
                         wait_for_workers=False)  # fmt: skip
        silence = Silence(range(1, launch.nodes) if launch.node_rank == 0 else (), time.monotonic)
        try:
            while True:
                store.add(f"beat/{launch.node_rank}", 1)
                if (silent := silence.broken(lambda rank: store.add(f"beat/{rank}", 0))) is not None:
                    say_ended(of_attempt(store, self._attempt), "machine_silent",
                              {"machine": silent + 1, "seconds": round(SILENCE_S)})  # fmt: skip
                time.sleep(BEAT_S)
        except DistError:  # the first machine is gone: this one's processes notice it themselves
            return


class Silence:
    """Which of `machines` has not been heard for SILENCE_S; `clock` in seconds."""

    def __init__(self, machines: "range | tuple[int, ...]", clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heard = {rank: (-1, clock()) for rank in machines}

    def broken(self, beats: Callable[[int], int]) -> int | None:
        """The rank of a silent machine, None when there is none. `beats`: how often a machine has been heard."""
        now = self._clock()
        for rank, (before, since) in self._heard.items():
            if (count := beats(rank)) != before:
                self._heard[rank] = (count, now)
            elif now - since > SILENCE_S:
                return rank
        return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rsplit("message: ", 1)[-1][:200]
