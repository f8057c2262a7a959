"""Why the chat process ended, as far as the system tells."""

import signal
from pathlib import Path

from trainer.problems import Problem

# Each line that starts with "oom_kill " counts processes that the kernel ended for want of memory.
_COUNTERS = (
    Path("/proc/vmstat"),
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)
# Signals that a process meets by its own doing.
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}


def oom_kills() -> int:
    """How often the kernel has killed for memory since it began to count; 0 where it does not tell."""
    return sum(_count(path) for path in _COUNTERS)


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
    if number in _CRASHES:
        return Problem("chat_died", detail=name, log=str(log))
    return Problem("chat_killed", signal=name)


def _count(path: Path) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill ") and line.split()[1].isdigit())
