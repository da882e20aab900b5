"""One shard of sketches, of examples or of their tokens: pure functions of model, settings and rows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from explorer import gradients
from explorer.cache import Arrays, CacheSettings, Store, fold
from explorer.cache.shards import level_names, quantise
from explorer.errors import NonFiniteError
from explorer.gradients import Sketcher
from explorer.gradients.sketch import Sketch
from explorer.model.language_model import LanguageModel
from explorer.normalisation import divisors, reciprocals
from explorer.records import Encoded, Example
from explorer.retrieval import ranked


class NormalisedSketch:
    """The RapidGrad of a gradient that arrives tensor by tensor, normalised on the way; none is kept."""

    def __init__(self, sketcher: Sketcher, names: Sequence[str], kind: str):
        """Begin with the gradient of nothing; `kind` is one of `normalisation.KINDS`."""
        self._sketch, self._kind = sketcher.begin(), kind
        self._norms = dict.fromkeys(names, 0.0)

    def add(self, parts: Mapping[str, torch.Tensor]) -> None:
        """Add the gradients of some whole tensors; each is added once."""
        found = torch.stack(torch._foreach_norm([part.float() for part in parts.values()])).tolist()
        norms = dict(zip(parts, found, strict=True))
        self._norms.update(norms)
        by_layer = {name: 1 / norm if norm else 0.0 for name, norm in norms.items()}
        self._sketch.add(parts, by_layer if self._kind == "layer" else None)

    @property
    def norms(self) -> NDArray[np.float32]:
        """‖g^l‖ of every named tensor, before normalisation (L)."""
        return np.fromiter(self._norms.values(), dtype=np.float32)

    def values(self) -> NDArray[np.float32]:
        """The RapidGrad (K) of the normalised gradient. Raises NonFiniteError, naming the tensor."""
        for name, norm in self._norms.items():
            if not math.isfinite(norm):
                raise NonFiniteError(f"a gradient with respect to {name}")
        # The norm of the whole is known last; the sketch is linear, so it may be divided afterwards.
        whole = float(np.linalg.norm(self.norms)) if self._kind == "cosine" else 1.0
        return self._sketch.values() / np.float32(whole or 1.0)


def sketch_shard(
    model: LanguageModel, sketcher: Sketcher, settings: CacheSettings, rows: Sequence[tuple[int, Encoded]]
) -> Iterator[Arrays | None]:
    """Yield None after every example, and at last the shard: sketch, scale, norms, loss, and the coarse levels.

    Gradients are normalised before sketching, as the settings say. Raises
    NonFiniteError, naming the row, for a loss or gradient that isn't finite.
    """
    names = [name for name, _ in model.fingerprint.layout]
    found: dict[int, tuple[NDArray[np.float32], NDArray[np.float32], float]] = {}
    # Sequences of similar length share a batch: padding is wasted work.
    order = sorted(rows, key=lambda pair: len(pair[1].ids)) if settings.batch > 1 else list(rows)
    for start in range(0, len(order), settings.batch):
        batch = order[start : start + settings.batch]
        sketches = [NormalisedSketch(sketcher, names, settings.normalisation) for _ in batch]
        with gradients.mixed_precision(model.network, settings.mixed_precision):
            for checkpoint in model.checkpoints:
                receive = partial(_add, sketches)
                losses = gradients.example_gradients(model, checkpoint, [encoded for _, encoded in batch], receive)
                for (row, _), loss in zip(batch, losses, strict=True):
                    check_losses(row, loss, checkpoint.name)
        for (row, _), sketch, loss in zip(batch, sketches, losses, strict=True):
            found[row] = (_values(sketch, row), sketch.norms, float(loss.mean()))
            yield None
    values, norms, losses_of = zip(*(found[row] for row, _ in rows), strict=True)
    yield {
        **levels(np.stack(values), settings),
        "norms": np.stack(norms),
        "loss": np.asarray(losses_of, dtype=np.float32),
    }


@contextmanager
def named_as_in(examples: Sequence[Example], first: int = 0) -> Iterator[None]:
    """Name a row whose numbers aren't finite by its place in the data; the first example has the number `first`."""
    try:
        yield
    except NonFiniteError as problem:
        place = "" if problem.row is None else examples[problem.row - first].place
        whose = f"{place[:1].upper()}{place[1:]} of the data" if place else problem.whose
        raise NonFiniteError(problem.what, whose, problem.row) from None


def _values(sketch: NormalisedSketch | Sketch, row: int, where: str = "") -> NDArray[np.float32]:
    try:
        return sketch.values()
    except NonFiniteError as problem:
        raise NonFiniteError(problem.what + where, _named(row), row) from None


def _named(row: int) -> str:
    return f"Row {row + 1} of the data"


def check_losses(row: int, losses: NDArray[np.float32], checkpoint: str) -> None:
    """Raise NonFiniteError where a loss of a row's response tokens (G) at a checkpoint isn't finite."""
    (broken,) = np.nonzero(~np.isfinite(losses))
    if len(broken):
        at = f" at {checkpoint}" if checkpoint else ""
        raise NonFiniteError(f"a loss at response token {broken[0]}{at}", _named(row), row)


def levels(sketches: NDArray[np.float32], settings: CacheSettings) -> Arrays:
    """RapidGrads (rows, K) as a shard keeps them: whole, and folded to every coarse length of the settings."""
    arrays = dict(zip(level_names(), quantise(sketches, settings.dtype), strict=True))
    for length in settings.coarse_lengths:
        arrays |= zip(level_names(length), quantise(fold(sketches, length), "int8"), strict=True)
    return arrays


def _add(sketches: Sequence[NormalisedSketch], sequence: int, parts: Mapping[str, torch.Tensor]) -> None:
    sketches[sequence].add(parts)


# Tokens


def token_rows(store: Store, wanted: int, among: Sequence[int] | None = None) -> list[int]:
    """Which rows get token sketches: the `wanted` with most influence on the training set as a whole.

    They are the ones a reader will meet most often. Influence on the whole set
    is one inner product with the sum of all sketches.
    """
    whole = np.zeros(store.manifest.settings.length, dtype=np.float32)
    for sketches, scale in store.sketches():
        whole += scale @ sketches.astype(np.float32)
    scores = np.concatenate([(sketches.astype(np.float32) @ whole) * scale for sketches, scale in store.sketches()])
    return sorted(int(row) for row in ranked(scores, wanted, among=among))


def token_shard(
    model: LanguageModel,
    sketcher: Sketcher,
    settings: CacheSettings,
    norms: Mapping[int, NDArray[np.float32]],
    rows: Sequence[tuple[int, Encoded]],
) -> Iterator[Arrays | None]:
    """Yield None after every token, and at last the shard: sketch, scale, rows, offsets.

    A token's gradient is divided by the norms (L) of its *whole* example, so that
    token sketches average to the example's.
    """
    names = [name for name, _ in model.fingerprint.layout]
    sketch, sketches, offsets = sketcher.begin(), [], [0]
    for row, encoded in rows:
        by = divisors(norms[row], settings.normalisation)
        factors = dict(zip(names, reciprocals(by).tolist(), strict=True))
        with gradients.mixed_precision(model.network, settings.mixed_precision):
            for token, _ in enumerate(gradients.each_token(model, encoded, partial(sketch.add, factors=factors))):
                sketches.append(fold(_values(sketch, row, f" at response token {token}"), settings.token_length))
                sketch.clear()
                yield None
        offsets.append(len(sketches))
    stored, scale = quantise(np.stack(sketches), settings.dtype)
    yield {
        "sketch": stored,
        "scale": scale,
        "rows": np.asarray([row for row, _ in rows], dtype=np.int64),
        "offsets": np.asarray(offsets, dtype=np.int64),
    }
