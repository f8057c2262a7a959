"""The chat process's state in words. Pure functions of its status."""

from app import fragments
from app.chat import Status
from app.text import Text
from trainer.problems import Problem


def problem_html(problem: Problem, text: Text) -> str:
    return fragments.problems_html("", [problem.sentence(text.language)])


def status_html(status: Status, text: Text) -> str:
    """One line, the same in every tab: what is loaded, where, and how answers are computed; and what was warned of."""
    if status.problem is not None and status.state in ("unloaded", "dead", "ready"):
        return problem_html(status.problem, text)
    state = "unloaded" if status.state == "dead" else status.state
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
