"""Folds examples that say nearly the same into one.

Two texts are near-duplicates when the Jaccard similarity of their sets of
character shingles (Broder, 1997) is at least `SIMILAR`. Characters, not words,
because not every language puts spaces between words.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from explorer.corpus.filters import folded

SHINGLE = 9
"""Characters of one shingle: one changed word of a short sentence spoils enough of them to tell two facts apart."""
SIMILAR = 0.8


@dataclass(frozen=True)
class Fold:
    """One example and its near-duplicates."""

    row: int
    """The one that stands for all: the first."""
    others: tuple[int, ...] = ()


def shingles(text: str) -> frozenset[str]:
    """All runs of `SHINGLE` characters, without regard to case and white space; a shorter text is one."""
    text = folded(text)
    return frozenset(text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1)))


def near(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether the size of the intersection over that of the union reaches `SIMILAR`."""
    smaller, larger = sorted((len(one), len(other)))
    # The intersection is no larger than the smaller set, the union no smaller than the larger.
    if smaller < SIMILAR * larger:
        return False
    shared = len(one & other)
    return shared >= SIMILAR * (smaller + larger - shared)


def near_any(texts: Iterable[tuple[int, frozenset[str]]], of: Sequence[frozenset[str]]) -> list[int]:
    """The rows whose texts are near-duplicates of some text; both are given by their shingles."""
    every = frozenset[str]().union(*of)
    # What two near-duplicates share is no less than SIMILAR of either, so most texts are told apart at once.
    close = ((row, text) for row, text in texts if len(text & every) >= SIMILAR * len(text))
    return [row for row, text in close if any(near(text, other) for other in of)]


def fold_near_duplicates(texts: Iterable[tuple[int, frozenset[str]]], count: int | None = None) -> list[Fold]:
    """Rows in order, each joined to the first kept one that it is near to.

    Likeness isn't transitive: a row is compared with the rows that stand for
    others, never with those already folded away.

    Args:
        texts: Rows and their shingles, in order.
        count: Stop before a row that would be the (count + 1)th kept one.

    Returns:
        The kept rows in order, each with what was folded into it.
    """
    kept: list[tuple[int, frozenset[str], list[int]]] = []
    for row, text in texts:
        found = next((others for _, known, others in kept if near(known, text)), None)
        if found is not None:
            found.append(row)
        elif count is not None and len(kept) == count:
            break
        else:
            kept.append((row, text, []))
    return [Fold(row, tuple(others)) for row, _, others in kept]
