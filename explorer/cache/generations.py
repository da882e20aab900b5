"""From one generation of a cache to the next: rows are dropped or appended, whole or not at all.

The next generation's files have names of their own and lie beside the current
ones. Until its manifest is put in the current one's place, readers see the
cache as it was; afterwards what is no longer listed is removed. Numpy only.
"""

import hashlib
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from explorer.cache.files import only_writer, remove, write_whole
from explorer.cache.manifest import MANIFEST, PENDING, Contents, Listed, Manifest
from explorer.cache.shards import selected
from explorer.cache.store import Store, examples_file, load, open_cache, shard_file, write_shard
from explorer.cache.table import pack_table
from explorer.errors import CacheError, DataError

_OURS = re.compile(
    r"(manifest|manifest\.copy|pending)\.json\.part"
    r"|examples(-\d+)?\.parquet(\.part)?"
    r"|[a-z_]+/\d{5,}(-\d+)?\.safetensors(\.part)?"
)


def leftovers(folder: Path, listed: Collection[str]) -> list[str]:
    """Files that a stopped command left: named as a cache's files are, and not listed."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if _OURS.fullmatch(name) and name not in listed)


def sweep(store: Store, unfinished: Store | None = None) -> None:
    """Remove what stopped commands left behind, but for what these list."""
    listed = set(store.contents.files)
    if unfinished:
        listed.update(unfinished.contents.files)
    else:
        remove(store.folder / PENDING)
    for name in leftovers(store.folder, listed):
        remove(store.folder / name)


def pending(current: Store) -> Store | None:
    """The next generation as far as a stopped append has come; None without one that can be read."""
    try:
        found = load(current.folder, PENDING)
    except CacheError:
        return None
    follows = found.manifest.generation == current.manifest.generation + 1
    return found if follows and found.shards[: len(current.shards)] == current.shards else None


def resumable(current: Store, manifest: Manifest) -> Store | None:
    """The unfinished next generation, if it is of this manifest."""
    found = pending(current)
    return found if found and replace(found.manifest, versions={}) == replace(manifest, versions={}) else None


def begin(current: Store, manifest: Manifest, table: pa.Table) -> Store:
    """The next generation, which lists the current one's shards and its own table of examples.

    An unfinished one of the same manifest is taken up; any other is removed.
    """
    found = resumable(current, manifest)
    sweep(current, found)
    if found:
        return found
    payload, file = pack_table(table), examples_file(manifest.generation)
    write_whole(current.folder / file, payload)
    examples = Listed(file, hashlib.sha256(payload).hexdigest())
    store = Store(current.folder, Contents(manifest, examples, current.shards), PENDING)
    store.save()
    return store


def commit(store: Store) -> Store:
    """Put a finished generation in the current one's place."""
    store = Store(store.folder, store.contents, MANIFEST)
    store.save()
    sweep(store)
    return open_cache(store.folder)


def drop(folder: Path, ids: Collection[int] = (), source: str | None = None) -> int:
    """Drop examples by their ids or their `source` column; how many there were to drop.

    Only shards that hold one of them are written anew; what was dropped before
    is passed over. No model is needed. Raises DataError for an id that no
    example ever had, CacheError when the cache is damaged or can't be written.
    """
    with only_writer(folder):
        store = open_cache(folder)
        store.require_complete()
        store.check()
        sweep(store)
        unknown = sorted(number for number in ids if not 0 <= number < store.manifest.next_id)
        if unknown:
            raise DataError(f"There is no example {unknown[0]}; the ids go from 0 to {store.manifest.next_id - 1}.")
        wanted = np.isin(store.ids, np.asarray(list(ids), dtype=np.int64))
        if source is not None:
            wanted |= np.array([example.source == source for example in store.examples])
        if wanted.all():
            raise DataError(f"That would leave no example in {folder}; remove the folder instead.")
        if wanted.any():
            commit(_without(store, store.ids[wanted]))
        return int(wanted.sum())


def _without(store: Store, gone: NDArray[np.int64]) -> Store:
    """The next generation without some examples, its files written and its manifest not."""
    generation = store.manifest.generation + 1
    keep = ~np.isin(store.ids, gone)
    payload, file = pack_table(store.table.filter(pa.array(keep))), examples_file(generation)
    write_whole(store.folder / file, payload)
    with_tokens = np.concatenate([np.zeros(0, np.int64), *(one.example_ids for one in store.shards_of("tokens"))])
    manifest = replace(
        store.manifest,
        generation=generation,
        rows=int(keep.sum()),
        token_rows=store.manifest.token_rows - int(np.isin(with_tokens, gone).sum()),
    )
    shards = []
    for shard in store.shards:
        remaining = ~np.isin(shard.example_ids, gone)
        if remaining.all():
            shards.append(shard)
        elif remaining.any():
            arrays = selected(store.shard_arrays(shard), remaining)
            number = store.shards_of(shard.kind).index(shard)
            name = shard_file(shard.kind, number, generation)
            shards.append(write_shard(store.folder, name, shard.kind, arrays, shard.example_ids[remaining]))
    contents = Contents(manifest, Listed(file, hashlib.sha256(payload).hexdigest()), tuple(shards))
    return Store(store.folder, contents, MANIFEST)
