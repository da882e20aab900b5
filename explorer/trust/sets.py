"""How unusual the examples behind several answers are, beside as many answers to unrelated prompts. Numpy only.

Answers that are asked about as one have a weighted sum of scores. The answers to unrelated prompts and the asked ones
are laid together, by kinds of question, and other answers are drawn for the same weights. If the asked ones are like
the unrelated ones, every draw is as likely as what was asked: a test by permutation, exact however few answers there
are and however the examples hang together. docs/mathematics.md, section 15, has the equations.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.records import NEAR, NullTest
from explorer.trust.significance import NullSample
from explorer.trust.verdict import LEAST_PROMPTS

Floats = NDArray[np.float64]

DRAWS = 999
"""So many other sets are drawn."""
MOST_NAMED = 2_000
"""At most so many rows are looked at for whether they stand out."""
_ROWS = 1024
"""So many rows at once: some 8 MB for each of a few arrays."""


@dataclass(frozen=True, eq=False)
class Alike:
    """Those of the asked questions that are of one kind."""

    null: NullSample
    """What all examples score on unrelated questions of the kind."""
    scores: NDArray[np.float32]
    """What they score on the asked ones (N, m), as questions of length one."""
    weights: Floats
    """What each asked question's scores are multiplied by (m): its length and its weight."""


@dataclass(frozen=True, eq=False)
class Beside:
    """What drawn sets say of the asked one."""

    test: NullTest
    false_share: Floats
    """For each row (N): the estimated share of false ones among the rows that stand out as much; 1 far down."""


def enough(asked: Sequence[Alike]) -> bool:
    """Whether there are enough unrelated questions of every kind to compare these with."""
    return all(each.null.prompts >= max(LEAST_PROMPTS, each.scores.shape[1]) for each in asked)


def beside_steps(asked: Sequence[Alike], opponents: bool, draws: int = DRAWS) -> Generator[None, None, Beside]:
    """Compare the asked answers with drawn ones, some rows at each step.

    Each row's sum over the answers, less what the answers that weren't drawn would have given, is divided by the
    standard deviation that these have: the standardised sum. The test's statistic is the mean of the ten largest.

    Args:
        asked: The questions by kinds, all of the same examples, with `enough` unrelated ones.
        opponents: Whether the smallest sums count, not the largest.
        draws: How many other sets are drawn.

    Returns:
        The test, and what of the rows that stand out is false: with R rows that do so as much as this one, the mean
        number of rows that do so in a set, asked or drawn, over R (Storey and Tibshirani, 2003, without their π₀).
    """
    random = np.random.default_rng(0)
    drawn = [_drawn(each, draws, random) for each in asked]
    own = [_Drawn(each.weights[:, :1], each.chosen[:, :1]) for each in drawn]
    observed = np.concatenate([part[:, 0] for part in _standardised(asked, own, opponents)])
    order = np.sort(observed)
    least = order[-min(len(order), MOST_NAMED)]
    reached = order[np.searchsorted(order, least) :]
    counts, best = np.zeros(len(reached) + 1, dtype=np.int64), np.full((0, draws + 1), -np.inf)
    for part in _standardised(asked, drawn, opponents):
        counts += np.bincount(np.searchsorted(reached, part[part >= least], side="right"), minlength=len(counts))
        best = -np.sort(-np.concatenate([best, part]), axis=0)[:NEAR]
        yield
    strongest = best.mean(axis=0)
    # The first set is the asked one; rounding shall not tell it from a draw of the same answers.
    as_much = int((strongest[1:] >= strongest[0] - 1e-9 * abs(strongest[0])).sum())
    test = NullTest(
        draws, as_much, int(observed.argmax()), float(strongest[0]), sum(each.scores.shape[1] for each in asked)
    )
    return Beside(test, _false_shares(observed, reached, counts, draws + 1))


def _false_shares(observed: Floats, reached: Floats, counts: NDArray[np.int64], sets: int) -> Floats:
    """The estimated share of false rows (N) among those that stand out as much.

    `counts` has, for each number i of the thresholds `reached`, ascending, how many rows of all sets pass exactly i.
    """
    passing = counts[::-1].cumsum()[::-1][1:]
    found = len(reached) - np.searchsorted(reached, reached, side="left")
    shares = np.minimum.accumulate(np.minimum(passing / sets / found, 1.0))
    places = np.searchsorted(reached, observed, side="left")
    shares = np.append(shares, 1.0)
    return np.where(observed >= reached[0], shares[np.minimum(places, len(reached))], 1.0)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Which questions of a kind each set has: the asked ones in the first column, then the draws."""

    weights: Floats
    """(M + m, draws + 1), 0 for those that it hasn't."""
    chosen: Floats
    """The same with 1 for those that it has."""


def _drawn(asked: Alike, draws: int, random: np.random.Generator) -> _Drawn:
    count = len(asked.weights)
    pool = asked.null.prompts + count
    places = np.empty((draws + 1, count), dtype=np.int64)
    places[0] = np.arange(asked.null.prompts, pool)
    for draw in range(1, draws + 1):
        places[draw] = random.choice(pool, count, replace=False)
    weights, chosen = np.zeros((2, pool, draws + 1))
    columns = np.arange(draws + 1)[:, None]
    weights[places, columns], chosen[places, columns] = asked.weights, 1.0
    return _Drawn(weights, chosen)


def _standardised(asked: Sequence[Alike], drawn: Sequence[_Drawn], opponents: bool) -> Iterator[Floats]:
    """The standardised sums (rows × sets) of some rows after others."""
    for parts in zip(*(_pools(each) for each in asked), strict=True):
        distance, variance = 0.0, 0.0
        for pool, own, each in zip(parts, drawn, asked, strict=True):
            left = pool.shape[1] - len(each.weights)
            # Around its mean nothing is lost to rounding.
            pool = pool - pool.mean(axis=1, keepdims=True)
            mean = -(pool @ own.chosen) / left
            squares = (pool**2).sum(axis=1, keepdims=True) - pool**2 @ own.chosen - left * mean**2
            distance = distance + pool @ own.weights - each.weights.sum() * mean
            variance = variance + (each.weights**2).sum() * np.maximum(squares, 0.0) / (left - 1)
        deviation = np.sqrt(variance)
        found = np.divide(distance, deviation, out=np.zeros_like(deviation), where=deviation > 1e-300)
        yield -found if opponents else found


def _pools(asked: Alike) -> Iterator[Floats]:
    """Unrelated and asked scores side by side (rows, M + m), some rows after others."""
    start = 0
    for shard in asked.null.shards:
        for first in range(0, len(shard), _ROWS):
            part: NDArray[Any] = shard[first : first + _ROWS]
            yield np.concatenate([part, asked.scores[start : start + len(part)]], axis=1, dtype=np.float64)
            start += len(part)
