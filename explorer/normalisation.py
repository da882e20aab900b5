"""What the named tensors of a gradient are divided by before inner products are taken.

- `layer`: every tensor by its own norm, ĝ^l = g^l / ‖g^l‖₂ (paper, 3.2).
- `cosine`: all tensors by the norm of the whole gradient.
- `none`: nothing; large gradients then win by their size.

The norms are always those of a *whole* example or response, also for one of
its tokens, which keeps influence bilinear. Numpy only.
"""

import numpy as np
from numpy.typing import NDArray

KINDS = ("layer", "cosine", "none")


def divisors(norms: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """What each tensor is divided by (L), from the norms (L) of the whole example's gradient; of many, (N, L)."""
    if kind == "layer":
        return norms
    whole = np.linalg.norm(norms, axis=-1, keepdims=True) if kind == "cosine" else 1.0
    return np.full_like(norms, whole)


def reciprocals(by: NDArray[np.float32]) -> NDArray[np.float32]:
    """What each tensor is multiplied by instead of being divided (L); 0 where the divisor is 0."""
    return np.divide(1.0, by, out=np.zeros_like(by), where=by > 0)


def normalised_norms(norms: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """The norms (N) of whole gradients once they are divided, from those of their tensors (N, L)."""
    found: NDArray[np.float32] = np.linalg.norm(norms * reciprocals(divisors(norms, kind)), axis=-1)
    return found
