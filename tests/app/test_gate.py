"""The gate: nothing without the token, whatever the route."""

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from app.gate import Gate
from app.language import language_of

TOKEN = "right-token"


def request(
    gate: Gate, path: str = "/", query: str = "", method: str = "GET", body: bytes = b"", **headers: str
) -> Any:
    """(status, headers, body) of one request."""
    sent: list[Any] = []
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()],
        "scheme": "http",
        "root_path": "",
        "http_version": "1.1",
        "server": ("127.0.0.1", 1),
        "client": ("127.0.0.1", 2),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(gate(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"].decode()


@pytest.fixture
def gate() -> Gate:
    async def secret(request: Any) -> PlainTextResponse:
        return PlainTextResponse("secret")

    return Gate(Starlette(routes=[Route("/{rest:path}", secret, methods=["GET", "POST"])]), TOKEN)


@pytest.mark.parametrize(
    "path", ["/", "/zh/", "/openapi.json", "/zh/gradio_api/queue/join", "/zh/gradio_api/file=/etc/passwd", "/x"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_is_reached_without_the_token(gate: Gate, path: str, method: str) -> None:
    status, _, body = request(gate, path, method=method)
    assert status == 401
    assert "secret" not in body


def test_the_printed_address_is_exchanged_for_a_cookie_and_leaves_no_token_behind(gate: Gate) -> None:
    status, headers, _ = request(gate, "/", f"token={TOKEN}&language=zh")
    assert status == 303
    assert TOKEN not in headers[b"location"].decode()
    assert "language=zh" in headers[b"location"].decode()
    cookie = headers[b"set-cookie"].decode()
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    status, _, body = request(gate, "/zh/", cookie=cookie.split(";")[0])
    assert (status, body) == (200, "secret")


def test_any_token_lets_in_who_knows_it(gate: Gate) -> None:
    from urllib.parse import quote

    strange = Gate(gate._app, "a b;c&d#密")
    status, headers, _ = request(strange, "/", f"token={quote('a b;c&d#密', safe='')}")
    assert status == 303
    assert request(strange, "/", cookie=headers[b"set-cookie"].decode().split(";")[0])[0] == 200


def test_without_a_token_only_this_machines_names_are_served(gate: Gate) -> None:
    open_gate = Gate(gate._app, None)
    assert request(open_gate, "/", host="127.0.0.1:7860")[0] == 200
    assert request(open_gate, "/", host="localhost:7860")[0] == 200
    assert request(open_gate, "/", host="evil.example")[0] == 403
    assert request(open_gate, "/")[0] == 403


def test_the_browser_is_told_to_fetch_nothing_from_other_hosts(gate: Gate) -> None:
    policy = request(gate, "/", authorization=f"Bearer {TOKEN}")[1][b"content-security-policy"].decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_the_form_and_a_bearer_header_let_in_too(gate: Gate) -> None:
    assert request(gate, "/login", method="POST", body=f"token={TOKEN}".encode())[0] == 303
    assert request(gate, "/api", authorization=f"Bearer {TOKEN}")[0] == 200


@pytest.mark.parametrize(
    "headers", [{"cookie": "tunedesk-x=1"}, {"authorization": "Bearer wrong"}, {"cookie": "\x01;=;"}]
)
def test_a_wrong_token_is_refused(gate: Gate, headers: dict[str, str]) -> None:
    assert request(gate, "/", **headers)[0] == 401


def test_the_refusal_speaks_the_readers_language(gate: Gate) -> None:
    assert "令牌" in request(gate, accept_language="zh-CN,zh;q=0.9")[2]
    assert "token" in request(gate, accept_language="en-US")[2]


@pytest.mark.parametrize(
    ("cookie", "accept", "language"),
    [
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("", "zh-HK", "zh"),
        ("", "fr,en;q=0.5,zh;q=0.4", "en"),
        ("", "en;q=0.1,zh;q=0.9", "zh"),
        ("", "", "en"),
        ("", "zh;q=junk,en", "en"),
        ("tunedesk-language=zh", "en", "zh"),
        ("tunedesk-language=klingon", "zh", "zh"),
    ],
)
def test_the_language_is_the_remembered_or_the_preferred_one(cookie: str, accept: str, language: str) -> None:
    assert language_of(cookie, accept) == language
