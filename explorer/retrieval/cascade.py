"""Which examples score highest or lowest: a cascade over the levels of a cache, for one or many questions at once.

All scores are `e·η·⟨query, example⟩`: positive is a proponent (training on it
made the answer more likely), negative an opponent. Of a large cache the shortest
level is read whole; of every longer one the examples that may still be among the
highest or lowest, as far as the noise of the level before it tells; the full
sketches come last. A small cache is scanned: its full sketches are all read.
Exact values of the best few are the engine's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, singledispatch

import numpy as np
from numpy.typing import NDArray

from explorer.cache import Store, fold
from explorer.retrieval.scan import products, selected_products
from explorer.retrieval.scores import ranked

FOUND = 100
"""So many examples at each end are found at least, whoever asks for fewer."""
DOUBT = 2.5
"""An example goes on to the next level if its score, so many deviations of its noise better, would be among these."""
SCANNED = 1 << 30
"""Full sketches of up to so many bytes are all read: a cascade would take as long, or longer."""
MANY = 16
"""So many questions at once leave out all coarse levels but the longest."""
ROUNDING = 2.0**-11
"""What rounding within a product of many rows may add to a score, as a fraction of its size; single rows have less."""
COARSE = (1 << 14, 1 << 15)
"""Kc of the coarse levels of new caches that are larger."""


Rows = Sequence[int] | NDArray[np.int64]
"""Numbers of examples."""


@dataclass(frozen=True, eq=False)
class ExampleScores:
    """The scores of all training examples for one question."""

    levels: tuple[NDArray[np.float32], ...]
    """Scores (N) by each level, NaN where it wasn't read: the first is whole, the last of full sketches."""
    lengths: tuple[int, ...]
    """How many numbers the sketches of these levels have; K and K again where the full sketches were read whole."""
    sizes: NDArray[np.float32]
    """e·η·‖query‖·‖example‖ (N), of which the scores are fractions."""

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
    """Scores by the shortest level, and by longer ones of those at either end.

    What many questions want of the next level together is nearly all of it: they begin with the longest coarse one.
    """
    lengths = coarse_to_full(store)
    return rescored(store, queries, first_scores(store, queries, lengths[-2:] if len(queries) >= MANY else lengths))


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
    scale = np.float32(store.manifest.training.scale)
    found = level_products(store, queries, lengths[0]) * scale
    # One array of unread scores is enough for all: what is read goes into a copy.
    unread = np.full(found.shape[1], np.nan, dtype=np.float32)
    norms = scale * np.linalg.norm(queries, axis=1)
    return [
        ExampleScores((values, *[unread] * (len(lengths) - 1)), lengths, norm * store.sizes)
        for values, norm in zip(found, norms, strict=True)
    ]


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


def noise(sizes: NDArray[np.float32], length: int, full: int) -> NDArray[np.float32]:
    """The deviation of scores by sketches of that length from those by full ones, for `ExampleScores.sizes`.

    Sums of neighbours add products of entries with other entries, of either sign: a variance of 1/Kc − 1/K.
    """
    return sizes * np.float32(np.sqrt(1 / length - 1 / full) + ROUNDING)


def survivors(
    level: NDArray[np.float32], doubt: NDArray[np.float32], count: int, opponents: bool, among: Rows | None = None
) -> NDArray[np.int64]:
    """The rows, ascending, that may be among the best `count` by full sketches, though a level's scores are noisy.

    Args:
        level: The scores (N).
        doubt: The deviation of each one's noise (N).
        count: How many are wanted.
        opponents: Whether the lowest are best.
        among: The rows to choose from; all where it is None.
    """
    sign = np.float32(-1 if opponents else 1)
    best = ranked(level, count, opponents, among)
    if not len(best):
        return best
    within = sign * level + np.float32(DOUBT) * doubt >= sign * level[best[-1]]
    if among is not None:
        within &= _mask(among, len(level))
    return np.flatnonzero(within)


def _mask(rows: Rows, count: int) -> NDArray[np.bool_]:
    """Which of so many examples are among the rows."""
    mask = np.zeros(count, dtype=np.bool_)
    mask[np.asarray(rows, dtype=np.int64)] = True
    return mask


def rescored(
    store: Store,
    queries: NDArray[np.float32],
    known: Sequence[ExampleScores],
    count: int = FOUND,
    among: Rows | None = None,
) -> list[ExampleScores]:
    """The same with longer levels read of the examples `among` the rows that may be the best `count` at either end.

    What was read already isn't read again.
    """
    found = list(known)
    lengths, count = known[0].lengths, max(count, FOUND)
    ends: Sequence[tuple[Rows | None, Rows | None]] = [(among, among)] * len(known)
    for step in range(len(lengths) - 1):
        kept = [_ends(scores, step, count, *some) for scores, some in zip(found, ends, strict=True)]
        wanted = [_unread(scores.levels[step + 1], *some) for scores, some in zip(found, kept, strict=True)]
        ends = kept
        if any(len(rows) for rows in wanted):
            read = row_products(store, queries, wanted, lengths[step + 1])
            scale = np.float32(store.manifest.training.scale)
            found = [
                _with(scores, step + 1, rows, values * scale)
                for scores, rows, values in zip(found, wanted, read, strict=True)
            ]
    return found


def best(scores: ExampleScores, count: int, opponents: bool = False, among: Rows | None = None) -> NDArray[np.int64]:
    """The `count` rows `among` those given with the largest (or smallest) scores, best first; ties by row number.

    The candidates are those that `rescored` reads for these rows and this count, so what was
    asked before with other ones makes no difference.
    """
    *shorter, full = scores.lengths
    for level, length in zip(scores.levels, shorter, strict=False):
        among = survivors(level, noise(scores.sizes, length, full), max(count, FOUND), opponents, among)
    return ranked(scores.values, count, opponents, among)


def _ends(
    scores: ExampleScores, step: int, count: int, high: Rows | None, low: Rows | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What goes on from a level: the rows that may be proponents, of these, and opponents, of those."""
    level, doubt = scores.levels[step], noise(scores.sizes, scores.lengths[step], scores.lengths[-1])
    return survivors(level, doubt, count, False, high), survivors(level, doubt, count, True, low)


def _unread(level: NDArray[np.float32], high: Rows, low: Rows) -> NDArray[np.int64]:
    """The rows of both ends, ascending, that have no score by a level yet."""
    either = _mask(high, len(level)) | _mask(low, len(level))
    return np.flatnonzero(either & np.isnan(level))


def _with(scores: ExampleScores, step: int, rows: NDArray[np.int64], values: NDArray[np.float32]) -> ExampleScores:
    """The scores with those of some rows by one more level."""
    if not len(rows):
        return scores
    levels = list(scores.levels)
    levels[step] = levels[step].copy()
    levels[step][rows] = values
    return replace(scores, levels=tuple(levels))
