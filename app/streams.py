"""Streams that outlive their connection: a gateway may cut it, or hold back what it should pass on, and nothing is lost.

Pure ASGI, before Gradio. What Gradio sends is kept until assets/streams.js has it: that comes back with ?from=BYTES
after a cut, and asks again and again (?poll=1) where a gateway holds answers back until they end.
"""

import asyncio
import re
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATHS = re.compile(r"/gradio_api/(?:queue/data|heartbeat/[^/]+)$")
# At once, so that the browser learns whether anything gets through; after the last byte, so that it can tell an end
# from a cut. Both are comments to whoever reads server-sent events.
HELLO, END = b":\n\n", b": end\n\n"
# So long may nobody read before the stream ends as if its page were closed.
GRACE_S = 10.0
# An answer that waits for something to be said: shorter than gateways' patience.
HOLD_S = 4.0
# Answers that are asked for one by one carry more each.
GATHER_S = 0.05
MOST_BYTES = 16 * 2**20


class Streams:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._kept: dict[str, _Kept] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        name = query.get("stream", [""])[0]
        if scope["type"] != "http" or not name or not PATHS.search(scope["path"]):
            await self._app(scope, receive, send)
            return
        kept = self._kept.get(name)
        if "leave" in query:
            if kept:
                kept.gone.set()
            await _answer(send, 204)
            return
        asked = query.get("from", ["0"])[0]
        start = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 16 else -1
        if kept is None and start == 0:
            kept = self._kept[name] = _Kept(self._app, scope)
            kept.running.add_done_callback(lambda _: self._kept.pop(name))
        if kept is None or not kept.dropped <= start <= kept.end:
            await _answer(send, 404)
            return
        await kept.serve(start, "poll" in query, receive, send)


async def _answer(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class _Kept:
    """One stream: what the app sends, from byte `dropped` on."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self._app = app
        # Compressed bytes could not be gone on with by another answer.
        self._scope = {**scope, "headers": [one for one in scope["headers"] if one[0] != b"accept-encoding"]}
        self._body, self.dropped, self._ended = bytearray(HELLO), 0, False
        self._status = 200
        self._readers, self._changed = 0, asyncio.Event()
        self._read_at = asyncio.get_running_loop().time()
        self._asked = False
        self.gone = asyncio.Event()
        self.running = asyncio.create_task(self._run())

    @property
    def end(self) -> int:
        return self.dropped + len(self._body)

    async def _run(self) -> None:
        """Returns when the app has ended and a reader has had the time to learn it."""
        ending = asyncio.ensure_future(self._app(self._scope, self._receive, self._take))
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.wait([ending])
            self._body += END
            self._ended = True
            self._changed.set()
            await self.gone.wait()
        finally:
            ending.cancel()
            watching.cancel()
            await asyncio.gather(ending, watching, return_exceptions=True)

    async def _watch(self) -> None:
        """Nobody reads for GRACE_S: the page was closed."""
        now = asyncio.get_running_loop().time
        while self._readers or now() < self._read_at + GRACE_S:
            await asyncio.sleep(1)
        self.gone.set()

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _take(self, message: Message) -> None:
        if self.gone.is_set():
            raise OSError("the page was closed")
        if message["type"] == "http.response.start":
            self._status = message["status"]
        self._body += message.get("body", b"")
        if len(self._body) > MOST_BYTES:  # whoever is that far behind starts anew
            self.dropped += len(self._body) - MOST_BYTES // 2
            del self._body[: -MOST_BYTES // 2]
        self._changed.set()

    async def serve(self, start: int, poll: bool, receive: Receive, send: Send) -> None:
        """Sends the bytes from `start` on: with `poll` those that are there or come next, else all to come."""
        leaving = asyncio.create_task(_left(receive))
        self._readers += 1
        try:
            if poll:
                await self._wait_beyond(start, leaving, HOLD_S)
                await asyncio.sleep(GATHER_S)
            await send({"type": "http.response.start", "status": 200,
                        "headers": [(b"content-type", b"text/event-stream; charset=utf-8"),
                                    (b"cache-control", b"no-store, no-transform"),
                                    (b"x-accel-buffering", b"no")]})  # fmt: skip
            while not leaving.done() and start >= self.dropped:
                part = bytes(self._body[start - self.dropped :])
                start += len(part)
                last = poll or self._ended
                await send({"type": "http.response.body", "body": part, "more_body": not last})
                if last:
                    return
                await self._wait_beyond(start, leaving, None)
        finally:
            self._readers -= 1
            self._read_at = asyncio.get_running_loop().time()
            leaving.cancel()

    async def _wait_beyond(self, start: int, leaving: "asyncio.Task[None]", timeout_s: float | None) -> None:
        """Returns when there is more than `start` bytes, when the reader has left, or after `timeout_s`."""
        deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        while self.end <= start and not leaving.done():
            left = None if deadline is None else deadline - asyncio.get_running_loop().time()
            if left is not None and left <= 0:
                return
            self._changed.clear()
            changing = asyncio.create_task(self._changed.wait())
            await asyncio.wait([changing, leaving], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            changing.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
