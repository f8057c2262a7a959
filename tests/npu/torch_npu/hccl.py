"""The collective back end "hccl": gloo, on copies of what is on the device."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed
from torch._C._distributed_c10d import AllgatherOptions, AllreduceOptions, _create_work_from_future
from torch_npu import notes


def register() -> None:
    distributed.Backend.register_backend("hccl", _create, devices=["npu"])


def _create(store: Any, rank: int, size: int, timeout: timedelta) -> Any:
    notes.add("hccl", rank=rank, size=size)
    return Hccl(store, rank, size, timeout)


class Hccl(distributed.ProcessGroup):
    """Refuses what is not on the device, as the real one does."""

    def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)
        self._gloo = distributed.ProcessGroupGloo(store, rank, size, timeout)
        self._size, self._name = size, ""

    # The wrapped class keeps its name where Python does not find it.
    def _set_group_name(self, name: str) -> None:
        self._name = name

    @property
    def group_name(self) -> str:
        return self._name

    def size(self) -> int:
        return self._size

    def getBackendName(self) -> str:
        return "hccl"

    # torch asks these of what it makes itself; a group made in Python is its own back end
    supports_splitting = False
    _device_types = (torch.device("npu"),)

    def _get_backend(self, device: torch.device) -> "Hccl":
        return self

    def allreduce(self, tensors: list[Tensor], opts: Any) -> Any:
        return self._on_copies(lambda given: self._gloo.allreduce(given, opts), tensors)

    def broadcast(self, tensors: list[Tensor], opts: Any) -> Any:
        return self._on_copies(lambda given: self._gloo.broadcast(given, opts), tensors)

    def barrier(self, opts: Any) -> Any:
        return self._gloo.barrier(opts)

    def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any) -> Any:
        given = [_host(tensor) for tensor in inputs]
        return self._on_copies(lambda found: self._gloo.allgather([found], given, opts), *outputs)

    def all_gather_single(self, output: Tensor, given: Tensor, opts: Any = None) -> Any:
        return self.allgather([list(output.chunk(self._size))], [given], AllgatherOptions())

    def all_gather_single_coalesced(self, outputs: list[Tensor], inputs: list[Tensor], opts: Any = None) -> Any:
        return [self.all_gather_single(*pair) for pair in zip(outputs, inputs, strict=True)][-1]

    def scatter(self, outputs: list[Tensor], inputs: list[list[Tensor]], opts: Any) -> Any:
        given = [[_host(tensor) for tensor in tensors] for tensors in inputs]
        return self._on_copies(lambda found: self._gloo.scatter(found, given, opts), outputs)

    def reduce_scatter_single(self, output: Tensor, given: Tensor, opts: Any) -> Any:
        whole, added = _host(given), AllreduceOptions()
        added.reduceOp = opts.reduceOp
        self._gloo.allreduce([whole], added).wait()
        output.copy_(whole.chunk(self._size)[self.rank()])
        return _done([output])

    def _on_copies(self, run: Callable[[list[Tensor]], Any], tensors: list[Tensor]) -> Any:
        copies = [_host(tensor) for tensor in tensors]
        work = run(copies)
        work.wait()
        for tensor, copy in zip(tensors, copies, strict=True):
            tensor.copy_(copy)
        return _done(tensors)


def _host(tensor: Tensor) -> Tensor:
    if tensor.device.type != "npu":
        raise RuntimeError(f"hccl: tensors must be on an NPU, got {tensor.device}")
    return tensor.cpu()


def _done(tensors: list[Tensor]) -> Any:
    future: Any = torch.futures.Future()
    future.set_result(tensors)
    return _create_work_from_future(future)
