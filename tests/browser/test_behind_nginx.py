"""Behind a real nginx, with the configuration that docs/serving.md shows: TLS, a path, sockets, and who asks."""

import base64
import os
import pwd
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import HTTPErrorProcessor, HTTPSHandler, Request, build_opener

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import PATIENCE_MS, ask, go
from tests.conftest import Tiny
from tests.serving.command import served

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = [pytest.mark.long, pytest.mark.skipif(not NGINX, reason="nginx isn't installed")]

NAME, PATH = "explorer.example", "/tools/explorer"
PEOPLE = {"ada": "her password", "ben": "his password"}
DOCUMENT = Path(__file__).parents[2] / "docs" / "serving.md"


@dataclass(frozen=True)
class Proxy:
    """A running nginx."""

    place: str
    """What browsers open."""
    port: int


@pytest.fixture(scope="module")
def proxy(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    home = tmp_path_factory.mktemp("nginx")
    command = ("serve", str(tiny.cache), "--device", "cpu", "--history", str(home / "history.sqlite"))
    where = ("--base-path", PATH, "--host-name", NAME)
    with served(*command, *where, "--trust-proxy", "127.0.0.1", "--person-header", "X-Remote-User") as inside:
        behind = re.findall(r":(\d+)/", inside)[0]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with running(home, port, behind):
            yield Proxy(f"https://{NAME}:{port}{PATH}", port)


@contextmanager
def running(home: Path, port: int, behind: str) -> Iterator[None]:
    """The document's nginx at another port, with people, a certificate and files of its own."""
    (shown,) = re.findall(r"^```nginx\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for written, meant in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("explorer.example.com", NAME),
        ("/etc/ssl/explorer.crt", str(home / "certificate")),
        ("/etc/ssl/explorer.key", str(home / "key")),
        ("/etc/nginx/explorer.htpasswd", str(home / "people")),
        ("127.0.0.1:8501", f"127.0.0.1:{behind}"),
    ):
        assert written in shown, written
        shown = shown.replace(written, meant)
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    subprocess.run(
        [*made, "-keyout", str(home / "key"), "-out", str(home / "certificate")], check=True, capture_output=True
    )
    (home / "people").write_text("".join(f"{name}:{{PLAIN}}{said}\n" for name, said in PEOPLE.items()))
    places = "".join(
        f"{kind}_temp_path {home}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    owner = pwd.getpwuid(os.getuid()).pw_name
    around = f"user {owner};\ndaemon off;\npid {home}/pid;\nerror_log {home}/errors;\nevents {{}}\n"
    around += f"http {{\naccess_log off;\n{places}{shown}}}\n"
    (home / "nginx.conf").write_text(around)
    child = subprocess.Popen([str(NGINX), "-e", f"{home}/errors", "-c", f"{home}/nginx.conf"])
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket() as tried:
                if not tried.connect_ex(("127.0.0.1", port)):
                    break
            assert child.poll() is None, (home / "errors").read_text()
            time.sleep(0.05)
        yield
    finally:
        child.terminate()
        child.wait(20)


@contextmanager
def visitor(browser: Browser, name: str) -> Iterator[Page]:
    """A browser of this person's; what its pages' policy forbids fails the test."""
    context = browser.new_context(
        ignore_https_errors=True, http_credentials={"username": name, "password": PEOPLE[name]}
    )
    page, trouble = context.new_page(), list[str]()
    page.set_default_timeout(PATIENCE_MS)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda said: trouble.append(said.text) if "Content Security Policy" in said.text else None)
    yield page
    context.close()
    assert not trouble, trouble


def test_a_journey_behind_nginx_and_another_person_finds_nothing_of_it(browser: Browser, proxy: Proxy) -> None:
    with visitor(browser, "ada") as page:
        page.goto(proxy.place)
        said = ask(page, "What shines by day?")
        page.locator(".card").first.wait_for()
        page.get_by_text("Kept in the history").wait_for()
        page.get_by_role("button", name="Link", exact=True).click()
        link = page.locator("[data-testid=stPopoverBody] code").inner_text()
        assert link.startswith(f"{proxy.place}?saved="), link
        page.goto(link)
        page.locator(".card").first.wait_for()
        assert page.locator(".strip").inner_text() == said
        go(page, "History")
        page.get_by_text("You alone see this list.").wait_for()
        with page.expect_download() as export:
            page.get_by_role("button", name="JSON").click()
        assert "What shines by day?" in export.value.path().read_text(encoding="utf-8")
    with visitor(browser, "ben") as page:
        page.goto(link)
        page.get_by_text("no saved question").wait_for()
        page.goto(f"{proxy.place}/history")
        page.get_by_text("Nothing is saved yet").wait_for()


def test_who_has_no_password_gets_nothing_and_nobody_takes_another_name(proxy: Proxy) -> None:
    assert status(proxy, "/status") == 401
    assert status(proxy, "/status", Authorization=basic("ada", "his password")) == 401
    assert status(proxy, "/status", X_Remote_User="ada") == 401
    assert status(proxy, "/status", Authorization=basic("ada", PEOPLE["ada"])) == 200
    # A second name of one's own making doesn't reach the server.
    assert status(proxy, "/status", Authorization=basic("ada", PEOPLE["ada"]), X_Remote_User="ben") == 200


def basic(name: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


def status(proxy: Proxy, path: str, **headers: str) -> int:
    """What is answered through the proxy."""

    class Unchanged(HTTPErrorProcessor):
        def http_response(self, request: object, response: object) -> object:
            return response

        https_response = http_response

    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    asked = Request(f"https://127.0.0.1:{proxy.port}{PATH}{path}", headers={"Host": NAME})
    for name, value in headers.items():
        asked.add_header(name.replace("_", "-"), value)
    with build_opener(HTTPSHandler(context=trusting), Unchanged).open(asked, timeout=30) as answer:
        return int(answer.status)
