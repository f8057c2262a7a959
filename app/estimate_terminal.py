"""`tunedesk estimate`: what a run will take, printed; nothing is trained."""

import subprocess
import sys
from pathlib import Path

from app.arguments import PROJECT
from app.estimate_words import estimate_lines
from app.text import Text
from trainer import counts
from trainer.dataset_files import find_source
from trainer.estimate import Hardware, estimate
from trainer.model_folder import check_model_folder
from trainer.model_size import read_model_size
from trainer.problems import Language, Problem
from trainer.settings import TrainSettings, label


def print_estimate(settings: TrainSettings, language: Language) -> int:
    """0 when the run fits, 1 when it does not. Raises Problem when there is nothing to estimate."""
    folder = check_model_folder(settings.model_name_or_path)
    if not settings.dataset:
        raise Problem("dataset_missing", label=label("dataset"))
    for name in settings.dataset:
        find_source(Path(settings.dataset_dir), name)
    done = subprocess.run(counts.command(settings), cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return 2  # it has said why
    size, machine, text = read_model_size(folder), Hardware.here(), Text(language)
    found = estimate(settings, size, counts.read(done.stdout), machine) if size else None
    if found is None:
        print(text("estimate.unknown"), file=sys.stderr)
        return 2
    print("\n".join(estimate_lines(found, machine, text)))
    return 0 if found.fits else 1
