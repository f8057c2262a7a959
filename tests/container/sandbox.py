"""A container as bubblewrap makes one: a root of its own, its own processes, host name and network, the image's init as
process 1, a user without rights. What the Dockerfile sets is set; CANN is a fake that leaves its marks.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ROOT
from tests.container.dockerfile import image

TOOLS = ("bwrap", "tini", "nsenter", "setpriv")
PROJECT = ("app", "trainer", "assets", "data", "constraints.txt", "pyproject.toml")
SET_ENV = """
export FAKE_CANN="sourced with $# arguments"
export PYTHONPATH=/usr/local/Ascend/python:$PYTHONPATH
"""
IR = 'export FAKE_IR="sourced with $# arguments"\n'
NNAL = 'export FAKE_NNAL="$*"\n'
NPU_SMI = '#!/bin/sh\necho "the fake npu-smi: $*"\n'


def missing() -> str:
    """Why there can be no such container here; "" where there can."""
    if os.geteuid() != 0:
        return "needs root, to become other users"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"needs {', '.join(absent)}: sh tests/install_tools.sh"
    tried = subprocess.run(
        ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "true"], capture_output=True, text=True
    )
    return f"bubblewrap cannot make a root here: {tried.stderr.strip()}" if tried.returncode else ""


def fake_cann(folder: Path) -> Path:
    """What is in /usr/local/Ascend."""
    files = {"ascend-toolkit/set_env.sh": SET_ENV, "nnal/atb/set_env.sh": NNAL, "npu-smi": NPU_SMI,
             "cann-9.1.0/share/info/ascendnpu-ir/bin/set_env.sh": IR}  # fmt: skip
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (folder / "npu-smi").chmod(0o755)
    (folder / "driver" / "lib64" / "driver").mkdir(parents=True)
    (folder / "driver" / "lib64" / "common").mkdir()
    return folder


class Container:
    """`docker run --user UID --hostname HOST -v volume:/workspace IMAGE *command`; its output goes to `log`."""

    def __init__(self, base: Path, volume: Path, *command: str, name: str, host: str = "", uid: int = 1000,
                 **environment: str) -> None:  # fmt: skip
        self._image, self._uid, self.host = image(), uid, host or name
        self.healths: list[bool] = []
        self.folder = base / name
        home, etc = self.folder / "home", self.folder / "etc"
        home.mkdir(parents=True)
        os.chown(home, 1000, 1000)  # the image's own user's
        etc.mkdir()
        (etc / "passwd").write_text("root:x:0:0::/root:/bin/bash\ntunedesk:x:1000:1000::/home/tunedesk:/bin/sh\n")
        (etc / "group").write_text("root:x:0:\ntunedesk:x:1000:\n")
        self.log = self.folder / "log"
        reading, writing = os.pipe()
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*self._root(home, etc, fake_cann(self.folder / "Ascend"), volume), "--info-fd", str(writing), "--as-pid-1",
                 "--", *self._user(), *self._variables(environment), *self._image.entrypoint,
                 *(command or self._image.command)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(writing,), start_new_session=True,
            )  # fmt: skip
        os.close(writing)
        with os.fdopen(reading) as info:
            self.pid: int = json.loads(info.read())["child-pid"]

    def _root(self, home: Path, etc: Path, cann: Path, volume: Path) -> list[str]:
        binds = [("/usr", "/usr"), *((str(ROOT / name), str(ROOT / name)) for name in PROJECT), (str(etc), "/etc")]
        binds += [(prefix, prefix) for prefix in dict.fromkeys((sys.prefix, sys.base_prefix)) if prefix != "/usr"]
        words = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-uts", "--unshare-ipc", "--unshare-net",
                 "--hostname", self.host, "--perms", "1777", "--tmpfs", "/tmp"]  # fmt: skip
        above = {str(parent) for _, target in binds for parent in Path(target).parents if parent != Path("/")}
        for folder in sorted({*above, "/home"}):  # made here, else only root could look into them
            words += ["--perms", "0755", "--dir", folder]
        for source, target in binds:
            words += ["--ro-bind", source, target]
        for name in ("lib", "lib64", "bin", "sbin"):
            words += ["--symlink", f"usr/{name}", f"/{name}"]
        words += ["--tmpfs", "/usr/local", "--perms", "0755", "--dir", "/usr/local/bin", "--ro-bind", str(cann), "/usr/local/Ascend",
                  "--ro-bind", str(cann / "npu-smi"), "/usr/local/bin/npu-smi"]  # fmt: skip
        words += ["--proc", "/proc", "--dev", "/dev"]
        return [
            *words,
            "--bind",
            str(home),
            "/home/tunedesk",
            "--bind",
            str(volume),
            "/workspace",
            "--chdir",
            "/workspace",
        ]

    def _user(self) -> list[str]:
        uid = str(self._uid)
        return ["/usr/bin/setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--inh-caps=-all",
                "--bounding-set=-all", "--no-new-privs"]  # fmt: skip

    def _variables(self, more: dict[str, str]) -> list[str]:
        path = f"{sys.prefix}/bin:/usr/local/bin:/usr/bin"
        found = self._image.environment | {"PATH": path, "OMP_NUM_THREADS": "2"} | more
        return ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in found.items())]

    def run(self, *command: str, timeout_s: float = 60) -> "subprocess.CompletedProcess[str]":
        """`docker exec`."""
        inside = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--uts", "--ipc", "--net", "--root", "--wd"]
        return subprocess.run([*inside, "--", *self._user(), *self._variables({}), *command], capture_output=True, text=True,
                              timeout=timeout_s, check=False)  # fmt: skip

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], object], what: str, timeout_s: float = 120) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.said()}"
            assert time.monotonic() < deadline, f"{what}:\n{self.said()}"
            time.sleep(0.05)

    def healthy(self) -> bool:
        """What HEALTHCHECK finds."""
        return self.run(*self._image.health).returncode == 0

    def stop(self, grace_s: float = 10) -> float:
        """`docker stop`: seconds until it had ended; its exit code is the process's. Raises TimeoutExpired."""
        began = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        self.process.wait(grace_s)
        return time.monotonic() - began

    def kill(self) -> None:
        """`docker kill`; also of one that has ended."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.process.wait(10)
