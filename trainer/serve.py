"""OpenAI's API over one model and its adapters: /v1/models, /v1/chat/completions and /health.

HTTP only: a request is checked by serve_request, answered by serve_worker's thread. No torch.
"""

import asyncio
import hmac
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from trainer import serve_reply, serve_request
from trainer.chat_failure import as_problem
from trainer.listener import LOOPBACK
from trainer.problems import Language, Problem, quoted
from trainer.serve_reply import Completion, Reply
from trainer.serve_worker import Worker
from trainer.tool_calls import Call

# A context of 256k tokens, each character of it escaped.
MOST_BODY_BYTES = 8 * 2**20
REQUEST_S = 30.0
_PUBLIC = "/health"

Result = TypeVar("Result")


class Connection(H11Protocol):
    """Closed where no whole head of a request has come for REQUEST_S: uvicorn itself waits for ever, key or no key."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._look_later()

    def _look_later(self) -> None:
        self.loop.call_later(REQUEST_S, self._look, self.cycle)

    def _look(self, before: RequestResponseCycle | None) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is before and (before is None or before.response_complete):
            self.transport.close()
        else:
            self._look_later()


class Uvicorn(uvicorn.Server):
    """Replies in the making are told that the server ends, where uvicorn would wait for them and then log an error."""

    def __init__(self, application: ASGIApp, worker: Worker) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http=Connection,
                ws="none",
                log_level="error",
                access_log=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._worker = worker

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._worker.end()
        await super().shutdown(sockets)


class Server:
    """`models`: name → adapter, None for the base. `language`: of errors, where a client names none."""

    def __init__(self, worker: Worker, models: Mapping[str, Path | None], language: Language) -> None:
        self._worker, self._models, self._language = worker, models, language
        self._created = int(time.time())

    def application(self, key: str | None) -> ASGIApp:
        """Everything but /health asks for `key`; None lets in whoever reaches this machine's own address."""
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
        app.add_api_route("/health", self.health, methods=["GET", "HEAD"])
        app.add_api_route("/v1/models", self.models, methods=["GET", "HEAD"])
        app.add_api_route("/v1/models/{name:path}", self.model, methods=["GET", "HEAD"])
        app.add_api_route("/v1/chat/completions", self.chat, methods=["POST"])
        app.add_exception_handler(Problem, self.refuse)
        app.add_exception_handler(HTTPException, self.nothing_there)
        app.add_exception_handler(ClientDisconnect, lambda request, gone: Response(status_code=499))
        app.add_exception_handler(Exception, self.refuse)
        return Door(app, key, self.refuse)

    async def health(self) -> dict[str, str]:
        return {"status": "ok"}

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [self._model(name) for name in self._models]}

    async def model(self, name: str) -> dict[str, Any]:
        if name not in self._models:
            raise Problem("serve_model_unknown", value=quoted(name), choices=", ".join(self._models), param="model")
        return self._model(name)

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "tunedesk"}

    async def chat(self, request: Request) -> Response:
        asked = serve_request.parse(await _json_body(request), self._models)
        loop, parts = asyncio.get_running_loop(), asyncio.Queue[Any]()

        def tell(part: Any) -> None:
            try:
                loop.call_soon_threadsafe(parts.put_nowait, part)
            except RuntimeError:  # the server has ended meanwhile
                reply.cancel.set()

        reply = Reply(asked, self._models[asked.model], tell)
        self._worker.submit(reply)
        try:
            if not asked.stream:
                return _json(200, await _unless_gone(request, _whole(asked, parts)))
            first = await _unless_gone(request, parts.get())
            if isinstance(first, Problem):  # while the status can still say it
                raise first
        except BaseException:
            self._worker.drop(reply)
            raise
        events = _events(asked, first, parts, self._language_of(request.scope))
        return EventStream(events, lambda: self._worker.drop(reply))

    async def refuse(self, request: Request, error: Exception) -> Response:
        problem = as_problem(error)
        status, body = serve_reply.error(problem, self._language_of(request.scope))
        headers = {"retry-after": str(problem.values["seconds"])} if problem.code == "serve_full" else {}
        headers |= {"www-authenticate": "Bearer"} if status == 401 else {}
        return _json(status, body, headers)

    async def nothing_there(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        about = {"method": request.method, "path": request.url.path}
        if error.status_code != 405:
            return await self.refuse(request, Problem("serve_nothing_there", **about))
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
        response = await self.refuse(request, Problem("serve_wrong_method", **about, allowed=allowed))
        response.headers["allow"] = allowed
        return response

    def _language_of(self, scope: Scope) -> Language:
        asked = dict(scope["headers"]).get(b"accept-language", b"")[:2].lower()
        return "zh" if asked == b"zh" else "en" if asked == b"en" else self._language


class Door:
    """In front of everything, so that no route can be forgotten."""

    def __init__(self, app: ASGIApp, key: str | None, refuse: Any) -> None:
        self._app, self._key, self._refuse = app, key, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != _PUBLIC and (problem := self._problem(scope)):
            response = await self._refuse(Request(scope, receive), problem)
            await response(scope, receive, send)
        elif scope["type"] != "websocket":
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 4404})

    def _problem(self, scope: Scope) -> Problem | None:
        headers = dict(scope["headers"])
        if self._key is None:
            # Another name that leads here is a page elsewhere that rebinds DNS.
            host = headers.get(b"host", b"").decode("latin-1")
            return None if _name_in(host) in LOOPBACK else Problem("serve_name_asked", host=quoted(host))
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        right = hmac.compare_digest(given.strip(), self._key.encode())
        return None if right and scheme.lower() == b"bearer" else Problem("serve_key_wrong")


def _name_in(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # half of the brackets of an IPv6 address
        return None


class EventStream(StreamingResponse):
    """Server-sent events. `on_end` is called however the stream ends: all sent, or the client gone."""

    def __init__(self, events: AsyncIterator[bytes], on_end: Any) -> None:
        # nginx would hold the events back.
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


async def _whole(asked: serve_request.ChatRequest, parts: "asyncio.Queue[Any]") -> dict[str, Any]:
    texts: list[str] = []
    calls: list[Call] = []
    while isinstance(part := await parts.get(), str | list):
        if isinstance(part, str):
            texts.append(part)
        else:
            calls = part
    if isinstance(part, Problem):
        raise part
    return Completion(asked).whole("".join(texts), calls, part)


async def _events(
    asked: serve_request.ChatRequest, first: Any, parts: "asyncio.Queue[Any]", language: Language
) -> AsyncIterator[bytes]:
    completion, part = Completion(asked), first
    calls: list[Call] = []
    yield _event(completion.chunk({"role": "assistant", "content": ""}))
    while isinstance(part, str | list):
        if isinstance(part, str):
            yield _event(completion.chunk({"content": part}))
        else:
            calls = part
            yield _event(completion.calls_chunk(calls))
        part = await parts.get()
    if isinstance(part, Problem):
        yield _event(serve_reply.error(part, language)[1])
        return
    yield _event(completion.chunk({}, serve_reply.finish_reason(part, calls)))
    if asked.include_usage:
        yield _event(completion.usage_chunk(part))
    yield b"data: [DONE]\n\n"


async def _unless_gone(request: Request, result: Awaitable[Result]) -> Result:
    """Raises ClientDisconnect as soon as the client goes away."""
    wanted = asyncio.ensure_future(result)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((wanted, gone), return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            raise ClientDisconnect
        return wanted.result()
    finally:
        wanted.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _json_body(request: Request) -> bytes:
    """A browser asks before it sends this type to another site, so no page elsewhere can use the server."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem("serve_body_not_json")
    body = bytearray()
    too_large = Problem("serve_body_large", limit=MOST_BODY_BYTES)
    if int(request.headers.get("content-length") or 0) > MOST_BODY_BYTES:
        raise too_large
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY_BYTES:
            raise too_large
    return bytes(body)


def _json(status: int, value: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(_encoded(value), status, headers, "application/json")


def _event(value: Any) -> bytes:
    return b"data: " + _encoded(value) + b"\n\n"


def _encoded(value: Any) -> bytes:
    # A quoted value may hold half of an emoji, which has no UTF-8.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
