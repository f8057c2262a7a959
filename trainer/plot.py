"""training_loss.png: the run's losses as one picture, drawn by matplotlib without pyplot."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainer.events import read_events


def plot_loss(events_path: Path, picture: Path) -> None:
    """Training and validation loss by step. A resumed run's later values replace the earlier ones."""
    events, _ = read_events(events_path)
    train = {event["step"]: event["loss"] for event in events if event["event"] == "step"}
    validation = {event["step"]: event["eval_loss"] for event in events if event["event"] == "evaluated"}
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(sorted(train), [train[step] for step in sorted(train)], label="train", color="#0f766e")
    if validation:
        steps = sorted(validation)
        axes.plot(steps, [validation[step] for step in steps], "o-", label="eval", color="#d97706")
        axes.legend()
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)
