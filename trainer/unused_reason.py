"""Why torch sees none of the accelerators that a machine has, from what is known of both. Light: no torch.

Not a word where the user hid them: a visibility variable that is empty or negative.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from trainer import cann
from trainer.accelerators import accelerators, visible
from trainer.device_kinds import KINDS, Kind
from trainer.problems import Problem, quoted

DEVICE_FILES = Path("/dev")


def reason(
    torch: str, is_built_for: Callable[[Kind], bool], environment: Mapping[str, str] = os.environ
) -> Problem | None:
    """Why the `torch` that is installed, which was built for some kinds, sees none of the accelerators that there are."""
    everything = accelerators({})
    for kind in KINDS.values():
        found = [one for one in everything if one.kind == kind.name]
        files = sorted(DEVICE_FILES.glob(kind.files)) if kind.files else []
        if not (found or files) or hidden(kind, environment):
            continue
        devices = f"{len(found)} × {found[0].name}" if found else ", ".join(map(str, files))
        if kind.package and importlib.util.find_spec(kind.package) is None:
            return Problem("accelerators_need_package", devices=devices, package=kind.distribution, wanted=_wanted())
        if not kind.package and not is_built_for(kind):
            return Problem("accelerators_need_torch", devices=devices, torch=torch)
        named = environment.get(kind.visible)
        if named is not None and not visible(found, environment):
            order = {"en": ", in ascending order", "zh": "（须按升序）"} if kind.ascending else {"en": "", "zh": ""}
            return Problem(
                "accelerators_hidden", devices=devices, variable=kind.visible, value=quoted(named), order=order
            )  # fmt: skip
        return Problem("accelerators_unseen", devices=devices, torch=torch)
    return None


def hidden(kind: Kind, environment: Mapping[str, str]) -> bool:
    """Whether the user wants none of them used."""
    named = environment.get(kind.visible, "all").strip()
    return not named or named.startswith("-")


def _wanted() -> str:
    """The package for the driver that is here, and the torch that it was built for; else the ones to take."""
    take = cann.to_take(cann.installed_cann())
    return f"{take.packages} (CANN {take.cann})"
