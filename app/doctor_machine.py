"""The part of `tunedesk doctor` that looks at the machine: Python, memory, folders, port, proxies, model hubs."""

import importlib.util
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from app.doctor_finding import Checked, broken, ok, warning
from trainer.download_reach import HUBS, failure

OLDEST_PYTHON = (3, 10)
LITTLE_MEMORY_GIB, LITTLE_DISK_GIB, NO_DISK_GIB = 4.0, 20.0, 1.0
HUB_TIMEOUT_S = 3.0
PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


def python() -> list[Checked]:
    version = platform.python_version()
    wanted = ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return [broken("python", "python_old", version=version, wanted=wanted)]
    return [ok("python", "python_well", version=version, path=sys.executable, machine=platform.machine())]


def memory() -> list[Checked]:
    """Of the machine, or what its container may have of it."""
    virtual = psutil.virtual_memory()
    total, free = virtual.total, virtual.available
    limit = _container_limit()
    if limit and limit[0] < total:
        total, free = limit[0], min(free, limit[0] - limit[1])
    values = {"free": f"{free / 2**30:.1f}", "total": f"{total / 2**30:.1f}"}
    found = [
        warning("memory", "memory_little", **values)
        if free / 2**30 < LITTLE_MEMORY_GIB
        else ok("memory", "memory_well", **values)
    ]
    shared = Path("/dev/shm")
    if shared.is_dir() and (size := shutil.disk_usage(shared).total) < 2**30:
        found.append(warning("memory", "shared_little", mib=size // 2**20))
    return found


def _container_limit() -> tuple[int, int] | None:
    """Limit and use in bytes that the control group sets; None where it sets none."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            return int(Path(limit).read_text()), int(Path(used).read_text())
        except (OSError, ValueError):  # not there, or "max"
            continue
    return None


def folders(runs_dir: Path) -> list[Checked]:
    """Whether the folders can be written to, by writing, and what is free there."""
    cache = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    asked = {"runs": runs_dir.expanduser().absolute(), "temporary": Path(tempfile.gettempdir()), "cache": cache}
    return [one for name, path in asked.items() for one in _folder(name, path)]


def _folder(name: str, path: Path) -> list[Checked]:
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".tunedesk-"):
            pass
    except OSError as error:
        said = {"path": str(path), "detail": error.strerror or str(error)}
        return [
            warning("folders", "cache_read_only", **said)
            if name == "cache"
            else broken("folders", "folder_read_only", **said)
        ]
    free = shutil.disk_usage(there).free / 2**30
    values = {"path": str(path), "free": f"{free:.1f}"}
    if free < NO_DISK_GIB:
        return [broken("folders", "disk_full", **values)]
    if name == "runs" and free < LITTLE_DISK_GIB:
        return [warning("folders", "disk_little", **values)]
    return [ok("folders", "folder_well", **values)]


def port(host: str, number: int) -> list[Checked]:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, number), family=family).close()
    except (OSError, OverflowError) as error:
        return [
            warning("port", "port_taken", host=host, port=number, detail=getattr(error, "strerror", None) or str(error))
        ]
    return [ok("port", "port_free", host=host, port=number)]


def proxies(environment: Mapping[str, str] = os.environ) -> list[Checked]:
    """What the environment sets: whether it can be used, and whether this machine's own addresses are left out."""
    given = {name: value for name, value in environment.items()
             if name.lower() in ("http_proxy", "https_proxy", "all_proxy") and value.strip()}  # fmt: skip
    if not given:
        return [ok("proxies", "proxies_none")]
    found: list[Checked] = []
    for name, value in given.items():
        parts = urlsplit(value if "://" in value else f"http://{value}")
        if parts.scheme not in PROXY_SCHEMES or not parts.hostname:
            found.append(warning("proxies", "proxy_unusable", name=name, value=_shown(value)))
        elif parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
            found.append(warning("proxies", "proxy_socks", name=name, value=_shown(value)))
    exempt = environment.get("no_proxy", "") + "," + environment.get("NO_PROXY", "")
    names = ", ".join(f"{name}={_shown(value)}" for name, value in given.items())
    if not any(own in exempt for own in ("localhost", "127.0.0.1", "*")):
        found.append(warning("proxies", "no_proxy_missing", given=names))
    return found or [ok("proxies", "proxies_well", given=names)]


def _shown(proxy: str) -> str:
    """Without the password that may stand in it."""
    return proxy if "@" not in proxy else f"{proxy.split('://')[0]}://…@{proxy.rsplit('@', 1)[1]}"


def offline() -> list[Checked]:
    return [ok("hubs", "hubs_unasked")]


def hubs() -> list[Checked]:
    """Whether the hubs answer, within HUB_TIMEOUT_S. What is on this machine already needs none of them."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return offline()
    addresses = [hub.address() for hub in HUBS.values()]
    with ThreadPoolExecutor(len(addresses)) as pool:
        answers = list(pool.map(lambda address: failure(address, HUB_TIMEOUT_S), addresses))
    found = []
    for hub, address, why in zip(HUBS.values(), addresses, answers, strict=True):
        values = {"name": hub.name, "address": address, "variable": hub.variables[0]}
        found.append(
            ok("hubs", "hub_well", **values) if why is None else warning("hubs", "hub_silent", **values, detail=why)
        )
    return found
