"""One shard of example sketches: a pure function of model, settings and rows."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from explorer import gradients
from explorer.errors import DataError
from explorer.model import LanguageModel
from explorer.records import Encoded
from explorer.sketch import Sketcher
from explorer.store import Arrays, CacheSettings, quantise


class NormalisedSketch:
    """The RapidGrad of a gradient that arrives tensor by tensor, normalised on the way; none is kept."""

    def __init__(self, sketcher: Sketcher, names: Sequence[str], kind: str):
        """Begin with the gradient of nothing; `kind` is one of `normalisation.KINDS`."""
        self._sketch, self._kind = sketcher.begin(), kind
        self._norms = dict.fromkeys(names, 0.0)

    def add(self, name: str, part: torch.Tensor) -> None:
        """Add the gradient of one whole tensor; each is added once."""
        norm = float(part.float().norm())
        self._norms[name] = norm
        if norm > 0:
            self._sketch.add(name, part, 1 / norm if self._kind == "layer" else 1.0)

    @property
    def norms(self) -> NDArray[np.float32]:
        """‖g^l‖ of every named tensor, before normalisation (L)."""
        return np.fromiter(self._norms.values(), dtype=np.float32)

    def values(self) -> NDArray[np.float32]:
        """The RapidGrad (K) of the normalised gradient."""
        # The norm of the whole is known last; the sketch is linear, so it may be divided afterwards.
        whole = float(np.linalg.norm(self.norms)) if self._kind == "cosine" else 1.0
        return self._sketch.values() / np.float32(whole or 1.0)


def sketch_shard(
    model: LanguageModel, sketcher: Sketcher, settings: CacheSettings, rows: Sequence[tuple[int, Encoded]]
) -> Iterator[Arrays | None]:
    """Yield None after every example, and at last the shard: sketch, scale, norms, loss.

    Gradients are normalised before sketching, as the settings say. Raises
    DataError for a gradient that isn't finite.
    """
    names = [name for name, _ in model.fingerprint.layout]
    found: dict[int, tuple[NormalisedSketch, float]] = {}
    # Sequences of similar length share a batch: padding is wasted work.
    order = sorted(rows, key=lambda pair: len(pair[1].ids)) if settings.batch > 1 else list(rows)
    for start in range(0, len(order), settings.batch):
        batch = order[start : start + settings.batch]
        sketches = [NormalisedSketch(sketcher, names, settings.normalisation) for _ in batch]
        for checkpoint in model.checkpoints:
            receive = partial(_add, sketches)
            losses = gradients.example_gradients(model, checkpoint, [encoded for _, encoded in batch], receive)
        for (row, _), sketch, loss in zip(batch, sketches, losses, strict=True):
            if not np.isfinite(sketch.norms).all():
                raise DataError(f"Row {row + 1} of the data has a gradient that isn't finite; mend or remove it.")
            found[row] = (sketch, float(loss.mean()))
            yield None
    finished = [found[row] for row, _ in rows]
    stored, scale = quantise(np.stack([sketch.values() for sketch, _ in finished]), settings.dtype)
    yield {
        "sketch": stored,
        "scale": scale,
        "norms": np.stack([sketch.norms for sketch, _ in finished]),
        "loss": np.asarray([loss for _, loss in finished], dtype=np.float32),
    }


def _add(sketches: Sequence[NormalisedSketch], sequence: int, name: str, part: torch.Tensor) -> None:
    sketches[sequence].add(name, part)
