"""Who asks: people by their tokens, or by what a trusted proxy says; the guard itself, without a server."""

import asyncio
import re
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from starlette.types import Message, Receive, Scope, Send

from explorer.commands.main import main
from explorer.errors import DataError, ExplorerError
from explorer.serving.entrance.access import PERSON, Access
from explorer.serving.entrance.guard import Guard
from explorer.serving.entrance.people import read_people
from explorer.serving.entrance.proxies import Proxies

PEOPLE = {"Ada Lovelace": "a-token-of-hers", "Bo Ünal": "a-token-of-his"}
ACCESS = Access(PEOPLE, "key", proxies=("10.0.0.0/24", "2001:db8::7"), person_header="X-User")


def run(answering: Coroutine[None, None, None]) -> None:
    """In a thread of its own: in this one a browser of other tests may have a loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, answering).result()


def asked(
    access: Access, client: str, *headers: tuple[str, str], query: str = "", kind: str = "http"
) -> dict[str, str]:
    """What comes of a request: `person` as those behind the guard are told it, or the refusal's headers."""
    found: dict[str, str] = {}

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        told = [value.decode() for name, value in scope["headers"] if name.decode().lower() == PERSON.lower()]
        assert len(told) <= 1
        found["person"] = unquote("".join(told))

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] != "http.response.body":
            found["said"] = str(message.get("status", message["type"]))
        found.update({name.decode(): value.decode() for name, value in message.get("headers", ())})

    scope = {
        "type": kind,
        "path": "/",
        "query_string": query.encode(),
        "client": (client, 5),
        "server": ("0.0.0.0", 8501),
        "scheme": "http",
        "headers": [(name.lower().encode(), value.encode("utf-8")) for name, value in headers],
    }
    scope |= {"method": "GET"} if kind == "http" else {}
    run(Guard(behind, access)(scope, receive, send))
    return found


def test_each_person_comes_in_with_a_token_of_their_own() -> None:
    for person, token in PEOPLE.items():
        assert asked(ACCESS, "192.0.2.1", ("Authorization", f"Bearer {token}")) == {"person": person}
        cookie = asked(ACCESS, "192.0.2.1", query=f"token={token}")["set-cookie"].partition(";")[0]
        assert asked(ACCESS, "192.0.2.1", ("Cookie", cookie)) == {"person": person}
        assert asked(ACCESS, "192.0.2.1", ("Cookie", cookie), kind="websocket") == {"person": person}
    assert asked(ACCESS, "192.0.2.1")["said"] == "401"
    assert asked(ACCESS, "192.0.2.1", kind="websocket")["said"] == "websocket.close"


def test_nobody_names_themselves() -> None:
    forged = (PERSON, "Ada Lovelace"), (PERSON.lower(), "Bo"), (PERSON.upper(), "Bo")
    assert asked(ACCESS, "192.0.2.1", *forged)["said"] == "401"
    assert asked(Access(), "192.0.2.1", *forged) == {"person": ""}
    assert asked(ACCESS, "192.0.2.1", *forged, ("Authorization", "Bearer a-token-of-his")) == {"person": "Bo Ünal"}
    # Only from the proxy's own connection, and only where it names one person.
    assert asked(ACCESS, "192.0.2.1", ("X-User", "Ada"))["said"] == "401"
    assert asked(ACCESS, "192.0.2.1", ("X-User", "Ada"), ("X-Forwarded-For", "10.0.0.7"))["said"] == "401"
    assert asked(ACCESS, "10.0.0.7", ("X-User", "Ada"), ("X-User", "Bo"))["said"] == "401"
    assert asked(ACCESS, "10.0.0.7", ("X-User", " "))["said"] == "401"
    assert asked(ACCESS, "10.0.0.7", ("X-User", "a\tb"))["said"] == "401"
    assert asked(ACCESS, "10.0.0.7", ("X-User", "{http.auth.user.id}"))["said"] == "401"
    assert asked(ACCESS, "10.0.0.7", ("Other", "Ada"))["said"] == "401"
    assert asked(replace(ACCESS, person_header=""), "10.0.0.7", ("X-User", "Ada"))["said"] == "401"


def test_a_trusted_proxy_names_the_person() -> None:
    for proxy in ("10.0.0.7", "::ffff:10.0.0.7", "2001:db8::7"):
        assert asked(ACCESS, proxy, ("X-User", "Čapek")) == {"person": "Čapek"}
        assert asked(ACCESS, proxy, ("X-User", "Čapek"), kind="websocket") == {"person": "Čapek"}


def test_cookies_go_back_over_tls_alone_where_the_proxy_has_tls() -> None:
    token = "token=a-token-of-his"
    tls = ("X-Forwarded-Proto", "https")
    assert "Secure" in asked(ACCESS, "10.0.0.7", tls, query=token)["set-cookie"]
    assert "Secure" not in asked(ACCESS, "10.0.0.7", query=token)["set-cookie"]
    assert "Secure" not in asked(ACCESS, "192.0.2.1", tls, query=token)["set-cookie"]
    assert "Path=/tools;" in asked(replace(ACCESS, path="/tools"), "192.0.2.1", query=token)["set-cookie"]


def test_wrong_tokens_count_where_the_browser_is_not_where_the_proxy_is() -> None:
    tried = Guard(lambda *_: pytest.fail("nobody is let in"), ACCESS)

    def status(client: str, forwarded: str) -> str:
        said: list[str] = []

        async def send(message: Message) -> None:
            said.append(str(message.get("status")))

        headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"token=wrong-token", "headers": headers}
        scope |= {"client": (client, 5), "server": ("0.0.0.0", 8501), "scheme": "http"}
        run(tried(scope, None, send))  # type: ignore[arg-type]
        return said[0]

    assert status("10.0.0.7", "198.51.100.1") == "401"
    assert status("10.0.0.7", "198.51.100.2") == "401"
    # What the browser wrote itself stands before what the proxies wrote.
    assert status("10.0.0.7", "203.0.113.9, 198.51.100.1, 10.0.0.8") == "429"
    assert status("192.0.2.1", "198.51.100.3") == "401" and status("192.0.2.1", "198.51.100.4") == "429"


def test_a_file_names_people(tmp_path: Path) -> None:
    file = tmp_path / "people"
    file.write_text("# Us\n\nAda Lovelace   a-token-of-hers\nBo Ünal\ta-token-of-his\n", encoding="utf-8")
    assert read_people(file) == PEOPLE
    for text, said in (
        ("", "names nobody"),
        ("# a-token-of-hers\n", "names nobody"),
        ("a-token-of-hers\n", "line 1"),
        ("Ada a-token-of-hers\nAda another-token\n", "line 2"),
        ("Ada a-token-of-hers\nBo a-token-of-hers\n", "line 2"),
        ("Ada short\n", "at least 8"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=re.escape(said)) as refused:
            read_people(file)
        assert "a-token" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--person-header", "X-User"], "--trust-proxy"),
        (["--trust-proxy", "box"], "10.0.0.7"),
        (["--trust-proxy", "10.0.0.7/8"], "10.0.0.7"),
        (["--people", "no-such-file"], "no-such-file"),
        (["--people", "any", "--no-token"], "--no-token"),
        (["--people", "any", "--token", "a-token-of-mine"], "--token"),
        (["--no-token", "--token", "a-token-of-mine"], "--token"),
    ],
)
def test_what_would_let_in_others_than_meant_is_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "--address", "0.0.0.0", *options]) == 2
    assert said in capsys.readouterr().err


def test_addresses_that_are_none_trust_nobody() -> None:
    with pytest.raises(ExplorerError):
        Proxies(["everywhere"])
