"""`python -m trainer` trains: the same as `tunedesk train`."""

import sys

from trainer.command import main

sys.exit(main(sys.argv[1:]))
