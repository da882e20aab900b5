"""Two answers side by side: where their tokens differ, and how alike the rankings behind them are.

Numpy and records only: it knows nothing of models and pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.records import Influence, Ranking, Token

Marks = tuple[bool, ...]
"""One a token: whether it differs."""


@lru_cache(maxsize=64)
def differing(left: tuple[Token, ...], right: tuple[Token, ...]) -> tuple[Marks, Marks]:
    """The tokens of each answer that the longest common blocks of both leave out; blanks around a word don't count."""
    same = [np.zeros(len(tokens), dtype=np.bool_) for tokens in (left, right)]
    one, other = ([_word(token) for token in tokens] for tokens in (left, right))
    # Without autojunk: a token that occurs often is no less a token.
    for block in SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks():
        same[0][block.a : block.a + block.size] = True
        same[1][block.b : block.b + block.size] = True
    return tuple((~same[0]).tolist()), tuple((~same[1]).tolist())


def _word(token: Token) -> Token:
    """A token without the blanks around its text, which a word at the beginning of an answer hasn't."""
    return replace(token, text=token.text.strip() or token.text)


@dataclass(frozen=True, eq=False)
class Standing:
    """Where one example stands behind one of two answers."""

    influence: Influence
    rank: int
    """From 1: its place among the first ones, as they are shown, or else among all examples by the sketches."""
    first: bool
    """Whether it is among the first ones."""


@dataclass(frozen=True, eq=False)
class Pair:
    """One example behind both answers."""

    row: int
    left: Standing
    right: Standing


@dataclass(frozen=True, eq=False)
class Comparison:
    """The first examples behind two answers, taken apart, and how alike the whole rankings are."""

    shared: tuple[Pair, ...]
    """Among the first ones of both, in the left one's order."""
    left: tuple[Pair, ...]
    """Among those of the left one alone."""
    right: tuple[Pair, ...]
    """Among those of the right one alone."""
    first: int
    """How many count as the first ones of a ranking."""
    examples: int
    """N, or how many pass the filter."""
    correlation: float
    """Spearman's rank correlation over their scores from the cache; NaN where all scores of a side are equal."""

    @property
    def by_chance(self) -> float:
        """How many of the first ones two unrelated orders would share in the mean: first²/N."""
        return self.first**2 / self.examples if self.examples else 0.0


def compare(
    left: Ranking,
    right: Ranking,
    left_others: Sequence[Influence],
    right_others: Sequence[Influence],
    among: Sequence[int] | None = None,
) -> Comparison:
    """Compare two rankings of the same examples.

    Args:
        left: The one; what it shows are its first ones.
        right: The other; both are of proponents or both of opponents, and show equally many.
        left_others: The left question's influences of what only the right one shows.
        right_others: The right question's influences of what only the left one shows.
        among: The rows that pass the filter; None for all.

    Raises:
        ValueError: The rankings aren't of the same examples or the same side.
    """
    if len(left.scores) != len(right.scores) or left.opponents != right.opponents:
        raise ValueError("two rankings are compared over the same examples, from the same end")
    scores = [
        ranking.scores if among is None else ranking.scores[np.asarray(among, dtype=np.int64)]
        for ranking in (left, right)
    ]
    lefts, rights = _standings(left, left_others, scores[0]), _standings(right, right_others, scores[1])
    pairs = {row: Pair(row, lefts[row], rights[row]) for row in lefts}
    order = [[found.row for found in ranking.influences] for ranking in (left, right)]
    return Comparison(
        shared=tuple(pairs[row] for row in order[0] if row in order[1]),
        left=tuple(pairs[row] for row in order[0] if row not in order[1]),
        right=tuple(pairs[row] for row in order[1] if row not in order[0]),
        first=len(left.influences),
        examples=len(scores[0]),
        correlation=spearman(*scores),
    )


def _standings(ranking: Ranking, others: Sequence[Influence], scores: NDArray[np.floating[Any]]) -> dict[int, Standing]:
    count = len(ranking.influences)
    found = {each.row: Standing(each, rank, True) for rank, each in enumerate(ranking.influences, start=1)}
    for each in others:
        score = ranking.scores[each.row]
        ahead = scores < score if ranking.opponents else scores > score
        # Where exact values order the first ones, the sketches may have one of the others before them.
        found.setdefault(each.row, Standing(each, max(int(ahead.sum()), count) + 1, False))
    return found


def spearman(left: NDArray[np.floating[Any]], right: NDArray[np.floating[Any]]) -> float:
    """Spearman's rank correlation of two arrays of scores (N): Pearson's of their ranks, equal scores sharing one.

    NaN where a side has no two different scores.
    """
    if not len(left):
        return float("nan")
    ranks = [_ranks(scores) for scores in (left, right)]
    centred = [each - each.mean() for each in ranks]
    sizes = float(np.linalg.norm(centred[0]) * np.linalg.norm(centred[1]))
    return float(centred[0] @ centred[1]) / sizes if sizes else float("nan")


def _ranks(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Each score's rank from 1; equal ones share the mean of theirs."""
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]
