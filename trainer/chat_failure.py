"""What a person is told of a failure while loading or talking. Light: torch itself may be what failed."""

import sys

from trainer.problems import Problem


def as_problem(error: Exception) -> Problem:
    """A Problem as it is, want of memory by its name, anything else by its kind and first line."""
    if isinstance(error, Problem):
        return error
    if "trainer.device" in sys.modules:
        from trainer import device

        if device.is_out_of_memory(error):
            return Problem("chat_out_of_memory", device=device.current().name)
    lines = str(error).strip().splitlines()
    return Problem("python_error", kind=type(error).__name__, detail=lines[0][:300] if lines else "")
