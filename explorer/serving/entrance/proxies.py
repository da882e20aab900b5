"""What a trusted proxy in front of the server says of who asks: the address, whether by TLS, and the person."""

import ipaddress
from collections.abc import Sequence

from starlette.requests import HTTPConnection

from explorer.errors import ExplorerError

_LONGEST_NAME = 200


class Proxies:
    """Proxies whose headers are believed. What all others say in such headers counts for nothing."""

    def __init__(self, addresses: Sequence[str] = (), person_header: str = ""):
        """Addresses or networks of proxies, and the header in which they name the person, if they do.

        Raises ExplorerError for what is neither.
        """
        self._networks = [_network(address) for address in addresses]
        self._header = person_header

    def address(self, asked: HTTPConnection) -> str:
        """Where it was asked: the nearest address that isn't a trusted proxy's."""
        hops = [_peer(asked)]
        hops += reversed([hop.strip() for line in asked.headers.getlist("X-Forwarded-For") for hop in line.split(",")])
        return next((hop for hop in hops if not self._trusts(hop)), hops[-1])

    def secure(self, asked: HTTPConnection) -> bool:
        """Whether the browser speaks TLS, with us or with the proxy."""
        if self._trusts(_peer(asked)) and (said := asked.headers.getlist("X-Forwarded-Proto")):
            return said[-1].strip().lower() in ("https", "wss")
        return asked.url.scheme in ("https", "wss")

    def person(self, asked: HTTPConnection) -> str | None:
        """The person that a trusted proxy names, once; None where none does."""
        if not self._header or not self._trusts(_peer(asked)):
            return None
        said = asked.headers.getlist(self._header)
        if len(said) != 1:
            return None
        name = said[0].encode("latin-1").decode("utf-8", "replace").strip()
        # Where a proxy knows nobody, some pass on the name of their own variable.
        usable = 0 < len(name) <= _LONGEST_NAME and name.isprintable() and "{" not in name
        return name if usable else None

    def _trusts(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._networks)


def _peer(asked: HTTPConnection) -> str:
    """Whose connection it is; an address in version 4 as such, at whatever socket it came in."""
    host = asked.client.host if asked.client else ""
    return host.removeprefix("::ffff:") if "." in host else host


def _network(given: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(given)
    except ValueError as problem:
        raise ExplorerError(
            f"--trust-proxy {given!r} is no address ({problem}); expected an IP address or a network, such as "
            "10.0.0.7 or 10.0.0.0/24."
        ) from None
