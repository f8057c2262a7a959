"""A run as the page shows it: status, progress, metrics. Pure functions of what the folder says."""

import time
from collections.abc import Mapping
from typing import Any

from app import fragments
from app.run_death import ago
from app.runs import Run
from app.text import Text
from trainer.problems import Problem, sentence
from trainer.validation import best, holding


def duration(seconds: float) -> str:
    """Seconds as 0:01:02."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def number(value: Any) -> str:
    """A loss or rate for people: four significant digits, NaN as it is."""
    return f"{value:.4g}" if isinstance(value, int | float) else "–"


def status(run: Run | None, text: Text, now: float | None = None) -> str:
    """The status box. `now`: seconds since the epoch."""
    if run is None:
        return fragments.status_html(text("status.none"), text("status.none.text"), None, "idle")
    if run.alive:
        words, fraction = _progress(run, text, time.time() if now is None else now)
        return fragments.status_html(stage_words(run.stage, text), words, fraction)
    if run.status == "elsewhere":
        words, fraction = _progress(run, text, run.heard)
        silent = ago((time.time() if now is None else now) - run.heard)[text.language]
        words = f"{words} · {text('status.elsewhere.text', host=run.host, ago=silent)}"
        heading = text("runs.elsewhere", stage=stage_words(run.stage, text), host=run.host)
        return fragments.status_html(heading, words, fraction)
    outcome = run.status if run.status in ("completed", "stopped") else "failed"
    return fragments.status_html(text(f"status.{run.status}"), _ending(run, text), _fraction(run), outcome)


def stage_words(event: Mapping[str, Any], text: Text) -> str:
    """The name of a stage's event; a stage that a newer trainer may report is shown as it is."""
    stage = str(event["stage"])
    words = text.group("stage").get(stage)
    return words.format(**event) if words else stage


def _latest_step(run: Run) -> Mapping[str, Any] | None:
    return next((event for event in reversed(run.events) if event["event"] in ("step", "progress")), None)


def _fraction(run: Run) -> float | None:
    if run.status == "completed":  # before the last step too, when it was stopped early
        return 1.0
    step = _latest_step(run)
    return step["step"] / max(1, step["total_steps"]) if step else None


def _progress(run: Run, text: Text, now: float) -> tuple[str, float | None]:
    """The progress line and the done share; None while nothing can be said yet."""
    began = next((event for event in reversed(run.events) if event.get("stage") == "starting"), None)
    training = _training_began(run)
    if training is None:
        elapsed = duration(now - began["time"]) if began else duration(0)
        return text("progress.start", run=run.name, elapsed=elapsed), None
    latest = _latest_step(run)
    step = max(latest["step"] if latest else 0, training["step"])
    done, total = step - training["step"], training["total_steps"]
    elapsed = (latest["time"] if latest and done else now) - training["time"]
    remaining = duration(elapsed / done * (total - step)) if done else "?"
    words = text("progress", step=step, total=total, elapsed=duration(now - training["time"]), remaining=remaining)
    return words, step / max(1, total)


def _training_began(run: Run) -> Mapping[str, Any] | None:
    """The first training stage after the last start."""
    found = None
    for event in reversed(run.events):
        if event.get("stage") == "training":
            found = event
        if event.get("stage") == "starting":
            break
    return found


def _ending(run: Run, text: Text) -> str:
    finished = run.last("finished") or {}
    if run.status == "completed":
        return _completed(run, finished, text)
    if run.status == "stopped":
        if not finished.get("step"):
            return text("stopped.early", run=run.name)
        key = "stopped.resumable" if run.resumable else "stopped"
        return text(key, step=finished["step"], run=run.name)
    return f"{run.name}: {why(run, text)}" if text.language == "en" else f"{run.name}：{why(run, text)}"


def _completed(run: Run, finished: Mapping[str, Any], text: Text) -> str:
    """How it ended, what came out of it, and where that is."""
    parts = [text("completed.loss", loss=number(finished.get("loss")))]
    if finished.get("code") == "stopped_early":
        early = text("completed.early", step=finished.get("step"), count=finished.get("evaluations"))
        parts.insert(0, early)
    if lowest := best(holding(run.events)[1]):
        parts.append(text("completed.best", loss=number(lowest["eval_loss"]), step=lowest["step"]))
    parts.append(text("completed.seconds", seconds=duration(finished.get("seconds") or 0)))
    result = finished.get("result_step")
    key = "completed.path" if result in (None, finished.get("step")) else "completed.path_best"
    parts.append(text(key, path=run.folder, step=result))
    return " · ".join(parts)


def why(run: Run, text: Text) -> str:
    """The sentence that says why a run failed or died."""
    if isinstance(run.problem, Problem):
        return run.problem.sentence(text.language)
    return sentence(*run.problem, text.language) if run.problem else ""


def metrics(run: Run | None, text: Text) -> str:
    """The last logged figures."""
    step = run.last("step") if run else None
    if run is None or step is None:
        return ""
    pairs = [(text("metric.loss"), number(step.get("loss")))]
    evaluated = holding(run.events)[1]
    if evaluated:
        pairs.append((text("metric.eval_loss"), number(evaluated[-1]["eval_loss"])))
    if lowest := best(evaluated):
        words = text("metric.at_step", value=number(lowest["eval_loss"]), step=lowest["step"])
        pairs.append((text("metric.best_eval_loss"), words))
    pairs += [
        (text("metric.learning_rate"), number(step.get("learning_rate"))),
        (text("metric.grad_norm"), number(step.get("grad_norm"))),
        (text("metric.epoch"), number(step.get("epoch"))),
        (text("metric.tokens_per_second"), f"{step.get('tokens_per_second', 0):,.0f}"),
        (text("metric.memory_gib"), f"{step.get('memory_gib', 0):.2f} GiB"),
    ]
    return fragments.metrics_html(pairs)


def warnings(run: Run | None, text: Text) -> str:
    """What the trainer warned of in its last attempt."""
    if run is None:
        return ""
    found = {
        sentence(event["code"], event, text.language): None
        for event in run.events
        if event["event"] == "warning" and "code" in event
    }
    return "".join(fragments.notice_html(words) for words in found)
