"""The address at which the machines of a run meet, tried before anything starts. Light: no torch."""

import ipaddress
import socket

import psutil

from trainer.launch import Launch
from trainer.problems import Problem, quoted

# How long this machine may take to reach itself.
ANSWER_S = 3


def check(launch: Launch) -> None:
    """Raises Problem for an address where no machines can meet: that of no host; or, on the first machine, that of
    another one, or one whose port is taken."""
    if launch.nodes == 1:
        return
    host, port = launch.master_addr, launch.master_port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError) as error:
        raise Problem("address_unknown", address=quoted(host), detail=_words(error)) from None
    if launch.node_rank:
        return
    try:
        server = socket.create_server(("", port), family=family)
    except OSError as error:
        raise Problem("port_taken", port=port, detail=_words(error)) from None
    with server:
        server.settimeout(ANSWER_S)
        try:
            with socket.create_connection((host, port), timeout=ANSWER_S):
                server.accept()[0].close()
        except OSError as error:
            raise Problem("address_elsewhere", address=quoted(launch.address), detail=_words(error)) from None


def interface(launch: Launch) -> str | None:
    """The name of the network interface through which this machine and the first one see each other; None where the
    address is this machine's alone, or nowhere.

    Without it gloo takes the address that the machine's own name leads to, often one of the loopback.
    """
    try:
        family, kind, _, _, there = socket.getaddrinfo(launch.master_addr, launch.master_port, type=socket.SOCK_DGRAM)[
            0
        ]
        with socket.socket(family, kind) as probe:
            probe.connect(there)  # a datagram's: nothing is sent
            here = probe.getsockname()[0]
    except OSError:
        return None
    if ipaddress.ip_address(here).is_loopback:
        return None
    found = psutil.net_if_addrs().items()
    return next((name for name, addresses in found if any(one.address == here for one in addresses)), None)


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
