"""The gate: nothing without the token, whatever the route; not for others' names and pages; guessing takes time."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from app import gate as gate_module
from app.forwarded import PUBLIC_HOST
from app.gate import Gate
from app.hosts import Hosts
from app.language import language_of
from tests import loops

TOKEN = "right-token"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long answers were held back; nothing waits in fact."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(gate_module.asyncio, "sleep", sleep)
    return found


def request(
    gate: Gate, path: str = "/", query: str = "", method: str = "GET", body: bytes = b"", client: str = "127.0.0.1",
    more: dict[str, Any] | None = None, **headers: str,
) -> Any:  # fmt: skip
    """(status, headers, body) of one request. `more`: of its scope."""
    return loops.run(asked(gate, path, query, method, body, client, more, **headers))


async def asked(
    gate: Gate, path: str = "/", query: str = "", method: str = "GET", body: bytes = b"", client: str = "127.0.0.1",
    more: dict[str, Any] | None = None, **headers: str,
) -> Any:  # fmt: skip
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
        "client": (client, 2),
        **(more or {}),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    await gate(scope, receive, send)
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
    strange = Gate(gate._app, "a b;c&d#密")
    status, headers, _ = request(strange, "/", f"token={quote('a b;c&d#密', safe='')}")
    assert status == 303
    assert request(strange, "/", cookie=headers[b"set-cookie"].decode().split(";")[0])[0] == 200


def test_without_a_token_only_this_machines_names_are_served(gate: Gate) -> None:
    open_gate = Gate(gate._app, None, Hosts(locked=False))
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


def cookie(gate: Gate, host: str = "localhost") -> str:
    assert gate._token is not None
    found = request(gate, "/", f"token={quote(gate._token)}", host=host)[1]
    return str(found[b"set-cookie"].decode().split(";")[0])


# ---- the cookie ----


def test_the_cookie_is_of_the_pages_own_path(gate: Gate) -> None:
    """At a hub, others' pages have the same host: with Path=/ they would be sent the cookie."""
    status, headers, _ = request(gate, "/user/a/", f"token={TOKEN}", more={"root_path": "/user/a"})
    assert status == 303
    assert "Path" not in headers[b"set-cookie"].decode(), "the browser takes the folder of the address: /user/a"
    status, headers, _ = request(gate, "/user/a/zh/", f"token={TOKEN}", more={"root_path": "/user/a"})
    assert b"set-cookie" not in headers, "there it would be of /user/a/zh alone"
    assert headers[b"location"].decode().startswith("../?")
    assert "language=zh" in headers[b"location"].decode()


def test_over_https_the_cookie_is_secure(gate: Gate) -> None:
    assert "Secure" in request(gate, "/", f"token={TOKEN}", more={"scheme": "https"})[1][b"set-cookie"].decode()


def test_a_query_that_only_resembles_a_token_is_passed_on(gate: Gate) -> None:
    assert request(gate, "/zh/", "xtoken=1", cookie=cookie(gate))[0] == 200


def test_a_token_in_the_address_is_taken_out_of_it_also_for_who_is_in(gate: Gate) -> None:
    status, headers, _ = request(gate, "/zh/", "token=x&a=1", cookie=cookie(gate))
    assert (status, headers[b"location"]) == (303, b"?a=1")


# ---- names ----


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:7860", "127.0.0.1:80", "127.8.9.1", "[::1]:7860", "x.localhost", "10.1.2.3:7860",
             "[fe80::1]:80", "LOCALHOST", "localhost."]
)  # fmt: skip
def test_names_that_lead_nowhere_else_are_answered(gate: Gate, host: str) -> None:
    assert request(gate, "/", cookie=cookie(gate), host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "a@localhost",
             "localhost:x", "localhost/..", "localhost evil", "", "127.0.0.1,evil.example"]
)  # fmt: skip
def test_other_names_are_refused_with_and_without_a_token(gate: Gate, host: str) -> None:
    """A name of somebody else's that leads here makes his page one with this one."""
    open_gate = Gate(gate._app, None, Hosts(locked=False))
    assert request(open_gate, "/", host=host)[0] == 403
    if host:  # no browser leaves it out
        status, _, body = request(gate, "/", cookie=cookie(gate), host=host)
        assert status == 403
        assert "--allow-host" in body
        assert request(gate, "/", f"token={TOKEN}", host=host)[0] == 403


def test_an_allowed_name_is_answered(gate: Gate) -> None:
    named = Gate(gate._app, TOKEN, Hosts(allowed=("gpu.example.org", ".lab.example")))
    for host in ("gpu.example.org", "gpu.example.org:8443", "a.lab.example"):
        assert request(named, "/", cookie=cookie(named, host), host=host)[0] == 200
    assert request(named, "/", cookie=cookie(named), host="xlab.example")[0] == 403


def test_behind_a_proxy_the_page_goes_by_its_name(gate: Gate) -> None:
    given = {"cookie": cookie(gate), "host": "hub.example.org"}
    assert request(gate, "/a/zh/", more={"root_path": "/a"}, **given)[0] == 200
    assert request(gate, "/", more={PUBLIC_HOST: "hub.example.org"}, **given)[0] == 200
    assert request(gate, "/", **given)[0] == 403
    open_gate = Gate(gate._app, None, Hosts(locked=False))
    assert request(open_gate, "/a/zh/", more={"root_path": "/a"}, host="evil.example")[0] == 403


# ---- other pages ----


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:9999", "http://localhost", "null", "x",
                                    "http://localhost:7860.evil.example", "file://"])  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
def test_what_another_page_sends_is_refused(gate: Gate, origin: str, method: str) -> None:
    """Also one at another port of the same host, which gets the same cookies."""
    status, _, body = request(gate, "/x", method=method, cookie=cookie(gate), host="localhost:7860", origin=origin)
    assert status == 403
    assert "secret" not in body


def test_this_pages_own_requests_pass(gate: Gate) -> None:
    given = {"cookie": cookie(gate), "method": "POST"}
    assert request(gate, "/x", host="localhost:7860", origin="http://localhost:7860", **given)[0] == 200
    assert request(gate, "/x", host="localhost:7860", **given)[0] == 200, "curl has no Origin"
    assert request(gate, "/x", host="10.0.0.5", origin="http://10.0.0.5", **given)[0] == 200
    secure = {"more": {"scheme": "https", PUBLIC_HOST: "hub.example.org"}}
    assert request(gate, "/x", host="127.0.0.1:7860", origin="https://hub.example.org", **given, **secure)[0] == 200


def test_what_the_browser_says_of_the_sender_counts(gate: Gate) -> None:
    given = {"cookie": cookie(gate), "host": "127.0.0.1:7860", "origin": "https://hub.example.org"}
    own, other = {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "cross-site"}
    assert request(gate, "/x", method="POST", **given, **own)[0] == 200, "a proxy that puts its own name into Host"
    assert request(gate, "/x", method="POST", **given, **other)[0] == 403
    assert request(gate, "/x", cookie=given["cookie"], host="localhost", **other)[0] == 403, "an image, a script"
    link = {**other, "sec-fetch-mode": "navigate"}
    assert request(gate, "/zh/", cookie=given["cookie"], host="localhost", **link)[0] == 200, "a link that is followed"
    same_site = {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}
    assert request(gate, "/x", cookie=given["cookie"], host="localhost:1", **same_site)[0] == 403


def test_an_open_page_takes_nothing_from_other_pages_either(gate: Gate) -> None:
    open_gate = Gate(gate._app, None, Hosts(locked=False))
    assert request(open_gate, "/x", method="POST", host="localhost", origin="http://evil.example")[0] == 403


@pytest.mark.parametrize(
    ("headers", "code"),
    [({}, 4401), ({"origin": "http://evil.example"}, 4403), ({"authorization": f"Bearer {TOKEN}"}, 4401)],
)
def test_a_websocket_is_closed_and_tells_no_right_token_from_a_wrong_one(
    gate: Gate, headers: dict[str, str], code: int
) -> None:
    sent: list[Any] = []
    scope = {"type": "websocket", "path": "/x", "query_string": b"", "client": ("127.0.0.1", 2),
             "headers": [(key.encode(), value.encode()) for key, value in {"host": "localhost", **headers}.items()]}  # fmt: skip

    async def send(message: Any) -> None:
        sent.append(message)

    loops.run(gate(scope, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": code}]


# ---- guessing ----


def test_each_wrong_try_is_answered_later_and_the_right_one_at_once(gate: Gate, waits: list[float]) -> None:
    for number in range(8):
        assert request(gate, "/", f"token=wrong{number}")[0] == 401
    assert waits == sorted(waits)
    assert waits[0] < 1
    assert waits[-1] >= 5
    waits.clear()
    assert request(gate, "/", f"token={TOKEN}")[0] == 303
    assert request(gate, "/", cookie=cookie(gate))[0] == 200
    assert waits == []


def test_every_way_to_try_is_slowed_down(gate: Gate, waits: list[float]) -> None:
    request(gate, "/", "token=wrong")
    request(gate, "/login", method="POST", body=b"token=wrong")
    request(gate, "/x", authorization="Bearer wrong")
    assert len(waits) == 3
    assert waits[0] < waits[1] < waits[2]


def test_who_tries_nothing_does_not_wait(gate: Gate, waits: list[float]) -> None:
    request(gate, "/")
    request(gate, "/", cookie="tunedesk-x=1; other=2")
    assert waits == []


def test_the_cookie_of_a_token_that_may_be_guessed_cannot_be_worked_out(gate: Gate) -> None:
    """Else cookies could be tried, which nothing slows down. That of a long token outlives a restart of the page."""
    assert cookie(gate) != cookie(Gate(gate._app, TOKEN))
    assert request(Gate(gate._app, TOKEN), "/", cookie=cookie(gate))[0] == 401
    long, again = (Gate(gate._app, "a-token-that-nobody-guesses") for _ in range(2))
    assert request(again, "/", cookie=cookie(long))[0] == 200


def test_one_address_does_not_slow_another_but_many_together_are_slowed(gate: Gate, waits: list[float]) -> None:
    for _ in range(6):
        request(gate, "/", "token=wrong", client="10.0.0.1")
    waits.clear()
    request(gate, "/", "token=wrong", client="10.0.0.2")
    assert waits[0] < 1
    for number in range(200):
        request(gate, "/", "token=wrong", client=f"10.1.{number}.1")
    assert waits[-1] > 5


def test_guesses_side_by_side_are_told_to_come_later(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    async def storm() -> list[int]:
        """20 guesses at once from one address, and what they are answered, an owner elsewhere meanwhile."""
        held = asyncio.Event()

        async def hold(seconds: float) -> None:
            await held.wait()

        monkeypatch.setattr(gate_module.asyncio, "sleep", hold)
        guesses = [asyncio.ensure_future(asked(gate, "/", f"token=wrong{n}", client="10.0.0.1")) for n in range(20)]
        await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
        assert (await asked(gate, "/", f"token={TOKEN}", client="10.0.0.2"))[0] == 303, "the owner is not locked out"
        assert (await asked(gate, "/", f"token={TOKEN}", client="10.0.0.1"))[0] == 429, "a short token can be guessed"
        long_gate = Gate(gate._app, "a-token-that-nobody-guesses")
        long_gate._tries = gate._tries
        right = await asked(long_gate, "/", "token=a-token-that-nobody-guesses", client="10.0.0.1")
        assert right[0] == 303, "a long one cannot: it lets its owner in from wherever"
        held.set()
        return [answer[0] for answer in await asyncio.gather(*guesses)]

    answers = loops.run(storm())
    assert sorted(answers) == [401] * 8 + [429] * 12
