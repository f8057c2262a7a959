"""ZeRO stages 2 and 3 (https://arxiv.org/abs/1910.02054) by DeepSpeed: optimizer state, gradients, and in stage 3 the
weights are cut over the processes, and may be kept in the host's memory.

Only how a step is computed: its samples, loss, clipping and schedule stay ours, and so do the checkpoints, which hold
whole tensors that any run can go on from, with as many processes and with or without DeepSpeed.
"""

import logging
import math
import os
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from trainer import batching
from trainer.batching import Batch
from trainer.chat_template import Sample
from trainer.device import Device
from trainer.distributed import Ranks, from_the_first
from trainer.loss import LabelLoss
from trainer.model import causal_lm
from trainer.problems import Problem

MOMENTS = ("exp_avg", "exp_avg_sq")


class Zero:
    """`loss_of` and `optimizer` under DeepSpeed. Call it with a batch for the loss.

    `loss_of` comes on the CPU and is moved to `device`. `config`: as deepspeed_config makes it. Every method is a
    collective: all processes call it.
    """

    def __init__(
        self, loss_of: LabelLoss, optimizer: torch.optim.Optimizer, config: dict[str, Any], ranks: Ranks, device: Device
    ) -> None:
        os.environ.setdefault("DS_ACCELERATOR", device.type)
        import deepspeed  # takes seconds

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)  # train.log is for what a person reads
        self._deepspeed, self._ranks, self._optimizer = deepspeed, ranks, optimizer
        self._trained: list[nn.Parameter] = [one for group in optimizer.param_groups for one in group["params"]]
        self._counts = [len(group["params"]) for group in optimizer.param_groups]
        compute = torch.bfloat16 if config["bf16"]["enabled"] else torch.float32
        exact = [one.data for one in self._trained]
        for parameter in self._trained:
            parameter.data = parameter.data.to(compute)
        deepspeed.init_distributed(dist_init_required=False, verbose=False)
        if config["zero_optimization"]["stage"] == 3:
            self._cut(loss_of, config, compute, device)
        self._engine = deepspeed.initialize(
            model=loss_of, optimizer=optimizer, config=config, dist_init_required=False
        )[0]
        self._start(device)
        for parameter, value in zip(self._trained, exact, strict=True):
            if value.dtype != compute:  # more than a copy in 16 bits could tell
                self._put(parameter, from_the_first(value.float()))

    def _cut(self, loss_of: LabelLoss, config: dict[str, Any], compute: torch.dtype, device: Device) -> None:
        """Cuts the weights over the processes. A layer is gathered as a whole when it runs: parts of it read each
        other's weights."""
        model = causal_lm(loss_of.model)
        for layer in model.get_decoder().layers:
            self._deepspeed.utils.set_z3_leaf_module(layer, True)
        # Where no input needs a gradient, a layer would be let go of before its backward pass.
        model.get_input_embeddings().register_forward_hook(lambda *call: call[-1].requires_grad_(True))
        output = model.get_output_embeddings()
        if isinstance(output, nn.Linear):  # its weight is read by the loss, outside of it
            self._deepspeed.zero.register_external_parameter(loss_of, output.weight)
        for buffer in loss_of.buffers():
            buffer.data = buffer.data.to(device.torch_device)
        self._deepspeed.zero.Init(module=loss_of, config_dict_or_path=config, dtype=compute)

    def _start(self, device: Device) -> None:
        """Makes AdamW's moments exist, which it does in its first step: in stage 2 too late for DeepSpeed, which then
        knows those of the first group alone."""
        for group in self._optimizer.param_groups:
            for flat in group["params"]:
                moments = {name: torch.zeros_like(flat) for name in MOMENTS}
                self._optimizer.state[flat] = {"step": torch.zeros((), device=flat.device), **moments}
        nothing = batching.collate([Sample([0, 0], [0, 0])], 0, 0.0).to(device.torch_device)
        self.backward(self(nothing))
        self.discard()

    # ---- a step ----

    def __call__(self, batch: Batch) -> Tensor:
        loss: Tensor = self._engine(batch)
        return loss

    def backward(self, loss: Tensor) -> None:
        """Adds up the gradients of `loss`, summed over the processes."""
        self._engine.backward(loss * self._ranks.size)  # it takes the mean

    def step(self, number: int) -> Tensor:
        """Clips the gradients added up so far and updates the weights; returns the norm before clipping.

        Raises Problem where that is not finite, which DeepSpeed would pass over: step `number` would be missing.
        """
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        if norm < 0 or not math.isfinite(norm):  # below 0: its word for infinite
            raise Problem("loss_not_finite", value=str(abs(norm) * math.inf), step=number)
        return torch.tensor(norm)

    def discard(self) -> None:
        """Forgets the gradients added up so far, and whatever AdamW remembers."""
        rates = [group["lr"] for group in self._optimizer.param_groups]
        for group in self._optimizer.param_groups:
            group["lr"] = 0.0
        self._engine.step()
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        for state in self._optimizer.state.values():
            for value in state.values():
                value.zero_()

    # ---- checkpoints ----

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's as if nothing were cut, on the first process's CPU."""
        get = self._deepspeed.utils.safe_get_full_optimizer_state
        step = next(iter(self._optimizer.state.values()))["step"].cpu()
        state = {
            number: {"step": step.clone(), **{name: self._kept(get(parameter, name)) for name in MOMENTS}}
            for number, parameter in enumerate(self._trained)
        }
        groups, first = [], 0
        for group, count in zip(self._optimizer.param_groups, self._counts, strict=True):
            groups.append({**group, "params": list(range(first, first + count))})
            first += count
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """What `state_dict` gave, or AdamW's own of a run without DeepSpeed."""
        for number, parameter in enumerate(self._trained):
            for name in MOMENTS:
                self._put(parameter, saved["state"][number][name].float(), name)
        for state in self._optimizer.state.values():
            state["step"].copy_(saved["state"][0]["step"])
        for group, old in zip(self._optimizer.param_groups, saved["param_groups"], strict=True):
            group |= {key: value for key, value in old.items() if key != "params"}

    def _put(self, parameter: nn.Parameter, value: Tensor, *moment: str) -> None:
        """Makes the whole `value` the weight that is updated, or a `moment` of it."""
        utils = self._deepspeed.utils
        if not hasattr(parameter, "ds_id"):
            whole = utils.safe_set_full_optimizer_state if moment else utils.safe_set_full_fp32_param
            return whole(parameter, value, *moment)
        # In stage 3 that fails where the last process's part is padded.
        length, rank = parameter.ds_tensor.numel(), self._ranks.rank
        padded = nn.functional.pad(value.flatten(), (0, length * self._ranks.size - value.numel()))
        part = utils.safe_set_local_optimizer_state if moment else utils.safe_set_local_fp32_param
        part(parameter, padded[rank * length : (rank + 1) * length], *moment)

    def weights(self, model: nn.Module) -> dict[str, Any]:
        """The whole state dict of `model`, tensors that go by two names once, on the first process's CPU; of an
        adapter what is trained."""
        named = {id(tensor): name for name, tensor in reversed(model.state_dict(keep_vars=True).items())}
        found = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            if named[id(tensor)] != name or (isinstance(model, PeftModel) and not tensor.requires_grad):
                continue
            found[name] = self._whole(tensor)
        return found

    def _whole(self, tensor: Tensor) -> Tensor | None:
        if tensor.requires_grad:
            return self._kept(self._deepspeed.utils.safe_get_full_fp32_param(tensor))
        if not hasattr(tensor, "ds_id"):
            return self._kept(tensor)
        with self._deepspeed.zero.GatheredParameters([tensor]):
            return self._kept(tensor)

    def _kept(self, whole: Tensor) -> Tensor | None:
        return whole.detach().to("cpu", copy=True) if self._ranks.leads else None
