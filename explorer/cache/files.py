"""Files that are written whole or not at all, by one writer at a time."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from explorer.errors import CacheError


def make_folder(folder: Path) -> None:
    """Make a folder and those above it. Raises CacheError where that can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise CacheError(f"The folder {folder} can't be made: {problem.strerror}; give another one.") from None


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder against a second writer. Raises CacheError when another one has it."""
    make_folder(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not _locked(handle):
            raise CacheError(f"Another command is writing to {folder}; wait for it or stop it.")
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    """Lock a folder for writing, in two tries: readers who look whether somebody writes hold it for a moment."""
    for patience in (0.05, 0.0):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(patience)
    return False


def write_whole(path: Path, payload: bytes) -> None:
    """Write a file whole or not at all: beside its place, synced, then renamed into it."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as handle:
            handle.write(payload)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as problem:
        with suppress(OSError):
            part.unlink()
        raise CacheError(f"{path} can't be written: {problem.strerror}. What was written before is kept.") from None


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises CacheError where that can't be."""
    try:
        path.unlink(missing_ok=True)
    except OSError as problem:
        raise CacheError(f"{path} can't be removed: {problem.strerror}.") from None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sealing_line(rest: bytes) -> bytes:
    """The first line of a JSON object that holds the SHA-256 of all that follows it in its file."""
    return f'{{"sha256": "{hashlib.sha256(rest).hexdigest()}",\n'.encode()
