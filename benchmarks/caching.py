"""What caching costs on top of the bare forward and backward pass of the same examples."""

import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import Figures, PeakMemory, load, median_seconds, options, seconds, show
from explorer import gradients
from explorer.cache import CacheSettings
from explorer.cache.files import write_whole
from explorer.cache.shards import pack_arrays
from explorer.gradients import Sketcher, SketchSettings, sketch
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded
from precompute.batching import fastest_batch
from precompute.sketches import sketch_shard

PUBLISHED_PADDING = 1 << 24
"""To so many places the paper's published implementation pads a LoRA gradient before it shuffles."""
_BLOCK = 1 << 22


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=64, help="examples measured (64)")
    parser.add_argument("--shard", type=int, default=16, help="examples written together (16)")
    parser.add_argument("--batch", type=int, default=0, help="examples a backward pass (the fastest, by measurement)")
    chosen = parser.parse_args()
    model, encoded = load(chosen, chosen.rows)
    peak = PeakMemory()
    show(measure(model, encoded, chosen.shard, chosen.batch, peak), chosen.json)


def measure(model: LanguageModel, encoded: list[Encoded], per_shard: int, batch: int, peak: PeakMemory) -> Figures:
    """Alternate bare passes and caching over the same shards, so that noise meets both alike.

    `mixed_…` are of caching in mixed precision, beside the same bare passes in float32.
    """
    settings = CacheSettings()
    started = time.perf_counter()
    sketcher = Sketcher(model.fingerprint.layout, SketchSettings(settings.length), model.device)
    table_s = time.perf_counter() - started
    settings = replace(settings, batch=batch or fastest_batch(model, sketcher, settings, encoded))
    bare_passes(model, encoded[: settings.batch], settings.batch)
    # Mixed precision is for models with frozen weights.
    mixes = bool(model.adapter) and model.fingerprint.precision == "float32"
    bare, caching, mixed = list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, len(encoded), per_shard):
            shard = list(enumerate(encoded))[start : start + per_shard]
            items = [item for _, item in shard]
            path = Path(folder, f"{start:05d}.safetensors")
            bare.append(seconds(partial(bare_passes, model, items, settings.batch)) / len(shard))
            caching.append(seconds(partial(cache_shard, model, sketcher, settings, shard, path)) / len(shard))
            if mixes:
                other = replace(settings, mixed_precision=True)
                mixed.append(seconds(partial(cache_shard, model, sketcher, other, shard, path)) / len(shard))
    beyond = peak.beyond()
    gradient = gradients.gradient(model, encoded[0])
    sketch_s = median_seconds(lambda: sketcher(gradient))
    own = sketch.padded_length(model.fingerprint.parameters, settings.length)
    literal = LiteralAlgorithm1(gradient, sketcher.settings, own)
    published = LiteralAlgorithm1(gradient, sketcher.settings, max(own, PUBLISHED_PADDING))
    return {
        "rows": len(encoded),
        "parameters": model.fingerprint.parameters,
        "batch": settings.batch,
        "bare_s": statistics.median(bare),
        "caching_s": statistics.median(caching),
        "ratio": statistics.median(c / b for c, b in zip(caching, bare, strict=True)),
        **(
            {
                "mixed_s": statistics.median(mixed),
                "mixed_ratio": statistics.median(m / b for m, b in zip(mixed, bare, strict=True)),
            }
            if mixes
            else {}
        ),
        "table_s": table_s,
        "sketch_s": sketch_s,
        "algorithm1_s": seconds(published),
        "algorithm1_least_padding_s": seconds(literal),
        "peak_rss_bytes": beyond,
    }


def bare_passes(model: LanguageModel, encoded: list[Encoded], batch: int) -> None:
    """The leanest forward and backward passes: logits at response positions alone, gradients thrown away.

    Batches hold the sequences that caching puts together.
    """
    tensors = list(model.checkpoints[0].tensors.values())
    order = sorted(encoded, key=lambda item: len(item.ids)) if batch > 1 else encoded
    for start in range(0, len(order), batch):
        losses = gradients.token_losses(model, order[start : start + batch])
        torch.autograd.grad(torch.stack([each.mean() for each in losses]).sum(), tensors)


def cache_shard(
    model: LanguageModel,
    sketcher: Sketcher,
    settings: CacheSettings,
    shard: list[tuple[int, Encoded]],
    path: Path,
) -> None:
    """The whole of precompute's work on one shard, the synced file included."""
    *_, arrays = sketch_shard(model, sketcher, settings, shard)
    assert arrays is not None
    write_whole(path, pack_arrays(arrays))


class LiteralAlgorithm1:
    """Algorithm 1 as the paper writes it: 2λ passes over the padded vector, its permutations drawn beforehand."""

    def __init__(self, gradient: gradients.Gradient, settings: SketchSettings, padded: int):
        """Flatten the gradient, pad it to `padded` places, draw shuffles and signs."""
        parts = [part.detach().flatten().float().cpu().numpy() for part in gradient.values()]
        size = sum(part.size for part in parts)
        self._settings = settings
        self._padded = np.zeros(padded, dtype=np.float32)
        np.concatenate(parts, out=self._padded[:size])
        shuffles = sketch.draw_shuffles(padded, settings)
        self._orders = [(shuffle.by_rows, np.argsort(shuffle.to)) for shuffle in shuffles]
        self._signs = np.empty(padded, dtype=np.float32)
        for start in range(0, padded, _BLOCK):
            places = np.arange(start, min(start + _BLOCK, padded))
            self._signs[start : start + _BLOCK] = sketch.rademacher(places, settings.seed)

    def __call__(self) -> NDArray[np.float32]:
        """The RapidGrad (K)."""
        v = self._padded
        for by_rows, order in self._orders:
            matrix = v.reshape((len(order), -1) if by_rows else (-1, len(order)))
            v = matrix.take(order, axis=0 if by_rows else 1).reshape(-1)
        return (v * self._signs).reshape(self._settings.length, -1).sum(axis=1)


if __name__ == "__main__":
    main()
