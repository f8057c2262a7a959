"""A run's processes started and ended through torchrun's own launcher; and what such a process knows of it."""

import contextlib
import ctypes
import itertools
import logging
import os
import signal
import socket
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil

from trainer import accelerators, address, alike, device_kinds, run_folder, torch_import
from trainer.again import AGAIN, saved_step
from trainer.events import EventLog
from trainer.launch import Launch
from trainer.problems import SENTENCES, Problem
from trainer.settings import TrainSettings
from trainer.settings_file import to_flags

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from trainer.machines import Machines

log = logging.getLogger("trainer")

# What the launcher sends its processes when it is asked to stop. SIGTERM stays torchrun's own: it ends a process at
# once, which is what must happen when another has died and this one waits for it in a collective.
STOP = signal.SIGUSR1
LAUNCHER, ATTEMPT = "TUNEDESK_LAUNCHER", "TUNEDESK_ATTEMPT"
PROGRAM = "trainer"
# Signals that a process meets by its own doing.
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
# How long a signal's Python handler may take to be run before torch is taken to be waiting in C++.
HANDLER_WAIT_S = 2


def rank() -> int | None:
    """This process's place among torchrun's; None when it is no process of a torchrun."""
    return int(os.environ["RANK"]) if "RANK" in os.environ and "WORLD_SIZE" in os.environ else None


def launched() -> bool:
    """Whether this process is one that `run` started."""
    return LAUNCHER in os.environ and rank() is not None


def end_with_the_parent() -> None:
    """For a process of `run`: it ends with its launcher, even one that is killed; Ctrl-C is the launcher's."""
    pr_set_pdeathsig = 1  # sys/prctl.h
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.environ[LAUNCHER] != str(os.getppid()):  # it was killed before we asked
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def of_torch(launch: Launch) -> Launch:
    """`launch`, where it does not say how many processes, with one for each device that torch sees.

    The vendors' tools may list devices that it cannot use; several processes on a processor share its cores.
    """
    if launch.processes or launch.processes_here == 1:
        return launch
    torch_import.prepare()
    import torch

    seen = torch.accelerator.device_count() if torch.accelerator.is_available() else 1
    return replace(launch, processes=min(seen, launch.processes_here))


def run(launch: Launch, settings: TrainSettings, events: EventLog, asked: threading.Event) -> int:
    """Trains in `launch`'s processes on this machine; returns when all of them have ended.

    A process that dies ends the others; one whose memory was short makes all start again, with less room.
    `asked`: set once Python has heard of a request to stop.
    """
    _stop_while_blocked(events, asked)
    events.path.parent.mkdir(parents=True, exist_ok=True)  # another machine's disk may be another one
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a C++ backtrace for each second of waiting for a machine
    os.environ[LAUNCHER] = str(os.getpid())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // launch.processes_here)))
    signal.pthread_sigmask(signal.SIG_BLOCK, {STOP})  # inherited: one that arrives early waits until it is asked for
    torch_import.prepare()
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException

    from trainer.machines import Machines

    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)  # we say it ourselves
    _let_devices_wait(settings.ddp_timeout)
    machines = Machines(launch, events, alike.facts(settings, launch)) if launch.nodes > 1 else None
    if machines and (interface := address.interface(launch)):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    try:
        return _attempts(launch, settings, events, asked, machines)
    except Problem as error:
        problem = error
    except DistError as error:
        detail = str(error).strip().splitlines()[0].rsplit("message: ", 1)[-1][:200]
        apart = Problem("machines_apart", address=launch.address, detail=detail)
        problem = (machines and machines.told()) or apart
    except SignalException as error:
        problem = Problem("killed", signal=error.sigval.name)
    log.error("%s", problem)
    _finish(events, machines, problem.code, problem.values)
    return 1


def _let_devices_wait(timeout_s: int) -> None:
    """As long as the processes, unless the environment says how long."""
    for kind in {one.kind for one in accelerators.accelerators()}:
        waits = device_kinds.of(kind).waits
        if not waits.keys() & os.environ.keys():
            os.environ.update({name: str(timeout_s + more) for name, more in waits.items()})


def _attempts(
    launch: Launch, settings: TrainSettings, events: EventLog, asked: threading.Event, machines: "Machines | None"
) -> int:
    for attempt in itertools.count():
        os.environ[ATTEMPT] = str(attempt)
        if attempt:
            if asked.is_set():
                events.append("finished", outcome="stopped", step=saved_step(events))
                return 0
            events.stage("starting", attempt=attempt)
        if machines:
            machines.meet(attempt)
        failed = _failed(launch, to_flags(settings), attempt)
        if failed is None:
            return 0
        if all(failure.exitcode != AGAIN for failure in failed.failures.values()):
            _report(events, failed, machines)
            return 1
    raise AssertionError


def _failed(launch: Launch, flags: list[str], attempt: int) -> "ChildFailedError | None":
    """The processes of one attempt, from their start to their end; what failed, None when nothing did."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args
    from torch.distributed.run import run as torchrun

    try:
        torchrun(parse_args([*launch.torchrun_arguments(attempt), "-m", PROGRAM, *flags]))
    except ChildFailedError as error:
        return error
    return None


def _report(events: EventLog, failed: "ChildFailedError", machines: "Machines | None") -> None:
    """Why the processes ended, unless one could say so itself: one that was killed, or is on another machine."""
    rank, failure = failed.get_first_failure()
    log.error("process %d ended with %s", rank, failure.exitcode)
    number = -failure.exitcode if failure.exitcode < 0 else 0
    detail = signal.Signals(number).name if number else f"exit {failure.exitcode}"
    identity = run_folder.read_identity(events.path.parent)
    if number == signal.SIGKILL and identity and identity.memory_was_short():
        _finish(events, machines, "out_of_host_memory", {})
        return
    by_itself = not number or number in CRASHES
    code = "process_failed" if by_itself else "process_died"
    values: dict[str, Any] = {"rank": rank, "host": socket.gethostname(), "detail": detail}
    if machines:
        machines.end(code, values)  # unless another machine was first
        values = machines.ended()
        code = values.pop("code")
        if not machines.leads and code in SENTENCES:  # it stands in the first one's log only
            log.error("%s", Problem(code, **values))
    _finish(events, machines, code, values)


def _finish(events: EventLog, machines: "Machines | None", code: str, values: dict[str, Any]) -> None:
    if machines:
        machines.finish(code, **values)
    else:
        events.finish_once("failed", code=code, **values)


def _stop_while_blocked(events: EventLog, asked: threading.Event) -> None:
    """Answers SIGTERM and Ctrl-C while torch waits for another machine, in C++, where no Python handler is run."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)

    def watch() -> None:
        while number := os.read(reading, 1):
            if number[0] in (signal.SIGTERM, signal.SIGINT) and not asked.wait(HANDLER_WAIT_S):
                events.stage("stopping")
                events.append("finished", outcome="stopped", step=saved_step(events))
                os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def relay_stop(events: EventLog) -> None:
    """Asks the processes that `run` started to finish their step and save; ends this one when there are none yet."""
    children = psutil.Process().children()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since
            child.send_signal(STOP)
    if not children:
        events.append("finished", outcome="stopped", step=saved_step(events))
        sys.exit(0)
