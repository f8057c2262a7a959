"""Training on one, two, four devices, started by the very command that the page previews and executes.

    python -m tests.bench.scaling [--devices 1 2 4] [--cases alpaca] [--output results.json]

A random model of Qwen2.5-7B's shape (`--tiny`: a rehearsal); each device trains as many samples a step as one does alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from app import runs
from tests.bench import training_gpu, workloads
from tests.bench.training_gpu import CASES, TINY, Case
from tests.bench.workloads import ROOT, Lengths, Shape
from trainer.events import read_events
from trainer.launch import Launch
from trainer.settings import parse


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench.scaling", description=__doc__)
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 2, 4], help="how many the page's choice takes")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=["alpaca"])
    parser.add_argument("--steps", type=int, help="another number of optimizer steps")
    parser.add_argument("--output", type=Path, help="where the results go as JSON")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tunedesk-bench",
                        help="model and runs; a model that is there is used again")  # fmt: skip
    parser.add_argument("--tiny", action="store_true", help="hidden size 64, 2 layers: a rehearsal")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    lengths = workloads.read_workloads(workloads.WORKLOADS)
    device = training_gpu.prepare(options.work, TINY if options.tiny else Shape(), lengths)
    results = []
    for name in options.cases:
        for count in options.devices:
            results.append({"case": name, "devices": count, **run(name, lengths[CASES[name].workload], count, options)})
            print(json.dumps(results[-1]), flush=True)
    if options.output:
        options.output.write_text(json.dumps({"device": device, "results": results}, indent=1))
    print(table(results, device))
    return 0 if all(result["outcome"] == "completed" for result in results) else 1


def run(name: str, lengths: Lengths, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run's figures, and its command."""
    case = CASES[name]
    output, steps = training_gpu.fresh_run(options, f"{name}-{count}"), options.steps or case.steps
    output.parent.mkdir(exist_ok=True)
    command = previewed(case, options.work, output, steps, count)
    log = output.parent / f"{output.name}.log"
    began = time.time()
    with log.open("wb") as file:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPYCACHEPREFIX": str(options.work / "bytecode"),
                       "PYTHONDONTWRITEBYTECODE": ""}  # fmt: skip
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
    events, _ = read_events(output / "events.jsonl")
    if code or not events:
        print(f"--- {output.name}: exit code {code}\n{log.read_text()[-4000:]}", flush=True)
    return training_gpu.figures(events, lengths, case, count, began) | {"command": " ".join(command), "exit": code}


def previewed(case: Case, work: Path, output: Path, steps: int, count: int) -> list[str]:
    """What the page shows and runs for `count` chosen devices."""
    given = {"model_name_or_path": str(work / "model"), "dataset_dir": str(work / "data"), "dataset": case.workload,
             "output_dir": str(output), "max_steps": steps, "logging_steps": 1, "plot_loss": False,
             **case.settings}  # fmt: skip
    return runs.command(parse(given), Launch(devices=tuple(map(str, range(count)))))


def table(results: list[dict[str, Any]], device: str) -> str:
    lines = [f"{device}, {time.strftime('%Y-%m-%d')}",
             "| case | devices | samples/s | of one device | start to first step | peak GiB a device |",
             "|" + " --- |" * 6]  # fmt: skip
    for result in results:
        one = next(other for other in results if other["case"] == result["case"]).get("samples_per_second")
        speed = result.get("samples_per_second")
        ratio = f"{speed / one:.2f}" if speed and one else "–"
        cells = [result["case"], result["devices"], speed or "–", ratio, f"{result.get('start_to_first_step_s', '–')} s",
                 result.get("peak_memory_gib", "–")]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
