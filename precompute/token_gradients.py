"""One shard of per-token sketches: a pure function of model, settings, norms and rows."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from explorer import gradients
from explorer.cache import Arrays, CacheSettings, Store, fold
from explorer.cache.shards import quantise
from explorer.gradients import Sketcher
from explorer.model.language_model import LanguageModel
from explorer.normalisation import divisors, reciprocals
from explorer.records import Encoded
from explorer.retrieval import ranked


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
        for _ in gradients.each_token(model, encoded, partial(sketch.add, factors=factors)):
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
