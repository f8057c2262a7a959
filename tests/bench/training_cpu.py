"""Our trainer against plain transformers.Trainer on two cores, the same optimizer steps in turn: `make bench-training`.

    python -m tests.bench.training_cpu [repeats]

The demo model, LoRA rank 8 on every linear layer, batch 2 × accumulation 8, samples as long as the tutorial's.
Both are processes that take a step, then wait while the other takes one, so that what else the machine does
burdens both alike; which of them goes first changes with every step. Each epoch after the first is a repeat with
a ratio of its own. Prints the median repeat, each step's fastest repetition (what an idle machine would give),
and how far the ratios spread. Both ratios must be what is required: other programs slow threads that wait for
each other, which transformers.Trainer's do, so that on a busy machine the first is too good.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench import workloads
from tests.bench.workloads import DEMO_MODEL, ROOT, Lengths
from trainer.events import EventLog, read_events
from trainer.settings import TrainSettings, parse

WORKLOAD = "tutorial"
REQUIRED = 2.0
CORES = 2


def settings(work: Path, name: str, steps: int) -> dict[str, str]:
    return {
        "model_name_or_path": str(DEMO_MODEL),
        "dataset_dir": str(work / "data"),
        "dataset": WORKLOAD,
        "output_dir": str(work / name),
        "compute_type": "fp32",
        "learning_rate": "1e-3",
        "max_steps": str(steps),
        "logging_steps": "1",
        "plot_loss": "false",
    }


def wait_for_turn(*_: Any) -> None:
    """After each optimizer step: tells the parent, and waits until it is this process's turn again."""
    print("stepped", flush=True)
    sys.stdin.readline()


def run(which: str, work: Path, steps: int) -> None:
    """One of the two, in a process of its own."""
    if which == "ours":
        from trainer import command

        command._share_the_cores()  # what the command sets before torch is loaded, which the hook needs
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(wait_for_turn)
    if which == "ours":
        assert command.main([f"{key}={value}" for key, value in settings(work, which, steps).items()]) == 0
    else:
        train_plainly(work, parse(settings(work, which, steps)))


def train_plainly(work: Path, asked: TrainSettings) -> None:
    """transformers.Trainer and peft with the settings of ours; its steps are written as our events are."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests import plain_trainer
    from trainer.chat_template import ChatTemplate
    from trainer.data import load_samples

    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    log = EventLog(work / "plain.jsonl")
    samples = load_samples(asked, ChatTemplate.of(tokenizer), log).train
    config = LoraConfig(r=asked.lora_rank, lora_alpha=asked.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(DEMO_MODEL, dtype="float32"), config)
    same = ("per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "weight_decay", "max_steps",
            "lr_scheduler_type", "max_grad_norm", "seed")  # fmt: skip
    arguments = {name: getattr(asked, name) for name in same}
    for number, step in enumerate(plain_trainer.train(model, tokenizer, samples, work / "plain", **arguments), 1):
        log.append("step", step=number, total_steps=asked.max_steps, loss=step.loss)


def start(which: str, work: Path, steps: int) -> "subprocess.Popen[str]":
    """The process; it has taken no step yet and goes on by itself to the end of its first."""
    argv = [sys.executable, "-m", "tests.bench.training_cpu", which, str(work), str(steps)]
    log = (work / f"{which}.log").open("w")
    return subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)


def take_turns(work: Path, steps: int) -> dict[str, list[float]]:
    """Seconds of each step after the first, of both."""
    names = ("ours", "plain")
    processes: dict[str, subprocess.Popen[str]] = {}
    for name in names:  # one after the other: starting takes all cores
        processes[name] = start(name, work, steps)
        _stepped(processes[name], name, work)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(steps - 1):
        for name in names[:: 1 if number % 2 else -1]:
            began = time.perf_counter()
            _go(processes[name])
            _stepped(processes[name], name, work)
            found[name].append(time.perf_counter() - began)
    for name in names:
        _go(processes[name])
        assert processes[name].wait(120) == 0, (work / f"{name}.log").read_text()[-2000:]
    return found


def _go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _stepped(process: "subprocess.Popen[str]", name: str, work: Path) -> None:
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "stepped\n":
        assert line, (work / f"{name}.log").read_text()[-2000:]


def losses(path: Path) -> list[float]:
    events, _ = read_events(path)
    return [event["loss"] for event in events if event["event"] == "step"]


def report(seconds: dict[str, list[float]], lengths: Lengths, step_size: int) -> float:
    """Prints the table; the lower of the two ratios."""
    per_epoch = -(-len(lengths) // step_size)
    whole = {name: times[per_epoch - 1 :] for name, times in seconds.items()}  # the first epoch warms up
    repeats = {
        name: [len(lengths) / sum(times[start : start + per_epoch]) for start in range(0, len(times), per_epoch)]
        for name, times in whole.items()
    }
    fastest = {
        name: len(lengths) / sum(min(times[position::per_epoch]) for position in range(per_epoch))
        for name, times in whole.items()
    }
    ratios = [ours / plain for ours, plain in zip(repeats["ours"], repeats["plain"], strict=True)]
    median = {name: statistics.median(rates) for name, rates in repeats.items()}
    rows = [
        ("median repeat", median, statistics.median(ratios)),
        ("each step's fastest repetition", fastest, fastest["ours"] / fastest["plain"]),
    ]
    print(f"{time.strftime('%Y-%m-%d')}, {cores()} cores, load {os.getloadavg()[0]:.1f}, {len(ratios)} repeats")
    print("| samples/s | ours | transformers.Trainer | ratio | required |\n| --- | --- | --- | --- | --- |")
    for what, found, ratio in rows:
        print(f"| {what} | {found['ours']:.1f} | {found['plain']:.1f} | {ratio:.2f} | {REQUIRED} |")
    print(f"ratios of the repeats: {' '.join(f'{ratio:.2f}' for ratio in sorted(ratios))}")
    return min(ratio for _, _, ratio in rows)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_to_two_cores() -> None:
    """This process and those that it starts; torch then has as many threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-CORES:])


def main(repeats: int) -> int:
    keep_to_two_cores()
    lengths = workloads.read_workloads(workloads.WORKLOADS)[WORKLOAD]
    step_size = TrainSettings().per_device_train_batch_size * TrainSettings().gradient_accumulation_steps
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        workloads.write_datasets(work / "data", {WORKLOAD: lengths})
        seconds = take_turns(work, (1 + repeats) * -(-len(lengths) // step_size))
        mine, theirs = losses(work / "ours" / "events.jsonl"), losses(work / "plain.jsonl")
    # A new adapter adds nothing yet, whatever its random numbers: the first losses must be equal.
    assert abs(mine[0] / theirs[0] - 1) < 1e-4, f"these are not the same steps: {mine[0]}, {theirs[0]}"
    ratio = report(seconds, lengths, step_size)
    print(f"loss {mine[0]:.4f} → {mine[-1]:.4f}, transformers.Trainer {theirs[0]:.4f} → {theirs[-1]:.4f}")
    return 0 if ratio >= REQUIRED else 1


if __name__ == "__main__":
    if sys.argv[1:2] in (["ours"], ["plain"]):
        run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 7))
