"""Slows down whoever tries wrong tokens, by the address that they come from."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

_FIRST, _LONGEST = 2.0, 60.0
"""Seconds to wait after the first wrong token, and at most."""
_FORGOTTEN = 600.0
"""Seconds without a wrong token after which an address begins anew."""
_MOST = 4096
"""Addresses that are remembered."""


class Attempts:
    """Wrong tokens of each address: after every one it has to wait, twice as long as before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """`clock` tells seconds."""
        self._clock = clock
        self._wrong = OrderedDict[str, tuple[int, float]]()

    def wait(self, address: str) -> float:
        """Seconds until the address may try a token again; 0 when it may now."""
        count, last = self._wrong.get(_network(address), (0, 0.0))
        since = self._clock() - last
        if not count or since > _FORGOTTEN:
            return 0.0
        return max(0.0, min(_FIRST * 2.0 ** min(count - 1, 30), _LONGEST) - since)

    def wrong(self, address: str) -> None:
        """The address tried a wrong token."""
        network, now = _network(address), self._clock()
        count, last = self._wrong.pop(network, (0, 0.0))
        self._wrong[network] = (count + 1 if now - last <= _FORGOTTEN else 1, now)
        if len(self._wrong) > _MOST:
            self._wrong.popitem(last=False)

    def right(self, address: str) -> None:
        """The address has a right token: what it tried before was a slip."""
        self._wrong.pop(_network(address), None)


def _network(address: str) -> str:
    """What one party has to itself: an address in version 4 of IP, a network of 64 bits in version 6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4 or found.ipv4_mapped:
        return str(getattr(found, "ipv4_mapped", None) or found)
    return str(ipaddress.ip_network((found, 64), strict=False))
