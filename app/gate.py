"""Lets in who knows the token: pure ASGI in front of everything, so that no route can be forgotten.

The token comes in the printed address (?token=…), a form, or a Bearer header, and is exchanged for a cookie.
"""

import asyncio
import hashlib
import hmac
from html import escape
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.language import language_of
from app.text import Text

MOST_FORM_BYTES = 4096
LOGIN_PATH = "/login"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Gradio needs inline scripts and eval for its own templates.
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'"

PAGE = """<!doctype html><html lang="{lang}"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body{{font:15px system-ui,'PingFang SC','Microsoft YaHei','Noto Sans CJK SC',sans-serif;color-scheme:light dark;
display:grid;place-items:center;min-height:90vh;margin:0 16px}}main{{max-width:26rem}}h1{{font-size:1.25rem}}
input,button{{font:inherit;padding:.4em .6em;margin:.3em .3em .3em 0}}input{{width:16rem}}</style>
<main><h1>{title}</h1><p>{text}</p><form method="post" action="{action}"><label>{token} <input name="token" type="password"
autofocus autocomplete="current-password"></label><button>{enter}</button></form><p role="alert">{wrong}</p></main></html>"""


class Gate:
    """401 for whoever has no token; wrong ones are answered slower and slower. `token` None lets everyone in."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token
        self._failures = 0
        # Several pages on one host share its cookies whatever their port: each needs a name of its own.
        digest = hashlib.sha256(b"tunedesk cookie " + (token or "").encode()).hexdigest()
        self._cookie, self._cookie_value = f"tunedesk-{digest[:10]}", digest[10:]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        send = _confined(send)
        if self._token is None and scope["type"] == "http" and not _asks_loopback(scope):
            await _refuse_host(send)
            return
        if self._token is None or scope["type"] == "lifespan" or self._knows(scope):
            if scope["type"] == "http" and "token=" in scope["query_string"].decode("latin-1"):
                query = parse_qsl(scope["query_string"].decode("latin-1"))
                await _redirect(send, "?" + urlencode([(key, value) for key, value in query if key != "token"]), [])
                return
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 4401})
            return
        await self._challenge(scope, receive, send)

    def _is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    def _knows(self, scope: Scope) -> bool:
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        if self._is_token(headers.get("authorization", "").removeprefix("Bearer ")):
            return True
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        given = cookies[self._cookie].value if self._cookie in cookies else ""
        return hmac.compare_digest(given.encode(), self._cookie_value.encode())

    async def _challenge(self, scope: Scope, receive: Receive, send: Send) -> None:
        given, target = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0], "?"
        posted = scope["method"] == "POST" and scope["path"].endswith(LOGIN_PATH)
        if posted:
            given, target = await _posted_token(receive), "./"
        if given and self._is_token(given):
            self._failures = 0
            if not posted:
                query = parse_qsl(scope["query_string"].decode("latin-1"))
                target = "?" + urlencode([(key, value) for key, value in query if key != "token"])
            await _redirect(send, target, [self._set_cookie(scope)])
            return
        if given:
            self._failures += 1
            await asyncio.sleep(min(0.25 * 2 ** min(self._failures, 5), 5.0))
        await _answer_401(scope, send, wrong=bool(given))

    def _set_cookie(self, scope: Scope) -> tuple[bytes, bytes]:
        forwarded = dict(scope["headers"]).get(b"x-forwarded-proto", b"").decode("latin-1")
        secure = "; Secure" if "https" in (scope.get("scheme"), forwarded) else ""
        return b"set-cookie", f"{self._cookie}={self._cookie_value}; Path=/; HttpOnly; SameSite=Lax{secure}".encode()


def _asks_loopback(scope: Scope) -> bool:
    """Without a token the name asked for must be this machine's: another one is a page elsewhere that rebinds DNS."""
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    return (urlsplit(f"//{host}").hostname or "") in LOOPBACK


async def _refuse_host(send: Send) -> None:
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Without a token, open this page as http://127.0.0.1 only."})


def _confined(send: Send) -> Send:
    """Tells the browser to fetch nothing from other hosts, whatever a model or a dataset makes the page show."""

    async def send_confined(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), (b"content-security-policy", POLICY)]}
        await send(message)

    return send_confined


async def _posted_token(receive: Receive) -> str:
    body = b""
    while len(body) <= MOST_FORM_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return parse_qs(body.decode("latin-1")).get("token", [""])[0]


async def _redirect(send: Send, target: str, headers: list[tuple[bytes, bytes]]) -> None:
    """`target` is relative: behind a proxy only the browser knows the whole address."""
    location = target.encode("latin-1", errors="replace") if target != "?" else b"./"
    await send({"type": "http.response.start", "status": 303,
                "headers": [(b"location", location), (b"cache-control", b"no-store"), *headers]})  # fmt: skip
    await send({"type": "http.response.body", "body": b""})


async def _answer_401(scope: Scope, send: Send, wrong: bool) -> None:
    headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
    language = language_of(headers.get("cookie", ""), headers.get("accept-language", ""))
    text = Text(language)
    depth = scope["path"].removeprefix(scope.get("root_path", "")).count("/") - 1
    page = PAGE.format(
        lang=language,
        title=escape(text("login.title")),
        text=escape(text("login.text")),
        token=escape(text("login.token")),
        enter=escape(text("login.enter")),
        action="../" * max(depth, 0) + LOGIN_PATH.removeprefix("/"),
        wrong=escape(text("login.wrong")) if wrong else "",
    ).encode()
    await send({"type": "http.response.start", "status": 401,
                "headers": [(b"content-type", b"text/html; charset=utf-8"), (b"www-authenticate", b"Bearer"),
                            (b"cache-control", b"no-store"), (b"content-length", str(len(page)).encode())]})  # fmt: skip
    await send({"type": "http.response.body", "body": page if scope["method"] != "HEAD" else b""})
