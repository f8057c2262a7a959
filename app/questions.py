"""A question out of what the tab's widgets say, and its answers drawn as they come: what may be asked, of whom, and how
often the browser hears of it. No layout and no Gradio here."""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from app import conversation, fragments
from app.answering import Answers, Asking, Column, Parts, Tabs, ask_process, ask_server
from app.chat_words import problem_html
from app.conversation import CONVERSATIONS
from app.form import typed
from app.models import short_name
from app.page import Page
from app.remote_chat import RemoteChat
from app.server_controls import SERVER, UNUSED
from trainer import sampling
from trainer.problems import Problem
from trainer.settings import label
from trainer.tool_list import parse_tools

SAMPLING = ("max_new_tokens", "top_p", "temperature", "top_k", "repetition_penalty", "seed")
# The browser renders the whole conversation again each time: rarely enough that it has heard a click on Stop before
# 0.2 s are over, on a busy machine too; rarer as it grows.
REDRAW_S, REDRAW_S_PER_CHARACTER = 0.1, 1e-4
# What a reload in the middle of an answer may lose.
KEEP_S = 1.0


@dataclass(frozen=True)
class Asked:
    """What the tab's widgets said when the question was sent. `numbers`: of SAMPLING, as typed."""

    message: str
    kept: Any
    engine: str
    url: str
    key: str
    server_model: str
    compare: bool
    columns: tuple[str, ...]
    role: str
    tools: str
    numbers: tuple[str, ...]
    system: str
    skip_special: bool
    escape: bool
    thinking: bool


@dataclass(frozen=True)
class Drawn:
    """What the tab shows now; None leaves a part as it is.

    `boxes`: the value of each chat box. `kept`: what the browser keeps. `answered`: the question may leave its field.
    `words`: above the conversation. `notes`: above each column.
    """

    boxes: tuple[list[dict[str, Any]] | None, ...] = (None,) * CONVERSATIONS
    kept: str | None = None
    answered: bool = False
    words: str | None = None
    notes: tuple[str, ...] | None = None


class Questions:
    """The questions of one page, whatever tab they come from."""

    def __init__(self, page: Page) -> None:
        self._page, self._text, self._tabs = page, page.text, Tabs()

    def stop(self, tab: str) -> None:
        """Ends the answers to the question of `tab`, if it has one open; their words stay."""
        self._tabs.stop(tab)

    def clear(self, tab: str, numbers: Iterable[int]) -> None:
        """An answer that is being written into one of those conversations of `tab` ends, and leaves no word."""
        self._tabs.clear(tab, numbers)

    def has(self, tab: str) -> bool:
        """Whether `tab` has a question open."""
        return self._tabs.has(tab)

    def ask(self, asked: Asked, tab: str) -> Iterator[Drawn]:
        """Streams the answers. What cannot be asked is said, and changes nothing else."""
        try:
            yield from self._answer(asked, tab)
        except Problem as problem:
            yield Drawn(words=problem_html(problem, self._text))

    def _answer(self, asked: Asked, tab: str) -> Iterator[Drawn]:
        """Raises Problem for what is wrong before anything is asked."""
        answers = self._question(asked)
        if not answers.columns:
            yield self._drawn(answers, asked, words="")
            return
        begin, end = self._asker(asked, answers)
        with self._tabs.asking(tab, end, answers.forget) as asking:
            yield self._drawn(answers, asked, words="")
            try:
                yield from self._stream(asked, answers, asking, begin)
            except Problem as problem:  # of all columns: the process died, say
                yield self._drawn(answers, asked, words=problem_html(problem, self._text), ended=True)
                return
            words = problem_html(answers.problems[0], self._text) if 0 in answers.problems else ""
            yield self._drawn(answers, asked, words=words, ended=True)

    def _stream(self, asked: Asked, answers: Answers, asking: Asking, begin: Callable[[], Parts]) -> Iterator[Drawn]:
        drawn = kept = 0.0
        emptied = False
        for part in asking.parts(begin):
            if part is None:
                yield self._drawn(answers, asked, words=fragments.notice_html(self._text("chat.waiting")))
                continue
            answers.take(*part)
            now = time.monotonic()
            if now - drawn > REDRAW_S * len(answers.columns) + REDRAW_S_PER_CHARACTER * answers.length:
                keep = now - kept > KEEP_S
                kept = now if keep else kept
                # The field is emptied once: what is typed meanwhile is the next question. A question without any answer
                # stays there, to be asked again.
                empty = bool(answers.texts) and not emptied
                yield self._drawn(answers, asked, words=None if emptied else "", answered=empty, keep=keep)
                emptied = emptied or empty
                # From when it was taken on: on a busy machine that lasts, and what has come meanwhile is drawn at once,
                # not part by part.
                drawn = time.monotonic()
        if answers.texts and not emptied:
            yield self._drawn(answers, asked, answered=True)

    def _drawn(
        self, answers: Answers, asked: Asked, words: str | None = None, answered: bool = False, keep: bool = False,
        ended: bool = False,
    ) -> Drawn:  # fmt: skip
        numbers = {column.number for column in answers.columns}
        shown = answers.now if ended else answers.pending
        boxes = tuple(conversation.shown(one, asked.escape, self._text) if n in numbers else None
                      for n, one in enumerate(shown))  # fmt: skip
        notes = tuple(problem_html(answers.problems[n], self._text) if n in answers.problems else ""
                      for n in range(1, CONVERSATIONS))  # fmt: skip
        return Drawn(boxes, conversation.as_kept(answers.now) if keep or ended else None, answered, words, notes)

    # ---- what is asked, and of whom ----

    def _question(self, asked: Asked) -> Answers:
        """Raises Problem for a question that cannot be asked."""
        if not (asked.message or "").strip():
            raise Problem("chat_empty")
        question = {"role": asked.role, "content": asked.message.strip()}
        columns, refused = self._columns(asked), {}
        for column in columns if asked.compare and asked.engine != SERVER else ():
            try:
                if column.asked.strip():
                    self._page.roots.check(column.asked, label("adapter_name_or_path"))
            except Problem as problem:
                refused[column.number] = problem
        left = [column for column in columns if column.number not in refused]
        return Answers(conversation.restored(asked.kept), left, question, problems=refused)

    def _columns(self, asked: Asked) -> list[Column]:
        chat, server = self._page.chat.status, asked.engine == SERVER
        if not asked.compare:
            who = asked.server_model if server else self._who(str(chat.adapter or ""))
            return [Column(0, asked.server_model, who)]
        chosen = [(number, name) for number, name in enumerate(asked.columns, 1) if name != UNUSED]
        if not chosen:
            raise Problem("compare_nothing")
        if server:
            return [Column(number, name, name) for number, name in chosen]
        return [Column(number, name, self._who(name)) for number, name in chosen]

    def _who(self, checkpoint: str) -> str:
        """Who answers on this machine, as people say it."""
        model = self._page.chat.status.model
        name = short_name(checkpoint, self._page.runs_dir, self._text)
        return model.name if not checkpoint and model else name

    def _asker(self, asked: Asked, answers: Answers) -> tuple[Callable[[], Parts], Callable[[], None]]:
        """What begins the answers, and what ends them. Raises Problem for a value that cannot be used."""
        values = {key: typed(value) for key, value in zip(SAMPLING, asked.numbers, strict=True)}
        chosen = {"enable_thinking": asked.thinking, "skip_special_tokens": asked.skip_special}
        every = {**values, **chosen, "tools": parse_tools(asked.tools)}
        if sampling.parse(every).seed < 0 and asked.compare:  # the same for all columns
            every["seed"] = random.randrange(2**31)
        said = [
            (column.asked, conversation.asked(answers.messages(column.number), asked.system))
            for column in answers.columns
        ]
        if asked.engine == SERVER:
            if not asked.server_model.strip() and not asked.compare:
                raise Problem("server_model_missing")
            server = RemoteChat(asked.url, asked.key, self._text.language)
            return (lambda: ask_server(server, said, every)), server.stop
        chat = self._page.chat
        if chat.status.state not in ("ready", "generating"):
            raise Problem("chat_loading" if chat.status.state in ("starting", "loading") else "chat_not_loaded")
        return (lambda: ask_process(chat, said, asked.compare, every)), chat.stop
