"""Run folders as a trainer leaves them, and a small trainer that claims its folder as the real one does."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from app import runs
from trainer import run_folder
from trainer.launch import Launch
from trainer.settings import TrainSettings, parse
from trainer.settings_file import to_yaml

DEAD = {"pid": 2**22 + 1, "started": 1.0, "boot_id": run_folder.boot_id(), "host": os.uname().nodename}


def settings(folder: Path, **changed: Any) -> TrainSettings:
    return parse({"model_name_or_path": "/m/tiny", "dataset": ["a"], "output_dir": str(folder)} | changed)


def lines(*losses: float, total: int = 60, time: float = 1000.0) -> list[dict[str, Any]]:
    """The events of an attempt that logs `losses`, a second each."""
    return [
        {"event": "stage", "time": time, "stage": "starting"},
        {"event": "stage", "time": time, "stage": "training", "step": 0, "total_steps": total},
        *(
            {"event": "step", "time": time + step, "step": step, "total_steps": total, "epoch": 0.1, "loss": loss,
             "learning_rate": 5e-5, "grad_norm": 1.0, "tokens_per_second": 1e4, "memory_gib": 1.0}
            for step, loss in enumerate(losses, start=1)
        ),
    ]  # fmt: skip


def write_run(folder: Path, events: list[dict[str, Any]], **changed: Any) -> Path:
    """A run that has ended, with `events`; `changed`: settings."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / run_folder.CONFIG).write_text(to_yaml(settings(folder, **changed)))
    (folder / run_folder.IDENTITY).write_text(json.dumps(DEAD))
    (folder / run_folder.EVENTS).write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


# Notes that it was started, claims its folder as trainer.command.claim does, and trains until the file `end` is there.
SMALL_TRAINER = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from trainer import run_folder
from trainer.accelerators import chosen
from trainer.events import EventLog
folder = Path(sys.argv[1])
with open(folder.parent / "_begun", "a") as begun:
    begun.write(folder.name + "\\n")
held = run_folder.lock(folder)
if held is None:
    sys.exit(2)
run_folder.write_identity(folder, run_folder.Identity.of(os.getpid(), chosen(os.environ)))
log = EventLog(folder / run_folder.EVENTS)
log.stage("starting")
log.stage("training", step=0, total_steps=1)
deadline = time.monotonic() + 60
while not (folder / "end").exists() and time.monotonic() < deadline:
    time.sleep(0.02)
log.append("finished", outcome="completed", step=1)
"""


def small_command(
    settings: TrainSettings, launch: Launch = runs.ALL_DEVICES, node_rank: int | None = None
) -> list[str]:
    root = str(Path(__file__).resolve().parents[2])
    return [*launch.prefix(), sys.executable, "-c", SMALL_TRAINER, settings.output_dir, root]


def begun(runs_dir: Path) -> list[str]:
    """The names of the runs whose small trainers were started, in order."""
    path = runs_dir / "_begun"
    return path.read_text().splitlines() if path.exists() else []
