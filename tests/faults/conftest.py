"""How much is broken: everything with FAULTS=all (`make faults`), else a sample of the same seeds."""

import os

ALL = os.environ.get("FAULTS") == "all"
# Of each kind of process, at so many moments it is killed.
MOMENTS = 25 if ALL else 2
EXAMPLES = 500 if ALL else 60
