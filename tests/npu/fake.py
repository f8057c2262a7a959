"""A machine with NPUs that are none: the back end compiled once for each source and torch, and kept in the user's cache."""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from trainer import torch_import

HERE = Path(__file__).parent
SOURCE = HERE / "backend.cpp"
TORCH = importlib.metadata.version("torch")
BUILD_TIMEOUT_S = 400
OLDEST_COMPILER = 11  # torch's headers are C++20
# What a real device's variables would change, had whoever runs the tests set them.
FOREIGN = ("ASCEND_RT_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "PYTORCH_NPU_ALLOC_CONF", "PYTORCH_ALLOC_CONF",
           "TORCH_DEVICE_BACKEND_AUTOLOAD", "FAKE_NPU_COUNT", "FAKE_NPU_MEMORY_MIB")  # fmt: skip


def reason_not_to_build() -> str | None:
    """What this machine lacks."""
    found = importlib.util.find_spec("torch")
    headers = Path(found.origin).parent / "include" if found and found.origin else None
    compiler = os.environ.get("CXX", "g++")
    if sys.platform != "linux":
        return "the fake NPU is built on Linux alone"
    if headers is None or not (headers / "ATen" / "ATen.h").exists():
        return f"torch {TORCH} came without its C++ headers ({headers})"
    if shutil.which(compiler) is None:
        return f"no C++ compiler {compiler!r}: apt-get install g++"
    told = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True, check=True).stdout
    if "g++" in compiler and int(told.split(".")[0]) < OLDEST_COMPILER:
        return f"{compiler} {told.strip()} is older than {OLDEST_COMPILER}, which torch's headers need"
    return None


def library() -> Path:
    """The back end, compiled. Raises CalledProcessError with the compiler's words when it cannot be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tunedesk-tests"
    cache.mkdir(parents=True, exist_ok=True)
    what = b"\0".join([TORCH.encode(), platform.machine().encode(), SOURCE.read_bytes()])
    found = cache / f"npu-{hashlib.sha256(what).hexdigest()[:16]}.so"
    with (cache / "npu.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not found.exists():
            beside = found.with_suffix(".building")
            _compile(beside)
            beside.rename(found)
    return found


def _compile(output: Path) -> None:
    from torch.utils.cpp_extension import include_paths, library_paths

    subprocess.run(
        [os.environ.get("CXX", "g++"), "-std=c++20", "-O0", "-fPIC", "-shared", str(SOURCE), "-o", str(output),
         *(f"-I{path}" for path in include_paths()), *(f"-L{path}" for path in library_paths()), "-lc10", "-ltorch_cpu"],
        check=True, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S,
    )  # fmt: skip


def install(folder: Path) -> None:
    """Makes `folder` one for PYTHONPATH: torch_npu with the metadata by which torch finds it, and bin/npu-smi."""
    shutil.copytree(HERE / "torch_npu", folder / "torch_npu", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "torch_npu" / "backend.so").symlink_to(library())
    (folder / "bin").mkdir()
    shutil.copy(HERE / "npu-smi", folder / "bin")
    release = TORCH.partition("+")[0]
    about = folder / f"torch_npu-{release}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch_npu\nVersion: {release}\n")
    (about / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")


class Fake:
    """A machine with two NPUs, for the programs that are started with its environment."""

    def __init__(self, folder: Path, notes: Path) -> None:
        self.folder, self._notes = folder, notes

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        path = os.pathsep.join(filter(None, [str(self.folder), kept.get("PYTHONPATH")]))
        return {
            **kept,
            "PYTHONPATH": path,
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{kept['PATH']}",
            "FAKE_NPU_NOTES": str(self._notes),
            torch_import.TRIED: json.dumps(""),  # no table has it, and it is known to be imported
            "OMP_NUM_THREADS": "1",
            **more,
        }

    def take_notes(self) -> list[dict[str, Any]]:
        """What was asked of the devices since the last call."""
        if not self._notes.exists():
            return []
        lines = self._notes.read_text().splitlines()
        self._notes.unlink()
        return [json.loads(line) for line in lines]
