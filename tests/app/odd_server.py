"""A server that answers each request with the bytes it is told, for tests of clients: no other server is so wrong."""

import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat


@dataclass
class OddServer:
    """`pieces` are sent `pause_s` apart. Then the connection is closed, or held when `holds`."""

    port: int = 0
    pieces: list[bytes] = field(default_factory=list)
    pause_s: float = 0.0
    holds: bool = False
    forever: bytes = b""
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answers(
        self, body: str | bytes, status: str = "200 OK", kind: str = "application/json", head: str = ""
    ) -> None:
        body = body.encode() if isinstance(body, str) else body
        start = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{head}\r\n"
        self.pieces = [start.encode() + body]

    def streams(self, *pieces: str | bytes) -> None:
        """An event stream that ends when the connection does."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        self.pieces = [head, *(piece.encode() if isinstance(piece, str) else piece for piece in pieces)]

    def serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self.requests.append(_request(connection))
                for piece in chain(self.pieces, repeat(self.forever) if self.forever else []):
                    connection.sendall(piece)
                    time.sleep(self.pause_s)
                if self.holds:
                    connection.settimeout(10)
                    connection.recv(1)
            except OSError:
                pass  # the client has gone, as it should


def _request(connection: socket.socket) -> bytes:
    """All of it: a connection closed with something unread is reset, and what was sent is lost."""
    connection.settimeout(10)
    found = b""
    while b"\r\n\r\n" not in found:
        found += connection.recv(65536) or b"\r\n\r\n"
    head, _, body = found.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    while length and len(body) < int(length.group(1)):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def odd_server(context: ssl.SSLContext | None = None) -> Iterator[OddServer]:
    """With `context`, it speaks TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = OddServer(listener.getsockname()[1])

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=greet, args=(connection,), daemon=True).start()

        def greet(connection: socket.socket) -> None:
            try:
                server.serve(context.wrap_socket(connection, server_side=True) if context else connection)
            except OSError:
                connection.close()  # the client refused the certificate

        threading.Thread(target=accept, daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
