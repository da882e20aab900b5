"""Which rows a training sees: random halves, all but some, and other rows of similar length in these rows' place."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from explorer.errors import DataError
from explorer.gradients.sketch import generator

_REACH = 2
"""Rows of similar length have at least half, and at most twice, the tokens: so many half octaves to either side."""
_TRIES = 100
"""So many draws are looked through for ones that all questions may share."""


@dataclass(frozen=True)
class Part:
    """A training on some of the rows."""

    name: str
    rows: tuple[int, ...]
    seed: int
    """Of the first adapter and of the order of the rows."""
    answered: tuple[int, ...] = ()
    """The questions, by number, that are answered anew after the training."""


def halves(rows: int, count: int, seed: int) -> list[Part]:
    """Random halves of the rows; the same ones whatever their count."""
    found = []
    for number in range(count):
        chosen = generator(0, "half of the data", number).permutation(rows)[: rows // 2]
        found.append(Part(f"half-{number:02}", tuple(sorted(map(int, chosen))), seed))
    return found


def all_but(rows: int, gone: Collection[int], name: str, seed: int, answered: Sequence[int] = ()) -> Part:
    """All rows but some."""
    left_out = set(map(int, gone))
    return Part(name, tuple(row for row in range(rows) if row not in left_out), seed, tuple(answered))


def without(rows: int, share: float, order: Sequence[int], name: str, seed: int, answered: Sequence[int]) -> Part:
    """All rows but the first ones of an order, so many of them as a share of all."""
    return all_but(rows, order[: max(1, round(share * rows))], name, seed, answered)


def again(parts: Sequence[Part]) -> list[Part]:
    """The same rows, trained with another seed: by how much trainings differ that saw the same."""
    return [Part(f"{part.name}-again", part.rows, part.seed + 1) for part in parts]


def others(lengths: Sequence[int], gone: Collection[int], draws: int) -> list[tuple[int, ...]]:
    """As many other rows of similar length as are left out, drawn at random so many times.

    Args:
        lengths: The tokens of every row (N).
        gone: The rows that are left out.
        draws: How many times to draw.

    Returns:
        The rows of every draw, ascending. They are a function of how many rows are left out and of their mean length
        to half an octave, as long as among the first draws there are such as have none of these rows: so questions
        share them.

    Raises:
        DataError: There are fewer other rows than are left out.
    """
    size, left_out = len(gone), set(map(int, gone))
    if not draws:
        return []
    if 2 * size > len(lengths):
        raise DataError(
            f"{size:,} of {len(lengths):,} rows are left out, and there aren't as many others to leave out in their "
            "place; leave out fewer, or ask for no controls with --draws 0."
        )
    octaves = 2 * np.log2(np.maximum(lengths, 1))
    middle, reach = round(2 * float(np.log2(np.mean([max(lengths[row], 1) for row in left_out])))), _REACH
    while len(alike := np.flatnonzero(abs(octaves - middle) <= reach)) - len(left_out & set(alike.tolist())) < size:
        reach += 1
    found: list[tuple[int, ...]] = []
    for number in count():
        if len(found) == draws:
            break
        order = generator(0, "other rows", size, middle, reach, number).permutation(alike).tolist()
        if number >= _TRIES:
            order = [row for row in order if row not in left_out]
        drawn = tuple(sorted(order[:size]))
        # Where there are hardly more others than are drawn, one draw may be as another.
        if not left_out & set(drawn) and (drawn not in found or number >= 2 * _TRIES):
            found.append(drawn)
    return found


def membership(parts: Sequence[Part], rows: int) -> NDArray[np.bool_]:
    """Which rows (N) each part has (M)."""
    found = np.zeros((len(parts), rows), dtype=bool)
    for number, part in enumerate(parts):
        found[number, list(part.rows)] = True
    return found
