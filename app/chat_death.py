"""Why the chat process ended, as far as the system tells."""

import signal
from pathlib import Path

from app.run_death import CRASHES
from trainer import oom
from trainer.problems import Problem


def oom_kills() -> int:
    """How often the kernel has killed for memory in this process's control group, in which its children are too;
    0 where it does not tell."""
    return oom.kills(oom.counter()) or 0


def reason(returncode: int, oom_kills_before: int, log: Path) -> Problem:
    """What a person is told of a process that ended with `returncode`, unasked. `oom_kills_before`: at its start."""
    if returncode >= 0:
        return Problem("chat_died", detail=f"exit code {returncode}", log=str(log))
    number = -returncode
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL and oom_kills() > oom_kills_before:
        return Problem("out_of_host_memory")
    if number in CRASHES:
        return Problem("chat_died", detail=name, log=str(log))
    return Problem("chat_killed", signal=name)
