"""Who may come in: over real connections to the real server, from other addresses of this machine."""

import base64
import hashlib
import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from explorer.commands.main import main
from explorer.serving.entrance.access import Access, new_token
from explorer.serving.entrance.attempts import Attempts
from tests.serving.command import served

ELSEWHERE = "127.0.0.2"
"""Where browsers find the server: an address of this machine that isn't the one it calls its own."""
PATHS = (
    ("GET", "/"),
    ("GET", "/history"),
    ("GET", "/index.html"),
    ("GET", "/status"),
    ("GET", "/metrics"),
    ("GET", "/_stcore/health"),
    ("GET", "/_stcore/host-config"),
    ("GET", "/_stcore/metrics"),
    ("GET", "/_stcore/stream"),
    ("GET", "/_stcore/agent/openapi.json"),
    ("GET", "/static/../index.html"),
    ("GET", "//index.html"),
    ("GET", "/component/any/index.html"),
    ("GET", "/media/any.html"),
    ("HEAD", "/"),
    ("OPTIONS", "/_stcore/upload_file/one/two"),
    ("PUT", "/_stcore/upload_file/one/two"),
    ("DELETE", "/_stcore/upload_file/one/two"),
    ("POST", "/_stcore/agent/interact"),
)


class Server:
    """A server that asks for a token, and requests to it from any address of this machine."""

    def __init__(self, place: str) -> None:
        found = urlsplit(place)
        self.port, self.token = found.port or 0, parse_qs(found.query)["token"][0]

    def ask(
        self, path: str, method: str = "GET", source: str = "127.0.0.9", body: str = "", **headers: str
    ) -> http.client.HTTPResponse:
        """What it answers to a request that comes from this address; the answer is read already."""
        connection = http.client.HTTPConnection(ELSEWHERE, self.port, timeout=30, source_address=(source, 0))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body or None, named)
        answer = connection.getresponse()
        self.text = answer.read().decode("utf-8", "replace")
        connection.close()
        return answer

    def socket(self, **headers: str) -> str:
        """The first words of a page's socket: how it is answered where it is refused, else that it is open."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        address = f"ws://{ELSEWHERE}:{self.port}/_stcore/stream"
        try:
            with connect(address, additional_headers=named, subprotocols=["streamlit"], proxy=None) as opened:  # type: ignore[list-item]
                opened.ping().wait(30)
                return "open"
        except InvalidStatus as refused:
            return str(refused.response.status_code)

    def cookie(self, source: str = "127.0.0.9") -> str:
        """What a browser keeps after it opened the printed address."""
        answer = self.ask(f"/?token={self.token}", source=source)
        return answer.headers["Set-Cookie"].partition(";")[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAPIDIN_DATA", str(tmp_path_factory.mktemp("data")))
        with served("history", "--address", "0.0.0.0") as place:
            yield Server(place)


def test_without_the_token_nothing_is_answered_to_anybody(server: Server) -> None:
    for method, path in PATHS:
        answer = server.ask(path, method)
        assert answer.status == 401, (method, path, answer.status)
        assert method == "HEAD" or "asks for a token" in server.text
        assert answer.headers["Set-Cookie"] is None and "streamlit" not in server.text.lower()
    assert server.socket() == "403"
    assert server.socket(Cookie=f"rapidin-access-{server.port}={'0' * 64}") == "403"


def test_with_the_cookie_everything_is_answered(server: Server) -> None:
    cookie = server.cookie()
    for path in ("/", "/history", "/_stcore/health", "/_stcore/host-config", "/index.html"):
        assert server.ask(path, Cookie=cookie).status == 200, path
    assert server.ask("/media/any.html", Cookie=cookie).status == 404
    assert server.socket(Cookie=cookie) == "open"


def test_who_may_come_in_may_ask_how_the_server_is(server: Server) -> None:
    cookie = server.cookie()
    with connect(
        f"ws://{ELSEWHERE}:{server.port}/_stcore/stream", additional_headers={"Cookie": cookie}, proxy=None
    ) as page:
        page.ping().wait(30)
        assert server.ask("/status", Authorization=f"Bearer {server.token}").headers["Cache-Control"] == "no-store"
        status = json.loads(server.text)
    assert status["up"] is True and status["caches"] == {} and status["people_waiting"] == 0
    assert status["browsers"] == 1 and status["up_seconds"] > 0 and status["memory_bytes"] > 10**7
    before = refused(server, cookie)
    server.ask("/status")
    assert refused(server, cookie) == before + 1


def refused(server: Server, cookie: str) -> int:
    """How often no token was shown, as Prometheus reads it; each of its lines is a comment, or a name and a number."""
    server.ask("/metrics", Cookie=cookie)
    lines = dict(line.rsplit(" ", 1) for line in server.text.splitlines() if not line.startswith("#"))
    assert lines and all(float(number) >= 0 for number in lines.values())
    return int(lines.get('rapidin_answers_total{status="401"}', 0))


def test_every_answer_says_what_browsers_may_do_with_it(server: Server) -> None:
    cookie = server.cookie()
    page = server.ask("/", Cookie=cookie).headers["Content-Security-Policy"]
    assert re.findall(r"<script>(.*?)</script>", server.text, re.DOTALL), "the frame has a script of its own"
    for script in re.findall(r"<script>(.*?)</script>", server.text, re.DOTALL):
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in page
    assert page.startswith("default-src 'none'; ") and "*" not in page and "http" not in page
    assert "unsafe-eval" not in page.replace("wasm-unsafe-eval", "") and "script-src 'self' 'unsafe-inline'" not in page
    answers = {path: server.ask(path, Cookie=cookie) for path in ("/", "/_stcore/health", "/media/any.html", "/nope")}
    for path, answer in (answers | {"refused": server.ask("/"), "door": server.ask("/", Accept="text/html")}).items():
        assert answer.headers["X-Content-Type-Options"] == "nosniff", path
        assert answer.headers["Referrer-Policy"] == "no-referrer", path
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'"), path
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"], path
    # What people took along and open by its own address runs nothing.
    assert "sandbox" in answers["/media/any.html"].headers["Content-Security-Policy"]


def test_the_token_leaves_the_address_for_a_cookie_that_scripts_and_other_sites_do_not_get(server: Server) -> None:
    answer = server.ask(f"/history?token={server.token}&saved=1%262")
    assert (answer.status, answer.headers["Location"]) == (303, "./history?saved=1%262")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(answer.headers["Set-Cookie"].split("; "))
    assert server.token not in answer.headers["Set-Cookie"] and "Secure" not in answer.headers["Set-Cookie"]
    # However it is written, the way leads to no other host.
    for path in ("//elsewhere.example/", "//elsewhere.example", "/%5Celsewhere.example", "/a//elsewhere.example"):
        assert server.ask(f"{path}?token={server.token}").headers["Location"].startswith("./")


def test_redirections_lead_to_where_the_browser_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPIDIN_DATA", str(tmp_path))
    with served("history", "--base-path", "/tools/explorer", "--token", "a-token-of-mine") as place:
        found = urlsplit(place)
        connection = http.client.HTTPConnection(found.hostname or "", found.port, timeout=30)
        for host in ("explorer.example", f"127.0.0.1:{found.port}"):
            connection.request(
                "GET", "/tools/explorer", headers={"Host": host, "Authorization": "Bearer a-token-of-mine"}
            )
            answer = connection.getresponse()
            answer.read()
            assert (answer.status, answer.headers["Location"]) == (307, "/tools/explorer/"), host
        connection.close()


def test_a_person_may_type_the_token_and_a_program_send_it(server: Server) -> None:
    assert server.ask("/history?saved=1", Accept="text/html").status == 401
    assert '<form method="post">' in server.text
    form = {"method": "POST", "Content_Type": "application/x-www-form-urlencoded"}
    answer = server.ask("/history?saved=1", body=f"token={server.token}", **form)
    assert (answer.status, answer.headers["Location"]) == (303, "./history?saved=1")
    bearer = f"Bearer {server.token}"
    assert server.ask("/_stcore/health", Authorization=bearer).status == 200
    assert server.socket(Authorization=bearer) == "open"


def test_wrong_tokens_are_slowed_down_where_they_come_from_and_nowhere_else(server: Server) -> None:
    mine, cookie = "127.0.0.77", server.cookie()
    assert server.ask("/?token=wrong-token", source=mine).status == 401
    form = {"method": "POST", "Content_Type": "application/x-www-form-urlencoded"}
    refused = []
    for way in (
        {"path": "/?token=another-one"},
        {"path": "/", "Authorization": "Bearer another-one"},
        {"path": "/", "body": "token=another-one", **form},
        {"path": f"/?token={server.token}"},
    ):
        answer = server.ask(source=mine, **way)
        refused.append((answer.status, answer.headers["Retry-After"]))
    assert set(refused) <= {(429, "2"), (429, "1")}
    # A header that anybody can write makes nobody somebody else.
    assert server.ask(f"/?token={server.token}", source=mine, X_Forwarded_For="192.0.2.1").status == 429
    assert server.ask(f"/?token={server.token}").status == 303
    assert server.ask("/_stcore/health", source=mine, Cookie=cookie).status == 200
    assert server.ask("/", body="token=" + "a" * 5000, **form).status == 401


def test_an_address_waits_twice_as_long_after_each_wrong_token() -> None:
    now = 1000.0
    attempts = Attempts(lambda: now)
    waited = []
    for _ in range(8):
        attempts.wrong("192.0.2.1")
        waited.append(attempts.wait("192.0.2.1"))
        now += waited[-1]
        assert attempts.wait("192.0.2.1") == 0
    assert waited == [2, 4, 8, 16, 32, 60, 60, 60]
    attempts.wrong("2001:db8::1")
    assert attempts.wait("2001:db8::ffff:1") == 2 and attempts.wait("2001:db8:0:1::1") == 0
    assert attempts.wait("192.0.2.2") == 0
    now += 601
    attempts.wrong("192.0.2.1")
    assert attempts.wait("192.0.2.1") == 2
    for number in range(5000):
        attempts.wrong(str(number))
    assert len(attempts._wrong) < 5000


def test_cookies_can_not_be_made_from_tokens_alone() -> None:
    access, other = Access({"": "a-token"}, "a key"), Access({"": "a-token"}, "another key")
    assert access.keeper(access.cookie("")) == "" and access.person("a-token") == ""
    assert access.keeper(other.cookie("")) is access.person("b-token") is access.person("") is access.keeper("") is None
    assert len({new_token() for _ in range(100)}) == 100


@pytest.mark.parametrize("token", ["short", "with a space", "mit-Umläut", "a\nnew-line"])
def test_a_token_that_can_not_be_sent_is_refused(
    token: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAPIDIN_TOKEN", token)
    assert main(["history", "--address", "0.0.0.0"]) == 2
    assert "--token" in capsys.readouterr().err
