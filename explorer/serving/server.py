"""Runs the Streamlit server as a child process and says when its page can be opened."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from explorer.errors import ExplorerError
from explorer.model.embedded import Say
from explorer.serving.config import ServeSettings

ENTRY = Path(__file__).parents[1] / "app" / "main.py"

_LONGEST_START = 120.0
"""Seconds until a server that gives no sign of life counts as failed."""

_THIS_MACHINE = ("127.0.0.1", "localhost")

_OPTIONS = {
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "server.maxUploadSize": "1",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": "false",
    "runner.postScriptGC": "false",
    "runner.magicEnabled": "false",
    "logger.hideWelcomeMessage": "true",
    "logger.level": "warning",
    # Neither orange nor blue: those mean influence. Both reach 4.5 : 1 beside the page and beside their own tints.
    "theme.light.primaryColor": "#6443e0",
    "theme.dark.primaryColor": "#a996ff",
}


def serve(settings: ServeSettings, address: str, port: int, say: Say) -> int:
    """Serve until stopped; 0 when a person stopped it.

    Raises ExplorerError when the server doesn't start, the port being taken for instance.
    """
    _check_port(address, port)
    child = subprocess.Popen(
        command(address, port),
        env=os.environ | settings.environment(),
        stdout=sys.stderr,
        # A Ctrl-C reaches this process alone, which then ends the server in order.
        start_new_session=True,
    )
    # A shell that starts us in the background has Ctrl-C ignored; being ended by TERM is no different.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    try:
        _wait_until_ready(child, address, port)
        say(f"RapidIn Explorer is ready at http://{_shown(address)}:{port}  (Ctrl-C ends it)")
        return child.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()


def _check_port(address: str, port: int) -> None:
    """Raise ExplorerError when the port is taken: whoever has it would answer in our place."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as problem:
            raise ExplorerError(
                f"Port {port} at {address} can't be used ({problem.strerror}); give another with --port, "
                "or PORT= with make demo."
            ) from None


def command(address: str, port: int, entry: Path = ENTRY) -> list[str]:
    """What starts Streamlit over an entry script, with the settings that a careful product makes."""
    options = _OPTIONS | {"server.address": address, "server.port": str(port)}
    flags = [f"--{name}={value}" for name, value in options.items()]
    if address in _THIS_MACHINE:
        # Any other name that resolves to this machine could be a foreign page's (DNS rebinding).
        flags += [f"--server.allowedHosts={host}" for host in _THIS_MACHINE]
    return [sys.executable, "-m", "streamlit", "run", os.fspath(entry), *flags]


def _shown(address: str) -> str:
    return "127.0.0.1" if address in ("", "0.0.0.0") else address


def _wait_until_ready(child: "subprocess.Popen[bytes]", address: str, port: int) -> None:
    url = f"http://{_shown(address)}:{port}/_stcore/health"
    end = time.monotonic() + _LONGEST_START
    while time.monotonic() < end:
        if child.poll() is not None:
            raise ExplorerError(f"The server could not start on port {port}; what it said stands above.")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise ExplorerError(f"The server gave no answer within {_LONGEST_START:.0f} s.")
