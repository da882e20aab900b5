"""Runs the Streamlit server as a child process and says when its page can be opened."""

import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from explorer.errors import ExplorerError
from explorer.model.embedded import Say
from explorer.serving.config import ServeSettings
from explorer.serving.entrance.access import Access
from explorer.serving.place import Place, in_url, no_address

ENTRY = Path(__file__).parents[1] / "app" / "main.py"
"""The script of the pages."""
SERVED = ENTRY.with_name("asgi.py")
"""The pages behind the guard, which are what is served."""

_LONGEST_START = 120.0
"""Seconds until a server that gives no sign of life counts as failed."""

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

_NO_PROXIES = {"FORWARDED_ALLOW_IPS": ""}
"""Who asks is whose connection it is: uvicorn would believe what any program of this machine says in a header."""


def serve(settings: ServeSettings, place: Place, access: Access, say: Say) -> int:
    """Serve until stopped, to whom `access` names; 0 when a person stopped it. Raises what `serving` does."""
    try:
        with serving(settings, place, access, say) as child:
            return child.wait()
    except KeyboardInterrupt:
        return 0


@contextmanager
def serving(settings: ServeSettings, place: Place, access: Access, say: Say) -> Iterator["subprocess.Popen[bytes]"]:
    """The server's process from when its page can be opened; it ends with the block.

    Raises ExplorerError when the server doesn't start, the port being taken for instance.
    """
    check_port(place)
    child = subprocess.Popen(
        command(place),
        env=os.environ | settings.environment() | access.environment() | _NO_PROXIES,
        stdout=sys.stderr,
        # A Ctrl-C reaches this process alone, which then ends the server in order.
        start_new_session=True,
    )
    # A shell that starts us in the background has Ctrl-C ignored; being ended by TERM is no different.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    try:
        _wait_until_ready(child, place, access)
        say(f"RapidIn Explorer is ready at {_entrance(place, access)}  (Ctrl-C ends it)")
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()


def _entrance(place: Place, access: Access) -> str:
    """What a browser on this machine opens, with the token where everyone has the same."""
    token = access.tokens.get("")
    return f"{place.url}{'' if place.base_path else '/'}?token={quote(token, safe='')}" if token else place.url


def check_port(place: Place) -> None:
    """Raise ExplorerError when the port is taken: whoever has it would answer in our place."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in place.address else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.family == socket.AF_INET6:
                # As Streamlit does, which then answers at addresses in version 4, too.
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind((place.address, place.port))
    except OSError as problem:
        if problem.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise no_address(place.address, problem.strerror or str(problem)) from None
        raise ExplorerError(
            f"Port {place.port} at {place.address} can't be used ({problem.strerror}); give another with --port, "
            "or PORT= with make demo."
        ) from None


def command(place: Place, entry: Path = SERVED) -> list[str]:
    """What starts Streamlit over an entry script, with the settings that a careful product makes."""
    options = _OPTIONS | {"server.address": place.address, "server.port": str(place.port)}
    flags = [f"--{name}={value}" for name, value in options.items()]
    flags += [f"--server.baseUrlPath={place.base_path}"] if place.base_path else []
    flags += [f"--server.allowedHosts={host}" for host in place.allowed_hosts]
    if place.names:
        # A proxy may ask us by our address, for a page that the browser knows by a name. The first name is
        # compared before Streamlit asks elsewhere what this machine's public address is.
        flags += [f"--server.corsAllowedOrigins=http://{in_url(name)}" for name in place.names]
        flags += [f"--browser.serverAddress={in_url(place.names[0])}"]
    return [sys.executable, "-m", "streamlit", "run", os.fspath(entry), *flags]


def _wait_until_ready(child: "subprocess.Popen[bytes]", place: Place, access: Access) -> None:
    end = time.monotonic() + _LONGEST_START
    while time.monotonic() < end:
        if child.poll() is not None:
            raise ExplorerError(f"The server could not start on port {place.port}; what it said stands above.")
        if _answers(place, access):
            return
        time.sleep(0.1)
    raise ExplorerError(
        f"The server at {place.url} gave no answer within {_LONGEST_START:.0f} s; start it again when the machine "
        "is less busy, and see that no firewall forbids the machine to reach itself."
    )


def _answers(place: Place, access: Access) -> bool:
    """Whether the server says that it is well; asked straight, whatever proxies the environment names."""
    token = next(iter(access.tokens.values()), "")
    connection = http.client.HTTPConnection(place.reached, place.port, timeout=5)
    try:
        connection.request("GET", f"{place.base_path}/_stcore/health", headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
