"""Records → frames of samples, uncut, in this process or shared among others, in the order of the records.

Most of the work is Python's (templates) and the tokenizer's, which processes of their own do side by side:
`python -m trainer.encoding` is one, without torch. Light: whoever has a template has a tokenizer already.
"""

import contextlib
import json
import os
import queue
import signal
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from trainer.chat_template import ChatTemplate, Sample
from trainer.packed import Frame, frame
from trainer.problems import LANGUAGES, Problem
from trainer.records import Record
from trainer.settings import TrainSettings, parse

UNCUT = 2**30
# What a template says of one record that it cannot take, others may be fine.
REFUSALS = ("template_failed", "tools_unsupported")
# Of a dataset's files: below, processes would take longer to start than to encode.
PARALLEL_BYTES = 12 * 2**20
MOST_WORKERS = 8
# Of a batch: enough to be worth a message, few enough to be many.
_BATCH_ROWS, _BATCH_CHARS = 512, 500_000
# What samples depend on, besides the records.
DECIDING = ("model_name_or_path", "trust_remote_code", "template", "stage", "train_on_prompt", "mask_history")


@dataclass(frozen=True)
class Encoded:
    """`refused`: (row, reason) of those that the template cannot render, which have no sample."""

    frame: Frame
    refused: list[tuple[int, dict[str, str]]] = field(default_factory=list)


def samples_of(template: ChatTemplate, settings: TrainSettings, found: Sequence[Record]) -> list[Sample]:
    """An uncut sample for each record, all of one kind. Raises Problem template_failed."""
    if found and found[0].kind == "text":
        return template.encode_text([record.messages[0]["content"] for record in found], UNCUT)
    return template.encode_all(
        [list(record.messages) for record in found],
        cutoff_len=UNCUT,
        train_on_prompt=settings.train_on_prompt,
        mask_history=settings.mask_history,
        rows=[record.row for record in found],
        tools=[record.tools or None for record in found] if any(record.tools for record in found) else None,
    )


def encoded(template: ChatTemplate, settings: TrainSettings, found: Sequence[Record], skip: bool) -> Encoded:
    """`found` as a frame. `skip`: a record that the template cannot render is left out instead of raised."""
    try:
        return Encoded(frame(samples_of(template, settings, found)))
    except Problem as problem:
        if not skip or problem.code not in REFUSALS:
            raise
    samples, refused = [], []
    for record in found:
        try:
            samples += samples_of(template, settings, [record])
        except Problem as problem:
            if problem.code not in REFUSALS:
                raise
            refused.append((record.row, in_both(problem)))
    return Encoded(frame(samples), refused)


def in_both(problem: Problem) -> dict[str, str]:
    """Its sentence in every language."""
    return {language: problem.sentence(language) for language in LANGUAGES}


def batches(found: Iterable[Record]) -> Iterator[list[Record]]:
    """`found` in pieces of some hundred rows, fewer where they are long."""
    batch: list[Record] = []
    chars = 0
    for record in found:
        batch.append(record)
        chars += sum(len(message["content"]) for message in record.messages)
        if len(batch) == _BATCH_ROWS or chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def encode(
    found: Iterable[Record], settings: TrainSettings, template: ChatTemplate, size: int, skip: bool = False
) -> Iterator[Encoded]:
    """The batches of `found`, encoded in order. `size`: about how many bytes they are. Raises Problem."""
    count = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    if count < 2 or size < PARALLEL_BYTES:
        yield from (encoded(template, settings, batch, skip) for batch in batches(found))
        return
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(settings, template.source, skip)) for _ in range(count)]
        yield from _shared(found, workers, stack)


def _shared(found: Iterable[Record], workers: "list[_Worker]", stack: ExitStack) -> Iterator[Encoded]:
    free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)

    def ask(batch: list[Record]) -> Encoded:
        worker = free.get()
        try:
            return worker.encoded(batch)
        finally:
            free.put(worker)

    threads = ThreadPoolExecutor(len(workers), "encoding")
    stack.callback(threads.shutdown, cancel_futures=True)
    pending: deque[Future[Encoded]] = deque()
    for batch in batches(found):
        pending.append(threads.submit(ask, batch))
        if len(pending) > 2 * len(workers):
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


# ---- the processes ----


class _Worker:
    """A process that encodes what it is sent; it ends with its stdin. Raises what the template raises there."""

    def __init__(self, settings: TrainSettings, source: str, skip: bool) -> None:
        told = {"settings": {key: getattr(settings, key) for key in DECIDING}, "source": source, "skip": skip}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainer.encoding"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parent.parent,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        _send(self._to, json.dumps(told).encode())

    def encoded(self, batch: list[Record]) -> Encoded:
        told = [(record.row, record.kind, record.messages, record.tools) for record in batch]
        with contextlib.suppress(BrokenPipeError):  # it has ended: what is received says so
            _send(self._to, json.dumps(told, ensure_ascii=False).encode())
        head = json.loads(self._received())
        if "code" in head:
            raise Problem(head["code"], **head["values"])
        parts = Frame(*(self._received() for _ in range(3)))
        return Encoded(parts, [(row, reason) for row, reason in head["refused"]])

    def _received(self) -> bytes:
        data = _receive(self._from)
        if data is None:
            raise RuntimeError(f"a process that encodes samples ended with {self._process.wait()}")
        return data

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # there is nothing that it could lose
        self._process.wait()
        for pipe in (self._to, self._from):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _send(stream: IO[bytes], data: bytes) -> None:
    """Raises BrokenPipeError when nobody reads."""
    stream.write(struct.pack("<Q", len(data)))
    stream.write(data)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes | None:
    """None at the end."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    return stream.read(struct.unpack("<Q", head)[0])


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):  # the trainer decides; when it is gone, its pipe is
        signal.signal(number, signal.SIG_IGN)
    go_without_torch()
    from trainer.chat_pipes import guarded_stdout

    stdout = guarded_stdout()  # kept: its buffer is closed with it
    replies, requests = stdout.buffer, sys.stdin.buffer  # type: ignore[attr-defined]
    first = _receive(requests)
    if first is None:
        return 0
    told: dict[str, Any] = json.loads(first)
    settings = parse(told["settings"])
    template = load_template(settings)
    assert template.source == told["source"], "the folder's template is another one by now"
    while (data := _receive(requests)) is not None:
        batch = [Record("", row, kind, tuple(messages), None, tools=tuple(tools))
                 for row, kind, messages, tools in json.loads(data)]  # fmt: skip
        try:
            done = encoded(template, settings, batch, told["skip"])
        except Problem as problem:
            _send(replies, json.dumps({"code": problem.code, "values": problem.values}).encode())
            continue
        _send(replies, json.dumps({"refused": done.refused}).encode())
        for part in done.frame:
            _send(replies, part)
    return 0


def go_without_torch() -> None:
    """transformers is imported without torch from now on, which saves two seconds; for processes that tokenize only."""
    assert "transformers" not in sys.modules
    sys.modules["torch"] = None  # type: ignore[assignment]
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}


def load_template(settings: TrainSettings) -> ChatTemplate:
    """The template that `settings` name. Raises Problem when the model's tokenizer cannot be read."""
    from transformers import AutoTokenizer

    from trainer.model_folder import check_model_folder
    from trainer.settings import label

    folder = check_model_folder(settings.model_name_or_path, label=label("model_name_or_path"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=settings.trust_remote_code
        )
    except Exception as error:  # transformers raises what its parts raise; the sentence needs the cause
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Problem("model_load_failed", path=str(folder), detail=lines[0][:300]) from error
    return ChatTemplate.of(tokenizer, settings.template, str(folder))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
