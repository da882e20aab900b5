"""How firmly examples hold their places: under other sketch seeds, and at one checkpoint alone. Numpy only.

The noise of a sketch has a known covariance (docs/mathematics.md, section 12), so what other seeds would make of a
ranking is drawn from it, with no other cache.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from explorer.records import Influence, Ranking, Steadiness

Floats = NDArray[np.float64]

DRAWS = 1000
"""So many other seeds are simulated; a share is thus good to one or two hundredths."""
POOL = 256
"""So many examples, best first by the sketches, are drawn for: those further down hardly ever rise among the first."""


@dataclass(frozen=True, eq=False)
class Redrawn:
    """What other sketch seeds would make of a ranking, for a pool of its best examples (R)."""

    rows: NDArray[np.int64]
    errors: Floats
    """Standard deviation (R) of the sketch's noise on each score."""
    shown: Floats
    """Share of seeds (R) by whose sketches each example would be among those shown."""
    examined: Floats
    """Share of seeds (R) by which it would be among those made exact."""
    missed: float
    """How many examples that weren't examined are expected to belong among those shown."""


def noise_covariance(question: float, products: NDArray[np.floating], scores: Floats, length: int) -> Floats:
    """The covariance (R, R) of the sketch's noise on the scores of R examples.

    Args:
        question: e·η·‖q‖, the question's length in the unit of scores.
        products: ⟨v_k, v_l⟩ of the examples' normalised gradients (R, R).
        scores: e·η·⟨q, v_k⟩ (R).
        length: K.
    """
    return (question**2 * products.astype(np.float64) + np.outer(scores, scores)) / length


def redrawn(
    rows: NDArray[np.int64], centre: Floats, covariance: Floats, shown: int, examined: int, opponents: bool
) -> Redrawn:
    """Draw the scores that other seeds' sketches would give, and count who comes first.

    Args:
        rows: The pool (R), best first by the sketches; the first `examined` of them are made exact.
        centre: The scores (R) around which sketches scatter: exact ones where they are known.
        covariance: Of their noise.
        shown: How many are shown.
        examined: How many are made exact.
        opponents: Whether the smallest scores come first.
    """
    values, vectors = np.linalg.eigh(covariance)
    spread = vectors * np.sqrt(np.maximum(values, 0.0))
    # The same numbers each time: what a page says of a question doesn't change as it is drawn again.
    draws = centre + np.random.default_rng(0).standard_normal((DRAWS, len(rows))) @ spread.T
    sign = -1.0 if opponents else 1.0
    errors = np.sqrt(np.diag(covariance))
    inside = [_among_first(sign * draws, count).mean(axis=0) for count in (shown, examined)]
    return Redrawn(rows, errors, inside[0], inside[1], _missed(sign * centre, errors, shown, examined))


def _among_first(draws: Floats, count: int) -> NDArray[np.bool_]:
    """In each draw (DRAWS, R), which examples have one of the `count` largest scores."""
    if count >= draws.shape[1]:
        return np.ones(draws.shape, dtype=np.bool_)
    return draws >= -np.partition(-draws, count - 1, axis=1)[:, count - 1 : count]


def _missed(centre: Floats, errors: Floats, shown: int, examined: int) -> float:
    """Σ P(z > the last shown one's score) over the examples not examined, z being normal around what the sketch had."""
    if len(centre) <= examined:
        return 0.0
    last = np.sort(centre[:examined])[::-1][min(shown, examined) - 1]
    distances = (last - centre[examined:]) / np.maximum(errors[examined:], 1e-300)
    return sum(0.5 * math.erfc(distance / math.sqrt(2)) for distance in distances.tolist())


def steadied(
    ranking: Ranking, redrawn: Redrawn | None, checkpoints: Sequence[str], candidates: Sequence[Influence]
) -> Ranking:
    """The ranking with what is known of how firmly each shown example holds its place.

    Args:
        ranking: Whose influences are all among the candidates.
        redrawn: Of the same question; None while it isn't known.
        checkpoints: The names of the checkpoints that influence sums over.
        candidates: The examples that are made exact, once all of them are; none before.
    """
    if redrawn is None:
        return ranking
    places = {row: place for place, row in enumerate(redrawn.rows.tolist())}
    known = bool(candidates) and all(each.parts for each in candidates)
    of = tuple(checkpoints) if len(checkpoints) > 1 and known else ()
    first: dict[int, tuple[str, ...]] = {}
    if of:
        inside = leading([each.parts for each in candidates], len(ranking.influences), ranking.opponents)
        for place, each in enumerate(candidates):
            first[each.row] = tuple(name for name, led in zip(of, inside[:, place].tolist(), strict=True) if led)
    shown = []
    for found in ranking.influences:
        place = places[found.row]
        shown.append(
            replace(
                found,
                steadiness=Steadiness(
                    sketched=float(ranking.scores[found.row]),
                    error=float(redrawn.errors[place]),
                    shown=float(redrawn.shown[place]),
                    examined=float(redrawn.examined[place]),
                    checkpoints=first.get(found.row, ()),
                    of=of,
                ),
            )
        )
    return replace(ranking, influences=tuple(shown))


def leading(parts: Sequence[Sequence[float]], shown: int, opponents: bool) -> NDArray[np.bool_]:
    """Whether each candidate (R) would be among those shown, by one checkpoint alone (C, R).

    Args:
        parts: Each candidate's score by checkpoints (R, C), which add up to it.
        shown: How many are shown.
        opponents: Whether the smallest scores come first.
    """
    by_checkpoint = np.asarray(parts, dtype=np.float64).T * (-1.0 if opponents else 1.0)
    return _among_first(by_checkpoint, shown)
