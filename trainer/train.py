"""The training loop: one process, from settings to a finished run folder. Reads top to bottom."""

import errno
import logging
import math
import os
import shutil
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from transformers import get_scheduler
from transformers import logging as transformers_logging

from trainer import batching, checkpoint, deepspeed_config, run_folder
from trainer.blocks import fuse_blocks
from trainer.chat_template import ChatTemplate
from trainer.data import load_samples
from trainer.deepspeed import Zero
from trainer.device import DTYPES, current, is_out_of_memory, seed
from trainer.distributed import Ranks, number, sharded_like, widen
from trainer.estimate_event import note_estimate
from trainer.events import EventLog
from trainer.lora import speed_up
from trainer.loss import LabelLoss
from trainer.method import CPU, draws_random_numbers, model_to_train
from trainer.model import causal_lm, load_tokenizer
from trainer.neftune import Neftune
from trainer.norm import fuse_norms
from trainer.optimizer import adamw, overflowed
from trainer.passes import Passes
from trainer.problems import Problem
from trainer.settings import TrainSettings
from trainer.weights import Weights

log = logging.getLogger("trainer")

# Steps whose losses may be unread: more would let the progress shown run ahead of the device.
MOST_PENDING = 10


def run(
    settings: TrainSettings,
    events: EventLog,
    stop: threading.Event,
    weights: "Future[Weights | None] | None" = None,
) -> int:
    """Trains and always ends with a finished event; the traceback of a failure goes to the log.

    `weights`: the base's, if they are being read already.
    """
    transformers_logging.disable_progress_bar()
    ranks = Ranks()
    try:
        ranks = Ranks.join(settings.ddp_timeout)
        result = train(settings, events, stop, ranks, weights)
        ranks.leave()
        return result
    except Exception as raised:
        error = ranks.start_again_if_short(raised)
        log.exception("the run failed")
        error = ranks.await_the_cause(error)
        problem = _explained(error, settings)
        try:
            events.finish_once("failed", code=problem.code, **problem.values)
        except OSError as gone:  # with the folder, or the room that was kept for it
            log.error("the finished event could not be written: %s", gone)
        log.error("%s", problem)
        ranks.abandon(problem)
        return 1


def _explained(error: Exception, settings: TrainSettings) -> Problem:
    if isinstance(error, Problem):
        return error
    if is_out_of_memory(error):
        return Problem("out_of_device_memory", device=current().name)
    if not os.path.isdir(settings.output_dir):
        return Problem("run_folder_gone", path=settings.output_dir)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or _says_disk_full(str(error), settings.output_dir):
        return Problem("disk_full", path=settings.output_dir)
    lines = str(error).strip().splitlines() or [""]
    return Problem("python_error", kind=type(error).__name__, detail=lines[0][:300])


def _says_disk_full(words: str, output_dir: str) -> bool:
    """torch and safetensors wrap the system's error in words of their own."""
    writing = "PytorchStreamWriter" in words or "inline_container" in words
    said = any(os.strerror(number) in words for number in (errno.ENOSPC, errno.EDQUOT))
    return said or (writing and shutil.disk_usage(output_dir).free < 64 * 2**20)


def train(
    settings: TrainSettings,
    events: EventLog,
    stop: threading.Event,
    ranks: Ranks,
    weights_ahead: "Future[Weights | None] | None" = None,
) -> int:
    """One run. Raises Problem, or whatever the libraries raise."""
    folder, model_folder = Path(settings.output_dir), Path(settings.model_name_or_path)
    began = time.monotonic()
    device = current()
    compute_type = device.compute_type(settings.compute_type)
    seed(settings.seed)

    events.stage("preparing_data")
    tokenizer = load_tokenizer(model_folder, settings.trust_remote_code)
    template = ChatTemplate.of(tokenizer, settings.template, str(model_folder))
    samples = load_samples(settings, template, events)
    for problem in template.warnings(str(model_folder)):
        events.append("warning", code=problem.code, **problem.values)
    if template.origin != "own":
        tokenizer.chat_template = template.source  # the result chats as it was trained

    resumed_from = ranks.starting_point(settings, events)
    if resumed_from:
        checkpoint.check_weights(resumed_from)
    resumed_step = checkpoint.read_state(resumed_from).step if resumed_from else 0
    ranks.agree(samples.train, resumed_step)
    if ranks.any(stop.is_set()):
        return _stopped(events, resumed_step)
    events.stage("loading_model", device=device.name, compute_type=compute_type)
    sharded = ranks.share_weights(settings, DTYPES[compute_type], device)
    ahead = weights_ahead.result() if weights_ahead else None
    cut = sharded or settings.deepspeed is not None  # every process takes part in every pass
    home = CPU if cut else device.torch_device
    model = model_to_train(settings, resumed_from, compute_type, home, cut, ahead)
    fuse_norms(model)
    one_node = speed_up(model)
    fuse_blocks(model)
    loss_of = LabelLoss(model).train()
    if sharded:
        ranks.shard(loss_of, causal_lm(model).get_decoder().layers, DTYPES[compute_type], device.torch_device)
        if compute_type != "pure_bf16" and settings.finetuning_type == "full":
            widen(loss_of)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trained_count = sum(parameter.numel() for parameter in trained)
    optimizer = adamw(model, settings)
    zero = None
    if settings.deepspeed:
        zero = Zero(loss_of, optimizer, deepspeed_config.config(settings, compute_type, ranks.size), ranks, device)
    else:
        ranks.equalize(trained)

    state = checkpoint.read_state(resumed_from) if resumed_from else checkpoint.TrainerState()
    step_size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * ranks.size
    step_size = state.step_size = state.step_size or step_size  # on other devices a run goes on with its own steps
    per_epoch = batching.steps_per_epoch(len(samples.train), step_size)
    total_steps = settings.max_steps if settings.max_steps > 0 else math.ceil(settings.num_train_epochs * per_epoch)
    warmup = settings.warmup_steps or math.ceil(settings.warmup_ratio * total_steps)
    scheduler = get_scheduler(settings.lr_scheduler_type, optimizer, warmup, total_steps)
    scaler = torch.amp.GradScaler(device.type, enabled=compute_type == "fp16")
    parts: dict[str, Any] = {"optimizer": zero or optimizer, "scheduler": scheduler, "scaler": scaler}
    if ranks.rank:  # its dropout is its own
        seed(settings.seed + ranks.rank)
    passes = Passes(loss_of, device, compute_type, scaler, tokenizer.pad_token_id or 0, events)
    random = settings.neftune_noise_alpha > 0 or draws_random_numbers(model)
    if device.type == "cpu" and settings.finetuning_type == "lora" and not random and not cut:
        passes.use_threads(trained)
    if one_node and compute_type == "bf16":
        passes.without_autocast()
    if cut:
        passes.in_step_with(ranks, zero)
    passes.check(samples.train)
    if settings.neftune_noise_alpha:
        Neftune(loss_of, model.get_input_embeddings(), settings.neftune_noise_alpha)
    passes.fit(samples.train, settings.gradient_checkpointing)
    if resumed_from:  # after the passes above, which may have drawn, and which found out how much memory is left
        for name, saved in checkpoint.read_training(resumed_from).items():
            torchs_own = name == "optimizer" and not zero
            parts[name].load_state_dict(sharded_like(saved, optimizer) if torchs_own else saved)
        checkpoint.restore_rng(resumed_from, ranks.rank)
    if one_node and total_steps > 20 and not random and not cut:
        passes.use_graphs()
    eval_steps = settings.eval_steps or settings.save_steps
    clock = Clock(state.seconds)

    pending: list[torch.Tensor] = []  # losses not read yet: reading one waits for the device

    def settle() -> None:
        for loss in pending:  # one after the other: the sum must not depend on when it is asked for
            state.loss_sum += float(loss)
        pending.clear()
        if not math.isfinite(state.loss_sum):
            raise Problem("loss_not_finite", value=str(state.loss_sum), step=state.step)

    def gathered_weights() -> dict[str, Any] | None:
        if zero:
            return zero.weights(model)
        return ranks.weights(loss_of, model) if sharded else None

    def save() -> None:
        events.stage("saving", step=state.step)
        state.seconds = clock.seconds()
        parts_now = {} if settings.save_only_model else {name: part.state_dict() for name, part in parts.items()}
        training, weights, rng = (
            ranks.whole(parts_now) or None,
            gathered_weights(),
            ranks.gathered(checkpoint.rng_state()),
        )
        if not ranks.leads:
            return
        path = checkpoint.save(folder, model, tokenizer, state, training, weights, rng if ranks.size > 1 else None)
        if settings.save_total_limit:
            checkpoint.prune(folder, settings.save_total_limit, state.step, state.best_step)
        events.append("saved", path=path.name, step=state.step)

    def evaluate() -> bool:
        """Whether the eval loss is the lowest so far."""
        events.stage("evaluating", step=state.step)
        [total] = ranks.sums(passes.evaluate(samples.validation[ranks.rank :: ranks.size]))
        loss = total / batching.label_count(samples.validation)
        events.append("evaluated", step=state.step, eval_loss=loss)
        if not math.isfinite(loss) and not (settings.load_best_model_at_end and state.best_step):
            raise Problem("loss_not_finite", value=str(loss), step=state.step)  # or the result would be no model
        return state.take(state.step, loss)

    def training_stage() -> None:
        events.stage(
            "training",
            step=state.step,
            total_steps=total_steps,
            samples=len(samples.train),
            validation_samples=len(samples.validation),
            trainable_parameters=trained_count,
            resumed=resumed_from is not None,
        )

    note_estimate(settings, samples.train, device, ranks.size, events)
    log.info("%d samples, %d steps, ready after %.1f s", len(samples.train), total_steps, time.monotonic() - began)
    training_stage()
    patience = settings.early_stopping_steps
    end = state.step if state.out_of_patience(patience) else total_steps  # it was killed between its end and its result
    for positions in batching.steps(len(samples.train), step_size, settings.seed, state.step, end):
        chosen = [samples.train[position] for position in positions]
        learning_rate = scheduler.get_last_lr()[0]
        while True:
            loss, asked = ranks.add_up(
                [] if zero else trained,
                passes.backward(ranks.part(chosen), batching.label_count(chosen)),
                stop.is_set(),
            )
            if zero:
                grad_norm = zero.step(state.step + 1)
                break
            scaler.unscale_(optimizer)
            grad_norm = torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm or math.inf)
            scaler.step(optimizer)
            scaler.update()
            if not overflowed(scaler, grad_norm):
                break
            optimizer.zero_grad(set_to_none=not passes.graphed)
        pending.append(loss)
        scheduler.step()
        if not zero:
            optimizer.zero_grad(set_to_none=not passes.graphed)
        state.step += 1
        state.losses += 1
        state.tokens += sum(len(sample.input_ids) for sample in chosen)
        last, stopping = state.step == total_steps, asked
        logged = state.step % settings.logging_steps == 0 or last
        evaluating = bool(samples.validation) and (state.step % eval_steps == 0 or last)
        saving = state.step % settings.save_steps == 0 or last or stopping
        if logged or evaluating or saving or len(pending) == MOST_PENDING:
            settle()  # before anything could be saved
        if saving and not math.isfinite(number(grad_norm)):  # the weights of this step are lost already
            raise Problem("loss_not_finite", value=str(number(grad_norm)), step=state.step)

        if logged:
            state.last_loss = state.loss_sum / state.losses
            events.append(
                "step",
                step=state.step,
                total_steps=total_steps,
                epoch=round(state.step / per_epoch, 4),
                loss=state.last_loss,
                learning_rate=learning_rate,
                grad_norm=number(grad_norm),
                tokens_per_second=round(clock.rate(state.tokens), 1),
                memory_gib=round(device.memory_gib(), 3),
            )
            log.info("step %d/%d loss %.4f", state.step, total_steps, state.last_loss)
            state.loss_sum, state.losses, state.tokens = 0.0, 0, 0
        elif clock.progress_due():
            events.append("progress", step=state.step, total_steps=total_steps)

        if evaluating:
            saving |= evaluate()  # what is the best must be there to be chosen
        ending = last or state.out_of_patience(patience)
        if saving or ending:
            save()
        if ending:
            break
        if stopping:
            if ranks.leads:
                _plot(settings, folder)
            return _stopped(events, state.step, loss=state.last_loss, seconds=round(clock.seconds(), 1))
        if evaluating or saving:
            training_stage()

    weights = gathered_weights()
    if not ranks.leads:
        return 0
    best = _best_checkpoint(settings, folder, state, events)
    checkpoint.finish(folder, model, tokenizer, weights, best)
    _plot(settings, folder)
    events.append(
        "finished",
        outcome="completed",
        step=state.step,
        loss=state.last_loss,
        eval_loss=state.best_eval_loss,
        seconds=round(clock.seconds(), 1),
        path=str(folder),
        result_step=state.best_step if best else state.step,
        **_stopped_early(state, total_steps),
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


def _best_checkpoint(
    settings: TrainSettings, folder: Path, state: checkpoint.TrainerState, events: EventLog
) -> Path | None:
    """The checkpoint that is to be the run's result; None: the model as it is."""
    if not settings.load_best_model_at_end or state.best_step in (None, state.step):
        return None
    best = folder / f"checkpoint-{state.best_step}"
    if run_folder.has_weights(best):
        return best
    events.append("warning", code="best_checkpoint_missing", path=str(best), step=state.step)
    return None


def _stopped_early(state: checkpoint.TrainerState, total_steps: int) -> dict[str, Any]:
    """What the finished event says of an end before the last step."""
    if state.step == total_steps:
        return {}
    log.info("stopped early: no lower eval loss in %d evaluations", state.evaluations_since_best)
    return {"code": "stopped_early", "evaluations": state.evaluations_since_best}


def _stopped(events: EventLog, step: int, **values: Any) -> int:
    events.append("finished", outcome="stopped", step=step, **values)
    return 0


def _plot(settings: TrainSettings, folder: Path) -> None:
    if settings.plot_loss:
        from trainer.plot import plot_loss  # matplotlib takes half a second, and the first step waits for it

        plot_loss(folder / run_folder.EVENTS, folder / run_folder.PLOT)
