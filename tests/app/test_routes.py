"""Every route of the running app, found by looking: closed without the token, and with it open only if it is needed."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.arguments import page_parser
from app.event_bodies import MOST_BYTES, EventBodies
from app.forwarded import Forwarded
from app.gate import Gate
from app.open_routes import is_open
from app.server import create_app
from app.starting import listen
from tests import loops

pytestmark = pytest.mark.slow
TOKEN = "a-token-of-the-tests"
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
NEEDED = {"", "/config", "/theme.css", "/favicon.ico", "/static/{path:path}", "/assets/{path:path}"}
NEEDED |= {f"/gradio_api/{name}" for name in ("app_id", "startup-events", "heartbeat/{session_hash}", "queue/join", "queue/data",
                                              "run/{api_name}", "cancel", "reset")}  # fmt: skip


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return create_app(page_parser().parse_args(["--runs-dir", str(tmp_path_factory.mktemp("runs"))]), TOKEN)


def paths(routes: Any, before: str = "") -> Iterator[str]:
    """The path of each route below, mounted apps and included routers too."""
    for route in routes:
        path = before + (getattr(route, "path", "") or "")
        inner = getattr(getattr(route, "app", None), "routes", None)
        included = getattr(getattr(route, "original_router", None), "routes", None)
        if inner or included:
            yield from paths(inner or included, path)
        else:
            yield path


@pytest.fixture(scope="module")
def routes(app: Any) -> list[str]:
    inner = app
    while hasattr(inner, "_app"):
        inner = inner._app
    found = sorted(set(paths(inner.routes)))
    assert len(found) > 100
    assert "/zh/gradio_api/upload" in found
    assert "/en/gradio_api/queue/join" in found
    return found


def filled(path: str) -> str:
    """A path that the route `path` matches."""
    return re.sub(r"\{[^}]+\}", "x", path).replace("run/x", "run/predict")


async def answers(app: Any, asked: list[tuple[str, str]], headers: dict[str, str]) -> list[tuple[str, str, int]]:
    """The status of each (method, path)."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
        return [(method, path, (await client.request(method, path)).status_code) for method, path in asked]


def test_every_route_is_401_without_the_token(app: Any, routes: list[str]) -> None:
    strange = ["/docs", "/redoc", "/openapi.json", "/nothing", "//", "/zh/../en/", "/zh/gradio_api/file=/etc/passwd"]
    asked = [(method, path) for path in [*map(filled, routes), *strange] for method in METHODS]
    for headers in ({}, {"cookie": "tunedesk-0123456789=x"}, {"authorization": "Basic Og=="}):
        wrong = [one for one in loops.run(answers(app, asked, headers)) if one[2] != 401]
        assert wrong == []


def test_whether_it_is_up_is_all_that_anybody_is_told(app: Any) -> None:
    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://10.1.2.3:7860") as client:
            return await client.get("/healthz")

    answer = loops.run(asked())
    assert (answer.status_code, answer.text) == (200, "ok")
    assert "set-cookie" not in answer.headers
    near = [(method, "/healthz") for method in METHODS if method not in ("GET", "HEAD")]
    near += [
        ("GET", path) for path in ("/healthz/", "/healthz/x", "//healthz", "/zh/healthz", "/healthz%2f", "/HEALTHZ")
    ]
    assert [one for one in loops.run(answers(app, near, {})) if one[2] != 401] == []


@pytest.mark.parametrize("path", ["/healthz", "/a/healthz"])
def test_whether_it_is_up_is_told_below_a_prefix_and_without_it(path: str) -> None:
    """A proxy asks with the prefix, what looks after a pod without."""

    async def behind(*_: Any) -> None:
        raise AssertionError("the gate answers by itself")

    page = Forwarded(Gate(behind, TOKEN), "/a")
    assert loops.run(answers(page, [("GET", path), ("HEAD", path)], {})) == [("GET", path, 200), ("HEAD", path, 200)]


def test_with_the_token_only_what_the_page_needs_is_open(app: Any, routes: list[str]) -> None:
    inside = {path for path in routes if path.startswith("/zh")}
    opened = {path for path in inside if is_open({"path": filled(path)})}
    assert {path.removeprefix("/zh").rstrip("/") for path in opened} == NEEDED
    asked = [(method, filled(path)) for path in inside - opened for method in METHODS]
    wrong = [one for one in loops.run(answers(app, asked, {"authorization": f"Bearer {TOKEN}"})) if one[2] != 404]
    assert wrong == []


@pytest.mark.parametrize("path", ["/zh/static/../config", "/zh/gradio_api/upload/", "/zh/gradio_api/file=x", "/zh/assets/",
                                  "/ZH/config", "/zh/config/x", "/zh/gradio_api/queue/join/x", "/zh//config"])  # fmt: skip
def test_what_resembles_an_open_route_is_closed(path: str) -> None:
    assert not is_open({"path": path})


def test_below_a_prefix_the_same_is_open() -> None:
    assert is_open({"path": "/a/b/zh/config", "root_path": "/a/b"})
    assert not is_open({"path": "/a/b/zh/gradio_api/upload", "root_path": "/a/b"})


# ---- what events carry ----


def sent(body: bytes) -> tuple[int, bytes]:
    """(status, what the app behind was given)."""
    given: list[bytes] = []
    said: list[int] = []

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        given.append((await receive())["body"])
        assert dict(scope["headers"])[b"content-length"] == str(len(given[0])).encode()
        await send({"type": "http.response.start", "status": 200})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            said.append(message["status"])

    scope = {"type": "http", "method": "POST", "headers": [(b"content-length", b"1")]}
    loops.run(EventBodies(behind)(scope, receive, send))
    return said[0], given[0] if given else b""


def test_a_file_cannot_be_named_in_an_event() -> None:
    """Else the library copies it to where it can be fetched."""
    for kind in ("gradio.FileData", "gradio.\\u0046ileData", "gradio.Fil\\u0065Data"):
        body = '{"data": [[{"path": "/etc/passwd", "meta": {"_type": "' + kind + '"}}]]}'
        assert json.loads(sent(body.encode())[1]) == {"data": [[{"path": "/etc/passwd", "meta": {}}]]}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig"])
def test_a_file_cannot_be_named_in_another_encoding_either(encoding: str) -> None:
    """The library reads these too."""
    body = '{"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]}'
    assert json.loads(sent(body.encode(encoding))[1]) == {"data": [{"path": "/etc/passwd", "meta": {}}]}
    half = json.dumps(["a\ud800b"], ensure_ascii=False).encode(encoding.removesuffix("-sig"), "surrogatepass")
    assert json.loads(sent(half)[1]) == ["a\ufffdb"]


def test_half_a_character_becomes_a_whole_one() -> None:
    status, body = sent(b'{"data": ["a\\ud800b", "\\ud83d\\ude00", "\\u4f60"]}')
    assert status == 200
    assert json.loads(body) == {"data": ["a\ufffdb", "😀", "你"]}


def test_an_event_of_any_size_or_depth_is_answered() -> None:
    assert sent(b"x" * (MOST_BYTES + 1))[0] == 413
    assert sent(b'{"a": "\\u0041' + b"[" * 100000)[0] == 400
    assert sent(b'["\\u0041",' + b"[" * 100000 + b"]" * 100001)[0] == 400
    assert sent(b"plain")[1] == b"plain"


def test_an_answer_is_sent_at_once() -> None:
    """Its head and body are two writes: else the second waits for the first to be acknowledged, 40 ms."""
    with listen("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_is_uploaded_is_written_nowhere(app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))

    async def upload() -> int:
        transport = httpx.ASGITransport(app)
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            return (await client.post("/zh/gradio_api/upload", files={"files": ("x.zip", b"x")})).status_code

    assert loops.run(upload()) == 404
    assert list(tmp_path.iterdir()) == []


def test_half_a_character_from_anywhere_does_not_keep_the_page_from_answering(app: Any) -> None:
    """From a run's events or a data set it would come with every answer."""
    from gradio.routes import ORJSONResponse

    said = ORJSONResponse({"data": ["a\ud800b", ("\ud83d\ude00",), 1.5, None], "\udfff": {"x": "好"}}).body
    assert json.loads(said) == {"data": ["a\ufffdb", ["😀"], 1.5, None], "\ufffd": {"x": "好"}}
