"""How well scores foretell what training on other rows would do: the linear datamodeling score (Park et al. 2023).

Models are trained on random halves of the data. A method foretells, for each half, the sum of its scores over the
half's rows; a training says what it expects of the answer. Spearman's correlation between the two, over the halves, is
one question's score. It computes with numpy alone and knows nothing of models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorer.gradients.sketch import generator

RESAMPLES = 2_000
"""Bootstrap draws of halves and questions."""
_ENDS = (0.025, 0.975)
"""The quantiles between which an interval lies."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Agreement:
    """A mean over questions with its bootstrap interval, over halves and questions."""

    lds: float
    low: float
    high: float


def ranks(values: Floats) -> Floats:
    """Ranks along the second axis, equal values sharing the mean of theirs."""
    return np.asarray(pd.DataFrame(values).rank(axis=1).to_numpy(), dtype=np.float64)


def correlations(one: Floats, other: Floats) -> Floats:
    """Spearman's correlation of each row of one (Q, M) with that of the other; 0 where one of them doesn't vary."""
    left, right = (each - each.mean(axis=1, keepdims=True) for each in (ranks(one), ranks(other)))
    size = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    return np.divide((left * right).sum(axis=1), size, out=np.zeros(size.shape), where=size > 0)


def agreement(foretold: Floats, expected: Floats) -> Agreement:
    """The agreement of what was foretold (Q, M) with what trainings expect (Q, M), M halves."""
    random = generator(0, "bootstrap of halves")
    questions, parts = foretold.shape
    draws = []
    for _ in range(RESAMPLES):
        of, among = random.integers(parts, size=parts), random.integers(questions, size=questions)
        picked = np.ix_(among, of)
        draws.append(correlations(foretold[picked], expected[picked]).mean())
    low, high = np.quantile(draws, _ENDS)
    return Agreement(float(correlations(foretold, expected).mean()), float(low), float(high))


def interval(values: Floats) -> tuple[float, float]:
    """The bootstrap interval of a mean over questions (Q)."""
    random = generator(0, "bootstrap of questions")
    draws = values[random.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(draws, _ENDS)
    return float(low), float(high)


def ceiling(expected: Floats, again: Floats) -> float:
    """What a method would reach that knew the mean over seeds: the root of how far two seeds' trainings agree (Q, M).

    The agreement of one training with another of the same rows is the product of how far each agrees with their mean.
    """
    return float(np.sqrt(max(float(correlations(expected, again).mean()), 0.0)))


def foretold(scores: Floats, members: NDArray[np.bool_]) -> Floats:
    """The sum of scores (N) over the rows of every half (M, N)."""
    return np.asarray(members.astype(np.float64) @ np.asarray(scores, dtype=np.float64))


def figures(
    scores: Mapping[str, Sequence[Floats]], members: NDArray[np.bool_], expected: Floats
) -> dict[str, dict[str, float]]:
    """By method, from its scores (N) of every question: `lds`, `low` and `high`."""
    found = {}
    for name, each in scores.items():
        told = agreement(np.stack([foretold(one, members) for one in each]), expected)
        found[name] = {"lds": told.lds, "low": told.low, "high": told.high}
    return found
