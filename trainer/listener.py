"""The socket that `tunedesk serve` listens on. Light: no torch, no server."""

import socket

from trainer.problems import Problem

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_QUEUE = 128


class Listener:
    """A port that is taken before the seconds of loading, while connections are still refused until `listen`.

    Raises Problem port_in_use when it is not to be had.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self.socket = socket.socket(family, kind, protocol)
        except (OSError, OverflowError, UnicodeError) as error:
            raise self._problem(error) from None
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind((address[0], port, *address[2:]))  # what was resolved has cut the port to 16 bits
        except (OSError, OverflowError) as error:
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
        return Problem("port_in_use", host=self._host, port=self._port, detail=str(error))
