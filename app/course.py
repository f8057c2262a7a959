"""How a run has gone, folded from its events one at a time, so that a list of many runs keeps none of them.

Light: it knows events, not folders or processes.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.events import Event, parsed

# Nearly all lines of a long run, as EventLog begins them. JSON takes ten times as long as looking for the loss.
_STEP, _PROGRESS = b'{"event": "step",', b'{"event": "progress",'
_STEP_NUMBER, _LOSS = b'"step": ', b'"loss": '


@dataclass
class Records:
    """The lowest values of a series by step. Only those that were the lowest so far are kept: few, yet enough to
    take back the steps that a resumed run does again."""

    kept: list[tuple[int, float]] = field(default_factory=list)

    def take(self, step: int, value: Any) -> None:
        self.back_to(step - 1)
        if isinstance(value, int | float) and math.isfinite(value) and (not self.kept or value < self.kept[-1][1]):
            self.kept.append((step, float(value)))

    def back_to(self, step: int) -> None:
        while self.kept and self.kept[-1][0] > step:
            self.kept.pop()

    @property
    def lowest(self) -> tuple[int, float] | None:
        return self.kept[-1] if self.kept else None


@dataclass
class Course:
    """`stage`, `finished`, `begun`, `trained`: of the last attempt; the others: of the run.

    `began`, `latest`: when the last attempt began and wrote last, seconds since the epoch. `before_s`: how long the
    earlier attempts took. `ends`: finished events of all attempts.
    """

    stage: Event = field(default_factory=lambda: {"stage": "starting"})
    finished: Event | None = None
    ends: int = 0
    begun: bool = False
    trained: bool = False
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    losses: Records = field(default_factory=Records)
    eval_losses: Records = field(default_factory=Records)
    began: float | None = None
    latest: float = 0.0
    before_s: float = 0.0

    def take(self, events: Iterable[Event]) -> None:
        """`events` as trainer.events reads them, in order."""
        for event in events:
            kind = event["event"]
            if event.get("stage") == "starting" and kind == "stage":
                self._start(event)
            self.begun, self.latest = True, event["time"]
            if kind == "stage":
                self.stage = event
                if event["stage"] == "training":
                    self._train(event)
            elif kind == "step" or kind == "progress":
                self.step, self.total_steps = event["step"], event["total_steps"]
                if kind == "step":
                    self.loss = event["loss"]
                    self.losses.take(self.step, self.loss)
            elif kind == "evaluated":
                self.eval_losses.take(event["step"], event["eval_loss"])
            elif kind == "finished":
                self.finished = event
                self.ends += 1

    def take_lines(self, lines: Sequence[bytes]) -> None:
        """Lines of events.jsonl, whatever they hold."""
        steps: list[bytes] = []
        for line in lines:
            if line.startswith((_STEP, _PROGRESS)):
                steps.append(line)
                continue
            self._take_steps(steps)
            steps.clear()
            self.take(_events([line]))
        self._take_steps(steps)

    def _take_steps(self, lines: list[bytes]) -> None:
        """Lines of steps that follow each other: only the last ones are read whole, of the others the losses."""
        logged = [line for line in lines if line.startswith(_STEP)]
        lowest = self.losses.lowest
        least = lowest[1] if lowest else math.inf
        try:
            for line in logged[:-1]:
                loss = float(_after(_LOSS, line))
                if loss < least:
                    least = loss
                    self.losses.take(int(_after(_STEP_NUMBER, line)), loss)
        except ValueError:  # a corrupt line, or a loss that is null
            self.take(_events(lines))
        else:
            self.take(_events([*logged[-1:], *lines[-1:]]))

    def _start(self, event: Event) -> None:
        self.before_s = self.seconds(self.latest)
        self.began, self.latest = event["time"], event["time"]
        self.finished, self.begun, self.trained = None, False, False

    def _train(self, event: Event) -> None:
        self.trained = True
        self.step, self.total_steps = event["step"], event["total_steps"]
        self.losses.back_to(self.step)
        self.eval_losses.back_to(self.step)

    def seconds(self, until: float) -> float:
        """How long it took until the time `until`, all attempts together; never less for a clock that was set back."""
        return self.before_s + (max(0.0, until - self.began) if self.began is not None else 0.0)

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and value of the lowest eval loss; of a run without validation, of the lowest logged loss."""
        return self.eval_losses.lowest or self.losses.lowest


def _events(lines: Iterable[bytes]) -> list[Event]:
    return [event for line in lines if (event := parsed(line)) is not None]


def _after(key: bytes, line: bytes) -> bytes:
    """The value behind `key` that is not the line's last. Raises ValueError when it is not there."""
    at = line.index(key) + len(key)
    return line[at : line.index(b",", at)]
