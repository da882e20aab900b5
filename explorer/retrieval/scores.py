"""Scores of tokens, and who ranks highest.

All scores are `e·η·⟨query, example⟩`: positive is a proponent (training on it
made the answer more likely), negative an opponent. Numpy only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.cache import Store, fold


def token_scores(store: Store, query: NDArray[np.float32], row: int, score: float) -> NDArray[np.float32] | None:
    """Influence of every response token of an example (Eq. 6 or 8) from cached sketches: (G), or None.

    Token sketches are coarser than the example's. What they measure must
    average to the example's score, so they are shifted by one constant until
    they do: the closest values that keep the sum.
    """
    sketches = store.token_sketches(row)
    if sketches is None:
        return None
    values = sketches @ fold(query, sketches.shape[1]) * np.float32(store.manifest.training.scale)
    return values + np.float32(score - values.mean())


def ranked(
    scores: NDArray[np.floating[Any]],
    count: int,
    opponents: bool = False,
    among: Sequence[int] | NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """The `count` rows with the largest (or smallest) scores, best first; ties by row number."""
    rows = np.arange(len(scores)) if among is None else np.asarray(among, dtype=np.int64)
    key = scores[rows] if opponents else -scores[rows]
    if 0 < count < len(rows):
        # Sorting all of a million takes longer than scoring them.
        near = np.flatnonzero(key <= np.partition(key, count - 1)[count - 1])
        rows, key = rows[near], key[near]
    return rows[np.lexsort((rows, key))[:count]]
