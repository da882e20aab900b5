"""How methods agree about the shown examples: their ranks by each, and which only texts or only gradients find."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explorer.records import Can, Chosen

TOP = 10
"""A method finds an example if it ranks it among so many first ones."""
TEXT, GRADIENTS, BOTH, NEITHER = "text only", "gradients only", "text and gradients", "neither"


@dataclass(frozen=True, eq=False)
class Agreement:
    """Ranks of some examples by several methods."""

    rows: tuple[int, ...]
    methods: tuple[Chosen, ...]
    ranks: NDArray[np.int64]
    """(rows × methods): how many examples score at least as much, the example itself included; 1 is first."""
    of: int
    """How many examples were ranked."""
    found_by: tuple[str, ...]
    """Of each row whether `TEXT`, `GRADIENTS`, `BOTH` or `NEITHER` finds it; empty while one kind wasn't asked."""
    text_only: tuple[int, ...]
    """Of all ranked examples those that only a comparison of texts finds."""


def agree(
    rows: Sequence[int],
    scores: Mapping[Chosen, NDArray[np.float32]],
    among: Sequence[int] | None = None,
    opponents: bool = False,
) -> Agreement:
    """The ranks of examples by the methods' scores of all examples (N).

    Args:
        rows: The shown examples.
        scores: By method, in the order to show them.
        among: The examples that are ranked; None for all.
        opponents: Whether ranks count from the lowest score; then only methods whose scores have a sign count.
    """
    used = {method: found for method, found in scores.items() if method.by_gradients or not opponents}
    ranked = {method: _ranks(-found if opponents else found, among) for method, found in used.items()}
    texts = [ranks for method, ranks in ranked.items() if method.can(Can.TEXTS)]
    gradual = [ranks for method, ranks in ranked.items() if method.by_gradients]
    lexical, gradients = _found(texts), _found(gradual)
    names = {(True, True): BOTH, (True, False): TEXT, (False, True): GRADIENTS, (False, False): NEITHER}
    return Agreement(
        rows=tuple(rows),
        methods=tuple(ranked),
        ranks=np.array([[ranks[row] for ranks in ranked.values()] for row in rows], dtype=np.int64).reshape(
            len(rows), len(ranked)
        ),
        of=len(next(iter(scores.values()), ())) if among is None else len(among),
        found_by=tuple(names[row in lexical, row in gradients] for row in rows) if texts and gradual else (),
        text_only=tuple(sorted(lexical - gradients)) if texts and gradual else (),
    )


def _ranks(scores: NDArray[np.float32], among: Sequence[int] | None) -> NDArray[np.int64]:
    """The rank of every example (N) among those that are ranked; a tie has the rank of its last."""
    own = np.sort(scores if among is None else scores[np.asarray(among, dtype=np.int64)])
    ranks = len(own) - np.searchsorted(own, scores, side="left")
    if among is not None:
        left_out = np.ones(len(scores), dtype=bool)
        left_out[np.asarray(among, dtype=np.int64)] = False
        ranks[left_out] = len(scores) + 1
    return ranks.astype(np.int64)


def _found(ranked: Sequence[NDArray[np.int64]]) -> set[int]:
    return {int(row) for ranks in ranked for row in np.flatnonzero(ranks <= TOP)}
