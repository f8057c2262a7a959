"""The processes of a run, one a device: joined, in step with each other, and able to tell whose fault an end was.

Data parallel: each process takes its part of a step's samples, and gradients are added up once a step.
Sharded: weights, gradients and optimizer state are cut over the processes by PyTorch's FSDP2.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import PeftModel
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from trainer import again, batching, run_folder, torchrun
from trainer.again import Start
from trainer.chat_template import Sample
from trainer.device import (
    Device,
    collective_backend,
    collective_device,
    current,
    is_collective_error,
    is_out_of_memory,
    take_place,
)
from trainer.events import EventLog
from trainer.memory import is_sharded
from trainer.model_folder import resolve
from trainer.model_size import tensors, weight_bytes
from trainer.packed import PackedSamples
from trainer.peers import Peers
from trainer.prepare import resume_checkpoint
from trainer.problems import Problem
from trainer.settings import TrainSettings

log = logging.getLogger("trainer")

# How long a process that failed waits for another one's word on the cause.
LOST_PEER_WAIT_S, FOLLOWER_WAIT_S = 5, 2

T = TypeVar("T")


class Ranks:
    """This process among `size`. With one, every method gives back what it is given."""

    def __init__(self, rank: int = 0, size: int = 1, peers: Peers | None = None) -> None:
        self.rank, self.size = rank, size
        self.start = Start()
        self._asked: Tensor | None = None
        self._peers = peers
        self._less: Callable[[], dict[str, Any]] | None = None

    @classmethod
    def join(cls, timeout_s: int) -> "Ranks":
        """Joins torchrun's processes, if this is one, and takes the device of its place on this machine. `timeout_s`:
        how long one of them may let the others wait."""
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            return cls()
        device, timeout = take_place(), timedelta(seconds=timeout_s)
        backend, place = collective_backend(device), None if device.is_processor else device.torch_device
        if not torchrun.launched():
            distributed.init_process_group(backend, timeout=timeout, device_id=place)
            return cls(distributed.get_rank(), distributed.get_world_size())
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        peers = Peers(size)
        distributed.init_process_group(backend, timeout=timeout, device_id=place, rank=rank, world_size=size,
                                       store=peers.group_store(timeout))  # fmt: skip
        return cls(rank, size, peers)

    def leave(self) -> None:
        """Once all have come to their end: the first one may still be saving."""
        if distributed.is_initialized():
            distributed.barrier()
            if self._peers:
                self._peers.leave()
            distributed.destroy_process_group()

    def await_the_cause(self, error: Exception) -> Exception:
        """Lets the process whose fault it was speak first: what befalls the others is only that it ended, and the
        launcher ends them while they wait here. What fails everywhere is for the first process to tell. Returns what
        is to be told by this one, if nobody has ended it."""
        if self.size == 1:
            return error
        lost = is_lost_peer(error)
        if lost or not self.leads:
            time.sleep(LOST_PEER_WAIT_S if lost else FOLLOWER_WAIT_S)
        return Problem("connection_lost", detail=_first_words(error)) if lost else error

    def abandon(self, problem: Problem) -> None:
        """Ends this process where there are others, and them: to leave in good order would mean to wait for them."""
        if self._peers:
            self._peers.end(problem.code, problem.values)
        if self.size > 1:
            os._exit(1)

    # ---- short of memory ----

    def starting_point(self, settings: TrainSettings, events: EventLog) -> Path | None:
        """The checkpoint to go on from; where the processes have been started again, the first one's word on it."""
        if self._peers is None or not self._peers.attempt:
            self.start = Start(self._found(settings))
            return self.start.checkpoint
        [self.start, *_] = self.gathered(again.starting_point(settings) if self.leads else Start())
        found = self.start.checkpoint
        if self.any(found is not None and not run_folder.is_resumable(found)):  # a machine with a disk of its own
            self.start = replace(self.start, checkpoint=resume_checkpoint(settings))
        events.append("warning", code="started_again", step=self.start.step)
        return self.start.checkpoint

    def _found(self, settings: TrainSettings) -> Path | None:
        """Raises Problem where there is none to go on from; of several processes only the first does: `agree` tells
        the others' want of it, which a disk of their own may have."""
        try:
            return resume_checkpoint(settings)
        except Problem as problem:
            if self.leads or problem.code != "nothing_to_resume":
                raise
            return None

    def when_short(self, less: Callable[[], dict[str, Any]] | None, events: EventLog) -> None:
        """`less` gives the warning that says how a run whose memory was short goes on, or raises the Problem that it
        cannot; None while nothing would help. `events`: where the first process writes it."""
        self._less = less
        if self._peers and self.leads:
            self._peers.take = lambda warning: events.append("warning", **warning)

    def start_again_if_short(self, error: Exception) -> Exception:
        """Where memory was short in a pass of shards, ends all processes, to be started again with less, and does not
        return: the others wait in a pass that this one cannot go back to. Else returns what is to be told."""
        if not is_out_of_memory(error) or self._less is None:
            return error
        if self._peers is None:  # somebody else's torchrun
            return Problem("sharded_out_of_memory", device=current().name, count=self.size)
        try:
            warning = self._less()
        except Problem as problem:
            return problem
        log.warning("process %d: %s; all start again", self.rank, error)
        self._peers.start_again(warning)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    # ---- agreeing ----

    def sums(self, *values: float) -> list[float]:
        """Each value added up over the processes."""
        return self._reduced(values, distributed.ReduceOp.SUM)

    def most(self, value: int) -> int:
        """The greatest of the processes' values."""
        return int(self._reduced([value], distributed.ReduceOp.MAX, torch.int64)[0])

    def any(self, truth: bool) -> bool:
        return bool(self.most(int(truth)))

    def _reduced(self, values: Iterable[float], how: Any, dtype: torch.dtype | None = None) -> list[float]:
        if self.size == 1:
            return list(values)
        place = collective_device()
        together = torch.tensor(list(values), dtype=dtype or place.widest, device=place.torch_device)
        distributed.all_reduce(together, how)
        return together.tolist()

    def gathered(self, value: T) -> list[T]:
        """Every process's value, in order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    # ---- samples ----

    def agree(self, samples: PackedSamples, resumed_step: int) -> None:
        """Raises Problem, in every process, when one has other samples than the first, or goes on from another step:
        they would wait for each other in vain, or train on what belongs to no dataset."""
        if self.size == 1:
            return
        machine = int(os.environ.get("GROUP_RANK", "0")) + 1
        mine = (len(samples), samples.digest(), resumed_step, machine)
        (first, content, step, _), *others = self.gathered(mine)
        for count, theirs, from_step, machine in others:
            if (count, theirs) != (first, content):
                raise Problem("machines_data_differ", machine=machine, count=count, first=first)
            if from_step != step:
                raise Problem("machines_checkpoint_differs", machine=machine, step=from_step, first=step)

    def part(self, samples: list[Sample]) -> list[Sample]:
        """This process's samples of a step: about as many tokens as every other's. May be none of a short step."""
        if self.size == 1:
            return samples
        shares = batching.share([len(sample.input_ids) for sample in samples], self.size)
        return [samples[position] for position in shares[self.rank]] if self.rank < len(shares) else []

    # ---- data parallel ----

    def equalize(self, trained: list[nn.Parameter]) -> None:
        """Gives every process the first one's values, in case that libraries initialize them differently.

        Sharded ones stay: each process has read its own part of a file.
        """
        if self.size > 1:
            for parameter in trained:
                if not isinstance(parameter, DTensor):
                    distributed.broadcast(parameter.data, 0)

    def add_up(self, trained: list[nn.Parameter], loss: Tensor, stop: bool) -> tuple[Tensor, bool]:
        """Adds up the gradients, in place, and the losses, over the processes; and whether all of them are to stop.

        One collective a step: every gradient of an adapter and both numbers travel in one fp32 buffer. Nothing is
        read from the device before the next step: with several processes a stop is answered one step later.
        """
        if self.size == 1:
            return loss, stop
        numbers = torch.stack([loss.float(), torch.tensor(float(stop), device=loss.device)])
        if not trained or any(isinstance(parameter, DTensor) for parameter in trained):  # added up as they were made
            distributed.all_reduce(numbers)
        else:
            numbers = _all_reduced(trained, numbers)
        before, self._asked = self._asked, numbers[1]
        return numbers[0], before is not None and bool(before)

    # ---- sharded ----

    def share_weights(self, settings: TrainSettings, compute: torch.dtype, device: Device) -> bool:
        """Whether this run cuts the weights over the processes; the same answer in all of them."""
        if self.size == 1 or settings.deepspeed:  # which cuts them itself
            return False
        weights = weight_bytes(tensors(resolve(Path(settings.model_name_or_path))), compute.itemsize)
        return self.any(is_sharded(settings, self.size, weights, device.total_memory()))

    def weights(self, root: nn.Module, model: nn.Module) -> dict[str, Any] | None:
        """The whole state dict of `model`, sharded below `root`, tensors that go by two names once; None for an
        adapter, which every process has. A collective, as `whole`."""
        assert isinstance(root, FSDPModule)
        root.reshard()  # an evaluation leaves it gathered, and who saves would let go of that alone
        if isinstance(model, PeftModel):
            return None
        named = {id(tensor): name for name, tensor in reversed(model.state_dict(keep_vars=True).items())}
        return {name: self.whole(tensor) for name, tensor in model.state_dict().items() if name in named.values()}

    def whole(self, value: Any) -> Any:
        """`value` with every sharded tensor in it gathered on the first process's CPU, None on the others'.

        A collective: every process calls it.
        """
        if isinstance(value, DTensor):
            gathered = value.full_tensor()
            return gathered.cpu() if self.leads else None
        if isinstance(value, dict):
            return {key: self.whole(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.whole(item) for item in value)
        return value

    def shard(self, root: nn.Module, layers: Iterable[nn.Module], compute: torch.dtype, device: torch.device) -> None:
        """Cuts the weights below `root`, on the CPU, over the processes' devices, a layer of `layers` at a time;
        each is gathered by itself when it runs.

        An adapter is small and stays whole, so that it is trained and saved as where nothing is sharded. `compute`:
        the dtype that trained weights are gathered in; gradients are added up in fp32.
        """
        adapter = any(isinstance(module, PeftModel) for module in root.modules())
        whole = {parameter for parameter in root.parameters() if adapter and parameter.requires_grad}
        for parameter in whole:
            parameter.data = parameter.data.to(device)
        # Inputs stay as they are: what a label counts is a number for fp32.
        policy = MixedPrecisionPolicy(None if adapter else compute, torch.float32, cast_forward_inputs=False)
        for module in [*layers, root]:
            fully_shard(module, mp_policy=policy, ignored_params=whole)
        for module in root.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # the loss is a mean over the whole step already
                module.set_force_sum_reduction_for_comms(True)


def _all_reduced(trained: list[nn.Parameter], numbers: Tensor) -> Tensor:
    """Adds up the gradients of `trained` in place; returns `numbers` added up."""
    for parameter in trained:
        if parameter.grad is None:  # no sample of this step was ours
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    together = torch.cat([*(gradient.reshape(-1).float() for gradient in gradients), numbers])
    distributed.all_reduce(together)
    *added, numbers = together.split([*(gradient.numel() for gradient in gradients), len(numbers)])
    torch._foreach_copy_(gradients, [total.view_as(old) for total, old in zip(added, gradients, strict=True)])
    return numbers


def widen(root: nn.Module) -> None:
    """Keeps the trained shards below `root` in fp32, whatever they were read as."""
    if any(parameter.requires_grad and parameter.dtype != torch.float32 for parameter in root.parameters()):
        root.float()


def from_the_first(value: Tensor) -> Tensor:
    """The first process's `value`, where there are several."""
    if not distributed.is_initialized():
        return value
    sent = value.to(collective_device().torch_device).contiguous()
    distributed.broadcast(sent, 0)
    return sent.to(value.device)


def sharded_like(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state dict of whole tensors, cut as the parameters are that `optimizer` updates."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def cut(number: int, item: Any) -> Any:
        like = parameters[number]
        if not isinstance(like, DTensor) or not isinstance(item, Tensor) or item.shape != like.shape:
            return item
        return distribute_tensor(item.to(like.device), like.device_mesh, like.placements)

    cut_state = {
        number: {name: cut(number, item) for name, item in items.items()} for number, items in state["state"].items()
    }
    return {**state, "state": cut_state}


def bytes_here(parameters: Iterable[nn.Parameter]) -> int:
    """Bytes of what this process holds of `parameters`."""
    parts = (parameter.to_local() if isinstance(parameter, DTensor) else parameter for parameter in parameters)
    return sum(part.numel() * part.element_size() for part in parts)


def number(value: Tensor) -> float:
    """A scalar, gathered where it is sharded."""
    return float(value.full_tensor() if isinstance(value, DTensor) else value)


def _first_words(error: Exception) -> str:
    """What an error says before its advice; without the line of C++ that it came from."""
    line = str(error).strip().split("\n")[0].split(". This ")[0]
    return re.sub(r"^\[\S+:\d+\] ", "", line)[:200]


def is_lost_peer(error: BaseException) -> bool:
    """Whether `error` is another process's end, as its partners see it."""
    if not isinstance(error, RuntimeError | OSError):
        return False
    words = ("Connection closed by peer", "Connection reset by peer")
    told = is_collective_error(str(error)) or any(word in str(error) for word in words)
    return told or isinstance(error, distributed.DistError)
