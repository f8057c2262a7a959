"""Processes that start again because memory was short in one of them: from where, and with how much room. Light: no torch.

The run folder says it: what was saved, and what was warned of, since the launcher began.
"""

from dataclasses import dataclass
from pathlib import Path

from trainer import run_folder
from trainer.events import Event, EventLog, read_events
from trainer.prepare import resume_checkpoint
from trainer.settings import TrainSettings

# The exit status of a process that is to be started again; sysexits.h calls it EX_TEMPFAIL.
AGAIN = 75


@dataclass(frozen=True)
class Start:
    """`checkpoint`: to go on from. `budget`: tokens of a pass at most, and `checkpointing`, that activations are not
    kept, as far as earlier attempts have found out."""

    checkpoint: Path | None = None
    budget: int | None = None
    checkpointing: bool = False

    @property
    def step(self) -> int:
        return run_folder.step_of(self.checkpoint) if self.checkpoint else 0


def starting_point(settings: TrainSettings) -> Start:
    """Where the next attempt of a run of several starts. Raises Problem as resume_checkpoint does."""
    folder = Path(settings.output_dir)
    events = since_launch(folder / run_folder.EVENTS)
    saved = [folder / event["path"] for event in events if event["event"] == "saved"]
    resumable = [path for path in saved if run_folder.is_resumable(path)]
    warnings = [event for event in events if event["event"] == "warning"]
    budgets = [event["budget"] for event in warnings if event["code"] == "token_budget_halved"]
    return Start(
        resumable[-1] if resumable else resume_checkpoint(settings),
        min(budgets, default=None),
        any(event["code"] == "checkpointing_switched_on" for event in warnings),
    )


def saved_step(events: EventLog) -> int:
    """The step that a run ends at when it is stopped between its attempts."""
    return max((event["step"] for event in since_launch(events.path) if event["event"] == "saved"), default=0)


def since_launch(path: Path) -> list[Event]:
    """The events of the last launch, all of its attempts together."""
    events, _ = read_events(path)
    starts = [
        number for number, event in enumerate(events) if event.get("stage") == "starting" and "attempt" not in event
    ]
    return events[starts[-1] :] if starts else events
