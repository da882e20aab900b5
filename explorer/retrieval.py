"""Which examples score highest or lowest: a cascade over the levels of a cache, for one or many questions at once.

All scores are `e·η·⟨query, example⟩`: positive is a proponent (training on it
made the answer more likely), negative an opponent. Of a large cache the shortest
level is read whole; of every longer one the examples that rank highest and
lowest by the level before it; the full sketches come last. A small cache is
scanned: its full sketches are all read. Exact values of the best few are the
engine's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, singledispatch

import numpy as np
from numpy.typing import NDArray

from explorer.scan import products, selected_products
from explorer.scores import ranked
from explorer.store import Store, fold

RESCORED = 768
"""So many examples at each end get the scores of their full sketches, each by itself."""
SCANNED = 1 << 30
"""Full sketches of up to so many bytes are all read: a cascade would take as long, or longer."""
COARSE = (1 << 15,)
"""Kc of the coarse levels of new caches that are larger."""


Rows = Sequence[int] | NDArray[np.int64]
"""Numbers of examples."""


@dataclass(frozen=True, eq=False)
class ExampleScores:
    """The scores of all training examples for one question."""

    levels: tuple[NDArray[np.float32], ...]
    """Scores (N) by each level, NaN where it wasn't read: the first is whole, the last of full sketches."""
    lengths: tuple[int, ...]
    """How many numbers the sketches of these levels have; twice K where the full sketches were read whole."""

    @property
    def first(self) -> NDArray[np.float32]:
        """Scores (N) by the level that was read whole."""
        return self.levels[0]

    @property
    def length(self) -> int:
        """How many numbers the sketches of that level have."""
        return self.lengths[0]

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """Scores (N), each by the longest level that was read."""
        found, *finer = self.levels
        for scores in finer:
            found = np.where(np.isnan(scores), found, scores)
        return found


def example_scores(store: Store, queries: NDArray[np.float32]) -> list[ExampleScores]:
    """Influence of every training example on the questions (Eq. 5 or 7), queries (Q, K), as suits the cache's size."""
    return cascade(store, queries) if cascades(store) else rescored(store, queries, scan(store, queries))


def cascade(store: Store, queries: NDArray[np.float32]) -> list[ExampleScores]:
    """Scores by the shortest level, and by longer ones of those at either end."""
    return rescored(store, queries, first_scores(store, queries, coarse_to_full(store)))


def scan(store: Store, queries: NDArray[np.float32]) -> list[ExampleScores]:
    """Scores by all full sketches in one pass."""
    return first_scores(store, queries, (queries.shape[1],) * 2)


def cascades(store: Store) -> bool:
    """Whether the cache has coarse levels, and is large enough to need them."""
    settings = store.manifest.settings
    return bool(settings.coarse_lengths) and _size(store.manifest.rows, settings.length, settings.dtype) > SCANNED


def coarse_to_full(store: Store) -> tuple[int, ...]:
    """The lengths of all levels of the cache."""
    return (*store.manifest.settings.coarse_lengths, store.manifest.settings.length)


def coarse_lengths(rows: int, length: int, dtype: str) -> tuple[int, ...]:
    """Kc for a new cache of so many rows of length K; none where coarse levels would never be read."""
    return tuple(one for one in COARSE if one < length) if _size(rows, length, dtype) > SCANNED else ()


def _size(rows: int, length: int, dtype: str) -> int:
    """Bytes of the full sketches."""
    return rows * length * (1 if dtype == "int8" else 2)


def first_scores(store: Store, queries: NDArray[np.float32], lengths: tuple[int, ...]) -> list[ExampleScores]:
    """The scores by the first of these levels alone."""
    found = level_products(store, queries, lengths[0]) * np.float32(store.manifest.training.scale)
    # One array of unread scores is enough for all: what is read goes into a copy.
    unread = np.full(found.shape[1], np.nan, dtype=np.float32)
    return [ExampleScores((values, *[unread] * (len(lengths) - 1)), lengths) for values in found]


@singledispatch
def level_products(store: Store, queries: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """⟨query, row⟩ for all queries (Q, K) and all rows of the level of that length: (Q, N)."""
    return products(list(store.sketches(length)), fold(queries, length))


@singledispatch
def row_products(
    store: Store, queries: NDArray[np.float32], wanted: Sequence[NDArray[np.int64]], length: int
) -> list[NDArray[np.float32]]:
    """⟨query, row⟩ of every query (Q, K) with the rows it wants, ascending, by the level of that length."""
    return selected_products(list(store.sketches(length)), fold(queries, length), wanted)


def survivors(length: int, full: int, count: int) -> int:
    """How many examples at each end of a level's ranking are read at the next one, of which `count` are wanted.

    Beside the full sketches' scores, those of length Kc have a noise whose
    variance is K/Kc − 1 times their own: so much further down the best may be.
    """
    return max(count, -(-RESCORED * (full - length) // length))


def rescored(
    store: Store,
    queries: NDArray[np.float32],
    known: Sequence[ExampleScores],
    count: int = RESCORED,
    among: Rows | None = None,
) -> list[ExampleScores]:
    """The same with longer levels read of the examples `among` the rows at either end, down to `count` full sketches.

    What was read already isn't read again.
    """
    found = list(known)
    *shorter, full = known[0].lengths
    ends: list[list[Rows | None]] = [[among, among] for _ in known]
    for step, length in enumerate(shorter):
        keep = survivors(length, full, count)
        for scores, rows in zip(found, ends, strict=True):
            rows[:] = [ranked(scores.levels[step], keep, end == 1, some) for end, some in enumerate(rows)]
        wanted = [_unread(scores.levels[step + 1], rows) for scores, rows in zip(found, ends, strict=True)]
        if any(len(rows) for rows in wanted):
            read = row_products(store, queries, wanted, known[0].lengths[step + 1])
            scale = np.float32(store.manifest.training.scale)
            found = [
                _with(scores, step + 1, rows, values * scale)
                for scores, rows, values in zip(found, wanted, read, strict=True)
            ]
    return found


def best(scores: ExampleScores, count: int, opponents: bool = False, among: Rows | None = None) -> NDArray[np.int64]:
    """The `count` rows `among` those given with the largest (or smallest) scores, best first; ties by row number.

    The candidates are those that `rescored` reads for these rows, so what was
    asked before with other ones makes no difference.
    """
    *shorter, full = scores.lengths
    for level, length in zip(scores.levels, shorter, strict=False):
        among = ranked(level, survivors(length, full, max(count, RESCORED)), opponents, among)
    return ranked(scores.values, count, opponents, among)


def _unread(level: NDArray[np.float32], ends: Sequence[Rows | None]) -> NDArray[np.int64]:
    """The rows of both ends, ascending, that have no score by a level yet."""
    rows = np.unique(np.concatenate([np.asarray(some, dtype=np.int64) for some in ends]))
    return rows[np.isnan(level[rows])]


def _with(scores: ExampleScores, step: int, rows: NDArray[np.int64], values: NDArray[np.float32]) -> ExampleScores:
    """The scores with those of some rows by one more level."""
    if not len(rows):
        return scores
    levels = list(scores.levels)
    levels[step] = levels[step].copy()
    levels[step][rows] = values
    return replace(scores, levels=tuple(levels))
