"""The one way to read a text file that a person gave."""

from pathlib import Path

from explorer.errors import ExplorerError

UTF_8 = "utf-8-sig"
"""UTF-8 with or without the byte-order mark that some editors put in front."""


def read_text(path: str | Path, what: str, error: type[ExplorerError]) -> str:
    """A file's text, its line ends as they are. `what` it is begins the message of the `error` that is raised."""
    try:
        with Path(path).open(encoding=UTF_8, newline="") as handle:
            return handle.read()
    except OSError as problem:
        raise error(f"{what} {path} can't be read: {problem.strerror or problem}.") from None
    except UnicodeDecodeError as problem:
        raise error(f"{what} {path} is no UTF-8 text ({problem}); save it as UTF-8.") from None
