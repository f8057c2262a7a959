"""What the machines of a run must have in common, as each tells the first one before they train. Light: no torch.

Samples are compared later, by the processes, once they are tokens: distributed.Ranks.agree.
"""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trainer.launch import Launch
from trainer.model_folder import resolve
from trainer.problems import Problem, quoted
from trainer.settings import TrainSettings, label

# Where things lie may differ from machine to machine; what they hold may not.
PLACES = (
    "model_name_or_path",
    "adapter_name_or_path",
    "dataset_dir",
    "output_dir",
    "resume_from_checkpoint",
    "deepspeed",
)
PACKAGES = ("tunedesk", "torch", "transformers", "peft")
# Of each file of weights, at its beginning, where the names are, in its middle and at its end.
LOOKED_AT_BYTES = 2**16


def facts(settings: TrainSettings, launch: Launch) -> dict[str, Any]:
    """What machine `launch.node_rank` tells of itself; goes through JSON."""
    values = settings.model_dump(mode="json")
    folders = {key: values[key] for key in PLACES[:2] if values[key]}
    return {
        "values": {"NNODES": launch.nodes, **{name: _version(name) for name in PACKAGES}},
        "settings": {key: value for key, value in values.items() if key not in PLACES},
        "folders": {key: [path, fingerprint(resolve(Path(path)))] for key, path in folders.items()},
    }


def difference(first: dict[str, Any], other: dict[str, Any], machine: int) -> Problem | None:
    """The first thing in which machine number `machine` (from 1) is not as the first one; None: there is none."""
    for kind in ("values", "settings"):
        for key in dict.fromkeys([*first[kind], *other[kind]]):
            mine, theirs = first[kind].get(key), other[kind].get(key)
            if mine != theirs:
                named = label(key) if kind == "settings" and key in TrainSettings.model_fields else key
                return Problem(
                    "machines_differ", label=named, first=quoted(mine), machine=machine, value=quoted(theirs)
                )
    for key in dict.fromkeys([*first["folders"], *other["folders"]]):
        (path, mine), (there, theirs) = (one["folders"].get(key, ("–", "")) for one in (first, other))
        if mine != theirs:
            return Problem("machines_weights_differ", label=label(key), first=path, machine=machine, path=there)
    return None


def fingerprint(folder: Path) -> str:
    """Of the weights and the configuration in `folder`: sizes, and a part of every file. Raises OSError."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json")]):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for place in (0, size // 2, max(0, size - LOOKED_AT_BYTES)):
                file.seek(place)
                digest.update(file.read(LOOKED_AT_BYTES))
    return digest.hexdigest()


def _version(name: str) -> str:
    """Without the part that only says for which devices a package was built."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return "–"
