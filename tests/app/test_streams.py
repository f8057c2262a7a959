"""Streams that outlive their connection, against an app that sends what the test tells it to."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app import streams
from app.streams import END, HELLO, Streams
from tests import loops

PATH = "/zh/gradio_api/queue/data"


class Source:
    """An app whose parts come when `say` is called. `left`: it was told that nobody reads any more."""

    def __init__(self) -> None:
        self.parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.left = asyncio.Event()
        self.begun = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        await receive()
        watching = asyncio.create_task(self._watch(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (part := await self.parts.get()) is not None:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        watching.cancel()

    async def _watch(self, receive: Any) -> None:
        assert (await receive())["type"] == "http.disconnect"
        self.left.set()
        self.parts.put_nowait(None)

    def say(self, *parts: bytes | None) -> None:
        for part in parts:
            self.parts.put_nowait(part)


class Reader:
    """One connection."""

    def __init__(self, app: Streams, query: str, path: str = PATH) -> None:
        self.status, self.body, self.cut = 0, b"", asyncio.Event()
        self._asked = False
        scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []}
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b""}
        await self.cut.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")

    async def has(self, wanted: bytes) -> None:
        for _ in range(300):
            if wanted in self.body:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{wanted!r} is not in {self.body!r}")

    async def break_off(self) -> None:
        self.cut.set()
        await self.task


def run(body: Callable[[Source, Streams], Awaitable[None]]) -> None:
    async def inside() -> None:
        source = Source()
        await body(source, Streams(source))

    loops.run(inside())


def test_a_stream_goes_on_where_it_was_cut() -> None:
    async def body(source: Source, app: Streams) -> None:
        first = Reader(app, "stream=s&from=0")
        source.say(b"one ")
        await first.has(HELLO + b"one ")
        await first.break_off()
        source.say(b"two ", b"three", None)
        second = Reader(app, f"stream=s&from={len(first.body)}")
        await second.has(END)
        await asyncio.wait_for(second.task, 3)
        assert first.body + second.body == HELLO + b"one two three" + END
        assert source.begun == 1
        assert not source.left.is_set()

    run(body)


def test_asked_one_by_one_an_answer_ends_with_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HOLD_S", 0.2)

    async def body(source: Source, app: Streams) -> None:
        first = Reader(app, "stream=s&from=0&poll=1")
        await asyncio.wait_for(first.task, 3)
        silent = Reader(app, f"stream=s&from={len(HELLO)}&poll=1")
        await asyncio.wait_for(silent.task, 3)
        assert (silent.status, silent.body) == (200, b"")
        source.say(b"one")
        second = Reader(app, f"stream=s&from={len(HELLO)}&poll=1")
        await asyncio.wait_for(second.task, 3)
        assert (first.body, second.body) == (HELLO, b"one")

    run(body)


@pytest.mark.slow
def test_a_page_that_leaves_or_is_gone_ends_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async def leaving(source: Source, app: Streams) -> None:
        await Reader(app, "stream=s&from=0&poll=1").task
        assert not source.left.is_set()
        told = Reader(app, "stream=s&from=3&leave=1")
        await told.task
        assert told.status == 204
        await asyncio.wait_for(source.left.wait(), 3)

    async def gone(source: Source, app: Streams) -> None:
        await Reader(app, "stream=s&from=0&poll=1").task
        await asyncio.wait_for(source.left.wait(), 5)

    run(leaving)
    monkeypatch.setattr(streams, "GRACE_S", 1.0)
    run(gone)


@pytest.mark.slow
def test_a_stream_that_is_asked_for_briefly_again_and_again_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the moments fall at which the server looks who reads."""
    monkeypatch.setattr(streams, "GRACE_S", 1.5)

    async def body(source: Source, app: Streams) -> None:
        start = 0
        for _ in range(8):
            source.say(b"news")
            asked = Reader(app, f"stream=s&from={start}&poll=1")
            await asyncio.wait_for(asked.task, 3)
            assert asked.status == 200
            start += len(asked.body)
            await asyncio.sleep(0.4)
        assert not source.left.is_set()

    run(body)


def test_what_is_unknown_or_no_longer_kept_is_404(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_BYTES", 100)

    async def body(source: Source, app: Streams) -> None:
        for query in ("stream=other&from=7", "stream=other&from=-1", "stream=other&from=x", "stream=other&from=²"):
            reader = Reader(app, query)
            await reader.task
            assert reader.status == 404, query
        first = Reader(app, "stream=s&from=0")
        await first.has(HELLO)
        await first.break_off()
        source.say(b"x" * 400)
        await asyncio.sleep(0.1)
        for start, status in ((3, 404), (400, 200), (9999, 404)):
            reader = Reader(app, f"stream=s&from={start}&poll=1")
            await reader.task
            assert reader.status == status, start

    run(body)


@pytest.mark.parametrize(("query", "path"), [("session_hash=x", PATH), ("stream=s&from=0", "/zh/config")])
def test_whoever_names_no_stream_and_every_other_path_reach_the_app_itself(query: str, path: str) -> None:
    async def body(source: Source, app: Streams) -> None:
        source.say(b"plain", None)
        reader = Reader(app, query, path)
        await asyncio.wait_for(reader.task, 3)
        assert reader.body == b"plain"

    run(body)
