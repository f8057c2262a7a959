"""torch, imported so that a broken torch-npu does not take it along: every process that imports torch comes by here.

Where torch-npu is installed, `import torch` loads it, and raises when CANN is missing or is another one than it needs;
with versions that do not belong together it may crash or hang. Light: imports nothing where torch-npu is not installed.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

from trainer import cann, deadline, device_kinds
from trainer.problems import Problem

NPU = device_kinds.KINDS["npu"]
AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
# What came of a trial, for the programs that this one starts: as JSON "" or what is wrong.
TRIED = "TUNEDESK_NPU_TRIED"
# The first import after a start may take a minute from a slow disk.
TRIAL_TIMEOUT_S = 120
NONE_FOUND = {"en": "none found", "zh": "没有找到"}
FAILED = 41  # the trial's status, where it can say what is wrong
MOST_DETAIL = 300


@cache
def prepare() -> Problem | None:
    """To be called before the first import of torch; a later call gives the same answer. Devices are numbered as the
    vendors' tools number them from then on, unless the environment says otherwise.

    A Problem: torch-npu is installed but cannot be used, so that this process computes without it. Then nothing of it
    is left in `sys.modules`, and whoever asks for it hears that it is not installed.
    """
    for kind in device_kinds.KINDS.values():
        for name, value in kind.numbering.items():
            os.environ.setdefault(name, value)
    npu, torch = _version(NPU.distribution), _version("torch")
    # A package that is only half removed is still looked for by torch.
    if "torch" in sys.modules or (importlib.util.find_spec(NPU.package) is None and npu is None):
        return None
    _set_allocator()
    given = os.environ.get(AUTOLOAD)
    os.environ[AUTOLOAD] = "0"  # stays so when it fails: programs that this one starts would fail as well
    if npu and torch and not cann.is_built_for(npu, torch):  # it may import all the same, and crash later
        _forget()
        return _other_torch(npu, torch)
    if detail := (None if _belong_together(npu) else _tried()):
        _forget()
        return _not_loaded(npu, torch, detail)
    importlib.import_module("torch")
    try:
        importlib.import_module(NPU.package)
    except (Exception, SystemExit) as error:  # some releases end the program where a library of CANN is missing
        _forget()
        return _not_loaded(npu, torch, _said(error))
    if given is None:
        del os.environ[AUTOLOAD]
    else:
        os.environ[AUTOLOAD] = given
    return None


def _belong_together(npu: str | None) -> bool:
    """Whether the published table has this torch-npu with the CANN that is here: then its import is known to end."""
    here = cann.installed_cann()
    return npu is not None and here is not None and cann.belongs(npu, here)


def _tried() -> Any:
    """What is wrong with torch-npu, found by a process of its own, for it may crash or hang; "" for nothing."""
    if TRIED not in os.environ:
        os.environ[TRIED] = json.dumps(_trial())
    return json.loads(os.environ[TRIED])


def _trial() -> Any:
    done = deadline.run([sys.executable, "-m", "trainer.torch_import"], TRIAL_TIMEOUT_S, cwd=Path(__file__).parents[1])
    if done is None:
        limit = TRIAL_TIMEOUT_S
        return {"en": f"its import did not end within {limit} s", "zh": f"导入在 {limit} 秒内没有结束"}
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return {"en": f"its import crashed with {name}", "zh": f"导入时崩溃（{name}）"}
    if done.returncode:
        lines = (done.stdout if done.returncode == FAILED else done.stderr).strip().splitlines()
        return lines[-1][:MOST_DETAIL] if lines else f"exit {done.returncode}"
    return ""


def main() -> int:
    """The trial: imports what `prepare` would, and looks for devices; the last line says what is wrong."""
    try:
        for name in ("torch", NPU.package):
            importlib.import_module(name)
        sys.modules["torch"].accelerator.device_count()
    except (Exception, SystemExit) as error:
        print(_said(error))
        return FAILED
    return 0


def _said(error: BaseException) -> str:
    """In one line; of a program's end, the error that it was ended for."""
    if isinstance(error, SystemExit) and error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split())[:MOST_DETAIL] or type(error).__name__


def _set_allocator() -> None:
    """What the user has set stays, and with torch's own variable torch-npu refuses to have another."""
    if device_kinds.ALLOCATOR_OF_ALL not in os.environ:
        for name, value in NPU.allocator.items():
            os.environ.setdefault(name, value)


def _forget() -> None:
    for name in [name for name in sys.modules if name == NPU.package or name.startswith(f"{NPU.package}.")]:
        del sys.modules[name]
    sys.modules[NPU.package] = None  # type: ignore[assignment]  # Python's way to say: not to be found


def _other_torch(npu: str, torch: str) -> Problem:
    """With what to install: not the torch that this torch-npu was built for, where that one does not run Tunedesk."""
    here = cann.installed_cann()
    take = cann.to_take(here, npu)
    return Problem(
        "npu_other_torch",
        npu=npu,
        torch=torch,
        wanted_torch=cann.torch_for(npu),
        install=take.packages,
        wanted_cann=f"CANN {take.cann}",
        cann=here or NONE_FOUND,
    )


def _not_loaded(npu: str | None, torch: str | None, detail: Any) -> Problem:
    needed = cann.cann_for(npu) if npu else None
    return Problem(
        "npu_not_loaded",
        npu=npu or "?",
        torch=torch or "?",
        wanted_cann=f"CANN {needed}"
        if needed
        else {"en": "the CANN of its release notes", "zh": "其发布说明所列的 CANN"},
        cann=cann.installed_cann() or NONE_FOUND,
        detail=detail,
    )


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
