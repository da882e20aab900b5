"""Retrieval over shards that Ray actors hold, each a contiguous run of them.

They are mapped from a folder that all nodes share, or fetched from an object
store into a folder of every node's own.
Every actor scores its own rows as one process would; the answers are put
together in the order of the rows, so that scores and ranking, ties included,
are those of one process. It knows nothing of models.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from explorer.cache import Contents, Store, fetch
from explorer.errors import ClusterError, ExplorerError
from explorer.retrieval.cascade import (
    FOUND,
    cascades,
    coarse_to_full,
    first_scores,
    level_products,
    noise,
    row_products,
    survivors,
)
from explorer.retrieval.cluster import places
from explorer.retrieval.scores import ranked

T = TypeVar("T")

RESTARTS = 3
"""An actor that dies is begun anew so often, and so often is asked again what it was asked."""


class Holder:
    """The actor: a part of a cache."""

    def __init__(self, folder: Path, contents: Contents, url: str):
        if url:
            fetch(url, folder, [shard.file for shard in contents.shards])
        self._store = Store(folder, contents)

    def ask(self, work: Callable[..., T], *arguments: Any) -> T:
        """What some work on the part gives. Raises DamageError when a file isn't what was written."""
        return work(self._store, *arguments)


class DistributedStore(Store):
    """A cache whose example sketches actors read; all else is read here, when it is needed."""

    def __init__(self, ray: Any, store: Store, count: int = 0, url: str = ""):
        """`count` actors, or as many as the cluster has processors, but none without a shard.

        With a `url` the store is what `objects.fetch_outline` gave, and each
        actor fetches its own shards into a folder of the same path. Raises CacheError when the cache is unfinished.
        """
        store.require_complete()
        super().__init__(store.folder.resolve(), store.contents)
        count = min(count or places(ray, "CPU", 1), len(self.shards_of("sketches")))
        # Between questions an actor does nothing: it keeps no processor from others, nor waits for one to be free.
        apart = {"num_cpus": 0, "scheduling_strategy": "SPREAD"}
        actor = ray.remote(Holder).options(**apart, max_restarts=RESTARTS, max_task_retries=RESTARTS)
        parts = [part(self.contents, number, count) for number in range(count)]
        self._ray, self._first_rows = ray, np.cumsum([0, *(one.manifest.rows for one in parts)])
        self._actors = [actor.remote(self.folder, one, url) for one in parts]

    def top(
        self,
        query: NDArray[np.float32],
        count: int,
        opponents: bool = False,
        among: Sequence[int] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The `count` rows with the largest (or smallest) scores, best first, ties by row number, and their scores.

        The actors' best candidates are put together level by level, so that N may be large.
        """
        wanted = None if among is None else np.unique(np.asarray(among, dtype=np.int64))
        own = [None] * len(self._actors) if wanted is None else self._split(wanted)
        full, most = self.manifest.settings.length, max(count, FOUND)
        lengths = coarse_to_full(self) if cascades(self) else (full, full)
        found = self._each(_candidates, [(query, lengths, most, opponents, rows) for rows in own])
        # The rows ascend, so that ties go by their number here too.
        rows = np.concatenate([start + some[0] for start, some in zip(self._first_rows, found, strict=False)])
        values, sizes = (np.concatenate([some[part] for some in found]) for part in (1, 2))
        for length, longer in pairwise(lengths):
            # The best of all parts may leave out what was among the best of one.
            keep = survivors(values, noise(sizes, length, full), most, opponents)
            rows, sizes = rows[keep], sizes[keep]
            (values,) = self.row_products(query[None], [rows], longer)
            values *= np.float32(self.manifest.training.scale)
        order = ranked(values, count, opponents)
        return rows[order], values[order]

    def level_products(self, queries: NDArray[np.float32], length: int) -> NDArray[np.float32]:
        """See `cascade.level_products`; every actor multiplies its own rows."""
        return np.concatenate(self._ask(level_products, queries, length), axis=1)

    def row_products(
        self, queries: NDArray[np.float32], wanted: Sequence[NDArray[np.int64]], length: int
    ) -> list[NDArray[np.float32]]:
        """See `cascade.row_products`; every actor multiplies its own rows."""
        own = zip(*(self._split(rows) for rows in wanted), strict=True)
        found = self._each(row_products, [(queries, list(rows), length) for rows in own])
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _split(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Ascending rows as those of every actor, by its own count."""
        parts = np.split(rows, np.searchsorted(rows, self._first_rows[1:-1]))
        return [part - start for part, start in zip(parts, self._first_rows, strict=False)]

    @cached_property
    def norms(self) -> NDArray[np.float32]:
        """See `Store`; every actor reads its own."""
        return np.concatenate(self._ask(_norms))

    @cached_property
    def losses(self) -> NDArray[np.float32]:
        """See `Store`; every actor reads its own."""
        return np.concatenate(self._ask(_losses))

    def _ask(self, work: Callable[..., T], *arguments: Any) -> list[T]:
        return self._each(work, [arguments] * len(self._actors))

    def _each(self, work: Callable[..., T], arguments: Sequence[tuple[Any, ...]]) -> list[T]:
        """What the work on every part gives, all at the same time."""
        asked = [actor.ask.remote(work, *own) for actor, own in zip(self._actors, arguments, strict=True)]
        try:
            answers: list[T] = self._ray.get(asked)
        except self._ray.exceptions.RayTaskError as problem:
            raise (problem.cause if isinstance(problem.cause, ExplorerError) else problem) from None
        except self._ray.exceptions.RayError:
            raise ClusterError(
                f"A worker that holds shards of {self.folder} died {RESTARTS + 1} times; ask again with more --workers."
            ) from None
        return answers


def part(contents: Contents, number: int, count: int) -> Contents:
    """Of `count` parts of a cache with about as many shards each, the `number`-th: what lists it alone."""
    run = np.array_split(np.asarray(contents.shards_of("sketches"), dtype=object), count)[number].tolist()
    return Contents(replace(contents.manifest, rows=sum(shard.count for shard in run)), contents.examples, tuple(run))


def _candidates(
    store: Store,
    query: NDArray[np.float32],
    lengths: tuple[int, ...],
    count: int,
    opponents: bool,
    among: NDArray[np.int64] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """The rows of a part, ascending, that may be best by the level that is read whole; their scores and sizes."""
    (scores,) = first_scores(store, query[None], lengths)
    doubt = noise(scores.sizes, lengths[0], lengths[-1])
    rows = survivors(scores.first, doubt, count, opponents, among)
    return rows, scores.first[rows], scores.sizes[rows]


@level_products.register
def _(store: DistributedStore, queries: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    return store.level_products(queries, length)


@row_products.register
def _(
    store: DistributedStore, queries: NDArray[np.float32], wanted: Sequence[NDArray[np.int64]], length: int
) -> list[NDArray[np.float32]]:
    return store.row_products(queries, wanted, length)


def _norms(store: Store) -> NDArray[np.float32]:
    return store.norms


def _losses(store: Store) -> NDArray[np.float32]:
    return store.losses
