"""`python -m tests.bench.template_parity`: for how many of 200 conversations each template's tokens are the library's."""

import sys

from tests.trainer import families
from trainer.settings import template_names

COUNT = 200


def main() -> int:
    everything = True
    for name in template_names():
        equal, with_tools, tokens = families.parity(name, COUNT)
        print(f"{name:12} {equal} of {COUNT} conversations equal ({with_tools} with tools), {tokens} tokens")
        everything &= equal == COUNT
    return 0 if everything else 1


if __name__ == "__main__":
    sys.exit(main())
