"""How a step's samples run through the model: in as few passes as fit the device, whatever the user's batch size."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from trainer import batching
from trainer.chat_template import Sample
from trainer.device import DTYPES, Device, is_out_of_memory
from trainer.events import EventLog
from trainer.loss import LabelLoss
from trainer.problems import Problem

# Tokens of one forward pass to begin with; halved whenever the device runs out of memory.
TOKEN_BUDGET = {"cpu": 4096, "other": 8192}
MOST_THREADS = 4

Groups = list[list[Sample]]


class Passes:
    """Adds up losses and gradients of samples over as many forward passes as the token budget makes of them."""

    def __init__(
        self, loss_of: LabelLoss, device: Device, compute_type: str, scaler: Any, pad_id: int, events: EventLog
    ) -> None:
        self._loss_of, self._device, self._scaler = loss_of, device, scaler
        self._pad_id, self._events = pad_id, events
        self._budget = TOKEN_BUDGET.get(device.type, TOKEN_BUDGET["other"])
        self._threads: Threads | None = None
        self._autocast: Callable[[], AbstractContextManager[None]] = nullcontext
        if compute_type in ("bf16", "fp16"):
            self._autocast = lambda: torch.autocast(device.type, DTYPES[compute_type])

    def use_threads(self, trained: list[torch.nn.Parameter]) -> None:
        """From now on `backward` shares the samples among the processor's cores. Not for models with dropout,
        whose threads would draw from one generator in an order that changes."""
        count = min(MOST_THREADS, torch.get_num_threads())
        if count > 1:
            self._threads = Threads(count, trained)

    def check(self, samples: list[Sample]) -> None:
        """Lets the loss find out how this model's logits are made."""
        with self._autocast():
            self._loss_of.check(self._on_device(samples))

    def backward(self, samples: list[Sample]) -> float:
        """Adds the gradients of the step's token-mean loss; returns that loss.

        Out of memory halves the budget and redoes the step: the cut does not change the result.
        """
        while True:
            try:
                return self._backward(samples)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            longest = max(len(sample.input_ids) for sample in samples)
            if self._budget < longest:
                raise Problem("out_of_device_memory", device=self._device.name)
            self._budget //= 2
            self._loss_of.zero_grad(set_to_none=True)
            torch.accelerator.empty_cache()
            self._events.append("warning", code="token_budget_halved", budget=self._budget)

    def _backward(self, samples: list[Sample]) -> float:
        count = batching.label_count(samples)
        if self._threads:
            lengths = [len(sample.input_ids) for sample in samples]
            shares = batching.share(lengths, self._threads.count)
            groups = [self._cut([samples[position] for position in share]) for share in shares]
            return self._threads.backward(lambda group: self._loss(group) / count, groups)
        total = torch.zeros((), device=self._device.torch_device)
        for group in self._cut(samples):
            loss = self._loss(group) / count
            self._scaler.scale(loss).backward()
            total += loss.detach()
        return float(total)

    def _loss(self, group: list[Sample]) -> Tensor:
        batch = self._on_device(group)
        with self._autocast():
            return self._loss_of(batch.input_ids, batch.labels)

    @torch.no_grad()
    def evaluate(self, samples: list[Sample]) -> float:
        """The token-mean loss over `samples`."""
        self._loss_of.eval()
        total = torch.zeros((), dtype=torch.float64, device=self._device.torch_device)
        # Cut in stretches: the cut is quadratic in the samples it sees.
        for start in range(0, len(samples), 64):
            for group in self._cut(samples[start : start + 64]):
                total += self._loss(group)
        self._loss_of.train()
        return float(total) / batching.label_count(samples)

    def _cut(self, samples: list[Sample]) -> Groups:
        groups = batching.cut([len(sample.input_ids) for sample in samples], self._budget)
        return [[samples[position] for position in group] for group in groups]

    def _on_device(self, samples: list[Sample]) -> batching.Batch:
        batch = batching.collate(samples, self._pad_id)
        return batching.Batch(batch.input_ids.to(self._device.torch_device), batch.labels.to(self._device.torch_device))


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
