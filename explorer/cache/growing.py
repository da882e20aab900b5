"""A cache in the making, as far as it has come: the examples that are read, as a cache of these alone. Numpy only.

Sketches are made in the order of the data and only ever added. So the examples that are read are the first ones, and
stay at their places.
"""

import fcntl
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from explorer.cache.store import Store, load
from explorer.errors import CacheError

_LATELY = 16
"""So many files tell how fast a cache grows."""


@dataclass(frozen=True)
class Progress:
    """How far a cache is made."""

    read: int
    """Examples that have their sketch."""
    total: int
    """All examples, N."""
    files: int
    """Files of arrays that are written, those of tokens and of unrelated prompts among them."""
    at_work: bool
    """Whether a command is writing to the cache now."""
    seconds_left: float | None
    """How long the sketches of the rest will take, if they go on as the last ones went; None where that isn't known."""

    @property
    def awaited(self) -> int:
        """Examples that aren't read yet."""
        return self.total - self.read


def so_far(store: Store, before: Store | None = None) -> Store:
    """The examples that have their sketches, as a cache of these alone; a complete cache as it is.

    `before` is what was seen of the same cache earlier: nothing that it has checked and read is read again. Raises
    CacheError while there is none.
    """
    read = store.read
    if not read:
        raise CacheError(
            f"The cache {store.folder} is unfinished (0 of {store.manifest.rows:,} examples): nothing can be looked at "
            "yet; run the same `rapidin-explorer precompute` again to finish it."
        )
    found = store
    if read < store.manifest.rows:
        manifest = replace(store.manifest, rows=read, token_rows=0)
        found = Store(store.folder, replace(store.contents, manifest=manifest), store.file, store.manifest.rows - read)
    if before is not None:
        found.take_over(before)
    found.hold()
    return found


def later(before: Store) -> Store:
    """The cache as far as it has come since `before`, which `so_far` gave; that itself where nothing was added.

    What another command made of a cache that was complete (`append`, `drop`) is another generation, and isn't looked
    at: readers keep what they opened.
    """
    now = load(before.folder)
    known = before.contents
    same = now.manifest.generation == known.manifest.generation and now.contents.examples == known.examples
    added = same and len(now.shards) > len(known.shards) and now.shards[: len(known.shards)] == known.shards
    return so_far(now, before) if added else before


def progress(store: Store) -> Progress:
    """How far the cache is made by now, by its manifest and the times of its files."""
    now = load(store.folder)
    left = 0.0 if now.complete else _seconds_left(now)
    return Progress(now.read, now.manifest.rows, len(now.shards), being_written(store.folder), left)


def being_written(folder: Path) -> bool:
    """Whether a command holds the folder as its writer."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _seconds_left(now: Store) -> float | None:
    shards = now.shards_of("sketches")[-_LATELY:]
    if len(shards) < 2:
        return None
    written = [(now.folder / shard.file).stat().st_mtime for shard in shards]
    # The median, for a run may have been stopped in between.
    each = np.median(np.diff(written) / [shard.count for shard in shards[1:]])
    return float(each * (now.manifest.rows - now.read))
