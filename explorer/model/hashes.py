"""Hashes that tell models, adapters and tokenizers apart."""

import hashlib
import os
from pathlib import Path

from explorer.paths import cache_home


def folder_hash(folder: Path, *patterns: str) -> str:
    """One SHA-256 over the names and contents of the matching files."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name}\n{_file_hash(path)}\n".encode())
    return total.hexdigest()


def _file_hash(path: Path) -> str:
    """SHA-256 of a file, remembered by path, size and time of change: weights are large."""
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    memo = cache_home() / "hashes" / f"{hashlib.sha256(key.encode()).hexdigest()}.txt"
    if memo.is_file():
        return memo.read_text(encoding="ascii")
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    if status.st_size > 1 << 24:
        memo.parent.mkdir(parents=True, exist_ok=True)
        part = memo.with_suffix(f".{os.getpid()}.part")
        part.write_text(digest, encoding="ascii")
        part.replace(memo)
    return digest
