"""A program run with a limit of time, which holds even where the program cannot be killed. Light: no torch."""

import contextlib
import os
import signal
import subprocess
from typing import Any


def run(argv: list[str], limit_s: float, **options: Any) -> "subprocess.CompletedProcess[str] | None":
    """What `argv` printed, whatever its bytes; None when it did not end in time.

    It is killed then, with what it started, and not waited for: what hangs in a driver cannot be killed.
    `options`: Popen's. Raises OSError when it cannot be started.
    """
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               start_new_session=True, **options)  # fmt: skip
    try:
        printed, complaint = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        return None
    words = (part.decode("utf-8", errors="replace") for part in (printed, complaint))
    return subprocess.CompletedProcess(argv, process.returncode, *words)
