"""What a proxy in front of the page says of itself, made part of the request: prefix, scheme, host, client.

Pure ASGI, in front of the gate. Only a trusted peer is believed: whoever else sends X-Forwarded-… loses it here, so
that nothing behind ever sees one that is made up.
"""

import ipaddress
import re
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainer.problems import Problem

# The host that the browser asked for, beside the Host header, which a proxy may have replaced by its own.
PUBLIC_HOST = "tunedesk.public_host"
FORWARDED = re.compile(rb"x-forwarded-|x-gradio-server$|x-real-ip$|forwarded$")
PREFIX = re.compile(r"(?:/[A-Za-z0-9._~@:+%-]+)*")
HOST = re.compile(r"[A-Za-z0-9._-]+(?::\d+)?|\[[0-9A-Fa-f:.]+\](?::\d+)?")


class Trusted:
    """The proxies that are believed: loopback, and what `given` names: addresses and networks by commas, or *."""

    def __init__(self, given: str = "") -> None:
        """Raises Problem for what is neither an address nor a network."""
        words = [word.strip() for word in given.split(",") if word.strip()]
        self._everyone = "*" in words
        try:
            self._networks = [ipaddress.ip_network(word, strict=False) for word in words if word != "*"]
        except ValueError as error:
            raise Problem("trusted_proxy_unknown", value=given, detail=str(error)) from None

    def __contains__(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False  # no address: a test's client, or a socket file
        mapped = getattr(address, "ipv4_mapped", None)
        address = mapped or address
        return self._everyone or address.is_loopback or any(address in network for network in self._networks)


def clean_prefix(given: str) -> str:
    """`given` as /a/b without a slash at its end. Raises Problem for what is no path."""
    prefix = "/" + given.strip().strip("/") if given.strip().strip("/") else ""
    if not PREFIX.fullmatch(prefix) or ".." in prefix.split("/"):
        raise Problem("root_path_unknown", value=given)
    return prefix


class Forwarded:
    """Puts `root_path`, or what a trusted proxy's X-Forwarded-Prefix says, before every path that lacks it.

    So a proxy may strip its prefix or leave it: what is behind always sees path = root_path + its own path.
    """

    def __init__(self, app: ASGIApp, root_path: str = "", trusted: Trusted | None = None) -> None:
        """`root_path` as clean_prefix gives it."""
        self._app, self._root_path, self._trusted = app, root_path, trusted or Trusted()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        said = _said(scope) if (scope.get("client") or ("",))[0] in self._trusted else {}
        scope = {**scope, "headers": [one for one in scope["headers"] if not FORWARDED.match(one[0])]}
        prefix = self._root_path or _prefix(said)
        path = scope["path"]
        if prefix:
            if path == prefix and scope["type"] == "http":
                await _to_folder(scope, send)
                return
            inside = path.startswith(f"{prefix}/")
            raw = scope.get("raw_path") or path.encode()
            scope |= {"root_path": prefix, "path": path if inside else prefix + path,
                      "raw_path": raw if inside else prefix.encode() + raw}  # fmt: skip
        scope |= _origin(scope, said)
        await self._app(scope, receive, _relative(scope, send))


def _said(scope: Scope) -> dict[str, str]:
    """The first value of each header that proxies add, by name. Of several proxies the first is the browser's."""
    said: dict[str, str] = {}
    for key, value in scope["headers"]:
        if FORWARDED.match(key):
            said.setdefault(key.decode("latin-1"), value.decode("latin-1").split(",")[0].strip())
    return said


def _prefix(said: dict[str, str]) -> str:
    given = said.get("x-forwarded-prefix", "")
    try:
        return clean_prefix(given)
    except Problem:
        return ""  # junk from a proxy is no prefix


def _origin(scope: Scope, said: dict[str, str]) -> dict[str, Any]:
    """Scheme and public host as the browser has them."""
    found: dict[str, Any] = {}
    if (scheme := said.get("x-forwarded-proto", "").lower()) in ("http", "https"):
        found["scheme"] = scheme if scope["type"] == "http" else scheme.replace("http", "ws")
    if HOST.fullmatch(host := said.get("x-forwarded-host", "")):
        found[PUBLIC_HOST] = host
    return found


async def _to_folder(scope: Scope, send: Send) -> None:
    """/a/b to /a/b/, where relative addresses lead on from."""
    query = scope["query_string"].decode("latin-1")
    location = scope["path"].rsplit("/", 1)[1] + "/" + (f"?{query}" if query else "")
    await send({"type": "http.response.start", "status": 307,
                "headers": [(b"location", location.encode("latin-1")), (b"cache-control", b"no-store")]})  # fmt: skip
    await send({"type": "http.response.body", "body": b""})


def _relative(scope: Scope, send: Send) -> Send:
    """Takes scheme and host out of redirects to this server: what it believes to be its address need not be one."""
    hosts = {value.decode("latin-1") for key, value in scope["headers"] if key == b"host"} | {scope.get(PUBLIC_HOST)}
    origins = [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts if host]

    async def send_relative(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [
                (key, _without_origin(value, origins) if key.lower() == b"location" else value)
                for key, value in message.get("headers", [])
            ]
            message = {**message, "headers": headers}
        await send(message)

    return send_relative


def _without_origin(location: bytes, origins: list[str]) -> bytes:
    text = location.decode("latin-1")
    for origin in origins:
        if text == origin or text.startswith((f"{origin}/", f"{origin}?")):
            return (text.removeprefix(origin) or "/").encode("latin-1")
    return location
