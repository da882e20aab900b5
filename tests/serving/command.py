"""The real command that serves, in a process of its own."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def served(*command: str) -> Iterator[str]:
    """Where a command says that it serves, on a free port; it has to end cleanly."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [sys.executable, "-m", "explorer.commands", *command, "--port", str(port)]
    server = subprocess.Popen(started, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    lines = []
    for line in server.stderr:
        lines.append(line)
        if "is ready at" in line:
            break
    else:
        raise AssertionError(f"the server didn't start: {''.join(lines)}")
    # Whoever writes into a full pipe waits until it is read.
    reader = threading.Thread(target=lines.extend, args=(server.stderr,), daemon=True)
    reader.start()
    try:
        yield line.partition("is ready at ")[2].split()[0]
    finally:
        server.send_signal(signal.SIGINT)
        code = server.wait(20)
        reader.join()
        server.stderr.close()
    assert code == 0, f"Ctrl-C should end the server cleanly: {''.join(lines)}"
