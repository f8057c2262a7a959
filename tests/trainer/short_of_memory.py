"""`python -m trainer`, but that the second process has only so much memory: in the middle of a layer it raises what
torch raises, in every pass of more than ROOM tokens after so many steps as FREE has for the attempt."""

import os
import sys
from typing import Any

from trainer import command, torchrun

ROOM, BUDGET = int(os.environ["ROOM"]), int(os.environ["BUDGET"])


def lose_memory() -> None:
    import torch

    from trainer import passes

    passes.TOKEN_BUDGET["cpu"] = BUDGET
    free = [int(word) for word in os.environ["FREE"].split(",")][int(os.environ[torchrun.ATTEMPT])]
    backward, taken = passes.Passes.backward, [0]

    def counted(self: passes.Passes, samples: Any, count: int) -> torch.Tensor:
        taken[0] += 1
        return backward(self, samples, count)

    def after_attention(module: torch.nn.Module, _: Any, output: Any) -> None:
        if type(module).__name__.endswith("Attention") and taken[0] > free and output[0][..., 0].numel() > ROOM:
            raise torch.OutOfMemoryError("device out of memory")

    passes.Passes.backward = counted  # type: ignore[method-assign]
    torch.nn.modules.module.register_module_forward_hook(after_attention)


if __name__ == "__main__":
    torchrun.PROGRAM = "tests.trainer.short_of_memory"
    if torchrun.launched() and torchrun.rank() == 1:
        lose_memory()
    sys.exit(command.main(sys.argv[1:]))
