"""Which names the page answers to, and from where a browser may send it something.

A name of somebody else's that leads here (DNS rebinding) is refused, and so is what another site's page sends.
"""

import ipaddress
import os
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from trainer.problems import Problem, quoted

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_READING = ("GET", "HEAD")


@dataclass(frozen=True)
class Asked:
    """What a request says of where it comes from. `public`: the host that a trusted proxy was asked for; `proxied`:
    whether there is one in front."""

    method: str
    headers: Mapping[str, str]
    public: str = ""
    proxied: bool = False


@dataclass(frozen=True)
class Hosts:
    """`own`: names of this machine's. `allowed`: what --allow-host names, with or without a port; ".example.org" also
    stands for all names below it, "*" for every name. `locked`: whether there is a token, so that a name that leads
    here does not lead in: then any address will do, which nobody can rebind, and any name that a proxy goes by."""

    own: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    locked: bool = True
    loopback: bool = True

    @classmethod
    def of(cls, arguments: Namespace) -> "Hosts":
        """Those of a page started with `arguments`."""
        node = os.uname().nodename.lower()
        own = (arguments.host.lower(), node, node.split(".")[0])
        return cls(own, tuple(named(arguments.allow_host)), not arguments.no_token, arguments.host in LOOPBACK)

    def answer(self, asked: Asked) -> bool:
        """Whether the Host header names this page. Only what is no browser leaves it out."""
        header = asked.headers.get("host", "")
        if not header:
            return self.locked
        found = _HOST.fullmatch(header)
        if found is None:
            return False
        name = found[1].strip("[]").lower().rstrip(".")
        if name == "localhost" or name.endswith(".localhost") or self._is_allowed(name, found[2] or ""):
            return True
        # Without a token, at a loopback address, no other name is this page's.
        open_to_others = self.locked or not self.loopback
        try:
            return ipaddress.ip_address(name).is_loopback or open_to_others
        except ValueError:
            return (open_to_others and name in self.own) or (self.locked and asked.proxied)

    def let_send(self, asked: Asked) -> bool:
        """Whether a request comes from this page, from an address that a person opens, or from no browser at all.

        Browsers say so themselves (Sec-Fetch-Site, which no script can set, to https and loopback addresses only);
        else Origin must be the address asked for. Of another page they may follow a link to here, no more.
        """
        headers = asked.headers
        site, origin = headers.get("sec-fetch-site", ""), headers.get("origin", "")
        if site in ("same-origin", "none") or (not site and not origin):
            return True
        if site and asked.method in _READING and headers.get("sec-fetch-mode") == "navigate":
            return True
        scheme, _, place = origin.lower().partition("://")
        found = _HOST.fullmatch(place)
        if found is None:
            return False
        name, port = found[1], found[2] or _DEFAULT_PORTS.get(scheme, "")
        if self._is_allowed(name, port):
            return True
        # Where the browser has said that it is another place, it is.
        return not site and _is_asked_for(asked, name, port, scheme)

    def _is_allowed(self, name: str, port: str) -> bool:
        return any(_matches(rule, name, port) for rule in self.allowed)


def _is_asked_for(asked: Asked, name: str, port: str, scheme: str) -> bool:
    for text in (asked.headers.get("host", ""), asked.public):
        found = _HOST.fullmatch(text.lower())
        if found is None or found[1] != name:
            continue
        # Proxies often leave the port out of what they pass on.
        if (found[2] or _DEFAULT_PORTS.get(scheme, "")) == port or (asked.proxied and not found[2]):
            return True
    return False


def _matches(rule: str, name: str, port: str) -> bool:
    if rule in ("*", name, f"{name}:{port}"):
        return True
    return rule.startswith(".") and (name == rule[1:] or name.endswith(rule))


def named(rules: Sequence[str]) -> list[str]:
    """Host names as --allow-host gives them: of an address its host, *.name as .name. Raises Problem for others."""
    found = []
    for rule in rules:
        name = (urlsplit(rule).netloc if "://" in rule else rule.removeprefix("*") or rule).lower()
        if name != "*" and not _HOST.fullmatch(name):
            raise Problem("host_unknown", value=quoted(rule))
        found.append(name)
    return found
