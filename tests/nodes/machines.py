"""Two machines in one: network namespaces with a cable between them, each with its own processes and host name."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil

from tests.conftest import ROOT

TOOLS = ("ip", "unshare")
# What a container has of its own; all of it ends with the program that is started so.
APART = ("--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
ADDRESSES = ("10.231.77.1", "10.231.77.2")


@cache
def lacking() -> str:
    """Why there can be no such machines here; "" when there can."""
    if os.geteuid():
        return "network namespaces need root"
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"not installed: {', '.join(missing)} (iproute2, util-linux)"
    try:
        with two_machines():
            tried = subprocess.run(["unshare", *APART, "true"], capture_output=True, text=True, check=False)
    except subprocess.CalledProcessError as error:
        return f"{shlex.join(error.cmd)}: {error.stderr.strip()}"
    return tried.stderr.strip()


class Machines:
    """Machine 0 and machine 1. Names hold this process's id, so that several tests may run beside each other."""

    def __init__(self) -> None:
        self.names = [f"td{os.getpid()}{letter}" for letter in "ab"]
        self.launchers: list[subprocess.Popen[str]] = []

    def build(self) -> None:
        first, second = self.names
        for name in self.names:
            _ip("netns", "add", name)
        _ip("link", "add", first, "netns", first, "type", "veth", "peer", second, "netns", second)
        for name, address in zip(self.names, ADDRESSES, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", name)
            _ip("-n", name, "link", "set", "lo", "up")
        self.plug()

    def plug(self) -> None:
        for name in self.names:
            _ip("-n", name, "link", "set", name, "up")

    def cut(self) -> None:
        """From now on nothing comes through, and nobody is told."""
        _ip("-n", self.names[1], "link", "set", self.names[1], "down")

    def start(self, machine: int, argv: Sequence[str], log: Path, **environment: str) -> "subprocess.Popen[str]":
        """`argv` on `machine`, as the first process of a process namespace: it ends with whoever is returned."""
        named = ["sh", "-c", 'hostname "$0" && exec "$@"', f"node{machine}", *argv]
        with log.open("a") as output:
            launcher = subprocess.Popen(
                ["ip", "netns", "exec", self.names[machine], "unshare", *APART, *named], cwd=ROOT, text=True,
                stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            )  # fmt: skip
        self.launchers.append(launcher)
        return launcher

    def lose_power(self, machine: "subprocess.Popen[str]") -> None:
        """All of its processes end at once and nothing of it is heard by the other one."""
        self.cut()
        machine.kill()
        machine.wait()

    def remove(self) -> None:
        for launcher in self.launchers:
            launcher.kill()
            launcher.wait()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def ask_to_stop(launcher: "subprocess.Popen[str]") -> None:
    """SIGTERM to what `Machines.start` was given, as a container's engine sends it."""
    [first] = psutil.Process(launcher.pid).children()
    first.send_signal(signal.SIGTERM)


@contextmanager
def two_machines() -> Iterator[Machines]:
    machines = Machines()
    try:
        machines.build()
        yield machines
    finally:
        machines.remove()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
