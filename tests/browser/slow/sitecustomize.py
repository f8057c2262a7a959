"""On the PYTHONPATH of a page, it makes the page's chat processes as slow as a large model on a small machine: what a test
does in the middle of an answer finds the middle, however fast this machine computes. Python imports it by itself."""

import sys
import time
from typing import Any

A_PART_S = 0.03

if sys.orig_argv[-2:] == ["-m", "trainer.chat"]:
    from trainer.chat_pipes import Replies

    def _slowly(self: Replies, event: str, send: Any = Replies.send, **values: Any) -> None:
        send(self, event, **values)
        if event == "delta":
            time.sleep(A_PART_S)

    Replies.send = _slowly  # type: ignore[method-assign]
