"""Caches in an object store, or any other place that fsspec knows: copied there whole, fetched file by file.

What is fetched is checked like every file of a cache, when it is first used.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from explorer.cache.files import make_folder, write_whole
from explorer.cache.manifest import MANIFEST
from explorer.cache.store import Store, load
from explorer.errors import CacheError, first_line


def upload(store: Store, url: str) -> None:
    """Copy a cache to a URL, such as `s3://bucket/cache`, its manifest last.

    Raises CacheError when the place can't be written.
    """
    files, root = _place(url)
    try:
        for name in [*store.contents.files, MANIFEST]:
            files.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
            files.put_file(str(store.folder / name), f"{root}/{name}")
    except Exception as problem:
        raise CacheError(f"{store.folder} can't be copied to {url}: {first_line(problem)}") from problem


def fetch(url: str, folder: Path, names: Iterable[str]) -> None:
    """Copy some files of the cache at a URL into a folder, but for those that are there.

    Raises CacheError when they can't be read or written.
    """
    files, root = _place(url)
    for name in names:
        path = folder / name
        if path.is_file():
            continue
        make_folder(path.parent)
        try:
            payload = files.cat_file(f"{root}/{name}")
        except Exception as problem:
            raise CacheError(f"{url}/{name} can't be read: {first_line(problem)}") from problem
        write_whole(path, payload)


def fetch_outline(url: str, folder: Path) -> Store:
    """The cache at a URL as its manifest and its table of examples say; its shards aren't fetched."""
    fetch(url, folder, [MANIFEST])
    store = load(folder)
    fetch(url, folder, [store.contents.examples.file])
    return store


def _place(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there."""
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as problem:
        raise CacheError(f"{url} can't be used: {first_line(problem)}") from None
    return files, root.rstrip("/")
