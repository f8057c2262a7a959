"""Training on an accelerator, a random model of Qwen2.5-7B's shape: samples a second, time to the first step, memory.

    python -m tests.bench.training_gpu [--cases tutorial alpaca alpaca-64x1] [--output results.json]
    python -m tests.bench.training_gpu --cases tutorial --profile profile.txt
    python -m tests.bench.training_gpu --tiny --steps 8          (a rehearsal on any machine)

Each case is a process of our own trainer with its default settings but for what CASES names.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import workloads
from tests.bench.workloads import ROOT, Lengths, Shape
from trainer.events import Event, read_events

WARM_STEPS = 5
# What one H200 does in bf16 matrix products, and operations a weight a token where most weights are frozen.
FLOPS, OPERATIONS = 0.79e15, 4
TINY = Shape(64, 2, 4, 2, 128, 8192, 2048)


@dataclass(frozen=True)
class Case:
    """`steps`: optimizer steps on one device. `required`: samples a second on one H200, 0 where it must only finish."""

    workload: str
    settings: dict[str, str]
    steps: int
    required: float = 0.0


CASES = {
    "tutorial": Case("tutorial", {}, 60, 120.0),
    "alpaca": Case("alpaca", {}, 60, 50.0),
    "alpaca-64x1": Case("alpaca", {"per_device_train_batch_size": "64", "gradient_accumulation_steps": "1"}, 15),
    # Weights, gradients and AdamW's moments of 7B in fp32 need two H200s.
    # A checkpoint with the moments would take 120 GB of disk.
    "full": Case("alpaca", {"finetuning_type": "full", "learning_rate": "1e-5", "save_only_model": "true"}, 10),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench.training_gpu", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=["tutorial", "alpaca", "alpaca-64x1"])
    parser.add_argument("--workloads", type=Path, default=workloads.WORKLOADS, help="token lengths (JSON)")
    parser.add_argument("--output", type=Path, help="where the results go as JSON")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tunedesk-bench",
                        help="model and runs; a model that is there is used again")  # fmt: skip
    parser.add_argument("--layers", type=int, help="another number of layers")
    parser.add_argument("--tiny", action="store_true", help="hidden size 64, 2 layers: a rehearsal")
    parser.add_argument("--steps", type=int, help="another number of optimizer steps")
    parser.add_argument("--devices", type=int, default=1, help="how many accelerators the trainer sees")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each case; each is reported")
    parser.add_argument("--profile", type=Path, help="also profile 3 steps of each case, into PROFILE.CASE.txt")
    parser.add_argument("--extra", nargs="*", default=[], metavar="KEY=VALUE", help="more settings for the trainer")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    shape = TINY if options.tiny else Shape()
    if options.layers:
        shape = Shape(**{**vars(shape), "num_hidden_layers": options.layers})
    lengths = workloads.read_workloads(options.workloads)
    device = prepare(options.work, shape, lengths)
    subprocess.run([sys.executable, "-c", "import trainer.train"], cwd=ROOT, env=environment(options), check=True)
    results = []
    for name in options.cases:
        for number in range(options.repeat):
            found = run_case(CASES[name], lengths, options, f"{name}-{number}")
            results.append({"case": name, "bound": bound(CASES[name], lengths, shape, options.devices), **found})
            print(json.dumps(results[-1]), flush=True)
        if options.profile:
            profile_case(CASES[name], options, name)
    report = {"device": device, "devices": options.devices, "shape": vars(shape), "extra": options.extra,
              "date": time.strftime("%Y-%m-%d"), "results": results}  # fmt: skip
    if options.output:
        options.output.write_text(json.dumps(report, indent=1))
    print(table(results, device, options))
    return 0 if all(result["outcome"] == "completed" for result in results) else 1


def prepare(work: Path, shape: Shape, lengths: dict[str, Lengths]) -> str:
    """Makes model and datasets in a process of its own, so that this one holds no device; the device's name."""
    began = time.monotonic()
    workloads.write_datasets(work / "data", lengths)
    made = time.monotonic()
    program = (
        "import sys, json, torch\n"
        "from pathlib import Path\n"
        "from tests.bench.workloads import Shape, write_model\n"
        "from trainer.device import current\n"
        "device = current()\n"
        "write_model(Path(sys.argv[1]), Shape(**json.loads(sys.argv[2])), device.type)\n"
        "print(device.name, '· torch', torch.__version__)\n"
    )
    argv = [sys.executable, "-c", program, str(work / "model"), json.dumps(vars(shape))]
    name = subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    print(f"{name}: datasets in {made - began:.1f} s, model in {time.monotonic() - made:.1f} s", flush=True)
    return name.splitlines()[-1]


def trainer_arguments(case: Case, options: argparse.Namespace, run: Path, steps: int) -> list[str]:
    settings = {
        "model_name_or_path": options.work / "model",
        "dataset_dir": options.work / "data",
        "dataset": case.workload,
        "output_dir": run,
        "max_steps": steps,
        "logging_steps": 1,  # the first step's moment and each step's loss are in the events then
        "plot_loss": "false",
        **case.settings,
    }
    return [*(f"{key}={value}" for key, value in settings.items()), *options.extra]


def environment(options: argparse.Namespace) -> dict[str, str]:
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(options.devices)))}
    # An image whose libraries have no bytecode spends 5 s of each start on compiling them; pip leaves it installed.
    bytecode = {"PYTHONPYCACHEPREFIX": str(options.work / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
    return {**visible, **os.environ, **bytecode, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def fresh_run(options: argparse.Namespace, name: str) -> Path:
    number = sum(1 for _ in (options.work / "runs").glob("*")) if (options.work / "runs").exists() else 0
    return Path(options.work / "runs" / f"{number:03}-{name}")


def run_case(case: Case, lengths: dict[str, Lengths], options: argparse.Namespace, name: str) -> dict[str, Any]:
    run, steps = fresh_run(options, name), options.steps or case.steps
    run.parent.mkdir(exist_ok=True)
    log = run.parent / f"{run.name}.log"
    began = time.time()
    with log.open("wb") as file:
        argv = [sys.executable, "-m", "trainer", *trainer_arguments(case, options, run, steps)]
        code = subprocess.run(
            argv, cwd=ROOT, env=environment(options), stdout=file, stderr=subprocess.STDOUT
        ).returncode
    wall = time.time() - began
    events, _ = read_events(run / "events.jsonl")
    if code or not events:
        print(f"--- {name}: exit code {code}\n{log.read_text()[-4000:]}", flush=True)
    return figures(events, lengths[case.workload], case, options.devices, began) | {
        "wall_s": round(wall, 1),
        "exit": code,
    }


def figures(events: list[Event], lengths: Lengths, case: Case, devices: int, began: float) -> dict[str, Any]:
    """What the issue's table asks for, from a run's events. `began`: when the process was started."""
    batch = int(case.settings.get("per_device_train_batch_size", 2))
    accumulation = int(case.settings.get("gradient_accumulation_steps", 8))
    step_size = batch * accumulation * devices
    steps = {event["step"]: event for event in events if event["event"] == "step"}
    stages = {event["stage"]: event["time"] - began for event in reversed(events) if event["event"] == "stage"}
    losses = [steps[number]["loss"] for number in sorted(steps)]
    found: dict[str, Any] = {
        "outcome": next((event["outcome"] for event in events if event["event"] == "finished"), "none"),
        "stages_s": {name: round(seconds, 2) for name, seconds in sorted(stages.items(), key=lambda item: item[1])},
        "warnings": [event for event in events if event["event"] == "warning"],
        "other_events": [event for event in events if event["event"] not in KNOWN_EVENTS],
        "steps": len(steps),
    }
    if not steps:
        return found
    last, first = max(steps), min(steps)
    found["start_to_first_step_s"] = round(steps[first]["time"] - began, 2)
    found["peak_memory_gib"] = max(event["memory_gib"] for event in steps.values())
    if estimate := next((event for event in events if event["event"] == "estimate"), None):
        found["estimated_gib"], found["estimated_s"] = estimate["memory_gib"], estimate["seconds"]
        found["estimate_over_measured"] = round(estimate["memory_gib"] / found["peak_memory_gib"], 3)
    found["loss"] = [round(losses[0], 4), round(losses[-1], 4)]
    if last > WARM_STEPS:
        seconds = steps[last]["time"] - steps[WARM_STEPS]["time"]
        samples = samples_of(WARM_STEPS, last, len(lengths), step_size)
        found["samples_per_second"] = round(samples / seconds, 2)
        found["ms_per_step"] = round(1000 * seconds / (last - WARM_STEPS), 1)
        whole = steps[last]["time"] - began - stages["training"]
        found["samples_per_second_whole_training"] = round(samples_of(0, last, len(lengths), step_size) / whole, 2)
        half = steps[(last + WARM_STEPS) // 2]
        late = samples_of(half["step"], last, len(lengths), step_size) / (steps[last]["time"] - half["time"])
        found["samples_per_second_second_half"] = round(late, 2)
    return found


KNOWN_EVENTS = ("estimate", "stage", "step", "progress", "saved", "warning", "finished")


def samples_of(after: int, last: int, count: int, step_size: int) -> int:
    """Samples in the steps after step `after` up to and with step `last`; an epoch's last step may be short."""
    per_epoch = -(-count // step_size)
    return sum(min(step_size, count - (step % per_epoch) * step_size) for step in range(after, last))


def bound(case: Case, lengths: dict[str, Lengths], shape: Shape, devices: int) -> float:
    """Samples a second if nothing but the arithmetic took time."""
    operations = 6 if case.settings.get("finetuning_type") == "full" else OPERATIONS
    tokens = sum(map(sum, lengths[case.workload])) / len(lengths[case.workload])
    return round(devices * FLOPS / (operations * shape.parameters * tokens), 1)


def table(results: list[dict[str, Any]], device: str, options: argparse.Namespace) -> str:
    lines = [
        f"{device} × {options.devices}, {time.strftime('%Y-%m-%d')}",
        "| case | samples/s | required | bound | whole training | ms a step | start to first step | peak GiB | estimated (±15%) | loss | outcome |",
        "|" + " --- |" * 11,
    ]
    for result in results:
        required = CASES[result["case"]].required
        cells = [
            result["case"],
            result.get("samples_per_second", "–"),
            f"≥ {required:g}" if required else "completes",
            result["bound"],
            result.get("samples_per_second_whole_training", "–"),
            result.get("ms_per_step", "–"),
            f"{result.get('start_to_first_step_s', '–')} s (≤ 10)",
            result.get("peak_memory_gib", "–"),
            f"{result.get('estimated_gib', '–')} ({result.get('estimate_over_measured', '–')})",
            " → ".join(map(str, result.get("loss", []))),
            result["outcome"],
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def profile_case(case: Case, options: argparse.Namespace, name: str) -> None:
    """Three steps under torch's profiler, in a process of its own that calls the trainer's entry point."""
    target = options.profile.with_name(f"{options.profile.stem}.{name}{options.profile.suffix or '.txt'}")
    run = fresh_run(options, f"{name}-profile")
    after = max(1, min(20, (options.steps or case.steps) - 4))
    argv = [sys.executable, "-m", "tests.bench.profiled", str(target.absolute()), str(after),
            *trainer_arguments(case, options, run, after + 4)]  # fmt: skip
    subprocess.run(argv, cwd=ROOT, env=environment(options), check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)  # fmt: skip
    print(f"{target}: {target.read_text().splitlines()[0]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
