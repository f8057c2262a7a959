"""A stand-in for torch_npu: the names that programs use of it, over a device that computes on the processor.

Imported by torch as the real one is, through its entry point. It does as the real one is documented to where programs
could come to rely on something else: device lists that do not ascend show nothing, a used device is lost to children
that are forked off, attention takes no masks of numbers, and both allocator variables together are refused.
"""

import atexit
import os
from pathlib import Path

import torch
from torch_npu import notes

if "PYTORCH_NPU_ALLOC_CONF" in os.environ and "PYTORCH_ALLOC_CONF" in os.environ:
    raise RuntimeError("PYTORCH_NPU_ALLOC_CONF and PYTORCH_ALLOC_CONF cannot be set together")
torch.ops.load_library(Path(__file__).with_name("backend.so"))
torch.utils.rename_privateuse1_backend("npu")

from torch_npu import npu  # noqa: E402

torch._register_device_module("npu", npu)
torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)

from torch_npu import attention, hccl  # noqa: E402
from torch_npu.attention import npu_fusion_attention  # noqa: E402

__version__ = torch.__version__.partition("+")[0]
__all__ = ["npu", "npu_fusion_attention"]

attention.refuse_masks_of_numbers()
hccl.register()
notes.add("imported", alloc_conf=os.environ.get("PYTORCH_NPU_ALLOC_CONF"), devices=npu.device_count(),
          visible=os.environ.get("ASCEND_RT_VISIBLE_DEVICES"))  # fmt: skip


@atexit.register
def _note_the_end() -> None:
    if npu.is_available():
        notes.add("ended", attention=attention.calls, peak=npu.max_memory_allocated(), device=npu.current_device())


def _autoload() -> None:
    """What torch calls at the end of its own import; importing this module was all."""
