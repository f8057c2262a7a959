"""The trainer with torch's profiler around three optimizer steps.

    python -m tests.bench.profiled SUMMARY AFTER_STEP [the trainer's arguments]

The trainer knows nothing of it: every optimizer tells torch's own hook when it has stepped.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.profiler import ProfilerActivity, profile

from trainer.command import main

STEPS = 3
ROWS = 30


class Watch:
    """Profiles the steps `after` + 1 … `after` + STEPS and writes the summary to `target`."""

    def __init__(self, target: Path, after: int) -> None:
        self._target, self._after, self._count = target, after, 0
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities, record_shapes=False, acc_events=True)
        self._began = 0.0

    def __call__(self, *_: Any) -> None:
        self._count += 1
        if self._count not in (self._after, self._after + STEPS):
            return
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        if self._count == self._after:
            self._profile.start()
            self._began = time.perf_counter()
        else:
            wall = time.perf_counter() - self._began
            self._profile.stop()
            self._write(wall)

    def _write(self, wall: float) -> None:
        averages = self._profile.key_averages()
        device = sum(item.self_device_time_total for item in averages) / 1e6
        launches = sum(item.count for item in averages if "Launch" in item.key)
        syncs = {item.key: item.count for item in averages if "ynchronize" in item.key or item.key == "aten::item"}
        lines = [
            f"{STEPS} steps: {1000 * wall / STEPS:.1f} ms a step under the profiler, of which kernels"
            f" {1000 * device / STEPS:.1f} ms; {launches / STEPS:.0f} launches a step; waits {syncs}",
        ]
        for key in ("self_cuda_time_total", "self_cpu_time_total") if device else ("self_cpu_time_total",):
            lines.append(averages.table(sort_by=key, row_limit=ROWS, max_name_column_width=70))
        self._target.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    register_optimizer_step_post_hook(Watch(Path(sys.argv[1]), int(sys.argv[2])))
    sys.exit(main(sys.argv[3:]))
