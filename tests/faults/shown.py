"""What a page shows of a runs folder, all of it, as text that can travel to a browser."""

import json
from pathlib import Path
from typing import Any

from app import models, monitor, run_list, runs, saved_settings
from app.charts import chart
from app.estimate_words import measured_html
from app.text import Text
from trainer import run_folder

TEXTS = (Text("zh"), Text("en"))


def of(runs_dir: Path) -> dict[str, Any]:
    """By run. Raises whatever would break the page."""
    found = {}
    for folder in runs.find(runs_dir):
        run = runs.read(folder)
        found[folder.name] = [
            run.status,
            chart(run.events),
            runs.log_tail(folder),
            [path.name for path in run_folder.checkpoints(folder)],
            *(monitor.status(run, text, now=0.0) for text in TEXTS),
            *(monitor.warnings(run, text) for text in TEXTS),
            *(monitor.metrics(run, text) for text in TEXTS),
            *(measured_html(run, text) for text in TEXTS),
        ]
    rows = {row.name: str(row.status) for row in run_list.RunList(runs_dir).rows()}
    assert rows == {name: values[0] for name, values in found.items()}, "the list and the monitor disagree"
    runs.latest(runs_dir)
    runs.alive(runs_dir)
    choices = models.Checkpoints(runs_dir).of("/model", TEXTS[0])
    json.dumps([found, choices, saved_settings.names(runs_dir)]).encode()
    return found
