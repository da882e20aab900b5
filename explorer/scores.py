"""Sketches × store → scores, and who ranks highest.

All scores are `e·η·⟨query, example⟩`: positive is a proponent (training on it
made the answer more likely), negative an opponent. Numpy only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.store import Store, fold

_BLOCK_ROWS = 256
"""Rows converted to float32 at a time."""


def example_scores(store: Store, query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Influence of every training example on the question (Eq. 5 or 7): query (K) → (N)."""
    parts = []
    for sketches, scale in store.sketches():
        for start in range(0, len(sketches), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            parts.append((sketches[rows].astype(np.float32) @ query) * scale[rows])
    return np.concatenate(parts) * np.float32(store.manifest.training.scale)


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
    scores: NDArray[np.floating[Any]], count: int, opponents: bool = False, among: Sequence[int] | None = None
) -> NDArray[np.int64]:
    """The `count` rows with the largest (or smallest) scores, best first; ties by row number."""
    rows = np.arange(len(scores)) if among is None else np.asarray(among, dtype=np.int64)
    key = scores[rows] if opponents else -scores[rows]
    return rows[np.lexsort((rows, key))[:count]]
