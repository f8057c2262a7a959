"""Nothing outside the device layer asks which vendor a device is from; and what the layer says of each kind."""

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from trainer import device_kinds
from trainer.device_kinds import KINDS, VISIBLE

# What may name vendors: the layer with its light half, what reads the vendors' tools, its sentences, and who reports.
LAYER = {
    "trainer/device.py",
    "trainer/device_kinds.py",
    "trainer/torch_import.py",
    "trainer/accelerators.py",
    "trainer/unused_reason.py",
    "trainer/cann.py",
    "trainer/smi_ascend.py",
    "trainer/smi_nvidia.py",
    "trainer/problems/device.py",
    "app/doctor_devices.py",
}
VENDORS = {"cuda", "cudnn", "cublas", "nccl", "nvidia", "nvml", "pynvml", "geforce", "hip", "rocm", "rocr", "amdgpu",
           "npu", "npus", "hccl", "ascend", "davinci", "cann", "acl", "xpu", "xccl", "mps", "mlu", "musa", "privateuse",
           "privateuseone"}  # fmt: skip
# What a text is asked about by name.
QUESTIONS = {"startswith", "endswith", "find", "index", "count", "removeprefix", "removesuffix", "partition", "split",
             "search", "match", "fullmatch", "replace"}  # fmt: skip


def sources() -> list[Path]:
    return sorted(path for folder in ("app", "trainer") for path in (ROOT / folder).rglob("*.py"))


@cache
def words_of(name: str) -> frozenset[str]:
    """is_torch_npu_available, CUDA_VISIBLE_DEVICES, MyNpuThing, npu-smi, cuda:0: each of the words in it."""
    return frozenset(word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name))


def names_in(node: ast.AST) -> list[str]:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name) | ast.arg(arg=name) | ast.FunctionDef(name=name):
            return [name]
        case ast.keyword(arg=str(name)):
            return [name]
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names):
            return [f"{module}.{alias.name}" for alias in names]
    return []


def asked_about(nodes: list[ast.AST]) -> Iterator[ast.AST]:
    """What is compared, or looked for in a text."""
    for node in nodes:
        asks = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in QUESTIONS
        if asks or isinstance(node, ast.Compare | ast.match_case):
            yield from ast.walk(node.pattern if isinstance(node, ast.match_case) else node)


def vendors_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Lines that name a vendor in code, or ask for one by a text. Sentences may name any."""
    nodes = list(ast.walk(tree))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    asked = {id(node) for node in asked_about(nodes)}
    for node in nodes:
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in docstrings:
            text = node.value if isinstance(node.value, str) else node.value.decode(errors="replace")
            is_sentence = " " in text.strip() and id(node) not in asked
            if not is_sentence and words_of(text) & VENDORS:
                yield line, repr(text)
        yield from ((line, name) for name in names_in(node) if words_of(name) & VENDORS)


def test_nothing_outside_the_layer_names_a_vendor() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in sources()
        if str(path.relative_to(ROOT)) not in LAYER
        for line, what in vendors_in(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "ask trainer/device.py or trainer/device_kinds.py instead:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "if device.type == 'cuda': pass",
        "if 'npu' in str(device): pass",
        "if str(device).startswith('npu'): pass",
        "if name.startswith('Ascend 910'): pass",
        "if 'NVIDIA H' in name: pass",
        "torch.npu.synchronize()",
        "getattr(torch, 'cuda')",
        "torch.version.hip",
        "torch._C._cuda_getDeviceCount()",
        "torch.backends.cudnn.benchmark = True",
        "tensor.is_npu",
        "dist.is_nccl_available()",
        "import torch_npu",
        "import pynvml",
        "from torch import cuda",
        "from torch.cuda import graphs",
        "import torch.cuda as c",
        "from transformers.utils import is_torch_npu_available",
        "from trainer.torch_import import NPU",
        "kind is torch_import.NPU",
        "from trainer.smi_nvidia import KIND",
        "match kind:\n    case 'cuda': pass",
        "answers = {'npu': 1}[kind]",
        "dict(cuda=1)",
        "backend = {'a': 'hccl'}",
        "place = 'npu:0'",
        "word = b'cuda'",
        "device = 'privateuseone'",
        "open('/dev/davinci0')",
        "os.environ['ASCEND_RT_VISIBLE_DEVICES'] = '1'",
        "argv = ['CUDA_VISIBLE_DEVICES=', '1']",
        "argv = ['CUDA_VISIBLE_DEVICES=0,1']",
        "subprocess.run(['npu-smi', 'info'])",
        "words = f'cuda:{index}'",
    ],
)
def test_a_vendor_that_is_named_is_found(code: str) -> None:
    assert list(vendors_in(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "'''On cuda and npu.'''",
        "say('Needs CUDA 12 or an Ascend NPU.')",
        "inputs = 'input'",
        "if device.is_processor: pass",
        "if words[2] == 'ascending': pass",
        "words = ['maps', 'hipster', scanner]",
    ],
)
def test_a_sentence_may_name_a_vendor(code: str) -> None:
    assert not list(vendors_in(ast.parse(code)))


def test_every_module_of_the_layer_names_a_vendor() -> None:
    for name in LAYER:
        assert list(vendors_in(ast.parse((ROOT / name).read_text(encoding="utf-8")))), f"{name} need not be in the list"


@pytest.mark.slow
def test_no_process_is_forked_off_one_that_may_hold_a_device() -> None:
    """An NPU is lost to a child that is forked: our processes are started anew."""
    for path in (ROOT / "trainer").glob("*.py"):
        words = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not words & {"fork", "forkpty", "multiprocessing", "DataLoader"}, path.name


# ---- what is known of each kind ----


def test_each_kind_is_known_under_torchs_name_with_all_that_starting_it_takes() -> None:
    assert {name: kind.backend for name, kind in KINDS.items()} == {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}
    assert VISIBLE == {"cuda": "CUDA_VISIBLE_DEVICES", "npu": "ASCEND_RT_VISIBLE_DEVICES"}
    npu = KINDS["npu"]
    assert npu.compute_types[0] == "bf16"
    assert "fp16" not in npu.compute_types, "it would need a scaler"
    assert npu.allocator == {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True"}
    assert (npu.unpadded_attention, npu.captures_graphs, npu.quantizes, npu.compiles) == (
        "flash_attention_2",
        False,
        False,
        False,
    )


def test_a_kind_that_is_not_in_the_table_gets_nothing_that_was_never_tried_there() -> None:
    other = device_kinds.of("xpu")
    assert other.compute_types[0] == "bf16"
    assert not any([other.captures_graphs, other.quantizes, other.unpadded_attention, other.visible, other.float64])


# ---- with torch ----


@pytest.mark.slow
def test_a_device_without_bf16_computes_in_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer import device

    class Old:
        @staticmethod
        def is_bf16_supported() -> bool:
            return False

    monkeypatch.setattr(device, "_module", lambda name: Old)
    assert device.Device("cuda", "T4", 1).compute_types() == ["fp16", "fp32"]
    assert device.Device("npu", "910A", 1).compute_types() == ["fp32"]
    assert device.CPU.compute_types() == ["fp32", "bf16", "pure_bf16"]


@pytest.mark.slow
def test_a_back_end_that_tells_neither_name_nor_memory_has_those_of_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil
    import torch

    from trainer import device

    def silent(*_: object) -> tuple[int, int]:
        raise RuntimeError("not implemented for this back end")

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    monkeypatch.setattr(torch.accelerator, "get_memory_info", silent)
    found = device.current()
    assert (found.type, found.name) == ("mps", f"{device.processor_name()} (mps)")
    assert found.total_memory() == psutil.virtual_memory().total
    assert found.widest == torch.float32, "it has no doubles"
    monkeypatch.setattr(torch.cuda, "mem_get_info", silent)
    with pytest.raises(RuntimeError, match="not implemented"):  # it can be asked, and fails
        device.Device("cuda", "H200", 1).total_memory()


@pytest.mark.slow
def test_memory_is_asked_of_the_devices_own_module_where_torch_accelerator_knows_no_allocator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from trainer import device

    done: list[str] = []

    class Npu:
        memory_allocated, memory_reserved, max_memory_allocated = (lambda: 3), (lambda: 5), (lambda: 7)
        reset_peak_memory_stats, empty_cache = (lambda: done.append("reset")), (lambda: done.append("emptied"))
        mem_get_info, synchronize = (lambda: (11, 64)), (lambda: done.append("synchronized"))

    def refuse(*_: object) -> None:
        raise RuntimeError("Allocator for npu is not a DeviceAllocator.")

    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "reset_peak_memory_stats", "empty_cache",
                 "get_memory_info"):  # fmt: skip
        monkeypatch.setattr(torch.accelerator, name, refuse)
    monkeypatch.setattr(device, "_module", lambda name: {"npu": Npu}[name])
    here = device.Device("npu", "910B3", 1)
    assert (here.allocated_memory(), here.peak_memory(), here.free_memory(), here.total_memory()) == (3, 7, 13, 64)
    assert here.memory_gib() == 7 / 2**30
    here.reset_peak_memory()
    here.release_cached()
    here.synchronize()
    assert done == ["reset", "emptied", "synchronized"]


@pytest.mark.slow
def test_operators_of_an_npu_are_not_compiled_at_run_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer import device

    asked: list[bool] = []

    class Npu:
        @staticmethod
        def set_compile_mode(jit_compile: bool) -> None:
            asked.append(jit_compile)

    monkeypatch.setattr(device, "_module", lambda name: Npu)
    device._set_up.cache_clear()
    for _ in range(3):
        device._set_up("npu")
    device._set_up("cuda")
    device._set_up.cache_clear()
    assert asked == [False]


@pytest.mark.slow
def test_what_is_captured_waits_for_the_device_and_is_recorded_from_this_thread_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from trainer import device

    done: list[Any] = []

    class Cuda:
        CUDAGraph = object

        @staticmethod
        def synchronize() -> None:
            done.append("synchronized")

        @staticmethod
        @contextmanager
        def graph(graph: object, **options: Any) -> Iterator[None]:
            done.append(options)
            yield
            done.append("recorded")

    monkeypatch.setattr(device, "_module", lambda name: {"cuda": Cuda}[name])
    with device.captured(torch.device("cuda", 1), "pool") as graph:
        done.append(type(graph))
    assert done == ["synchronized", {"pool": "pool", "capture_error_mode": "thread_local"}, object, "recorded"]


@pytest.mark.slow
def test_errors_of_collectives_are_known_by_any_librarys_name() -> None:
    from trainer.device import is_collective_error

    assert is_collective_error("[rank1]: NCCL communicator was aborted")
    assert is_collective_error("HCCL function error: HcclAllReduce")
    assert is_collective_error("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed")
    assert not is_collective_error("CUDA out of memory")


@pytest.mark.gpu
@pytest.mark.slow
def test_the_devices_random_state_is_kept_and_restored() -> None:
    import torch

    from trainer import device

    if not torch.accelerator.is_available():
        pytest.skip("NOT TESTED HERE: no accelerator")
    here = device.current()
    device.seed(7)
    state = here.rng_state()
    first = torch.rand(4, device=here.torch_device)
    here.set_rng_state(state)
    assert torch.equal(first, torch.rand(4, device=here.torch_device))
