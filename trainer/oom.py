"""How often the kernel has ended a process for want of memory: what tells that death from a kill by hand. Light."""

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
# For the whole machine: on a shared one other people's processes count too.
MACHINE = Path("/proc/vmstat")


def counter(pid: int | str = "self") -> Path:
    """The file that counts such ends for the control group of `pid`, or for the machine where there is none."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, group = (*line.split(":", 2), "", "")[:3]
        if "memory" in controllers.split(","):
            root, name = CGROUPS / "memory", "memory.oom_control"
        elif not controllers:
            root, name = CGROUPS, "memory.events"
        else:
            continue
        # Within a container the path is the host's, and what is mounted is the container's own group.
        for folder in (root / group.lstrip("/"), root):
            if _count(folder / name) is not None:
                return folder / name
    return MACHINE


def kills(path: Path) -> int | None:
    """What `counter` says now; None when it is gone, as a job's control group is after the job."""
    return _count(path)


def _count(path: Path) -> int | None:
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return None
    return next((int(words[1]) for words in lines if words[0] == "oom_kill" and words[1].isdigit()), None)
