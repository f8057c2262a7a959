"""A process that speaks the protocol of trainer.look without a tokenizer: each character is a token. Starts in no time.

The dataset's name may order: "slow N" reports N times, a tenth of a second apart; "die" ends the process with exit code
3; "die once FILE" does so unless FILE is there; "problem" fails; "hang" says nothing more, not even to a stop.
"""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from trainer.chat_pipes import Replies, guarded_stdin, guarded_stdout
from trainer.problems import Problem

FOUND = {"rows": 3, "bad": 1, "bad_rows": [{"row": 2, "reason": {"en": "it is empty", "zh": "它是空的"}}], "samples": 2,
         "tokens": 20, "trained_tokens": 8, "histogram": [[5, 1], [10, 1]], "longest": 10, "truncated": 1,
         "nothing_left": 0, "duplicates": 0, "languages": {"zh": 0.5, "en": 0.5, "other": 0.0},
         "placeholders": {"name": 1}, "seconds": 0.1, "sampled": None}  # fmt: skip


class Process:
    def __init__(self) -> None:
        self._replies = Replies(guarded_stdout())
        self._stopped: dict[int, threading.Event] = {}

    def serve(self) -> None:
        import json

        for line in guarded_stdin():
            request = json.loads(line)
            if request["op"] == "stop":
                self._stopped.setdefault(request["id"], threading.Event()).set()
            else:
                self._stopped.setdefault(request["id"], threading.Event())
                threading.Thread(target=self._answer, args=(request,), daemon=True).start()

    def _answer(self, request: dict[str, Any]) -> None:
        number, (order, *rest) = request["id"], request["dataset"].split(" ", 2)
        if order == "die" and not (rest and Path(rest[1]).exists()):
            if rest:
                Path(rest[1]).touch()
            os._exit(3)
        if order == "hang":
            time.sleep(600)
        if order == "problem":
            self._replies.problem(Problem("dataset_empty", name="x", path="y"), id=number)
            return
        if request["op"] == "page":
            tokens = [[ord(char), char, int(place > 1), int(place < 4)] for place, char in enumerate("abcdef")]
            sample = {"row": request["page"], "kind": "conversation", "tokens": tokens, "length": 6, "trained": 2,
                      "cut_at": 4, "bad": None}  # fmt: skip
            self._replies.send("page", id=number, total=3, samples=[sample])
            return
        for rows in range(int(rest[0]) if order == "slow" else 1):
            if self._stopped[number].wait(0.1):
                self._replies.send("stopped", id=number)
                return
            self._replies.send("progress", id=number, rows=rows, bytes=rows, of_bytes=100)
        self._replies.send("checked", id=number, pid=os.getpid(), **FOUND)


if __name__ == "__main__":
    Process().serve()
