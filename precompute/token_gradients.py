"""One shard of per-token sketches: a pure function of model, settings, norms and rows."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from explorer import gradients
from explorer.model import LanguageModel
from explorer.normalisation import divisors, reciprocals
from explorer.records import Encoded
from explorer.scores import example_scores, ranked
from explorer.sketch import Sketch, Sketcher
from explorer.store import Arrays, CacheSettings, Store, fold, quantise


def token_rows(store: Store, wanted: int) -> list[int]:
    """Which examples get token sketches: the `wanted` with most influence on the training set as a whole.

    They are the ones a reader will meet most often. Influence on the whole set
    is one inner product with the sum of all sketches.
    """
    whole = np.zeros(store.manifest.settings.length, dtype=np.float32)
    for sketches, scale in store.sketches():
        whole += scale @ sketches.astype(np.float32)
    return sorted(int(row) for row in ranked(example_scores(store, whole), wanted))


def token_shard(
    model: LanguageModel,
    sketcher: Sketcher,
    settings: CacheSettings,
    norms: NDArray[np.float32],
    rows: Sequence[tuple[int, Encoded]],
) -> Iterator[Arrays | None]:
    """Yield None after every token, and at last the shard: sketch, scale, rows, offsets.

    A token's gradient is divided by the norms of its *whole* example (`norms`,
    N × L), so that token sketches average to the example's.
    """
    names = [name for name, _ in model.fingerprint.layout]
    sketch, sketches, offsets = sketcher.begin(), [], [0]
    for row, encoded in rows:
        by = divisors(norms[row], settings.normalisation)
        factors = dict(zip(names, reciprocals(by).tolist(), strict=True))
        for _ in gradients.each_token(model, encoded, partial(_add, sketch, factors)):
            sketches.append(fold(sketch.values(), settings.token_length))
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


def _add(sketch: Sketch, factors: Mapping[str, float], name: str, part: torch.Tensor) -> None:
    sketch.add(name, part, factors[name])
