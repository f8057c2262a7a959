"""The chat process's state in words. Pure functions of its status."""

from app import fragments
from app.chat import STOPPING_S, Status
from app.text import Text
from trainer.problems import Problem

# Problems that pass by themselves, and the states in which they have not.
PASSING = (
    (Problem("chat_loading"), ("starting", "loading")),
    (Problem("chat_not_loaded"), ("unloaded", "dead")),
    (Problem("chat_busy"), ("generating",)),
    (Problem("chat_busy_elsewhere"), ("generating",)),
    (Problem("chat_not_stopping", seconds=f"{STOPPING_S:g}"), ("generating",)),
)


def is_over(words: str, status: Status, text: Text) -> bool:
    """Whether `words`, problem_html of a problem, are true no longer."""
    return any(words == problem_html(problem, text) and status.state not in states for problem, states in PASSING)


def problem_html(problem: Problem, text: Text) -> str:
    return fragments.problems_html("", [problem.sentence(text.language)])


def status_html(status: Status, text: Text) -> str:
    """One line, the same in every tab: what is loaded, where, and how answers are computed; and what was warned of."""
    if status.problem is not None and status.state in ("unloaded", "dead", "ready"):
        return problem_html(status.problem, text)
    state = "unloaded" if status.state == "dead" else "stopping" if status.stopping else status.state
    words = text(f"chat.status.{state}", seconds=f"{status.seconds:.0f}")
    if status.state not in ("ready", "generating"):
        return fragments.status_html(words, "", None, None if status.state != "unloaded" else "idle")
    name = status.model.name if status.model else ""
    if status.adapter:
        name += f" + {status.adapter.parent.name}/{status.adapter.name}"
    device = (
        text("device.named", index=status.index, name=status.device)
        if status.index and not status.warnings
        else status.device
    )
    parts = [text("chat.status.detail", model=name, device=device, dtype=status.dtype, seconds=f"{status.seconds:.1f}")]
    if status.way:
        parts.append(text(f"chat.way.{status.way}"))
    notices = "".join(fragments.notice_html(one.sentence(text.language)) for one in status.warnings)
    return fragments.status_html(words, " · ".join(parts), None, "completed") + notices
