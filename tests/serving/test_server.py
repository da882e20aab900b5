"""The server's own checks before it starts."""

import socket

import pytest

from explorer.commands.main import main
from tests.conftest import Tiny


def test_a_taken_port_is_refused_with_the_way_out(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", str(tiny.cache), "--port", str(port)]) == 2
    message = capsys.readouterr().err
    assert f"Port {port}" in message and "--port" in message
