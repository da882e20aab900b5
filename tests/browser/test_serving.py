"""Served where it is put: with a proxy in the environment, below a path, in both versions of IP, by another name."""

import http.client
import socket
from collections.abc import Callable, Iterator
from urllib.parse import SplitResult, urlsplit

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import ask, go
from tests.conftest import Tiny
from tests.serving.command import served

Visit = Callable[..., Page]

NAME, FOREIGN, PATH = "explorer.example", "foreign.example", "/tools/explorer"


def has_version_6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as six:
            six.bind(("::1", 0))
    except OSError:
        return False
    return True


VERSION_6 = has_version_6()
needs_version_6 = pytest.mark.skipif(not VERSION_6, reason="this machine has no address in version 6 of IP")


@pytest.fixture(scope="module")
def dead_proxies() -> Iterator[None]:
    """The environment names proxies for everything, where nobody answers."""
    with pytest.MonkeyPatch.context() as patch, socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            for variable in (name, name.upper()):
                patch.setenv(variable, f"http://127.0.0.1:{dead.getsockname()[1]}")
        for variable in ("no_proxy", "NO_PROXY"):
            patch.delenv(variable, raising=False)
        yield


@pytest.fixture(scope="module")
def entrance(browser: Browser, dead_proxies: None, tiny: Tiny) -> Iterator[SplitResult]:
    """The way in to a server at all addresses of this machine; the browser was started without the proxies."""
    command = ("serve", str(tiny.cache), "--device", "cpu", "--base-path", PATH, "--host-name", NAME)
    with served(*command, "--address", "::" if VERSION_6 else "0.0.0.0") as place:
        found = urlsplit(place)
        assert (found.hostname, found.path) == ("::1" if VERSION_6 else "127.0.0.1", PATH)
        yield found


@pytest.mark.parametrize("host", [pytest.param("[::1]", marks=needs_version_6), NAME])
def test_questions_and_links_work_wherever_the_pages_are(visit: Visit, entrance: SplitResult, host: str) -> None:
    place = f"http://{host}:{entrance.port}{PATH}"
    page = visit(place=f"{place}?{entrance.query}")
    assert page.url.rstrip("/") == place, "the token leaves the address"
    said = ask(page, "What shines by day?")
    page.locator(".card").first.wait_for()
    page.get_by_text("Kept in the history").wait_for()
    page.get_by_role("button", name="Link", exact=True).click()
    link = page.locator("[data-testid=stPopoverBody] code").inner_text()
    assert link.startswith(f"{place}?saved="), link

    # Whoever gets the link shows the token once, in the form.
    other = visit(place=link, token=entrance.query.partition("=")[2])
    other.locator(".card").first.wait_for()
    assert other.locator(".strip").inner_text() == said
    go(other, "History")
    other.get_by_text("newest first").wait_for()
    assert other.url == f"{place}/history"
    # A page's own address opens it, too.
    other.reload()
    other.get_by_text("newest first").wait_for()


def test_a_foreign_name_for_this_machine_shows_nothing(browser: Browser, entrance: SplitResult) -> None:
    page = browser.new_page()
    with page.expect_console_message(lambda message: "WebSocket" in message.text and "403" in message.text):
        page.goto(f"http://{FOREIGN}:{entrance.port}{PATH}?{entrance.query}")
    assert page.get_by_label("Ask the model").count() == 0
    page.close()


def test_only_hosts_and_origins_that_were_named_may_connect(dead_proxies: None) -> None:
    command = ("history", "--address", "::1" if VERSION_6 else "127.0.0.1", "--base-path", PATH, "--host-name", NAME)
    with served(*command, "--no-token") as place:
        own = urlsplit(place).netloc
        # Behind a proxy the browser knows a name, and the proxy may ask for the address.
        for host, origin in ((own, place), (f"{NAME}:80", f"http://{NAME}:80"), (own, f"https://{NAME}")):
            assert connecting(place, host, origin) == http.client.SWITCHING_PROTOCOLS, (host, origin)
        for host, origin in ((FOREIGN, f"http://{FOREIGN}"), (own, f"http://{FOREIGN}"), (f"x{NAME}", place)):
            assert connecting(place, host, origin) == http.client.FORBIDDEN, (host, origin)


def connecting(place: str, host: str, origin: str) -> int:
    """What a server answers to a page of an origin that opens its socket."""
    found = urlsplit(place)
    connection = http.client.HTTPConnection(found.hostname or "", found.port, timeout=30)
    headers = {"Host": host, "Origin": origin, "Connection": "Upgrade", "Upgrade": "websocket"}
    headers |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "c2l4dGVlbiBvZiBieXRlcw=="}
    connection.request("GET", f"{found.path}/_stcore/stream", headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status
