"""What caching costs on top of the bare forward and backward pass of the same examples."""

import resource
import statistics
import tempfile
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks.common import Figures, load, median_seconds, options, seconds, show
from explorer import gradients, sketch
from explorer.model import LanguageModel
from explorer.records import Encoded
from explorer.sketch import Sketcher, SketchSettings
from explorer.store import CacheSettings, pack_arrays, write_whole
from precompute.sketches import sketch_shard


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=64, help="examples measured (64)")
    parser.add_argument("--shard", type=int, default=16, help="examples written together (16)")
    chosen = parser.parse_args()
    model, encoded = load(chosen, chosen.rows)
    show(measure(model, encoded, chosen.shard), chosen.json)


def measure(model: LanguageModel, encoded: list[Encoded], per_shard: int) -> Figures:
    """Alternate bare passes and caching over the same shards, so that noise meets both alike."""
    settings = CacheSettings()
    loaded = psutil.Process().memory_info().rss
    sketcher = Sketcher(model.fingerprint.layout, SketchSettings(settings.length), model.device)
    bare_pass(model, encoded[0])
    bare, caching = [], []
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, len(encoded), per_shard):
            shard = list(enumerate(encoded))[start : start + per_shard]
            path = Path(folder, f"{start:05d}.safetensors")
            bare.append(seconds(lambda shard=shard: [bare_pass(model, item) for _, item in shard]) / len(shard))
            caching.append(
                seconds(lambda shard=shard, path=path: cache_shard(model, sketcher, settings, shard, path)) / len(shard)
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    gradient, _ = gradients.example_gradient(model, encoded[0])
    vector = torch.cat([part.detach().flatten() for part in gradient.values()]).float().cpu().numpy()
    sketch_s = median_seconds(lambda: sketcher(gradient))
    return {
        "rows": len(encoded),
        "parameters": model.fingerprint.parameters,
        "bare_s": statistics.median(bare),
        "caching_s": statistics.median(caching),
        "ratio": statistics.median(c / b for c, b in zip(caching, bare, strict=True)),
        "sketch_s": sketch_s,
        "algorithm1_s": seconds(lambda: literal_algorithm_1(vector, sketcher.settings)),
        "peak_rss_bytes": peak - loaded,
    }


def bare_pass(model: LanguageModel, encoded: Encoded) -> None:
    """The leanest forward and backward pass: logits at response positions alone, gradients thrown away."""
    losses = gradients.token_losses(model, [encoded])[0]
    torch.autograd.grad(losses.mean(), list(model.trainable.values()))


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


def literal_algorithm_1(vector: np.ndarray, settings: SketchSettings) -> np.ndarray:
    """Algorithm 1 as the paper writes it, 2λ passes over the padded vector; its permutations are drawn beforehand."""
    padded = np.zeros(sketch.padded_length(len(vector), settings.length), dtype=np.float32)
    padded[: len(vector)] = vector
    for round_ in range(settings.rounds):
        for axis, (name, shuffle) in enumerate((("rows", "row shuffle"), ("columns", "column shuffle"))):
            choices = sketch.divisors(len(padded), sketch._LARGEST_SHUFFLE)
            count = int(sketch.generator(settings.seed, name, round_).choice(choices))
            order = np.argsort(sketch.generator(settings.seed, shuffle, round_).permutation(count))
            shape = (count, -1) if axis == 0 else (-1, count)
            padded = padded.reshape(shape).take(order, axis=axis).reshape(-1)
    padded *= sketch.rademacher(np.arange(len(padded)), settings.seed)
    return padded.reshape(settings.length, -1).sum(axis=1)


if __name__ == "__main__":
    main()
