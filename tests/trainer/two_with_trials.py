"""`two_processes` with the trial passes in which a device's memory is measured, on the processor as well."""

import sys

from tests.trainer import two_processes
from trainer import batching
from trainer.chat_template import Sample
from trainer.passes import Passes

fit = Passes.fit


def fit_by_trial(self: Passes, samples: list[Sample], checkpointing: bool | None) -> None:
    fit(self, samples, checkpointing)
    for count in (3, 1):
        self.backward(samples[:count], batching.label_count(samples[:count]))
        self._forget()


if __name__ == "__main__":
    Passes.fit = fit_by_trial  # type: ignore[method-assign]
    sys.exit(two_processes.main(sys.argv[1:]))
