"""Why a process computes on the processor although the machine has an accelerator. Light until asked; imports torch then.

Not a word where the user hid them: a visibility variable that is empty or negative.
"""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from trainer import cann, torch_import
from trainer.accelerators import Accelerator, accelerators, visible
from trainer.device_kinds import KINDS, Kind
from trainer.problems import Problem, quoted

DEVICE_FILES = Path("/dev")


def problem(environment: Mapping[str, str] = os.environ) -> Problem | None:
    """To be told where a model is about to be loaded; None where an accelerator is used, or there is none."""
    broken = torch_import.prepare()
    import torch

    if torch.accelerator.is_available():
        return None
    if broken:
        return None if all(_hidden(kind, environment) for kind in KINDS.values() if kind.package) else broken
    everything = accelerators({})
    for kind in KINDS.values():
        found = [one for one in everything if one.kind == kind.name]
        files = sorted(DEVICE_FILES.glob(kind.files)) if kind.files else []
        if (found or files) and not _hidden(kind, environment):
            return _reason(kind, found, files, environment)
    return None


def _hidden(kind: Kind, environment: Mapping[str, str]) -> bool:
    """Whether the user wants none of them used."""
    named = environment.get(kind.visible, "all").strip()
    return not named or named.startswith("-")


def _reason(kind: Kind, found: list[Accelerator], files: list[Path], environment: Mapping[str, str]) -> Problem:
    import torch

    from trainer.device import is_built_for

    devices = f"{len(found)} × {found[0].name}" if found else ", ".join(map(str, files))
    if kind.package and importlib.util.find_spec(kind.package) is None:
        return Problem("accelerators_need_package", devices=devices, package=kind.distribution, wanted=_wanted(kind))
    if not kind.package and not is_built_for(kind):
        return Problem("accelerators_need_torch", devices=devices, torch=torch.__version__)
    named = environment.get(kind.visible)
    if named is not None and not (found and _names_some(kind, found, named)):
        order = {"en": ", in ascending order", "zh": "（须按升序）"} if kind.ascending else {"en": "", "zh": ""}
        return Problem(
            "accelerators_hidden", devices=devices, variable=kind.visible, value=quoted(named), order=order
        )  # fmt: skip
    return Problem("accelerators_unseen", devices=devices, torch=torch.__version__)


def _names_some(kind: Kind, found: list[Accelerator], named: str) -> bool:
    words = [word.strip() for word in named.split(",")]
    ascends = words == sorted(words, key=lambda word: (len(word), word))
    return bool(visible(found, {kind.visible: named})) and (ascends or not kind.ascending)


def _wanted(kind: Kind) -> str:
    """The package for the driver that is here, and the torch that it was built for; else the ones to take."""
    here = cann.installed_cann()
    row = (cann.row_of(here) if here else None) or next(iter(cann.COMPATIBLE))
    npu = cann.COMPATIBLE[row][0]
    return f"torch=={cann.torch_for(npu)} {kind.distribution}=={npu} (CANN {row})"
