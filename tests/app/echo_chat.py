"""A chat process without a model: it speaks the protocol and answers with what it is told. Starts in no time.

A message may order: "die N" ends it with exit code N, "signal N" by a signal, "slow TEXT" writes a character
each 20 ms, "deaf TEXT" writes it and then hears nothing for 0.5 s, "problem" fails, "shout TEXT" prints it as libraries do. Columns answer in turn, each character with the column's number after it; an adapter
named "broken" fails. A model folder named "fails" cannot be loaded, one named "hangs" takes forever;
one named "warned" loads with a warning; an adapter named "mismatch" does not fit.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from trainer.chat_pipes import Inbox, Replies, Request, guarded_stdin, guarded_stdout
from trainer.problems import Problem


def load(replies: Replies, request: Request, loaded: bool) -> bool:
    replies.stage("loading_model")
    name = Path(request["model"]).name
    if name == "hangs":
        time.sleep(600)
    if name == "fails" or Path(request["adapter"] or "").name == "mismatch":
        replies.problem(Problem("chat_empty"), op="load", id=None, model_kept=loaded)
        return loaded
    values = {"device": "echo", "dtype": "fp32", "way": "lean", "seconds": 0, "memory_gib": 1.5}
    values["warnings"] = [{"code": "chat_empty", "values": {}}] if name == "warned" else []
    replies.send("loaded", model=request["model"], adapter=request["adapter"], **values)
    return True


def generate(replies: Replies, request: Request) -> None:
    order, _, text = request["messages"][-1]["content"].partition(" ")
    if order == "die":
        os._exit(int(text))
    if order == "signal":
        os.kill(os.getpid(), int(text))
    if order == "shout":
        print(text, file=sys.stderr, flush=True)
        print(text, flush=True)
    if order == "problem":
        replies.problem(Problem("chat_not_finite", value="nan"), op="generate", id=request["id"], model_kept=True)
        return
    columns = request.get("columns")
    running = dict.fromkeys(range(len(columns or [1])), 0)
    for number, column in enumerate(columns or []):
        if Path(column["adapter"] or "").name == "broken":
            del running[number]
            names = {"op": "generate", "id": request["id"], "column": number}
            replies.problem(Problem("chat_not_finite", value="nan"), **names, model_kept=True)
    own = [(column.get("messages") or request["messages"])[-1]["content"] for column in columns or [{}]]
    texts = [content.partition(" ")[2] for content in own]
    for place in range(max(map(len, texts))):
        if request["cancel"].is_set():
            break
        time.sleep(0.02 * (order == "slow"))
        for number in [number for number in running if place < len(texts[number])]:
            shown = texts[number][place] + str(number) * bool(columns)
            replies.send("delta", id=request["id"], column=number, text=shown)
            running[number] += 1
    time.sleep(0.5 * (order == "deaf"))
    finish = "cancelled" if request["cancel"].is_set() else "stop"
    for number, tokens in running.items():
        replies.send("done", id=request["id"], column=number, finish=finish, tokens=tokens)


def main() -> None:
    replies = Replies(guarded_stdout())
    replies.stage("starting")
    inbox = Inbox(guarded_stdin())
    loaded = False
    while (request := inbox.next()) is not None:
        if request["op"] == "load":
            loaded = load(replies, request, loaded)
        else:
            generate(replies, request)


if __name__ == "__main__":
    main()
