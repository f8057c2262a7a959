"""How a step's samples run through the model: in as few passes as fit the device, whatever the user's batch size."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trainer import batching
from trainer.attention import use_varlen, varlen_implementation
from trainer.batching import Batch
from trainer.budget import TOKEN_BUDGET
from trainer.chat_template import Sample
from trainer.deepspeed import Zero
from trainer.device import DTYPES, Device, is_out_of_memory
from trainer.distributed import Ranks, bytes_here
from trainer.events import EventLog
from trainer.graphs import PassGraphs
from trainer.loss import LabelLoss, are_close
from trainer.model import causal_lm, checkpoint_activations
from trainer.packed import lengths_of
from trainer.problems import Problem
from trainer.settings import label

log = logging.getLogger("trainer")

MOST_THREADS = 4
# What a pass may use of the memory that is free before it: the allocator loses some to fragments.
SHARE_OF_FREE_MEMORY = 0.85

# oneDNN, which multiplies 16-bit matrices on a processor, keeps half a MiB for every shape that it has met; its own
# limit bounds three fifths of that. With samples and labels padded to a multiple of this, 60 steps on the bundled chats
# have 446 shapes instead of 2642, and take 0.05 GiB more from the 20th step on instead of 0.34.
PADDING_OF_16_BIT = 16

# So many tokens let attention matter.
TRIAL_TOKENS = 16

Groups = list[list[Sample]]
EMPTY = Sample([0, 0], [0, 0])


class Passes:
    """Adds up losses and gradients of samples over as many forward passes as the token budget makes of them.

    A pass is unpadded where a kernel for that exists, else padded in groups of similar length.
    """

    def __init__(
        self, loss_of: LabelLoss, device: Device, compute_type: str, scaler: Any, pad_id: int, events: EventLog
    ) -> None:
        self._loss_of, self._device, self._scaler = loss_of, device, scaler
        self._pad_id, self._events = pad_id, events
        self._most = self._budget = TOKEN_BUDGET.get(device.type, TOKEN_BUDGET["other"])
        self._samples: Sequence[Sample] = []
        self._threads: Threads | None = None
        self._graphs: PassGraphs | None = None
        self._unpadded = False
        self._ranks: Ranks | None = None
        self._zero: Zero | None = None
        self.checkpointed = False
        self._autocast: Callable[[], AbstractContextManager[None]] = nullcontext
        self._dtype = DTYPES[compute_type]
        if compute_type in ("bf16", "fp16"):
            self._autocast = lambda: torch.autocast(device.type, self._dtype)

    def use_threads(self, trained: list[torch.nn.Parameter]) -> None:
        """From now on `backward` shares the samples among the processor's cores. Not for models that draw random
        numbers in a pass: threads would draw from one generator in an order that changes."""
        count = min(MOST_THREADS, torch.get_num_threads())
        if count > 1:
            self._threads = Threads(count, trained)

    def without_autocast(self) -> None:
        """For models all of whose layers compute in their frozen weights' dtype: casting is overhead then."""
        self._autocast = nullcontext

    def use_graphs(self) -> None:
        """From now on passes of a shape that comes again are captured and replayed, where the device can."""
        captures = self._device.kind.captures_graphs and self._unpadded
        if captures and not self._scaler.is_enabled() and not self.checkpointed:
            self._graphs = PassGraphs(self._run, self._device.torch_device)

    def in_step_with(self, ranks: Ranks, zero: Zero | None = None) -> None:
        """From now on every process runs as many passes as the one that needs most: each gathers weights from all.

        One that is short of memory makes all start again, with what is left of room in `ranks.start`. `zero`: what
        runs the passes, where it is not torch itself.
        """
        self._ranks, self._zero = ranks, zero
        self._most = self._budget = min(self._budget, ranks.start.budget or self._budget)
        ranks.when_short(None, self._events)

    @property
    def graphed(self) -> bool:
        """Whether gradients must stay the tensors they are: zeroed, not dropped."""
        return self._graphs is not None

    def check(self, samples: Sequence[Sample]) -> None:
        """Lets the loss find out how this model's logits are made, and whether samples can go unpadded; tried on two
        of `samples`."""
        trial = _for_trial(samples)
        with self._autocast():
            self._loss_of.check(self._padded(trial, 1.0))
        implementation = varlen_implementation(self._device, self._dtype)
        if implementation is None:
            return
        self._loss_of.eval()  # dropout would make any two passes differ
        with torch.no_grad(), self._autocast():
            padded = [self._loss_of(self._padded([sample], 1.0), states=True) for sample in trial]
            if use_varlen(causal_lm(self._loss_of.model), implementation):
                self._unpadded = self._is_isolated(trial, torch.cat(padded))
        self._loss_of.train()

    def _is_isolated(self, trial: list[Sample], padded: Tensor) -> bool:
        """Whether `trial` laid end to end gives what its samples give alone; else they are padded from now on."""
        try:
            together = self._loss_of(batching.flatten(trial).to(self._device.torch_device), states=True)
            # Two kernels in 16 bits are a few hundredths apart; a sample that sees another is by as much as it has.
            if are_close(together, padded, 0.2):
                return True  # else this model does more in its attention than the kernel knows
        except RuntimeError as error:
            if self._ranks or is_out_of_memory(error):  # the others are amid the same pass
                raise
            log.warning("samples are padded: %s", error)  # a kernel that is not made for this device or this model
        causal_lm(self._loss_of.model).set_attn_implementation("sdpa")
        return False

    def fit(self, samples: Sequence[Sample], checkpointing: bool | None) -> None:
        """Finds the token budget, and whether activations are kept, by running the longest of `samples` once.

        `checkpointing`: the user's choice, None leaves it to the memory. Raises Problem when not even one sample fits.
        Shards take much in a pass of any length, and a pass of theirs cannot be redone: there it runs as a step will,
        each trial twice as long as the one before while even twice its memory would fit.
        """
        if self._ranks:
            self._ranks.when_short(lambda: self._less(self._samples), self._events)
            checkpointing = True if self._ranks.start.checkpointing else checkpointing
        if checkpointing or (self._ranks and checkpointing is None):  # sharded passes cannot be redone
            self._checkpoint()
        lengths = lengths_of(samples)
        longest = samples[lengths.index(max(lengths))]
        if self._device.type == "cpu":
            return
        wanted = self._most
        trained = [] if self._zero else [one for one in self._loss_of.parameters() if one.requires_grad]
        gradients = bytes_here(trained)  # with DeepSpeed all that stays is there already
        held = self._device.allocated_memory()
        free = self._device.free_memory() - 3 * gradients  # theirs and AdamW's two moments, from the first step on
        trial = [longest]
        while True:
            self._budget = len(trial) * len(longest.input_ids)
            self._device.reset_peak_memory()
            self.backward(trial, batching.label_count(trial))
            used = max(self._device.peak_memory() - held - gradients, 1)
            self._forget()
            tokens = int(SHARE_OF_FREE_MEMORY * free / used * self._budget)
            if self._ranks:
                tokens = -self._ranks.most(-tokens)
            if not self._ranks or 2 * self._budget > min(wanted, tokens):
                break
            trial *= 2
        if tokens < 1024 and checkpointing is None and not self.checkpointed:
            self._checkpoint()
            return self.fit(samples, checkpointing)
        # A power of two, so that small differences in free memory do not change how steps are cut.
        self._budget = max(len(longest.input_ids), min(wanted, 1 << max(tokens, 1).bit_length() - 1))

    def backward(self, samples: list[Sample], count: int) -> Tensor:
        """Adds the gradients of the samples' summed cross entropies over `count`; returns that loss, unread.

        Out of memory halves the budget, then stops keeping activations, and redoes the samples: neither changes
        the result. Raises Problem when a single sample cannot fit.
        """
        return self._with_room(samples, partial(self._backward, samples, count))

    def _with_room(self, samples: Sequence[Sample], run: Callable[[], Tensor]) -> Tensor:
        self._samples = samples
        while True:
            try:
                return run()
            except RuntimeError as error:
                if not is_out_of_memory(error) or self._ranks:
                    raise
            self._make_room(samples)

    def _make_room(self, samples: Sequence[Sample]) -> None:
        self._loss_of.zero_grad(set_to_none=True)
        if self._graphs:  # they hold memory of their own
            self._graphs = None
        self._device.release_cached()
        warning = self._less(samples)
        if "budget" in warning:
            self._budget = warning["budget"]
        else:
            self._checkpoint()
        self._events.append("warning", **warning)

    def _less(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The warning that says what is done where memory was short for `samples`. Raises Problem when not even a
        single one fits."""
        longest = max(len(sample.input_ids) for sample in samples or [EMPTY])  # none of a short step may be ours
        if self._budget > longest:
            return {"code": "token_budget_halved", "budget": max(longest, self._budget // 2)}
        if not self.checkpointed:
            return {"code": "checkpointing_switched_on", "tokens": longest}
        told = {"tokens": longest, "device": self._device.name, "label": label("cutoff_len")}
        if self._ranks:
            raise Problem("sharded_sample_too_long", **told, count=self._ranks.size)
        raise Problem("sample_too_long", **told)

    def _forget(self) -> None:
        """No gradients, as at the beginning."""
        if self._zero:
            self._zero.discard()
        else:
            self._loss_of.zero_grad(set_to_none=True)

    def _checkpoint(self) -> None:
        checkpoint_activations(causal_lm(self._loss_of.model))
        self.checkpointed = True

    def _backward(self, samples: list[Sample], count: int) -> Tensor:
        if self._threads:
            lengths = [len(sample.input_ids) for sample in samples]
            shares = batching.share(lengths, self._threads.count)
            groups = [self._cut([samples[position] for position in share]) for share in shares]
            total = self._threads.backward(lambda group: self._loss(self._batch(group, 1 / count)), groups)
            return torch.tensor(total, dtype=torch.float64)
        loss = torch.zeros((), device=self._device.torch_device)
        for group, weight in self._matched(self._cut(samples), 1 / count):
            batch = self._batch(group, weight)
            loss += self._graphs(batch) if self._graphs else self._run(batch)
        return loss

    def _matched(self, groups: Groups, weight: float) -> list[tuple[list[Sample], float]]:
        """`groups` with their weight, and passes that count nothing where another process needs more."""
        extra = self._ranks.most(len(groups)) - len(groups) if self._ranks else 0
        return [*((group, weight) for group in groups), *[([EMPTY], 0.0)] * extra]

    def _run(self, batch: Batch) -> Tensor:
        """Forward and backward; the loss, detached."""
        loss = self._loss(batch)
        if self._zero:
            self._zero.backward(loss)
        else:
            self._scaler.scale(loss).backward()
        return loss.detach()

    def _loss(self, batch: Batch) -> Tensor:
        with self._autocast():
            loss: Tensor = self._zero(batch) if self._zero else self._loss_of(batch)
            return loss

    @torch.no_grad()
    def evaluate(self, samples: Sequence[Sample]) -> float:
        """The sum of the cross entropies of `samples`."""
        self._loss_of.eval()
        total = self._with_room(samples, partial(self._summed, samples))
        self._loss_of.train()
        return float(total)

    def _summed(self, samples: Sequence[Sample]) -> Tensor:
        total = torch.zeros((), dtype=self._device.widest, device=self._device.torch_device)
        # Cut in stretches: the cut is quadratic in the samples it sees.
        groups = [group for start in range(0, len(samples), 64) for group in self._cut(samples[start : start + 64])]
        for group, weight in self._matched(groups, 1.0):
            total += self._loss(self._batch(group, weight))
        return total

    def _cut(self, samples: Sequence[Sample]) -> Groups:
        groups = batching.cut([len(sample.input_ids) for sample in samples], self._budget, padded=not self._unpadded)
        return [[samples[position] for position in group] for group in groups]

    def _batch(self, samples: list[Sample], weight: float) -> Batch:
        if self._unpadded:
            return batching.flatten(samples, weight).to(self._device.torch_device)
        return self._padded(samples, weight)

    def _padded(self, samples: list[Sample], weight: float) -> Batch:
        few_lengths = self._device.type == "cpu" and self._dtype != torch.float32
        multiple = PADDING_OF_16_BIT if few_lengths else 1
        return batching.collate(samples, self._pad_id, weight, multiple).to(self._device.torch_device)


def _for_trial(samples: Sequence[Sample]) -> list[Sample]:
    """Two samples that take little memory, the same one twice where there is no other."""
    lengths = lengths_of(samples)
    by_length = sorted(range(len(samples)), key=lambda position: lengths[position])
    telling = [position for position in by_length if lengths[position] >= TRIAL_TOKENS]
    chosen = telling[:2] if len(telling) > 1 else by_length[-2:]
    return [samples[position] for position in (2 * chosen)[:2]]


class Threads:
    """Passes of one step side by side, one core each.

    A matrix product shared by all cores ends when the slowest core does: with a browser on the same two
    cores a step took 0.30 s, or 5 s with a core taken altogether; passes that wait for each other once a
    step took 0.17 s and 0.21 s. Gradients are added in one order, so the result does not depend on timing.
    """

    def __init__(self, count: int, trained: list[torch.nn.Parameter]) -> None:
        cores = max(1, torch.get_num_threads() // count)
        torch.set_num_threads(cores)  # MKL's count is one for all threads, OpenMP's is each thread's own
        self.count, self._trained = count, trained
        self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(cores,))

    def backward(self, loss_of: Callable[[list[Sample]], Tensor], shares: list[Groups]) -> float:
        """Adds the gradients of `loss_of` over every group to those of the trained parameters; returns its sum."""

        def run(groups: Groups) -> tuple[float, list[Tensor]]:
            total, gradients = 0.0, list[Tensor]()
            for group in groups:
                loss = loss_of(group)
                found = list(torch.autograd.grad(loss, self._trained))
                if gradients:
                    torch._foreach_add_(gradients, found)
                else:
                    gradients = found
                total += float(loss.detach())
            return total, gradients

        total = 0.0
        for loss, gradients in list(self._pool.map(run, shares)):
            for parameter, gradient in zip(self._trained, gradients, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
            total += loss
        return total
