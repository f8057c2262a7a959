"""A streamed reply of an OpenAI-compatible server → texts and a Done."""

import asyncio
import json
import time
from typing import Any

from app.chat import Done
from app.remote_exchange import Remote, Tell, lines, message
from trainer.problems import Problem

PATH = "/chat/completions"


async def reply(remote: Remote, body: dict[str, Any], tell: Tell) -> None:
    """Tells texts, then one Done; "cancelled" when the task is. Raises Problem."""
    reading = _Reading(remote, tell)
    try:
        async with remote.asked("POST", PATH, body) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise remote.broken(PATH, response.headers.get("content-type", ""))
            async for line in lines(response):
                if line.startswith(b"data:") and not reading.take(line[5:].strip()):
                    break
            reading.end()
    except asyncio.CancelledError:
        reading.done("cancelled")
        raise


class _Reading:
    """What has come of a reply, and when."""

    def __init__(self, remote: Remote, tell: Tell) -> None:
        self._remote, self._tell = remote, tell
        self._began = time.perf_counter()
        self._first_s: float | None = None
        self._pieces = 0
        self._usage: dict[str, Any] = {}
        self._finish: str | None = None
        self._thinking = False
        self._calls: dict[int, dict[str, str]] = {}

    def take(self, data: bytes) -> bool:
        """One event. False when it was the last."""
        if data == b"[DONE]":
            return False
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            raise self._remote.broken(PATH, data) from None
        if not isinstance(event, dict):
            raise self._remote.broken(PATH, data)
        if event.get("error"):
            raise Problem("remote_failed", detail=self._remote.words(message(event)))
        if isinstance(event.get("usage"), dict):
            self._usage = event["usage"]
        try:
            for choice in event.get("choices") or []:
                self._choice(choice)
        except (AttributeError, TypeError):  # another type than OpenAI's where it reads
            raise self._remote.broken(PATH, data) from None
        return True

    def end(self) -> None:
        if self._finish is None:
            raise Problem("remote_lost", url=self._remote.url + PATH, detail="finish_reason: null")
        self.done("length" if self._finish == "length" else "stop")

    def done(self, finish: Any) -> None:
        self._close_thought()
        for call in self._calls.values():
            self._tell(f"\n<tool_call>\n{_call_text(call)}\n</tool_call>")
        self._calls = {}
        seconds = time.perf_counter() - self._began
        tokens = _count(self._usage, "completion_tokens") or self._pieces
        rate = None
        if self._first_s is not None and tokens > 1 and seconds > self._first_s:
            rate = (tokens - 1) / (seconds - self._first_s)
        self._tell(Done(finish, tokens, _count(self._usage, "prompt_tokens"), seconds, self._first_s, rate))

    def _choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or {}
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought:
            self._say(thought, "" if self._thinking else "<think>")
            self._thinking = True
        if text := delta.get("content"):
            self._close_thought()
            self._say(text)
        for call in delta.get("tool_calls") or []:
            self._add(call)
        self._finish = choice.get("finish_reason") or self._finish

    def _say(self, text: Any, before: str = "") -> None:
        if not isinstance(text, str):
            raise TypeError
        self._arrived()
        self._tell(before + text)

    def _arrived(self) -> None:
        self._pieces += 1
        if self._first_s is None:
            self._first_s = time.perf_counter() - self._began

    def _close_thought(self) -> None:
        if self._thinking:
            self._tell("</think>\n\n")
        self._thinking = False

    def _add(self, call: dict[str, Any]) -> None:
        """A call's name and arguments come in pieces."""
        self._arrived()
        known = self._calls.setdefault(call.get("index", 0), {"name": "", "arguments": ""})
        for key, piece in (call.get("function") or {}).items():
            if key in known and isinstance(piece, str):
                known[key] += piece


def _call_text(call: dict[str, str]) -> str:
    """A call as chat templates have models write it."""
    try:
        arguments = json.loads(call["arguments"] or "{}")
    except (ValueError, RecursionError):
        arguments = call["arguments"]
    return json.dumps({"name": call["name"], "arguments": arguments}, ensure_ascii=False)


def _count(usage: dict[str, Any], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) else 0
