"""What training on a processor takes in memory from its tenth step to its last, by compute type.

    python -m tests.bench.memory_cpu [steps] [compute types …]

The demo model on the longer bundled data, whose samples have many lengths. oneDNN, which multiplies 16-bit matrices
where the processor can (AVX512-BF16, AMX), keeps code for each shape that it meets; each compute type runs as it is,
and once more without the padding that makes these shapes few.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.workloads import DEMO_MODEL, ROOT
from trainer import run_folder
from trainer.events import read_events

UNPADDED = ("import sys; from trainer import passes; passes.PADDING_OF_16_BIT = 1; "
           "from trainer.command import main; sys.exit(main(sys.argv[1:]))")  # fmt: skip
MODES = {"as it is": ["-m", "trainer"], "unpadded": ["-c", UNPADDED]}


def growth(compute_type: str, mode: str, steps: int, output: Path) -> tuple[float, float, float]:
    """GiB at the tenth step and at the last, and the seconds between them."""
    settings = {
        "model_name_or_path": DEMO_MODEL,
        "dataset_dir": ROOT / "data",
        "dataset": "general-chat,identity",
        "literal_placeholders": "true",
        "output_dir": output,
        "compute_type": compute_type,
        "cutoff_len": 512,
        "max_steps": steps,
        "logging_steps": 10,
        "save_steps": steps,
        "plot_loss": "false",
    }
    flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    subprocess.run([sys.executable, *MODES[mode], *flags], cwd=ROOT, check=True, capture_output=True)
    events, _ = read_events(output / run_folder.EVENTS)
    found = [event for event in events if event["event"] == "step"]
    return found[0]["memory_gib"], found[-1]["memory_gib"], found[-1]["time"] - found[0]["time"]


def main(argv: list[str]) -> None:
    steps = int(argv[0]) if argv else 120
    for compute_type in argv[1:] or ("fp32", "bf16"):
        for mode in MODES:
            with tempfile.TemporaryDirectory() as work:
                first, last, seconds = growth(compute_type, mode, steps, Path(work) / "run")
            print(f"{compute_type:9} {mode:9} {first:.2f} GiB at step 10, {last - first:+.2f} GiB by step {steps}, "
                  f"{seconds:.1f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
