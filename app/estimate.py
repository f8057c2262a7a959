"""The estimate near Start: memory and time of the run that the form describes. Says nothing of a form with mistakes.

Token counts come from a process of its own; until it has ended the panel says that it is being estimated.
"""

import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app import form, runs
from app.arguments import PROJECT
from app.estimate_words import estimate_html, measured_html, pending_html
from app.fragments import problems_html
from app.processes import launch_of
from app.text import Text
from app.top_bar import QUIET
from trainer import counts
from trainer.counts import COUNTED, Counts
from trainer.dataset_files import find_source
from trainer.estimate import Hardware, check_cutoff, estimate
from trainer.model_folder import check_model_folder
from trainer.model_size import read_model_size
from trainer.prepare import check_model
from trainer.problems import Problem, Problems
from trainer.settings import TrainSettings

WAIT_S = 0.7  # after the last change, and between two looks whether the counts are there
TIMEOUT_S = 600
MOST_KEPT = 32
# Settings that change neither memory nor time.
WITHOUT = {"output_dir", "learning_rate", "lr_scheduler_type", "max_grad_norm", "logging_steps", "warmup_steps"}

Key = tuple[Any, ...]


class TokenCounter:
    """Counts in the background, one data set at a time, and remembers what it has counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Key, Counts | None] = {}
        self._counting = False

    def of(self, settings: TrainSettings) -> tuple[bool, Counts | None]:
        """Whether it is known, and the counts; None where the samples cannot be counted.

        Raises Problem or OSError when what is to be counted is not there.
        """
        key = _key(settings)
        with self._lock:
            if key in self._known:
                return True, self._known[key]
            if not self._counting:
                self._counting = True
                threading.Thread(target=self._count, args=(key, settings), daemon=True, name="token-counts").start()
        return False, None

    def _count(self, key: Key, settings: TrainSettings) -> None:
        found: Counts | None = None
        try:
            done = subprocess.run(counts.command(settings), cwd=PROJECT, capture_output=True, text=True,
                                  timeout=TIMEOUT_S, stdin=subprocess.DEVNULL, check=True)  # fmt: skip
            found = counts.read(done.stdout)
        except subprocess.SubprocessError:
            pass  # what is wrong with the model or the data is said by Start
        finally:
            with self._lock:
                self._counting = False
                self._known[key] = found
                if len(self._known) > MOST_KEPT:
                    self._known.pop(next(iter(self._known)))


def _key(settings: TrainSettings) -> Key:
    """Settings, and files as they are now, that decide the counts."""
    folder, data_dir = check_model_folder(settings.model_name_or_path), Path(settings.dataset_dir)
    files = [folder / name for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")]
    files += [file for name in settings.dataset for file in find_source(data_dir, name).files]
    states = [(str(file), (stat := file.stat()).st_mtime_ns, stat.st_size) for file in files if file.exists()]
    return tuple(str(getattr(settings, key)) for key in COUNTED), tuple(states)


class EstimatePanel:
    """`show` is the panel; `timer` runs while there is something to wait for."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._counter = TokenCounter()
        self.show = gr.HTML(elem_id="estimate", apply_default_css=False)
        self.timer = gr.Timer(WAIT_S, active=False)

    def wire(
        self, fields: dict[str, Any], processes: Sequence[Any], settings_of: Callable[[Sequence[Any]], TrainSettings]
    ) -> None:
        """`settings_of`: the validated settings of all form values, in the order of form.KEYS."""
        watched = [*(fields[key] for key in form.KEYS if key not in WITHOUT), *processes]
        # The answer to a change is only that the timer runs: whoever types is estimated when the timer ticks.
        gr.on([field.change for field in watched], lambda: gr.Timer(active=True), None, self.timer, **QUIET)
        inputs = [*(fields[key] for key in form.KEYS), *processes]
        self.timer.tick(lambda *values: self._tick(settings_of, values), inputs, [self.show, self.timer], **QUIET)

    def at_opening(self, runs_dir: Path) -> Any:
        """A page that opens estimates its form, unless what a run has measured stands there."""
        return gr.Timer(active=measured_html(runs.latest(runs_dir), self._text) is None)

    def _tick(self, settings_of: Callable[[Sequence[Any]], TrainSettings], values: Sequence[Any]) -> list[Any]:
        try:
            settings, launch = settings_of(values[: len(form.KEYS)]), launch_of(values[len(form.KEYS) :])
            known, found = self._counter.of(settings) if settings.dataset else (True, None)
            if not known:
                return [pending_html(self._text), gr.Timer(active=True)]
            words = self._estimated(settings, found, Hardware.of(launch)) if found else ""
        except (Problem, Problems, OSError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError):
            words = ""  # Start says what is wrong; the last three: a config.json with values that no model has
        return [words, gr.Timer(active=False)]

    def _estimated(self, settings: TrainSettings, found: Counts, machine: Hardware) -> str:
        check_model(settings)
        try:
            check_cutoff(settings, found)
        except Problem as problem:  # Start cannot know it
            return problems_html("", [problem.sentence(self._text.language)])
        size = read_model_size(check_model_folder(settings.model_name_or_path))
        result = estimate(settings, size, found, machine) if size else None
        return estimate_html(result, machine, self._text) if result else ""
