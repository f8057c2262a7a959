"""A program for torchrun: trains one settings file after another in the same processes, which start but once."""

import os
import sys
import threading
from pathlib import Path

from torch import distributed

from trainer import run_folder
from trainer.events import EventLog, FollowerLog
from trainer.settings import parse
from trainer.settings_file import read_yaml


def main(files: list[str]) -> int:
    from trainer import train
    from trainer.distributed import Ranks

    ranks = Ranks.join(timeout_s=600)
    for file in files:
        settings = parse(read_yaml(Path(file)))
        folder = Path(settings.output_dir)
        folder.mkdir(exist_ok=True)
        log = EventLog if ranks.leads else FollowerLog
        train.train(settings, log(folder / run_folder.EVENTS), threading.Event(), ranks)
        distributed.barrier()
    distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    assert "RANK" in os.environ
    sys.exit(main(sys.argv[1:]))
