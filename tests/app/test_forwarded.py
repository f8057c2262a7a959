"""What proxies say of themselves: believed only of a trusted peer, and made part of the request."""

from typing import Any

import pytest

from app.forwarded import PUBLIC_HOST, Forwarded, Trusted, clean_prefix
from tests import loops
from trainer.problems import Problem


def seen(path: str, root_path: str = "", peer: str = "127.0.0.1", trusted: str = "", **headers: str) -> Any:
    """The scope that arrives behind, or the answer's headers where nothing does."""
    arrived: list[Any] = []
    answered: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        arrived.append(scope)
        start = {"type": "http.response.start", "status": 307, "headers": [(b"location", b"http://page:1/zh/")]}
        await send(start)

    async def send(message: Any) -> None:
        answered.append(message)

    scope = {
        "type": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"a=1",
        "scheme": "http",
        "client": (peer, 1),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }
    loops.run(Forwarded(app, root_path, Trusted(trusted))(scope, None, send))  # type: ignore[arg-type]
    location = dict(answered[0]["headers"]).get(b"location", b"").decode() if answered else ""
    return (arrived[0] if arrived else None), location


@pytest.mark.parametrize("path", ["/zh/config", "/a/b/zh/config"])
def test_a_prefix_may_be_stripped_or_left(path: str) -> None:
    for scope, _ in (seen(path, root_path="/a/b"), seen(path, x_forwarded_prefix="/a/b/")):
        assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/a/b", "/a/b/zh/config", b"/a/b/zh/config")


def test_a_longer_name_is_not_the_prefix() -> None:
    assert seen("/a/bc", root_path="/a/b")[0]["path"] == "/a/b/a/bc"


def test_the_prefix_alone_leads_to_its_folder_by_a_relative_address() -> None:
    assert seen("/a/b", root_path="/a/b") == (None, "b/?a=1")


def test_what_the_flag_says_comes_before_what_a_proxy_says() -> None:
    assert seen("/", root_path="/mine", x_forwarded_prefix="/other")[0]["root_path"] == "/mine"


def test_only_a_trusted_peer_is_believed() -> None:
    said = {"x_forwarded_prefix": "/p", "x_forwarded_proto": "https", "x_forwarded_host": "gateway.example"}
    scope, _ = seen("/", **said)
    assert (scope["root_path"], scope["scheme"], scope[PUBLIC_HOST]) == ("/p", "https", "gateway.example")
    scope, _ = seen("/", peer="10.1.2.3", **said)
    assert (scope.get("root_path", ""), scope["scheme"], PUBLIC_HOST in scope) == ("", "http", False)
    for trusted in ("10.0.0.0/8", "*", "192.168.0.1, 10.1.2.3"):
        assert seen("/", peer="10.1.2.3", trusted=trusted, **said)[0]["root_path"] == "/p"
    assert seen("/", peer="::ffff:10.1.2.3", trusted="10.0.0.0/8", **said)[0]["scheme"] == "https"


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3"])
def test_nothing_behind_sees_such_headers(peer: str) -> None:
    scope, _ = seen("/", peer=peer, x_forwarded_host="evil", x_gradio_server="http://evil", forwarded="for=1", host="h")
    assert scope["headers"] == [(b"host", b"h")]


@pytest.mark.parametrize("junk", ["//evil.example", "/a/../b", "/a b", "/a\r\nset-cookie: x", "/é", "javascript:x y"])
def test_junk_is_no_prefix(junk: str) -> None:
    scope, _ = seen("/", x_forwarded_prefix=junk)
    assert scope.get("root_path", "") in ("", "/evil.example"), "never one that leads to another host"


@pytest.mark.parametrize("host", ["a b", "evil/x", 'a"b', ""])
def test_junk_is_no_host(host: str) -> None:
    assert PUBLIC_HOST not in seen("/", x_forwarded_host=host)[0]


def test_of_several_proxies_the_first_is_the_browsers() -> None:
    scope, _ = seen("/", x_forwarded_proto="https, http", x_forwarded_host="outer.example, inner")
    assert (scope["scheme"], scope[PUBLIC_HOST]) == ("https", "outer.example")


def test_redirects_name_no_address_of_the_servers_own() -> None:
    assert seen("/x", host="page:1")[1] == "/zh/"
    assert seen("/x", host="other")[1] == "http://page:1/zh/"


def test_flags_that_cannot_be_right_are_refused_in_words() -> None:
    assert [clean_prefix(given) for given in ("", "/", "a/b/", " /a ")] == ["", "", "/a/b", "/a"]
    for wrong in ("/a b", "/../x", "http://host/x"):
        with pytest.raises(Problem, match="--root-path"):
            clean_prefix(wrong)
    with pytest.raises(Problem, match="--trusted-proxies"):
        Trusted("10.0.0.0/8, gateway")
