"""How the scores of many examples are spread, and where the shown ones stand among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 60


@dataclass(frozen=True)
class Histogram:
    """Counts of scores in bins of equal width."""

    low: float
    """Smallest score: where the first bin begins."""
    high: float
    """Largest score: where the last bin ends."""
    counts: tuple[int, ...]
    """How many scores lie in each bin, from low to high."""
    rows: int
    """How many scores there are: the sum of the counts."""
    of: int
    """How many training examples there are, those that a filter left out included."""


def histogram(
    scores: NDArray[np.floating], rows: Sequence[int] | None, better: Mapping[int, float]
) -> Histogram | None:
    """The spread of the scores of some rows; None where there are none.

    Args:
        scores: Scores of all examples (N).
        rows: The rows that count; None for all.
        better: Scores of rows that are known better than `scores` has them. A shown
            example is so counted where it is marked.
    """
    values = scores.astype(np.float64)
    values[list(better)] = list(better.values())
    kept = values if rows is None else values[np.asarray(rows, dtype=np.int64)]
    if not len(kept):
        return None
    low, high = float(kept.min()), float(kept.max())
    if not np.all(np.diff(np.linspace(low, high, BINS + 1)) > 0):
        # Too near to each other for so many bins.
        return Histogram(low, high, (len(kept),), len(kept), len(scores))
    counts, _ = np.histogram(kept, bins=BINS, range=(low, high))
    return Histogram(low, high, tuple(int(count) for count in counts), len(kept), len(scores))
