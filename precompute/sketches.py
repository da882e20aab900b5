"""One shard of example sketches: a pure function of model, settings and rows."""

from collections.abc import Iterator, Sequence

import numpy as np

from explorer import gradients
from explorer.errors import DataError
from explorer.model import LanguageModel
from explorer.normalisation import divisors
from explorer.records import Encoded
from explorer.sketch import Sketcher
from explorer.store import Arrays, CacheSettings, quantise


def sketch_shard(
    model: LanguageModel, sketcher: Sketcher, settings: CacheSettings, rows: Sequence[tuple[int, Encoded]]
) -> Iterator[Arrays | None]:
    """Yield None after every example, and at last the shard: sketch, scale, norms, loss.

    Gradients are normalised before sketching, as the settings say. Raises
    DataError for a gradient that isn't finite.
    """
    sketches, norms, losses = [], [], []
    for row, encoded in rows:
        gradient, token_losses = gradients.example_gradient(model, encoded)
        norm = gradients.norms(gradient)
        if not np.isfinite(norm).all():
            raise DataError(f"Row {row + 1} of the data has a gradient that isn't finite; mend or remove it.")
        sketches.append(sketcher(gradients.divided(gradient, divisors(norm, settings.normalisation))))
        norms.append(norm)
        losses.append(token_losses.mean())
        yield None
    stored, scale = quantise(np.stack(sketches), settings.dtype)
    yield {"sketch": stored, "scale": scale, "norms": np.stack(norms), "loss": np.asarray(losses, dtype=np.float32)}
