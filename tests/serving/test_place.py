"""What a person may name as the place of the pages, and what becomes of it."""

import socket

import pytest

from explorer.commands.main import main
from explorer.serving.place import place
from explorer.serving.server import command
from tests.conftest import Tiny


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8501"),
        ("127.1", "http://127.0.0.1:8501"),
        ("localhost", "http://127.0.0.1:8501"),
        ("0.0.0.0", "http://127.0.0.1:8501"),
        ("::1", "http://[::1]:8501"),
        ("[::1]", "http://[::1]:8501"),
        ("::", "http://[::1]:8501"),
        ("0:0:0:0:0:0:0:0", "http://[::1]:8501"),
        ("192.0.2.7", "http://192.0.2.7:8501"),
        ("2001:DB8::7", "http://[2001:db8::7]:8501"),
    ],
)
def test_the_url_is_what_a_browser_on_this_machine_opens(address: str, url: str) -> None:
    assert place(address, 8501).url == url
    assert place(address, 8501, "/a/b/").url == f"{url}/a/b"


@pytest.mark.parametrize("given", ["a/b", "/a/b", "a/b/", "//a/b//"])
def test_a_base_path_is_meant_alike_with_and_without_slashes_around_it(given: str) -> None:
    assert place("127.0.0.1", 1, given).base_path == "/a/b"
    assert place("127.0.0.1", 1, "/").base_path == ""


def test_a_server_of_this_machine_alone_has_its_names_and_those_it_is_told() -> None:
    own = {"127.0.0.1", "localhost", "::1"}
    for address in ("127.0.0.1", "127.1", "localhost", "::1"):
        assert set(place(address, 1).allowed_hosts) == own
    assert set(place("127.0.0.2", 1).allowed_hosts) == own | {"127.0.0.2"}
    told = place("::1", 1, "", ["Box.Example.", "bücher.example", "[2001:DB8::7]", "box.example"])
    assert set(told.allowed_hosts) == own | {"box.example", "xn--bcher-kva.example", "2001:db8::7"}


def test_an_open_server_refuses_other_names_as_soon_as_it_is_told_one() -> None:
    assert place("0.0.0.0", 1).allowed_hosts == place("192.0.2.7", 1).allowed_hosts == ()
    told = place("192.0.2.7", 1, "", ["box"])
    assert set(told.allowed_hosts) == {"127.0.0.1", "localhost", "::1", "192.0.2.7", "box"}
    assert "0.0.0.0" not in place("0.0.0.0", 1, "", ["box"]).allowed_hosts


def test_streamlit_is_told_the_place() -> None:
    flags = command(place("::1", 8600, "a", ["box", "2001:db8::7"]))
    assert {
        "--server.address=::1",
        "--server.port=8600",
        "--server.baseUrlPath=/a",
        "--server.allowedHosts=::1",
        "--server.allowedHosts=box",
        "--server.allowedHosts=2001:db8::7",
        "--server.corsAllowedOrigins=http://[2001:db8::7]",
        "--browser.serverAddress=box",
    } < set(flags)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--host-name", "http://box"),
        ("--host-name", "box:8501"),
        ("--host-name", "box/explorer"),
        ("--host-name", "two names"),
        ("--host-name", "one,two"),
        ("--host-name", "*"),
        ("--host-name", "*.example.com"),
        ("--host-name", ""),
        ("--host-name", "-box"),
        ("--host-name", "a..b"),
        ("--host-name", "300.1.1.1"),
        ("--host-name", "b" * 64),
        ("--base-path", "/a/../b"),
        ("--base-path", "."),
        ("--base-path", "a b"),
        ("--base-path", "a//b"),
        ("--base-path", "http://box/a"),
        ("--base-path", "a?b=c"),
        ("--base-path", "a%20b"),
        ("--base-path", "/tools/data"),
        ("--base-path", "my-history"),
        ("--address", "192.0.2.7"),
        ("--address", "2001:db8::7"),
        ("--address", "no-such-host.invalid"),
        ("--address", "http://127.0.0.1"),
        ("--address", "127.0.0.1:8501"),
        ("--address", "unix:///tmp/socket"),
        ("--address", ""),
        ("--address", "a\0b"),
        ("--address", "ä" * 100),
        ("--port", "0"),
        ("--port", "65536"),
        ("--port", "-1"),
        ("--port", "http"),
    ],
)
def test_what_can_not_be_a_place_is_refused_in_one_line(
    option: str, value: str, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tiny.cache), f"{option}={value}"]) == 2
    said = capsys.readouterr().err
    assert option in said and said.count("\n") == 1, said


@pytest.mark.parametrize("taken_at", ["127.0.0.1", "::1"])
def test_a_port_that_is_taken_in_either_version_is_taken(
    taken_at: str, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    family = socket.AF_INET6 if ":" in taken_at else socket.AF_INET
    with socket.socket(family) as taken:
        try:
            taken.bind((taken_at, 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        taken.listen()
        port = str(taken.getsockname()[1])
        for address in (taken_at, "::"):
            assert main(["serve", str(tiny.cache), "--address", address, "--port", port]) == 2
            said = capsys.readouterr().err
            assert f"Port {port} at {address}" in said and "--port" in said
