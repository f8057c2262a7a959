"""Peak device memory and time of a run, before it starts: from the model's sizes and the samples' token counts.

Light: no torch. It follows what trainer/passes.py does with a step: as few passes as the token budget allows.
"""

import math
import platform
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import psutil

from trainer.accelerators import accelerators
from trainer.budget import TOKEN_BUDGET
from trainer.counts import Counts
from trainer.declared import ComputeType
from trainer.launch import Launch
from trainer.memory import Footprint, is_sharded
from trainer.model_size import ModelSize
from trainer.problems import Problem
from trainer.quantization import quantization_missing
from trainer.settings import TrainSettings, label

GIB = 2**30
# Of the device's memory, beside what torch allocates: the driver's context, kernels, fragments.
RESERVED_GIB = {"cpu": 0.5, "other": 1.5}
# Python and the libraries; on a processor the measured memory is the process's, on others what torch has allocated.
PROGRAM_GIB = {"cpu": 0.55, "other": 0.03}
# Dense 16-bit operations a second by the makers' sheets, in TFLOP/s; a name is looked for in this order.
TFLOPS = {"B200": 2250, "H200": 800, "H100": 800, "H800": 800, "H20": 148, "A100": 312, "A800": 312, "L40": 181,
          "L20": 119, "L4": 121, "4090": 165, "3090": 71, "A10": 125, "T4": 65, "910B": 320, "910": 320}  # fmt: skip
UNKNOWN_TFLOPS, PROCESSOR_TFLOPS = 100, 0.1
EFFICIENCY = {"cpu": 0.6, "other": 0.55}
# Launches and Python of one layer, forward and backward: below this a pass does not get faster.
LAYER_S = {"cpu": 1.5e-3, "other": 3.0e-3}
START_S = {"cpu": 4.0, "other": 6.0}
LOAD_GIB_PER_S = 2.0
# Steps that are drawn to find the largest one and the usual one.
MOST_DRAWN = 100_000
SHARE_OF_FREE_MEMORY = 0.85
FEWEST_TOKENS = 1024
CUTOFFS = (65536, 32768, 16384, 8192, 4096, 2048, 1024, 512, 256, 128)


@dataclass(frozen=True)
class Hardware:
    """What a run has. `kind`: cuda, npu or cpu. `memory_gib`: free on each of its `count` devices, which is what the
    fullest of them has left; `total_gib`: all that this one has, None: the same. `quantizes`: whether quantized models
    run here.
    """

    kind: str
    name: str
    memory_gib: float
    count: int = 1
    quantizes: bool = False
    total_gib: float | None = None

    @property
    def whole_gib(self) -> float:
        return self.memory_gib if self.total_gib is None else self.total_gib

    @classmethod
    def of(cls, launch: Launch) -> "Hardware":
        """What a run started with `launch` takes of this machine, as the vendors' tools say now; other machines are
        taken to be like it.
        """
        wanted, processes = launch.devices, launch.processes
        found = [one for one in accelerators() if one.index in wanted or not wanted][:processes]
        count = (processes or len(found) or 1) * launch.nodes
        host = psutil.virtual_memory()
        if not found:
            name = platform.processor() or platform.machine()
            return cls("cpu", name, host.available / GIB, count, quantization_missing() is None, host.total / GIB)
        quantizes = quantization_missing() is None
        # Of one that is too ill to tell nothing is known; where none tells, they share the host's memory.
        least = min([one for one in found if one.total_gib] or found, key=lambda one: one.free_gib)
        free, total = least.free_gib, least.total_gib
        if not total:
            free, total = host.available / GIB, host.total / GIB
        return cls(least.kind, least.name, free, count, quantizes, total)


@dataclass(frozen=True)
class Estimate:
    """GiB of one device, by part, at the moment when most is held; seconds of the whole run. `device_gib`: what is
    free on the device.

    `advice`: changes of settings, each of which lets a run fit that does not. `sampled`: how many samples were
    counted, when not all were.
    """

    parts: dict[str, float]
    device_gib: float
    reserved_gib: float
    seconds: float
    steps: int
    budget: int
    checkpointed: bool
    sampled: int | None = None
    advice: tuple[dict[str, Any], ...] = ()

    @property
    def peak_gib(self) -> float:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.peak_gib + self.reserved_gib <= self.device_gib


class _Steps(NamedTuple):
    """`largest`: the samples of the step with the most tokens; `tokens`, `labels`: of a usual one."""

    number: int
    largest: list[tuple[int, int]]
    tokens: float
    labels: float


class _Plan(NamedTuple):
    budget: int
    checkpointed: bool


def check_cutoff(settings: TrainSettings, counts: Counts) -> None:
    """Raises the trainer's Problem when the cutoff leaves nothing to learn."""
    if not counts.cut(settings.cutoff_len):
        needed = min(counts.needed)
        raise Problem("all_truncated", label=label("cutoff_len"), value=settings.cutoff_len, needed=needed)


def estimate(settings: TrainSettings, size: ModelSize, counts: Counts, hardware: Hardware) -> Estimate | None:
    """What a run of `settings` will take, with advice when it does not fit; None when no sample can be learnt."""
    found = estimated(settings, size, counts, hardware)
    if found is None or found.fits:
        return found
    return replace(found, advice=tuple(_advice(settings, size, counts, hardware)))


def estimated(settings: TrainSettings, size: ModelSize, counts: Counts, hardware: Hardware) -> Estimate | None:
    """As `estimate`, without advice."""
    samples = counts.cut(settings.cutoff_len)
    if not samples or round(counts.total * settings.val_size) >= counts.total:
        return None
    footprint = _footprint(settings, size, hardware)
    steps = _steps(settings, samples, counts.total, hardware.count)
    longest = max(samples)
    plan = _plan(footprint, longest, hardware)
    parts = _parts(footprint, steps, longest, plan)
    return Estimate(
        parts={name: value / GIB for name, value in parts.items()} | {"program": _of(PROGRAM_GIB, hardware)},
        device_gib=hardware.memory_gib,
        reserved_gib=_of(RESERVED_GIB, hardware),
        seconds=_seconds(footprint, steps, plan, hardware, counts.tflops),
        steps=steps.number,
        budget=plan.budget,
        checkpointed=plan.checkpointed,
        sampled=len(counts.lengths) if len(counts.lengths) < counts.total else None,
    )


def _of(table: dict[str, Any], hardware: Hardware) -> Any:
    return table.get(hardware.kind, table["other"])


def _footprint(settings: TrainSettings, size: ModelSize, hardware: Hardware) -> Footprint:
    compute: ComputeType = settings.compute_type
    if compute == "auto":
        compute = "fp32" if hardware.kind == "cpu" else "bf16"
    one = Footprint(size, settings, compute, hardware.kind)
    cut = is_sharded(
        settings, hardware.count, size.stored_bytes or size.parameters * one.element, hardware.whole_gib * GIB
    )
    return replace(one, shards=hardware.count) if cut else one


def _steps(settings: TrainSettings, samples: list[tuple[int, int]], total: int, devices: int) -> _Steps:
    """Steps of one device, drawn as training draws them but in another order."""
    train = total - round(total * settings.val_size)
    step_size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    per_epoch = math.ceil(train / (step_size * devices))
    count = settings.max_steps if settings.max_steps > 0 else math.ceil(settings.num_train_epochs * per_epoch)
    chance = random.Random(settings.seed)
    drawn, largest, tokens, labels = 0, list[tuple[int, int]](), 0, 0
    order: list[tuple[int, int]] = []
    while drawn < count and drawn * step_size < MOST_DRAWN:
        if not order:
            order = chance.sample(samples, len(samples))
        step = [order.pop() for _ in range(min(step_size, len(order), train))]
        tokens += sum(length for length, _ in step)
        labels += sum(number for _, number in step)
        if sum(length for length, _ in step) > sum(length for length, _ in largest):
            largest = step
        drawn += 1
    return _Steps(count, largest, tokens / drawn, labels / drawn)


def _plan(footprint: Footprint, longest: tuple[int, int], hardware: Hardware) -> _Plan:
    """The token budget, and whether activations are kept: as trainer/passes.py finds them by a trial."""
    wanted, choice = _of(TOKEN_BUDGET, hardware), footprint.settings.gradient_checkpointing
    if footprint.shards > 1 and choice is None:  # a pass cannot be redone then
        choice = True
    if hardware.kind == "cpu":
        return _Plan(max(wanted, longest[0]), bool(choice))
    held = footprint.weights() + footprint.adapter() + footprint.gradients() + footprint.optimizer()
    free = (hardware.memory_gib - _of(RESERVED_GIB, hardware)) * GIB - held
    for checkpointed in (True,) if choice else (False,) if choice is False else (False, True):
        used = footprint.activations(*longest, checkpointed) + footprint.logits(longest[1])
        tokens = SHARE_OF_FREE_MEMORY * free / used * longest[0]
        if tokens >= FEWEST_TOKENS:
            break
    whole = 1 << max(int(tokens), 1).bit_length() - 1
    return _Plan(max(longest[0], min(wanted, whole)), checkpointed)


def _parts(footprint: Footprint, steps: _Steps, longest: tuple[int, int], plan: _Plan) -> dict[str, float]:
    """Bytes by part when the largest pass has just run forward, or when its gradients are complete."""
    tokens, labels = (sum(column) for column in zip(*steps.largest, strict=True))
    passes = math.ceil(tokens / plan.budget)
    if footprint.device != "cpu" and tokens > plan.budget:  # threads of a processor run their passes side by side
        labels, tokens = round(labels * plan.budget / tokens), plan.budget
    if tokens < longest[0]:
        tokens, labels = longest
    saved = footprint.saved(tokens, labels, plan.checkpointed)
    activations = footprint.activations(tokens, labels, plan.checkpointed)
    logits = footprint.logits(labels)
    # The chunk of logits is gone when the backward pass begins.
    if saved + logits > activations:
        activations = saved
    else:
        logits = 0
    gradients = 0 if passes == 1 else footprint.gradients()  # they appear while the activations go
    at_the_end = footprint.gradients() + footprint.reduction()
    if at_the_end > gradients + activations + logits:
        gradients, activations, logits = at_the_end, 0, 0
    return {
        "weights": footprint.weights(),
        "adapter": footprint.adapter(),
        "gradients": gradients,
        "optimizer": footprint.optimizer(),
        "activations": activations,
        "logits": logits,
    }


# ---- time ----


def _seconds(
    footprint: Footprint, steps: _Steps, plan: _Plan, hardware: Hardware, processor_tflops: float | None
) -> float:
    """Starting, loading, and every step at the speed that this trainer reaches."""
    size = footprint.size
    passes = max(1, math.ceil(steps.tokens / plan.budget))
    times = (3 if footprint.whole else 2) + (1 if plan.checkpointed else 0)
    operations = 2 * times * (size.active * steps.tokens + size.embedding * steps.labels)
    tflops = processor_tflops if hardware.kind == "cpu" else _tflops(hardware.name)
    speed = (tflops or PROCESSOR_TFLOPS) * 1e12 * _of(EFFICIENCY, hardware)
    if footprint.compute == "fp32" and hardware.kind != "cpu":
        speed /= 8
    step = max(operations / speed, passes * size.layers * _of(LAYER_S, hardware))
    loading = footprint.weights() / GIB / LOAD_GIB_PER_S
    return _of(START_S, hardware) + loading + steps.number * step


def _tflops(name: str) -> float:
    return next((speed for known, speed in TFLOPS.items() if known in name), UNKNOWN_TFLOPS)


# ---- what would make it fit ----


def _advice(settings: TrainSettings, size: ModelSize, counts: Counts, hardware: Hardware) -> list[dict[str, Any]]:
    """Changes that make the run fit, each found by trying: one setting where that is enough, else two or three."""

    def fits(change: dict[str, Any]) -> bool:
        found = estimated(settings.model_copy(update=change), size, counts, hardware)
        return found is not None and found.fits

    base = _methods(settings, hardware)
    found = [change for change in base if fits(change)]
    if cutoff := _cutoff({}, counts, settings, fits):
        found.append(cutoff)
    if not found:
        found = [change for method in base if (change := _cutoff(method, counts, settings, fits))][:1]
    return found[:3]


def _methods(settings: TrainSettings, hardware: Hardware) -> list[dict[str, Any]]:
    """Settings that hold less in memory, the least loss first."""
    found: list[dict[str, Any]] = []
    if settings.gradient_checkpointing is False:
        found.append({"gradient_checkpointing": None})
    lora: dict[str, Any] = {"finetuning_type": "lora"} if settings.finetuning_type != "lora" else {}
    if lora:
        found.append(lora)
    own = {"pissa_init", "create_new_adapter", "quantization_bit"}  # what cannot be together with quantization
    if hardware.quantizes and not any(getattr(settings, key) for key in own):
        found += [lora | {"quantization_bit": bits} for bits in (8, 4)]
    if settings.use_dora:
        found.append({"use_dora": False})
    if settings.additional_target:
        found.append({"additional_target": ()})
    if settings.compute_type == "fp32" and hardware.kind != "cpu":
        found.append({"compute_type": "bf16"})
    return found


def _cutoff(
    change: dict[str, Any], counts: Counts, settings: TrainSettings, fits: Callable[[dict[str, Any]], bool]
) -> dict[str, Any] | None:
    """`change` with the largest cutoff that fits, None when none does without losing whole samples."""
    longest, kept = min(max(counts.lengths), settings.cutoff_len), len(counts.cut(settings.cutoff_len))
    shorter = [cutoff for cutoff in CUTOFFS if cutoff < longest and len(counts.cut(cutoff)) == kept]
    return next((change | {"cutoff_len": cutoff} for cutoff in shorter if fits(change | {"cutoff_len": cutoff})), None)
