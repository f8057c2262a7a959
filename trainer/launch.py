"""How many processes a run has, on how many machines. Light: no torch; torchrun.py starts them.

The environment's names are torchrun's and LLaMA-Factory's: NPROC_PER_NODE, NNODES, NODE_RANK, MASTER_ADDR,
MASTER_PORT, FORCE_TORCHRUN. Ours are MEET_TIMEOUT_S, how many seconds the machines may take to come together, and
HEARTBEAT_TIMEOUT_S, how many one may be silent before it is taken for lost.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from trainer import accelerators, device_kinds
from trainer.problems import Problem, quoted

DEFAULT_PORT = 29500
MOST_NODES = 4096
MOST_TIMEOUT_S = 7 * 24 * 3600
# People start the other machines by hand, one after the other.
MEET_TIMEOUT_S = 300
# Longer than a short break of the network.
HEARTBEAT_TIMEOUT_S = 60
# torchrun's words for as many processes as there are devices.
_ONE_FOR_EACH = ("", "auto", "gpu", *device_kinds.KINDS)
# How long torchrun's own rendezvous may take: by then all have come together.
RENDEZVOUS_S = 60


@dataclass(frozen=True)
class Launch:
    """A run's processes. `devices`: those chosen, by the visibility variable's names; none chosen: all visible.

    `processes`: of each node; None: one for each device. `kind`: of the devices, by torch's name.
    """

    devices: tuple[str, ...] = ()
    kind: str = device_kinds.USUAL.name
    processes: int | None = None
    nodes: int = 1
    node_rank: int = 0
    master_addr: str = ""
    master_port: int = DEFAULT_PORT
    forced: bool = False
    meet_timeout_s: int = MEET_TIMEOUT_S
    heartbeat_timeout_s: int = HEARTBEAT_TIMEOUT_S

    def __post_init__(self) -> None:
        if self.nodes > 1 and not self.master_addr:
            raise Problem("master_missing", nodes=self.nodes)
        if self.node_rank >= self.nodes:
            raise Problem("node_rank_outside", value=self.node_rank, nodes=self.nodes, last=self.nodes - 1)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Launch":
        """What `environment` asks for. Raises Problem for a value that is no count."""
        processes = environment.get("NPROC_PER_NODE", "")
        return cls(
            processes=None if processes in _ONE_FOR_EACH else _count(environment, "NPROC_PER_NODE", 1),
            nodes=_count(environment, "NNODES", 1),
            node_rank=_count(environment, "NODE_RANK", 0),
            master_addr=environment.get("MASTER_ADDR", ""),
            master_port=_count(environment, "MASTER_PORT", DEFAULT_PORT, most=65535),
            forced=environment.get("FORCE_TORCHRUN", "").lower() in ("1", "true", "yes", "y", "on"),
            meet_timeout_s=_count(environment, "MEET_TIMEOUT_S", MEET_TIMEOUT_S, most=MOST_TIMEOUT_S),
            heartbeat_timeout_s=_count(environment, "HEARTBEAT_TIMEOUT_S", HEARTBEAT_TIMEOUT_S, most=MOST_TIMEOUT_S),
        )

    def environment(self, node_rank: int) -> dict[str, str]:
        """What has to be set for the processes of node `node_rank`, in the order that people read it."""
        found: dict[str, str] = {}
        if self.devices:
            # Ascend's runtime finds no device at all in a list that does not ascend.
            names = sorted(self.devices, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else name))
            kind = device_kinds.of(self.kind)
            found |= {kind.visible: ",".join(names), **kind.numbering}
        if self.processes:
            found["NPROC_PER_NODE"] = str(self.processes)
        if self.nodes > 1:
            found |= {
                "NNODES": str(self.nodes),
                "NODE_RANK": str(node_rank),
                "MASTER_ADDR": self.master_addr,
                "MASTER_PORT": str(self.master_port),
            }
            limits = [("MEET_TIMEOUT_S", self.meet_timeout_s, MEET_TIMEOUT_S),
                      ("HEARTBEAT_TIMEOUT_S", self.heartbeat_timeout_s, HEARTBEAT_TIMEOUT_S)]  # fmt: skip
            found |= {name: str(value) for name, value, default in limits if value != default}
        return found

    def prefix(self, node_rank: int = 0) -> list[str]:
        """`environment` as the first words of a command; none when nothing has to be set."""
        words = [f"{name}={value}" for name, value in self.environment(node_rank).items()]
        return ["env", *words] if words else []

    @property
    def address(self) -> str:
        """Where the machines meet, as people write it."""
        host = f"[{self.master_addr}]" if ":" in self.master_addr else self.master_addr
        return f"{host}:{self.master_port}"

    @property
    def processes_here(self) -> int:
        return self.processes or accelerators.count() or 1

    @property
    def several(self) -> bool:
        """Whether torchrun is needed."""
        return self.forced or self.nodes > 1 or self.processes_here > 1

    def torchrun_arguments(self, attempt: int = 0) -> list[str]:
        """torchrun's arguments before the program: no restarts, no logs of its own. `attempt`: the machines' store
        outlives an attempt, and the next one must not read what is left in it."""
        nodes = ["--standalone"]
        if self.nodes > 1:
            nodes = [f"--nnodes={self.nodes}", f"--node_rank={self.node_rank}", f"--master_addr={self.master_addr}",
                     f"--master_port={self.master_port}", f"--rdzv_id=attempt-{attempt}",
                     f"--rdzv_conf=timeout={RENDEZVOUS_S}"]  # fmt: skip
        signals = "--signals-to-handle=SIGHUP,SIGQUIT"  # SIGTERM and Ctrl-C are ours
        return [*nodes, f"--nproc_per_node={self.processes_here}", signals, f"--log_dir={os.devnull}"]


def _count(environment: Mapping[str, str], name: str, default: int, most: int = MOST_NODES) -> int:
    value = environment.get(name, "").strip()
    if not value:
        return default
    if not value.isdecimal() or not (0 if default == 0 else 1) <= int(value) <= most:
        raise Problem("environment_not_count", name=name, value=quoted(value), least=min(default, 1), most=most)
    return int(value)
