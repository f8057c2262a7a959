"""Why a process computes on the processor although the machine has an accelerator. Light until asked; imports torch then."""

import os
from collections.abc import Mapping

from trainer import torch_import
from trainer.device_kinds import KINDS
from trainer.problems import Problem
from trainer.unused_reason import hidden, reason


def problem(environment: Mapping[str, str] = os.environ) -> Problem | None:
    """To be told where a model is about to be loaded; None where an accelerator is used, or there is none."""
    broken = torch_import.prepare()
    import torch

    if torch.accelerator.is_available():
        return None
    if broken:
        return None if all(hidden(kind, environment) for kind in KINDS.values() if kind.package) else broken
    from trainer.device import is_built_for

    return reason(torch.__version__, is_built_for, environment)
