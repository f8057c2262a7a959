"""The training loop: one process, from settings to a finished run folder. Reads top to bottom."""

import logging
import math
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import torch
from transformers import get_scheduler
from transformers import logging as transformers_logging

from trainer import batching, checkpoint, run_folder
from trainer.chat_template import ChatTemplate
from trainer.data import load_samples
from trainer.device import DTYPES, Device, current, is_out_of_memory
from trainer.events import EventLog
from trainer.lora import speed_up
from trainer.loss import LabelLoss
from trainer.model import load_model, load_tokenizer, trainable_model
from trainer.norm import fuse_norms
from trainer.passes import Passes
from trainer.plot import plot_loss
from trainer.prepare import resume_checkpoint
from trainer.problems import Problem
from trainer.settings import TrainSettings

log = logging.getLogger("trainer")


def run(settings: TrainSettings, events: EventLog, stop: threading.Event) -> int:
    """Trains and always ends with a finished event; the traceback of a failure goes to the log."""
    transformers_logging.disable_progress_bar()
    try:
        return train(settings, events, stop)
    except Exception as error:
        log.exception("the run failed")
        problem = _explained(error, settings)
        try:
            events.append("finished", outcome="failed", code=problem.code, **problem.values)
        except OSError as full:  # the disk that stopped the run may have no room for the event either
            log.error("the finished event could not be written: %s", full)
        log.error("%s", problem)
        return 1


def _explained(error: Exception, settings: TrainSettings) -> Problem:
    if isinstance(error, Problem):
        return error
    if is_out_of_memory(error):
        return Problem("out_of_device_memory", device=current().name)
    if (isinstance(error, OSError) and error.errno == 28) or _says_disk_full(str(error), settings.output_dir):
        return Problem("disk_full", path=settings.output_dir)
    lines = str(error).strip().splitlines() or [""]
    return Problem("python_error", kind=type(error).__name__, detail=lines[0][:300])


def _says_disk_full(words: str, output_dir: str) -> bool:
    """torch and safetensors wrap the system's error in words of their own."""
    writing = "PytorchStreamWriter" in words or "inline_container" in words
    return "No space left on device" in words or (writing and shutil.disk_usage(output_dir).free < 64 * 2**20)


def train(settings: TrainSettings, events: EventLog, stop: threading.Event) -> int:
    """One run. Raises Problem, or whatever the libraries raise."""
    folder, model_folder = Path(settings.output_dir), Path(settings.model_name_or_path)
    began = time.monotonic()
    device = current()
    compute_type = device.compute_type(settings.compute_type)
    torch.manual_seed(settings.seed)

    events.stage("preparing_data")
    tokenizer = load_tokenizer(model_folder)
    template = ChatTemplate.of(tokenizer, settings.template, str(model_folder))
    samples = load_samples(settings, template, events)
    if settings.template != "auto":
        tokenizer.chat_template = template.source  # the result chats as it was trained

    resumed_from = resume_checkpoint(settings)
    if stop.is_set():
        return _stopped(events, checkpoint.read_state(resumed_from).step if resumed_from else 0)
    events.stage("loading_model", device=device.name, compute_type=compute_type)
    model = _model(settings, model_folder, resumed_from, compute_type, device)
    fuse_norms(model)
    one_node = speed_up(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    loss_of = LabelLoss(model).train()

    optimizer = torch.optim.AdamW(
        _groups(model, settings.weight_decay),
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        fused=True,
    )
    step_size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    per_epoch = batching.steps_per_epoch(len(samples.train), step_size)
    total_steps = settings.max_steps if settings.max_steps > 0 else math.ceil(settings.num_train_epochs * per_epoch)
    warmup = settings.warmup_steps or math.ceil(settings.warmup_ratio * total_steps)
    scheduler = get_scheduler(settings.lr_scheduler_type, optimizer, warmup, total_steps)
    scaler = torch.amp.GradScaler(device.type, enabled=compute_type == "fp16")
    state = checkpoint.TrainerState()
    parts = {"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    if resumed_from:
        state = checkpoint.read_state(resumed_from)
        for name, saved in checkpoint.read_training(resumed_from).items():
            parts[name].load_state_dict(saved)
        checkpoint.restore_rng(resumed_from)

    passes = Passes(loss_of, device, compute_type, scaler, tokenizer.pad_token_id or 0, events)
    if device.type == "cpu" and settings.finetuning_type == "lora" and not settings.lora_dropout:
        passes.use_threads(trained)
    if one_node and compute_type == "bf16":
        passes.without_autocast()
    passes.check(samples.train[:2])
    passes.fit(samples.train, settings.gradient_checkpointing)
    if one_node and total_steps > 20:
        passes.use_graphs()
    eval_steps = settings.eval_steps or settings.save_steps
    clock = Clock(state.seconds)

    def save() -> None:
        events.stage("saving", step=state.step)
        state.seconds = clock.seconds()
        training = None if settings.save_only_model else {name: part.state_dict() for name, part in parts.items()}
        path = checkpoint.save(folder, model, tokenizer, state, training)
        if settings.save_total_limit:
            checkpoint.prune(folder, settings.save_total_limit)
        events.append("saved", path=path.name, step=state.step)

    def evaluate() -> None:
        events.stage("evaluating", step=state.step)
        loss = passes.evaluate(samples.validation) / batching.label_count(samples.validation)
        state.best_eval_loss = min(loss, state.best_eval_loss if state.best_eval_loss is not None else math.inf)
        events.append("evaluated", step=state.step, eval_loss=loss)

    def training_stage() -> None:
        events.stage(
            "training",
            step=state.step,
            total_steps=total_steps,
            samples=len(samples.train),
            validation_samples=len(samples.validation),
            trainable_parameters=sum(parameter.numel() for parameter in trained),
            resumed=resumed_from is not None,
        )

    log.info("%d samples, %d steps, ready after %.1f s", len(samples.train), total_steps, time.monotonic() - began)
    training_stage()
    for positions in batching.steps(len(samples.train), step_size, settings.seed, state.step, total_steps):
        chosen = [samples.train[position] for position in positions]
        learning_rate = scheduler.get_last_lr()[0]
        state.loss_sum += passes.backward(chosen, batching.label_count(chosen))
        scaler.unscale_(optimizer)
        grad_norm = torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm or math.inf)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        optimizer.zero_grad(set_to_none=not passes.graphed)
        state.step += 1
        state.losses += 1
        state.tokens += sum(len(sample.input_ids) for sample in chosen)
        last, stopping = state.step == total_steps, stop.is_set()
        if not math.isfinite(state.loss_sum):  # before anything could be saved
            raise Problem("loss_not_finite", value=str(state.loss_sum), step=state.step)

        if state.step % settings.logging_steps == 0 or last:
            state.last_loss = state.loss_sum / state.losses
            events.append(
                "step",
                step=state.step,
                total_steps=total_steps,
                epoch=round(state.step / per_epoch, 4),
                loss=state.last_loss,
                learning_rate=learning_rate,
                grad_norm=float(grad_norm),
                tokens_per_second=round(clock.rate(state.tokens), 1),
                memory_gib=round(device.memory_gib(), 3),
            )
            log.info("step %d/%d loss %.4f", state.step, total_steps, state.last_loss)
            state.loss_sum, state.losses, state.tokens = 0.0, 0, 0
        elif clock.progress_due():
            events.append("progress", step=state.step, total_steps=total_steps)

        if samples.validation and (state.step % eval_steps == 0 or last):
            evaluate()
        if state.step % settings.save_steps == 0 or last or stopping:
            save()
            if not last and not stopping:
                training_stage()
        if stopping and not last:
            _plot(settings, folder)
            return _stopped(events, state.step, loss=state.last_loss, seconds=round(clock.seconds(), 1))

    checkpoint.finish(folder, model, tokenizer)
    _plot(settings, folder)
    events.append(
        "finished",
        outcome="completed",
        step=state.step,
        loss=state.last_loss,
        eval_loss=state.best_eval_loss,
        seconds=round(clock.seconds(), 1),
        path=str(folder),
    )
    return 0


class Clock:
    """Seconds of training, over resumes; tokens a second; and when a progress event is due."""

    def __init__(self, before: float) -> None:
        self._before = before
        self._began = self._mark = self._progress = time.monotonic()

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def rate(self, tokens: int) -> float:
        """Tokens a second since the last call."""
        now = time.monotonic()
        rate = tokens / max(now - self._mark, 1e-9)
        self._mark = now
        return rate

    def progress_due(self) -> bool:
        """At most once a second, rarer as a run grows long, so that its events stay few."""
        now = time.monotonic()
        due = now - self._progress > max(1.0, (now - self._began) / 2000)
        if due:
            self._progress = now
        return due


def _model(
    settings: TrainSettings, model_folder: Path, resumed_from: Path | None, compute_type: str, device: Device
) -> Any:
    """The model with what is trained switched on, its weights from `resumed_from` when the run goes on."""
    full = settings.finetuning_type == "full"
    # Trained weights are kept in fp32 unless pure_bf16 asks otherwise; autocast computes in 16 bits.
    dtype = torch.float32 if full and compute_type != "pure_bf16" else DTYPES[compute_type]
    model = load_model(resumed_from if full and resumed_from else model_folder, dtype, device.torch_device)
    model.config.use_cache = False
    if resumed_from and not full:
        settings = settings.model_copy(update={"adapter_name_or_path": str(resumed_from)})
    return trainable_model(model, settings.model_copy(update={"compute_type": compute_type}))


def _groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases and norms do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]


def _stopped(events: EventLog, step: int, **values: Any) -> int:
    events.append("finished", outcome="stopped", step=step, **values)
    return 0


def _plot(settings: TrainSettings, folder: Path) -> None:
    if settings.plot_loss:
        plot_loss(folder / run_folder.EVENTS, folder / run_folder.PLOT)
