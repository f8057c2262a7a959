"""Lets in who knows the token: pure ASGI in front of everything, so that no route can be forgotten.

The token comes in the printed address (?token=…), a form, or a Bearer header, and is exchanged for a cookie.
"""

import asyncio
import hashlib
import hmac
import secrets
from html import escape
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, parse_qsl, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.forwarded import PUBLIC_HOST
from app.hosts import LOOPBACK, Asked, Hosts
from app.language import language_of
from app.text import Text
from app.tries import Tries
from trainer.problems import LANGUAGES

__all__ = ["LOOPBACK", "Gate"]

MOST_FORM_BYTES = 4096
LOGIN_PATH = "/login"
# Answered to anybody, with nothing but "ok": what looks after a container or pod has no token.
HEALTH_PATH = "/healthz"
# Of fewer characters a token may be guessed, where as many may be tried as a server answers.
SAFE_TOKEN = 16
# Gradio needs inline scripts and eval for its own templates.
POLICY = b"; ".join([b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:", b"object-src 'none'",
                     b"base-uri 'self'", b"form-action 'self'", b"frame-ancestors 'self'"])  # fmt: skip
HEADERS = [(b"content-security-policy", POLICY), (b"x-content-type-options", b"nosniff"),
           (b"referrer-policy", b"same-origin")]  # fmt: skip

PAGE = """<!doctype html><html lang="{lang}"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body{{font:15px system-ui,'PingFang SC','Microsoft YaHei','Noto Sans CJK SC',sans-serif;color-scheme:light dark;
display:grid;place-items:center;min-height:90vh;margin:0 16px}}main{{max-width:26rem}}h1{{font-size:1.25rem}}
input,button{{font:inherit;padding:.4em .6em;margin:.3em .3em .3em 0}}input{{width:16rem}}</style>
<main><h1>{title}</h1><p>{text}</p><form method="post" action="{action}"><label>{token} <input name="token" type="password"
autofocus autocomplete="current-password"></label><button>{enter}</button></form><p role="alert">{wrong}</p></main></html>"""


class Gate:
    """401 for whoever has no token; wrong ones are answered slower and slower. `token` None lets everyone in whom
    `hosts` lets in: others get 403."""

    def __init__(self, app: ASGIApp, token: str | None, hosts: Hosts | None = None) -> None:
        self._app, self._token = app, token
        self._hosts = hosts or Hosts(locked=token is not None)
        self._tries = Tries()
        # Several pages on one host share its cookies whatever their port: each needs a name of its own. It outlives a
        # restart, but of a token that may be guessed: whoever tries cookies instead of tokens is not slowed down.
        known = secrets.token_bytes() if len(token or "") < SAFE_TOKEN else b"tunedesk cookie "
        digest = hashlib.sha256(known + (token or "").encode("utf-8", "surrogatepass")).hexdigest()
        self._cookie, self._cookie_value = f"tunedesk-{digest[:10]}", digest[10:]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if scope["type"] != "http":
            # No word of a token's is heard here: answers to wrong ones would not be held back.
            if refusal or (self._token is not None and not self._has_cookie(headers)):
                await send({"type": "websocket.close", "code": 4403 if refusal else 4401})
            else:
                await self._app(scope, receive, send)
            return
        send = _confined(send)
        if _asks_for_health(scope):
            await _answer(send, 200, b"ok" if scope["method"] == "GET" else b"")
        elif refusal:
            key, about = refusal
            await _answer(send, 403, _text(headers)(key, host=about).encode())
        elif self._token is None or self._has_cookie(headers):
            await self._admit(scope, receive, send)
        else:
            await self._challenge(scope, headers, receive, send)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[str, str] | None:
        """What a request is refused with, whoever sends it: the key of a sentence, and the host that it names."""
        public = scope.get(PUBLIC_HOST, "")
        asked = Asked(scope.get("method", "GET"), headers, public, bool(public or scope.get("root_path")))
        if not self._hosts.answer(asked):
            return "gate.host", headers.get("host", "–")[:100]
        if not self._hosts.let_send(asked):
            return "gate.origin", headers.get("origin", "")[:100].partition("://")[2] or "–"
        return None

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if scope["method"] in ("GET", "HEAD") and any(key == "token" for key, _ in query):
            await _redirect(send, _without_token(query), [])  # it is not to stay in the address
            return
        await self._app(scope, receive, send)

    def _is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(_digest(given), _digest(self._token))

    def _has_cookie(self, headers: dict[str, str]) -> bool:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        given = cookies[self._cookie].value if self._cookie in cookies else ""
        return hmac.compare_digest(_digest(given), _digest(self._cookie_value))

    async def _challenge(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        """For whoever has no cookie: a right token in the address or the form brings one, in a header it will do."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        posted = scope["method"] == "POST" and scope["path"].endswith(LOGIN_PATH)
        given = _bearer(headers) or next((value for key, value in query if key == "token"), "")
        if posted and not given:
            given = await _posted_token(receive)
        address = (scope.get("client") or ("", 0))[0]
        if given and len(self._token or "") < SAFE_TOKEN and self._tries.crowded(address):
            await _answer(send, 429, _text(headers)("gate.later").encode(), [(b"retry-after", b"10")])
        elif given and self._is_token(given):
            if _bearer(headers):
                await self._app(scope, receive, send)
            elif posted:
                await _redirect(send, "./", [self._set_cookie(scope)])
            else:
                await self._exchange(scope, query, send)
        elif given and self._tries.crowded(address):
            await _answer(send, 429, _text(headers)("gate.later").encode(), [(b"retry-after", b"10")])
        else:
            await self._hold_back(address, bool(given))
            await _answer_401(scope, headers, send, wrong=bool(given))

    async def _hold_back(self, address: str, tried: bool) -> None:
        if not tried:
            return
        wait_s = self._tries.wrong(address)
        try:
            await asyncio.sleep(wait_s)
        finally:
            self._tries.answered(address)

    async def _exchange(self, scope: Scope, query: list[tuple[str, str]], send: Send) -> None:
        """The token of an address becomes a cookie of the page's own path, which only the browser knows: it takes
        that of the address where the cookie is set, so that has to be the page's first one."""
        depth = _depth(scope)
        if depth == 0:
            await _redirect(send, _without_token(query), [self._set_cookie(scope)])
            return
        first = scope["path"].removeprefix(scope.get("root_path", "")).split("/")[1]
        language = [("language", first)] if first in LANGUAGES else []
        await _redirect(send, "../" * depth + "?" + urlencode([*query, *language]), [])

    def _set_cookie(self, scope: Scope) -> tuple[bytes, bytes]:
        """Without a Path of its own: others' pages may be at the same host, below other paths."""
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        return b"set-cookie", f"{self._cookie}={self._cookie_value}; HttpOnly; SameSite=Lax{secure}".encode()


def _digest(text: str) -> bytes:
    """Of one length, so that comparing tells nothing of a token's."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _bearer(headers: dict[str, str]) -> str:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _text(headers: dict[str, str]) -> Text:
    return Text(language_of(headers.get("cookie", ""), headers.get("accept-language", "")))


def _depth(scope: Scope) -> int:
    """How many folders below the page's first address."""
    return max(scope["path"].removeprefix(scope.get("root_path", "")).count("/") - 1, 0)


def _without_token(query: list[tuple[str, str]]) -> str:
    return "?" + urlencode([(key, value) for key, value in query if key != "token"])


def _confined(send: Send) -> Send:
    """Tells the browser to fetch nothing from other hosts, whatever a model or a dataset makes the page show."""

    async def send_confined(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        await send(message)

    return send_confined


def _asks_for_health(scope: Scope) -> bool:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return path == HEALTH_PATH and scope["method"] in ("GET", "HEAD")


async def _posted_token(receive: Receive) -> str:
    body = b""
    while len(body) <= MOST_FORM_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return parse_qs(body[:MOST_FORM_BYTES].decode("latin-1")).get("token", [""])[0]


async def _redirect(send: Send, target: str, headers: list[tuple[bytes, bytes]]) -> None:
    """`target` is relative: behind a proxy only the browser knows the whole address."""
    location = target.encode("latin-1", errors="replace") if target != "?" else b"./"
    await send({"type": "http.response.start", "status": 303,
                "headers": [(b"location", location), (b"cache-control", b"no-store"), *headers]})  # fmt: skip
    await send({"type": "http.response.body", "body": b""})


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    about = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store"),
             (b"content-length", str(len(body)).encode()), *(headers or [])]  # fmt: skip
    await send({"type": "http.response.start", "status": status, "headers": about})
    await send({"type": "http.response.body", "body": body})


async def _answer_401(scope: Scope, headers: dict[str, str], send: Send, wrong: bool) -> None:
    text = _text(headers)
    page = PAGE.format(
        lang=text.language,
        title=escape(text("login.title")),
        text=escape(text("login.text")),
        token=escape(text("login.token")),
        enter=escape(text("login.enter")),
        action="../" * _depth(scope) + LOGIN_PATH.removeprefix("/"),
        wrong=escape(text("login.wrong")) if wrong else "",
    ).encode()
    await send({"type": "http.response.start", "status": 401,
                "headers": [(b"content-type", b"text/html; charset=utf-8"), (b"www-authenticate", b"Bearer"),
                            (b"cache-control", b"no-store"), (b"content-length", str(len(page)).encode())]})  # fmt: skip
    await send({"type": "http.response.body", "body": page if scope["method"] != "HEAD" else b""})
