"""The socket that `tunedesk serve` listens on. Light: no torch, no server."""

import errno
import socket

from trainer.problems import Problem

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_QUEUE = 128


class Listener:
    """A port, 0 to 65535, that is taken before the seconds of loading, while connections are still refused until `listen`.

    Raises Problem host_not_here or serve_port when it is not to be had.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self.socket = socket.socket(family, kind, protocol)
        except (OSError, UnicodeError) as error:
            raise self._problem(error) from None
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(address)
        except OSError as error:
            self.socket.close()
            raise self._problem(error) from None

    def listen(self) -> None:
        try:
            self.socket.listen(_QUEUE)
        except OSError as error:
            raise self._problem(error) from None

    @property
    def url(self) -> str:
        """As somebody on this machine can open it."""
        host, port = self.socket.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def _problem(self, error: Exception) -> Problem:
        number = getattr(error, "errno", None) or 0
        if number < 0 or number == errno.EADDRNOTAVAIL:  # a name that is not known, or another machine's address
            return Problem("host_not_here", host=self._host)
        return Problem(
            "serve_port", host=self._host, port=self._port, detail=getattr(error, "strerror", None) or str(error)
        )
