"""Where the pages are served: the address and port listened on, the path below it, the names browsers know it by."""

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from explorer.errors import ExplorerError
from explorer.paths import PAGES

_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that stand for all of this machine's, and the one of them at which the machine reaches itself."""
_SEGMENT = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


@dataclass(frozen=True)
class Place:
    """Where the pages are served."""

    address: str
    """The IP address that is listened on."""
    port: int
    base_path: str = ""
    """What stands in the URL before the pages' own names, as `/a/b`; empty for nothing."""
    names: tuple[str, ...] = ()
    """Other names than the address by which browsers reach the server."""

    @property
    def reached(self) -> str:
        """The IP address at which this machine reaches the server."""
        return _EVERYWHERE.get(self.address, self.address)

    @property
    def alone(self) -> bool:
        """Whether nobody but this machine can reach the server, through a proxy under another name neither."""
        return ipaddress.ip_address(self.address).is_loopback and set(self.names) <= set(_THIS_MACHINE)

    @property
    def url(self) -> str:
        """What a browser on this machine opens."""
        return f"http://{in_url(self.reached)}:{self.port}{self.base_path}"

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """The hosts that browsers may ask for; empty for any.

        Any other name that resolves to this machine could be a foreign page's (DNS rebinding). Only a server that
        is open to other machines, and was told no name, can't know by what they reach it.
        """
        if not self.names and not ipaddress.ip_address(self.address).is_loopback:
            return ()
        return tuple(dict.fromkeys((*_THIS_MACHINE, self.reached, *self.names)))


def place(address: str, port: int, base_path: str = "", host_names: Sequence[str] = ()) -> Place:
    """The place that a person named. Raises ExplorerError, naming the option, where it can't be one."""
    names = tuple(dict.fromkeys(map(_host_name, host_names)))
    return Place(_ip_address(_unbracketed(address)), port, _base_path(base_path), names)


def in_url(host: str) -> str:
    """A name or an address as URLs have it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _base_path(given: str) -> str:
    path = given.strip("/")
    if not path:
        return ""
    if not all(map(_SEGMENT.fullmatch, path.split("/"))):
        raise ExplorerError(
            f"--base-path {given!r} can't stand in the pages' URL; expected names of letters, digits, - and _ "
            "with slashes between them, such as /tools/explorer."
        )
    # Streamlit takes such an ending for the page's own, and links would lead astray.
    page = next((page.stem for page in PAGES.glob("*.py") if path.endswith(page.stem)), None)
    if page:
        raise ExplorerError(
            f"--base-path {given} ends like the page {page!r}, and would be taken for it; give another ending, "
            f"such as /{path}/explorer."
        )
    return f"/{path}"


def _ip_address(given: str) -> str:
    """The address, or what a name stands for: in version 4, unless it is an address in version 6, as Streamlit does."""
    try:
        found = socket.getaddrinfo(given or " ", None, socket.AF_INET6 if ":" in given else socket.AF_INET)
    except (OSError, ValueError) as problem:
        raise no_address(given, str(getattr(problem, "strerror", None) or problem)) from None
    return str(found[0][4][0])


def no_address(given: str, why: str) -> ExplorerError:
    """What to say of an address that this machine doesn't have."""
    return ExplorerError(
        f"{given!r} is no address of this machine ({why}); give one with --address: 127.0.0.1 or ::1 for this machine "
        "alone, 0.0.0.0 or :: for others, too."
    )


def _host_name(given: str) -> str:
    """The name in the form in which browsers ask for it."""
    name = _unbracketed(given.strip().removesuffix("."))
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        name = name.lower().encode("idna").decode()
    except UnicodeError:
        name = ""
    labels = name.split(".")
    if not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdecimal():
        raise ExplorerError(
            f"--host-name {given!r} is no name of a machine; expected a name or an IP address alone, without "
            "http://, port or path, such as explorer.example.com."
        )
    return name


def _unbracketed(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host
