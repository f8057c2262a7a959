"""One HTTP request to a chat server that can be left at any moment, and what is said of every way it can fail."""

import asyncio
import contextlib
import functools
import json
import os
import queue
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from trainer.problems import Language, Problem

Tell = Callable[[Any], None]

# To be connected, and for a list of models to come.
ANSWER_S = 5.0
# For a reply to begin or go on: the server may have a queue.
_SILENCE_S = 600.0
_MOST_BYTES = 4 * 2**20
_MOST_WORDS = 300
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SILENT = {"en": f"no answer within {ANSWER_S:g} s", "zh": f"{ANSWER_S:g} 秒内没有应答"}


class Exchange:
    """A coroutine in a thread and an event loop of its own: cancelling it leaves a blocked read at once.

    It tells its parts, then ends by itself; what it raises is raised by `parts`.
    """

    def __init__(self, work: Callable[[Tell], Coroutine[Any, Any, None]]) -> None:
        self._told: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(work(lambda part: self._told.put((part, None))))
        threading.Thread(target=self._run, name="remote-chat", daemon=True).start()

    def parts(self) -> Iterator[Any]:
        """Raises what the coroutine raises; ends when it ends."""
        while True:
            part, error = self._told.get()
            if error is not None:
                raise error
            if part is None:
                return
            yield part

    def cancel(self) -> None:
        """May be called at any time, from any thread."""
        with contextlib.suppress(RuntimeError):  # its loop has ended
            self._loop.call_soon_threadsafe(self._task.cancel)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._task)
            self._told.put((None, None))
        except asyncio.CancelledError:
            self._told.put((None, None))
        except Exception as error:  # raised again in the thread that asked
            self._told.put((None, error))
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


class Remote:
    """A server and the key for it. Every failure is a Problem, none of which holds the key."""

    def __init__(self, url: str, key: str, language: Language) -> None:
        self.url, self._key = url, key
        self._headers = {
            "accept-language": language,
            "accept-encoding": "identity",
            "content-type": "application/json",
        }
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    def get_json(self, path: str) -> Any:
        """What GET `path` answers, within ANSWER_S in all. Raises Problem."""

        async def read() -> bytes:
            async with self.asked("GET", path) as response:
                return await _all_of(response)

        async def get(tell: Tell) -> None:
            try:
                body = await asyncio.wait_for(read(), ANSWER_S)
            except asyncio.TimeoutError:
                raise Problem("remote_unreachable", url=self.url, detail=_SILENT) from None
            try:
                tell(json.loads(body))
            except (ValueError, RecursionError):
                raise self.broken(path, body) from None

        return next(Exchange(get).parts(), None)

    @asynccontextmanager
    async def asked(self, method: str, path: str, body: Any = None) -> AsyncIterator[httpx.Response]:
        """The answer with status 200, its body yet to be read. Raises Problem, also for what fails inside."""
        url, begun = self.url + path, False
        content = None if body is None else json.dumps(body).encode()
        try:
            async with self._client() as client, client.stream(method, url, content=content) as response:
                if response.status_code != 200:
                    raise await self._refusal(response, path, body)
                begun = True
                yield response
        except (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError) as error:
            raise self._failure(error, url, begun) from None

    def broken(self, path: str, text: str | bytes) -> Problem:
        """The server said `text` where another thing was due."""
        return Problem("remote_broken", url=self.url + path, detail=self.words(text) or "…")

    def words(self, text: str | bytes) -> str:
        """What a server said, fit to be shown: one line, not long, without the key."""
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        text = " ".join((text.replace(self._key, "…") if self._key else text).split())
        return text[:_MOST_WORDS] + "…" * (len(text) > _MOST_WORDS)

    def _client(self) -> httpx.AsyncClient:
        # A proxy of the environment's leads elsewhere than to this machine.
        outside = urlsplit(self.url).hostname not in _LOOPBACK
        timeout = httpx.Timeout(_SILENCE_S, connect=ANSWER_S, write=30.0)
        try:
            return httpx.AsyncClient(
                headers=self._headers, verify=_authorities(), trust_env=outside, timeout=timeout, follow_redirects=False
            )
        except (ImportError, ValueError) as error:  # a proxy of the environment's that httpx cannot use
            raise Problem("remote_unreachable", url=self.url, detail=str(error)) from None

    async def _refusal(self, response: httpx.Response, path: str, body: Any) -> Problem:
        status, url = response.status_code, self.url + path
        if status in (401, 403):
            return Problem("remote_key_refused", url=self.url, status=status)
        said, is_json = _message(await _all_of(response, whole=False))
        if status == 404:
            if isinstance(body, dict) and is_json:
                return Problem("remote_model_gone", model=body["model"])
            return Problem("remote_not_found", url=url)
        if response.has_redirect_location:
            said = f"→ {response.headers['location']}"
        code = "remote_busy" if status in (429, 503) else "remote_refused"
        return Problem(code, status=status, detail=self.words(said))

    def _failure(self, error: Exception, url: str, begun: bool) -> Problem:
        chain = list(_chain(error))
        if tls := next((cause for cause in chain if isinstance(cause, ssl.SSLError)), None):
            detail = getattr(tls, "verify_message", "") or tls.reason or str(tls)
            return Problem("remote_certificate", url=self.url, detail=detail)
        detail = self.words(_system_words(chain) or str(error)) or type(error).__name__
        if begun:
            return Problem("remote_lost", url=url, detail=detail)
        if isinstance(error, httpx.ConnectTimeout):
            return Problem("remote_unreachable", url=self.url, detail=_SILENT)
        if isinstance(error, httpx.RemoteProtocolError):
            return Problem("remote_broken", url=url, detail=detail)
        return Problem("remote_unreachable", url=self.url, detail=detail)


async def lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body's lines. Raises Problem for one without an end."""
    held = b""
    async for part in response.aiter_bytes():
        *whole, held = (held + part).split(b"\n")
        for line in whole:
            yield line.rstrip(b"\r")
        if len(held) > _MOST_BYTES:
            raise Problem("remote_broken", url=str(response.url), detail=f"> {_MOST_BYTES} bytes")
    if held:
        yield held.rstrip(b"\r")


async def _all_of(response: httpx.Response, whole: bool = True) -> bytes:
    """The body; of one too large its beginning, or, where the `whole` is needed, a Problem."""
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _MOST_BYTES:
            if whole:
                raise Problem("remote_broken", url=str(response.url), detail=f"> {_MOST_BYTES} bytes")
            break
    return body


def _message(body: bytes) -> tuple[str | bytes, bool]:
    """The sentence in an error's body, as servers differ in where they put it, and whether it was OpenAI's shape."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return body, False
    inner = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(inner, dict) and isinstance(inner.get("message"), str):
        return inner["message"], True
    if isinstance(inner, str):
        return inner, False
    return body, False


def message(event: dict[str, Any]) -> str:
    """The sentence of an error that comes amid a reply."""
    said = _message(json.dumps(event, ensure_ascii=False).encode("utf-8", "replace"))[0]
    return said.decode() if isinstance(said, bytes) else said


def _system_words(chain: list[BaseException]) -> str:
    """What the system says of it, in place of a library's words; names that nobody has are numbered below 0."""
    found = next((cause for cause in chain if isinstance(cause, OSError) and cause.errno), None)
    if found is None:
        return ""
    return os.strerror(found.errno or 0) if (found.errno or 0) > 0 else found.strerror or ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, and the parts of a group."""
    seen = 0
    while error is not None and seen < 20:
        yield error
        for part in getattr(error, "exceptions", ()):
            yield from _chain(part)
        error, seen = error.__cause__ or error.__context__, seen + 1


@functools.cache
def _authorities() -> ssl.SSLContext:
    """Those of the system (SSL_CERT_FILE included) and certifi's: a container may have none of its own."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
