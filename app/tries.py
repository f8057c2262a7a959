"""Wrong tokens are answered ever later: each address for itself, and all of them together when many try.

A right one never waits, so that nobody can lock the owner out by trying.
"""

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_S, LONGEST_S = 0.5, 10.0
FORGOTTEN_S = 300.0
# Together: so many a minute are answered as above, each one more waits a tenth of a second longer.
FREELY, MORE_S, MINUTE_S = 30, 0.1, 60.0
MOST_WAITING, MOST_ADDRESSES = 8, 4096


@dataclass
class _Address:
    wrong: int = 0
    last: float = 0.0
    waiting: int = 0


class Tries:
    """For one event loop. `clock`: seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, _Address] = {}
        self._level, self._levelled = 0.0, clock()

    def crowded(self, address: str) -> bool:
        """Whether so many answers to `address` are held back that it is told to come later."""
        known = self._known.get(_group(address))
        return known is not None and known.waiting >= MOST_WAITING

    def wrong(self, address: str) -> float:
        """Counts a wrong try; seconds for which its answer is to be held back, then `answered`."""
        now, group = self._clock(), _group(address)
        known = self._known.pop(group, None) or _Address()
        self._known[group] = known  # the one seen last stands last
        if now - known.last > FORGOTTEN_S:
            known.wrong = 0
        known.wrong, known.last = known.wrong + 1, now
        known.waiting += 1
        self._make_room()
        self._level = max(0.0, self._level - (now - self._levelled) * FREELY / MINUTE_S) + 1
        self._levelled = now
        together = max(0.0, self._level - FREELY) * MORE_S
        return min(max(FIRST_S * 2 ** min(known.wrong - 1, 10), together), LONGEST_S)

    def answered(self, address: str) -> None:
        if known := self._known.get(_group(address)):
            known.waiting = max(0, known.waiting - 1)

    def _make_room(self) -> None:
        if len(self._known) > MOST_ADDRESSES:
            del self._known[
                next((name for name, one in self._known.items() if not one.waiting), next(iter(self._known)))
            ]


def _group(address: str) -> str:
    """One network of IPv6 is one person's: it has more addresses than could ever be counted."""
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(number, ipaddress.IPv6Address) and number.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(number), 64), strict=False))
    return str(getattr(number, "ipv4_mapped", None) or number)
