"""`tunedesk estimate`: what a run will take, printed; nothing is trained."""

import os
import subprocess
import sys

from app.arguments import PROJECT
from app.estimate_words import estimate_lines
from app.text import Text
from trainer import counts
from trainer.estimate import Hardware, check_cutoff, estimate
from trainer.launch import Launch
from trainer.model_folder import check_model_folder
from trainer.model_size import read_model_size
from trainer.prepare import check
from trainer.problems import Language
from trainer.settings import TrainSettings


def print_estimate(settings: TrainSettings, language: Language) -> int:
    """0 when the run fits, 1 when it does not. Raises Problem or Problems as a run of `settings` would."""
    check(settings, output=False)
    done = subprocess.run(counts.command(settings), cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return 2  # it has said why
    found, text = counts.read(done.stdout), Text(language)
    check_cutoff(settings, found)
    size, machine = read_model_size(check_model_folder(settings.model_name_or_path)), Hardware.of(Launch.of(os.environ))
    result = estimate(settings, size, found, machine) if size else None
    if result is None:
        print(text("estimate.unknown"), file=sys.stderr)
        return 2
    print("\n".join(estimate_lines(result, machine, text)))
    return 0 if result.fits else 1
