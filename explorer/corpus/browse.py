"""Finds and orders rows of the training data, at tens of thousands of them. Numpy only.

Self-influence is what training on an example does to the example itself, by the gradients at hand and
without normalisation (normalised layer by layer it would be the number of tensors for every example):
`Σ_c e·η_c ‖∇L(s_k, θ_c)‖²` over the checkpoints c. The cached norms give it exactly and at once.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from explorer.cache import Store


def self_influence(store: Store) -> NDArray[np.float32]:
    """Σ_l e·η_l ‖∇^l L(s_k)‖² of every example (N)."""
    training, layout = store.manifest.training, store.manifest.fingerprint.layout
    # Over several checkpoints a tensor's name begins with its checkpoint's, and that one's e·η counts.
    weights = dict(training.checkpoints)
    own = np.array([weights.get(name.split("/")[0], training.scale) for name, _ in layout])
    return (np.square(store.norms, dtype=np.float64) @ own).astype(np.float32)


def searchable(store: Store) -> tuple[str, ...]:
    """The text of every example (N) as it is searched: prompt, response and the user's columns, without case."""
    return tuple(
        "\n".join([row.prompt, row.response, *map(str, row.columns.values())]).casefold() for row in store.examples
    )


def matching(store: Store, texts: Sequence[str], words: str, sources: Sequence[str]) -> NDArray[np.int64]:
    """The rows whose text has every one of the words and whose source is one of those given; any when empty."""
    wanted, allowed = words.casefold().split(), set(sources)
    return np.array(
        [
            row.row
            for row, text in zip(store.examples, texts, strict=True)
            if all(word in text for word in wanted) and (not allowed or row.source in allowed)
        ],
        dtype=np.int64,
    )


def ordered(rows: NDArray[np.int64], by: NDArray[np.floating] | None) -> NDArray[np.int64]:
    """The rows by falling value of `by` (N), those that aren't numbers last; in the data's order without it."""
    if by is None:
        return rows
    key = np.where(np.isnan(by[rows]), -np.inf, by[rows])
    return rows[np.lexsort((rows, -key))]
