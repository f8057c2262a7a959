"""What is known of each kind of device, under torch's name for it. Light: no torch.

The one table that every other module asks instead of asking which vendor a device is from. A kind that is not in it
works as far as torch.accelerator carries it, with nothing that nobody has tried there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ComputeTypes = tuple[Literal["bf16", "fp16", "fp32", "pure_bf16"], ...]
# Of a device whose makers say that it computes in 16 bits; `Device.compute_types` asks whether this one does.
_SIXTEEN_BIT: ComputeTypes = ("bf16", "fp32", "pure_bf16")

# torch's own varlen flash attention, under the name that trainer/attention.py registers it by.
TORCH_VARLEN = "torch_varlen"


@dataclass(frozen=True)
class Kind:
    """`name`: torch's device type.

    `compute_types`: what works, best first. `backend`: of collectives, "" leaves it to torch. `float64`: whether it
    adds doubles, in collectives too. `unpadded_attention`: transformers' name for what attends over samples laid end to
    end, None where they are padded. `captures_graphs`: passes can be recorded and replayed, by kernels of ours too
    (Triton's). `fuses_adamw`: torch's AdamW of one kernel is known to be there. `quantizes`: bitsandbytes runs on it. `compiles`: whether operators may be compiled at run time.

    `package`, `distribution`: what brings it to torch, as it is imported and installed. `visible`: the variable that
    names the devices that a program sees, in ascending order if `ascending`; `numbering`: what has to be set beside it
    for the vendor's tool and the program to count alike. `allocator`: of the environment before torch is imported.
    `waits`: what limits how long a device waits for the others, where torch's own limit does not reach it, and by how
    many seconds each must exceed that.
    `tool`, `files`: the vendor's program that lists the devices, and what they are called in /dev.
    """

    name: str
    compute_types: ComputeTypes = _SIXTEEN_BIT
    backend: str = ""
    float64: bool = False
    unpadded_attention: str | None = None
    captures_graphs: bool = False
    fuses_adamw: bool = False
    quantizes: bool = False
    compiles: bool = True
    package: str = ""
    distribution: str = ""
    visible: str = ""
    ascending: bool = False
    numbering: Mapping[str, str] = field(default_factory=dict)
    allocator: Mapping[str, str] = field(default_factory=dict)
    waits: Mapping[str, int] = field(default_factory=dict)
    tool: str = ""
    files: str = ""

    @property
    def is_processor(self) -> bool:
        return self.name == "cpu"


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "cpu",
            compute_types=("fp32", "bf16", "pure_bf16"),
            backend="gloo",
            float64=True,
            fuses_adamw=True,
            quantizes=True,
        ),
        Kind(
            "cuda",
            compute_types=("bf16", "fp16", "fp32", "pure_bf16"),
            backend="nccl",
            float64=True,
            unpadded_attention=TORCH_VARLEN,
            captures_graphs=True,
            fuses_adamw=True,
            quantizes=True,
            visible="CUDA_VISIBLE_DEVICES",
            numbering={"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},  # nvidia-smi's order, which is not CUDA's own
            tool="nvidia-smi",
            files="nvidia[0-9]*",
        ),
        # Not run on such a device yet, but for the part that a stand-in for it can show. No fp16: what is trained in it
        # needs its losses scaled, and bf16 does not.
        Kind(
            "npu",
            backend="hccl",
            unpadded_attention="flash_attention_2",  # transformers maps it to npu_fusion_attention
            compiles=False,  # each new shape of an operator would be compiled for seconds
            package="torch_npu",
            distribution="torch-npu",
            visible="ASCEND_RT_VISIBLE_DEVICES",
            ascending=True,  # the runtime finds no device at all in a list that does not ascend
            allocator={"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True"},
            # The device itself waits for 1836 s, less than a slow save takes; the second must be above the first.
            waits={"HCCL_EXEC_TIMEOUT": 0, "HCCL_EVENT_TIMEOUT": 32},
            tool="npu-smi",
            files="davinci[0-9]*",
        ),
    )
}
# torch's own name for every allocator; torch-npu refuses to have both.
ALLOCATOR_OF_ALL = "PYTORCH_ALLOC_CONF"
# The visibility variable of each kind that has one.
VISIBLE = {kind.name: kind.visible for kind in KINDS.values() if kind.visible}
# The kind whose variable is named where none is at hand to ask.
USUAL = KINDS["cuda"]


def of(name: str) -> Kind:
    """The kind that torch calls `name`; a plain one for a name that is not in the table."""
    return KINDS.get(name) or Kind(name)
