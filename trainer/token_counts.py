"""`python -m trainer.token_counts`: tokens and labels of a run's samples, as JSON, for an estimate.

A process of its own that ends in a few seconds: it imports transformers' tokenizers, but not torch.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

from trainer import records
from trainer.chat_template import IGNORED, ChatTemplate
from trainer.counts import Counts
from trainer.problems import Problem, Problems
from trainer.settings import TrainSettings, parse

# Samples that are tokenized at most: enough to know how long the others are.
MOST_SAMPLES = 2000
UNCUT = 2**30


def count(settings: TrainSettings) -> Counts:
    """Raises Problem as the trainer does for a dataset or template that cannot be used."""
    from transformers import AutoTokenizer

    folder = Path(settings.model_name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=settings.trust_remote_code
    )
    template = ChatTemplate.of(tokenizer, settings.template, str(folder))
    found = [
        record
        for name in settings.dataset
        for record in records.read_dataset(Path(settings.dataset_dir), name, settings.max_samples)
    ]
    drawn = random.Random(settings.seed).sample(found, min(MOST_SAMPLES, len(found)))
    samples = template.encode_all(
        [list(record.messages) for record in drawn],
        cutoff_len=UNCUT,
        train_on_prompt=settings.train_on_prompt,
        mask_history=settings.mask_history,
        rows=[record.row for record in drawn],
    )
    lengths = tuple(len(sample.input_ids) for sample in samples)
    labels = tuple(sum(label != IGNORED for label in sample.labels[1:]) for sample in samples)
    # A sample without any is never reached by a cutoff.
    firsts = tuple(next((at for at, label in enumerate(sample.labels) if at and label != IGNORED), UNCUT)
                   for sample in samples)  # fmt: skip
    return Counts(lengths, labels, len(found), firsts=firsts)


def processor_tflops() -> float:
    """What a matrix product of this processor reaches in fp32, measured in some milliseconds."""
    import numpy as np

    matrix = np.ones((768, 768), np.float32)
    times = []
    for _ in range(4):  # the first one starts the threads
        began = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - began)
    return 2 * len(matrix) ** 3 / min(times) / 1e12


def main(values: str) -> int:
    os.nice(10)  # nobody waits for it
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    sys.modules["torch"] = None  # type: ignore[assignment]  # transformers goes without: two seconds less
    try:
        counts = count(parse(json.loads(values)))
    except (Problem, Problems) as problem:
        print(problem, file=sys.stderr)
        return 2
    found = {"lengths": counts.lengths, "labels": counts.labels, "firsts": counts.firsts, "total": counts.total,
             "tflops": processor_tflops()}  # fmt: skip
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
