"""training_loss.png: the run's losses as one picture, drawn by matplotlib without pyplot."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainer.events import read_events
from trainer.validation import best, holding


def plot_loss(events_path: Path, picture: Path) -> None:
    """Training and validation loss by step, the lowest marked. A resumed run's later values replace the earlier."""
    logged, evaluated = holding(read_events(events_path)[0])
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(*_points(logged, "loss"), label="train loss", color="#0f766e", marker="o" if len(logged) == 1 else "")
    if evaluated:
        axes.plot(*_points(evaluated, "eval_loss"), "o-", label="eval loss", color="#c2410c")
    if lowest := best(evaluated):
        words = f"best: {lowest['eval_loss']:.4g} at step {lowest['step']}"
        axes.plot(*_points([lowest], "eval_loss"), "*", label=words, color="#c2410c", markersize=15, zorder=3)
    if evaluated:
        axes.legend()
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)


def _points(events: list[dict[str, float]], key: str) -> tuple[list[float], list[float]]:
    return [event["step"] for event in events], [event[key] for event in events]
