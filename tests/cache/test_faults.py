"""A full disk, a read-only folder, a limit on file sizes, two writers: a clear error, and the cache as it was.

The faults are the operating system's own: a little file system in memory that
is mounted for one test, in a process whose mounts nobody else sees.
"""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute  # noqa: F401  (somebody else may not be able to read it)
import pytest

from explorer.cache.files import file_sha256, only_writer
from explorer.cache.generations import drop
from explorer.cache.store import create_cache, open_cache
from explorer.cache.verify import verify
from explorer.errors import CacheError
from tests.cache.test_store import MANIFEST, ROWS, shard, token_shard

# The children only write files.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

OWN_MOUNTS = 0x20000
"""CLONE_NEWNS of unshare(2)."""


def mounts() -> bool:
    """Whether a process may mount a file system of its own."""
    if not shutil.which("unshare"):
        return False
    script = "mount -t tmpfs none /mnt && mount -o remount,ro /mnt && ! touch /mnt/x"
    return subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, check=False).returncode == 0


mounting = pytest.mark.skipif(not mounts(), reason="file systems can't be mounted here")


def drop_one(folder: Path) -> None:
    drop(folder, [0])


def begin(folder: Path) -> None:
    create_cache(folder, MANIFEST, ROWS)


def add(folder: Path) -> None:
    open_cache(folder).add_shard("sketches", shard(1, 2), 1)


def refused(folder: Path, work: Callable[[Path], None], before: str = "", after: str = "true") -> str:
    """What work in a child says when it is refused; it runs between shell commands, with mounts of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if before:
                assert ctypes.CDLL(None).unshare(OWN_MOUNTS) == 0
                subprocess.run(["mount", "--make-rprivate", "/"], check=True)
                subprocess.run(before, shell=True, check=True)
            try:
                work(folder)
            except CacheError as problem:
                os.write(writing, str(problem).encode())
                status = 2
            subprocess.run(after, shell=True, check=True)
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2, "it wasn't refused"
    return said


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache of three rows that has the sketches of two."""
    create_cache(tmp_path / "cache", MANIFEST, ROWS).add_shard("sketches", shard(2), 2)
    return tmp_path / "cache"


@pytest.fixture
def finished(folder: Path) -> Path:
    open_cache(folder).add_shard("sketches", shard(1, 2), 1).add_shard("tokens", token_shard(), 5)
    return folder


def on_a_disk(folder: Path, rest: str) -> tuple[str, str]:
    """Shell commands that put the folder on a little disk that `rest` prepares, and that bring it back."""
    kept = folder.with_name("kept")
    before = f"cp -r '{folder}' '{kept}' && mount -t tmpfs -o size=64k none '{folder}' && cp -r '{kept}'/. '{folder}'"
    return f"{before} && {rest}", f"rm -rf '{kept}' && cp -r '{folder}' '{kept}'"


@mounting
@pytest.mark.parametrize("free", range(0, 16, 4))
def test_a_full_disk_leaves_the_cache_as_it_was(finished: Path, free: int) -> None:
    """With so many kilobytes left: each write but the last may be the one that fails."""
    expected = digests(finished)
    fill = f"head -c 1M /dev/zero > '{finished}/filler'; truncate -s -{free}K '{finished}/filler'"
    said = refused(finished, drop_one, *on_a_disk(finished, fill))
    assert "can't be written: No space left on device" in said
    kept = finished.with_name("kept")
    (kept / "filler").unlink()
    found = digests(kept)
    assert {name: found.get(name) for name in expected if "copy" not in name} == {
        name: sha256 for name, sha256 in expected.items() if "copy" not in name
    }
    assert not [problem for problem in verify(kept) if problem.harmful] and len(open_cache(kept).examples) == 3


@mounting
def test_an_unfinished_cache_on_a_full_disk_can_be_finished_later(folder: Path) -> None:
    fill = f"(head -c 1M /dev/zero > '{folder}/filler' || true)"
    assert "No space left on device" in refused(folder, add, *on_a_disk(folder, fill))
    kept = folder.with_name("kept")
    (kept / "filler").unlink()
    assert digests(kept) == digests(folder)
    assert open_cache(kept).add_shard("sketches", shard(1, 2), 1).complete


@mounting
@pytest.mark.parametrize("work", [drop_one, add])
def test_a_read_only_disk_is_a_clear_error(folder: Path, work: Callable[[Path], None]) -> None:
    if work is drop_one:
        open_cache(folder).add_shard("sketches", shard(1, 2), 1)
    expected = digests(folder)
    said = refused(folder, work, *on_a_disk(folder, f"mount -o remount,ro '{folder}'"))
    assert "Read-only file system" in said and str(folder) in said
    assert digests(folder.with_name("kept")) == expected


@mounting
def test_no_cache_can_begin_on_a_read_only_disk(tmp_path: Path) -> None:
    before = f"mount -t tmpfs none '{tmp_path}' && mount -o remount,ro '{tmp_path}'"
    assert "can't be made: Read-only file system" in refused(tmp_path / "cache", begin, before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_elses_folder_is_a_clear_error(finished: Path) -> None:
    expected = digests(finished)
    finished.chmod(0o755)
    for path in [*finished.rglob("*"), *finished.parents][:-2]:
        path.chmod(path.stat().st_mode | 0o055)

    def as_nobody(folder: Path) -> None:
        os.setuid(65534)
        drop(folder, [0])

    assert "Permission denied" in refused(finished, as_nobody)
    assert digests(finished) == expected


@pytest.mark.parametrize("limit", [100, 1000, 2000])
def test_a_file_that_may_not_grow_is_a_clear_error(finished: Path, limit: int) -> None:
    expected = digests(finished)

    def limited(folder: Path) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        drop(folder, [0])

    said = refused(finished, limited)
    assert "can't be written: File too large. What was written before is kept" in said
    assert {name: digests(finished)[name] for name in expected} == expected
    assert not [problem for problem in verify(finished) if problem.harmful]


def test_a_second_process_is_refused_while_one_writes(finished: Path) -> None:
    expected = digests(finished)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with only_writer(finished):
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    try:
        assert "Another command is writing to" in refused(finished, drop_one)
        assert len(open_cache(finished).examples) == 3, "readers needn't wait"
    finally:
        done.set()
        holder.join()
    assert digests(finished) == expected
    drop_one(finished)
