"""One question and its answers: who is asked, what has come so far, and which tab may stop it. No Gradio here."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from app import conversation
from app.chat import ChatProcess, Done
from app.conversation import Message
from app.remote_chat import RemoteChat
from trainer.problems import Problem

WAIT_S = 0.1
# A question may overtake the Stop or Clear that was clicked before it; what was told to end needs some time for it.
OVERTAKEN_S, ENDING_S = 0.3, 5.0

Part = tuple[int, str | Done | Problem]
Parts = Generator[Part, None, None]


@dataclass(frozen=True)
class Column:
    """`number`: of its conversation. `asked`: a checkpoint's path ("" for the model itself), or a server's model.

    `who`: the same as people read it.
    """

    number: int
    asked: str
    who: str


@dataclass
class Answers:
    """The conversations with the answers that are being written into them."""

    before: list[list[Message]]
    columns: Sequence[Column]
    question: Message
    texts: dict[int, str] = field(default_factory=dict)
    numbers: dict[int, dict[str, Any]] = field(default_factory=dict)
    problems: dict[int, Problem] = field(default_factory=dict)
    forgotten: set[int] = field(default_factory=set)

    def forget(self, numbers: Iterable[int]) -> bool:
        """Those conversations are empty from now on. True when one of the answers was to go into them."""
        self.forgotten.update(numbers)
        return any(column.number in self.forgotten for column in self.columns)

    def take(self, position: int, part: str | Done | Problem) -> None:
        """A part of the answer of the column at `position`."""
        column = self.columns[position]
        if isinstance(part, str):
            self.texts[column.number] = self.texts.get(column.number, "") + part
        elif isinstance(part, Done):
            if part.finish == "cancelled" and not self.texts.get(column.number):
                return  # stopped before its first word: it was not asked
            self.texts.setdefault(column.number, "")
            self.numbers[column.number] = conversation.numbers(part, column.who)
        else:
            self.problems[column.number] = part

    def messages(self, number: int) -> list[Message]:
        """What the model of a column is asked."""
        return [*self.before[number], self.question]

    @property
    def now(self) -> list[list[Message]]:
        """All conversations; one that got no answer is as it was, so that the question can be asked again."""
        return [self._conversation(number) for number in range(len(self.before))]

    @property
    def pending(self) -> list[list[Message]]:
        """As `now`, with the question also where no word of the answer has come yet."""
        asked = {column.number for column in self.columns} - self.forgotten
        waiting = asked - self.texts.keys() - self.problems.keys()
        return [self.messages(n) if n in waiting else one for n, one in enumerate(self.now)]

    def _conversation(self, number: int) -> list[Message]:
        if number in self.forgotten:
            return []
        if number not in self.texts:
            return self.before[number]
        answer: Message = {"role": "assistant", "content": self.texts[number]}
        if number in self.numbers:
            answer["numbers"] = self.numbers[number]
        return [*self.messages(number), answer]

    @property
    def length(self) -> int:
        return sum(len(text) for text in self.texts.values())


# ---- who is asked ----


def ask_process(
    chat: ChatProcess, asked: Sequence[tuple[str, list[Message]]], compare: bool, values: dict[str, Any]
) -> Parts:
    """The chat process: its loaded checkpoint, or, to compare, a checkpoint a column on the model that it holds."""
    if not compare:
        for part in chat.generate(asked[0][1], **values):
            yield 0, part
        return
    held = str(chat.status.model or "")
    columns = [None if checkpoint in ("", held) else checkpoint for checkpoint, _ in asked]
    yield from chat.compare(asked[0][1], columns, [messages for _, messages in asked], **values)


def ask_server(server: RemoteChat, asked: Sequence[tuple[str, list[Message]]], values: dict[str, Any]) -> Parts:
    """Another server: every column at the same time. A column's problem is that column's alone."""
    told: queue.SimpleQueue[tuple[int, str | Done | Problem | Exception]] = queue.SimpleQueue()

    def read(position: int, model: str, messages: list[Message]) -> None:
        try:
            for part in server.generate(model, conversation.for_server(messages), **values):
                told.put((position, part))
        except Exception as error:  # raised again below, in the thread that asked
            told.put((position, error))

    for position, (model, messages) in enumerate(asked):
        threading.Thread(target=read, args=(position, model, messages), daemon=True, name="server-column").start()
    open_columns = len(asked)
    try:
        while open_columns:
            position, part = told.get()
            if isinstance(part, Exception) and not isinstance(part, Problem):
                raise part
            open_columns -= not isinstance(part, str)
            yield position, part
    finally:
        server.stop()


# ---- which tab ----

Forget = Callable[[Iterable[int]], bool]


def _kept_nowhere(_: Iterable[int]) -> bool:
    """Of an answer that goes into no conversation."""
    return False


class Asking:
    """A tab's question while it is being answered. `stop` ends its own answer, never another tab's."""

    def __init__(self, end: Callable[[], None], forget: Forget = _kept_nowhere) -> None:
        """`forget`: Answers.forget of its answers."""
        self._end, self._begun = end, False
        self.forget = forget
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()
        if self._begun:
            self._end()

    def parts(self, begin: Callable[[], Parts]) -> Iterator[Part | None]:
        """What `begin()` gives; None, again and again, while another tab is being answered. Raises Problem."""
        while not self.stopped.is_set():
            self._begun = True
            with closing(begin()) as parts:
                try:
                    first = next(parts)
                except Problem as problem:
                    if problem.code != "chat_busy":
                        raise
                else:
                    if self.stopped.is_set():  # it was told to end before there was anything to end
                        self._end()
                    yield first
                    yield from parts
                    return
            self._begun = False
            yield None
            self.stopped.wait(WAIT_S)


class Tabs:
    """The questions of all tabs that are being answered, by the tab's session."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asking: dict[str, Asking] = {}

    @contextmanager
    def asking(self, tab: str, end: Callable[[], None], forget: Forget = _kept_nowhere) -> Iterator[Asking]:
        """Raises Problem chat_busy when this tab has a question open that was not told to end."""
        with self._changed:
            if not self._is_free(tab):
                raise Problem("chat_busy")
            self._asking[tab] = asking = Asking(end, forget)
        try:
            yield asking
        finally:
            with self._changed:
                del self._asking[tab]
                self._changed.notify_all()

    def stop(self, tab: str) -> None:
        with self._changed:
            asking = self._asking.get(tab)
        if asking:
            self._stop(asking)

    def clear(self, tab: str, numbers: Iterable[int]) -> None:
        """An answer into one of those conversations of `tab` ends, and nothing brings them back."""
        with self._changed:
            asking = self._asking.get(tab)
        if asking and asking.forget(numbers):
            self._stop(asking)

    def _stop(self, asking: Asking) -> None:
        asking.stop()
        with self._changed:
            self._changed.notify_all()

    def _is_free(self, tab: str) -> bool:
        """With the lock held, which it lets go while it waits."""

        def told() -> bool:
            return tab not in self._asking or self._asking[tab].stopped.is_set()

        return self._changed.wait_for(told, OVERTAKEN_S) and self._changed.wait_for(
            lambda: tab not in self._asking, ENDING_S
        )

    def has(self, tab: str) -> bool:
        """Whether `tab` has a question open."""
        with self._changed:
            return tab in self._asking
