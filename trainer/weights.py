"""A model's weights on their way from safetensors files into an accelerator's memory, while libraries are imported.

transformers and peft take longer to import than 15 GB take to read; reading needs torch alone. Several threads
read pieces of the files into pinned memory, from where the device fetches them.
"""

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainer.declared import ComputeType
from trainer.device import current
from trainer.model_folder import resolve
from trainer.model_size import StoredTensor, stored_tensors

# As safetensors names them; any other dtype is left to transformers.
TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
READERS, PIECE = 8, 32 * 2**20


@dataclass(frozen=True)
class _Part:
    """`size` bytes of a file from `start`, which belong into the tensor `name` from its byte `offset`."""

    name: str
    file: Path
    start: int
    offset: int
    size: int


class Weights:
    """The tensors of a model folder, read into the accelerator's memory from the moment that this is made."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._stored = stored_tensors(resolve(folder))
        self._device = device
        self._tensors: dict[str, Tensor] = {}
        self._here = threading.local()
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="weights")
        self._begun: Future[list[Future[None]]] = self._pool.submit(self._begin)

    @classmethod
    def ahead(cls, folder: Path, compute_type: ComputeType) -> "Future[Weights | None]":
        """`of` in a thread of its own, for the device at hand, so that the caller can import libraries meanwhile."""

        def begin() -> Weights | None:
            device = current()
            return cls.of(folder, device.dtype(compute_type), device.torch_device)

        starter = ThreadPoolExecutor(1, thread_name_prefix="weights")
        try:
            return starter.submit(begin)
        finally:
            starter.shutdown(wait=False)

    @classmethod
    def of(cls, folder: Path, dtype: torch.dtype, device: torch.device) -> "Weights | None":
        """None where they cannot be the model's as they are: another dtype is stored, or there is no accelerator."""
        if device.type == "cpu" or {TYPES.get(tensor.dtype) for tensor in stored_tensors(resolve(folder))} != {dtype}:
            return None
        return cls(folder, device)

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor by its name, once they are there. They are given away: a second call finds none.

        Raises OSError for a file that ends early, torch.OutOfMemoryError for a device that is too small.
        """
        try:
            for reading in self._begun.result():
                reading.result()
        finally:
            self._pool.shutdown(cancel_futures=True)
            taken, self._tensors = self._tensors, {}
        return taken

    def _begin(self) -> list[Future[None]]:
        """In a thread as well: a device takes its time to wake."""
        for tensor in self._stored:
            self._tensors[tensor.name] = torch.empty(tensor.shape, dtype=TYPES[tensor.dtype], device=self._device)
        return [self._pool.submit(self._read, parts) for parts in _pieces(self._stored)]

    def _read(self, parts: list[_Part]) -> None:
        """One stretch of a file, of at most PIECE bytes, to the tensors whose parts it holds."""
        if not hasattr(self._here, "buffer"):
            fetched = self._device.type != "cpu"
            self._here.buffer = torch.empty(PIECE, dtype=torch.uint8, pin_memory=fetched)
            self._here.stream = torch.Stream(self._device) if fetched else None
        buffer, start = self._here.buffer, parts[0].start
        _read_whole(parts[0].file, start, memoryview(buffer.numpy())[: parts[-1].start + parts[-1].size - start])
        stream = self._here.stream
        with stream or nullcontext():
            for part in parts:
                bytes_of = self._tensors[part.name].view(-1).view(torch.uint8)
                begin = part.start - start
                bytes_of[part.offset : part.offset + part.size].copy_(
                    buffer[begin : begin + part.size], non_blocking=True
                )
        if stream:
            stream.synchronize()  # the buffer is used again


def _pieces(stored: list[StoredTensor]) -> list[list[_Part]]:
    """The tensors' bytes in stretches of at most PIECE, each within one file and without a gap."""
    pieces: list[list[_Part]] = []
    room = 0
    for tensor in sorted(stored, key=lambda tensor: (tensor.file, tensor.start)):
        offset = 0
        while offset < tensor.size:
            start = tensor.start + offset
            last = pieces[-1][-1] if pieces else None
            if last is None or not room or (last.file, last.start + last.size) != (tensor.file, start):
                pieces.append([])
                room = PIECE
            size = min(tensor.size - offset, room)
            pieces[-1].append(_Part(tensor.name, tensor.file, start, offset, size))
            offset, room = offset + size, room - size
    return pieces


def _read_whole(file: Path, start: int, target: memoryview) -> None:
    with file.open("rb", buffering=0) as stream:
        done = 0
        while done < len(target):
            count = os.preadv(stream.fileno(), [target[done:]], start + done)
            if not count:
                raise OSError(f"{file} ends at byte {start + done}")
            done += count
