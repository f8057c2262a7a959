"""What the browser's events carry, made harmless before the library reads it. Pure ASGI, behind the gate.

No references to files, which the library would copy to where they can be fetched; no halves of characters, which
nothing can be written with; no more than MOST_BYTES.
"""

import json
import re
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.half_characters import whole

MOST_BYTES = 32 * 2**20
# A type is a file's by this name; any of its letters may be written as \\u…. The third are halves of characters as bytes.
SUSPECT = re.compile(rb"FileData|\\u|\xed[\xa0-\xbf]")


class EventBodies:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            await _answer(send, 413)
            return
        # The library reads UTF-16 and UTF-32 as well, in which nothing above is found.
        if json.detect_encoding(body) != "utf-8" or SUSPECT.search(body):
            try:
                body = json.dumps(_clean(json.loads(body))).encode()
            except (ValueError, RecursionError):
                await _answer(send, 400)
                return
        headers = [one for one in scope["headers"] if one[0] not in (b"content-length", b"transfer-encoding")]
        headers.append((b"content-length", str(len(body)).encode()))
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return given.pop() if given else await receive()

        await self._app({**scope, "headers": headers}, again, send)


def _clean(value: Any) -> Any:
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        kind = value.get("_type")
        return {_clean(key): _clean(item) for key, item in value.items()
                if key != "_type" or not (isinstance(kind, str) and "FileData" in kind)}  # fmt: skip
    return whole(value)


async def _body(receive: Receive) -> bytes | None:
    """The body; None for one too large."""
    parts, size = [], 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BYTES:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


async def _answer(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
