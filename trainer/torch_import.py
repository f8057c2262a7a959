"""torch, imported so that a broken torch-npu does not take it along: every process that imports torch comes by here.

Where torch-npu is installed, `import torch` loads it, and raises when CANN is missing or is another one than it needs.
Light: imports nothing where torch-npu is not installed.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from functools import cache
from typing import Any

from trainer import cann, device_kinds
from trainer.problems import Problem

NPU = device_kinds.KINDS["npu"]
AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"


@cache
def prepare() -> Problem | None:
    """To be called before the first import of torch; a later call gives the same answer.

    A Problem: torch-npu is installed but cannot be used, so that this process computes without it. Then nothing of it
    is left in `sys.modules`, and whoever asks for it hears that it is not installed.
    """
    if "torch" in sys.modules or importlib.util.find_spec(NPU.package) is None:
        return None
    _set_allocator()
    given = os.environ.get(AUTOLOAD)
    os.environ[AUTOLOAD] = "0"  # stays so when it fails: programs that this one starts would fail as well
    npu, torch = _version(NPU.distribution), _version("torch")
    if npu and torch and not cann.is_built_for(npu, torch):  # it may import all the same, and crash later
        _forget()
        return _problem("npu_other_torch", npu, torch, wanted_torch=cann.torch_for(npu))
    importlib.import_module("torch")
    try:
        importlib.import_module(NPU.package)
    except Exception as error:  # ImportError, OSError or RuntimeError, as the libraries below it fail
        _forget()
        return _problem("npu_not_loaded", npu, torch, detail=" ".join(str(error).split())[:300])
    if given is None:
        del os.environ[AUTOLOAD]
    else:
        os.environ[AUTOLOAD] = given
    return None


def _set_allocator() -> None:
    """What the user has set stays, and with torch's own variable torch-npu refuses to have another."""
    if device_kinds.ALLOCATOR_OF_ALL not in os.environ:
        for name, value in NPU.allocator.items():
            os.environ.setdefault(name, value)


def _forget() -> None:
    for name in [name for name in sys.modules if name == NPU.package or name.startswith(f"{NPU.package}.")]:
        del sys.modules[name]
    sys.modules[NPU.package] = None  # type: ignore[assignment]  # Python's way to say: not to be found


def _problem(code: str, npu: str | None, torch: str | None, **values: Any) -> Problem:
    needed = cann.cann_for(npu) if npu else None
    missing = {"en": "none found", "zh": "没有找到"}
    return Problem(
        code,
        npu=npu or "?",
        torch=torch or "?",
        wanted_cann=f"CANN {needed}"
        if needed
        else {"en": "the CANN of its release notes", "zh": "其发布说明所列的 CANN"},
        cann=cann.installed_cann() or missing,
        **values,
    )


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
