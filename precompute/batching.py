"""How many examples share a backward pass: whatever is fastest here, by measurement."""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from explorer.cache import CacheSettings
from explorer.errors import NonFiniteError, UnsupportedError
from explorer.gradients import Sketcher
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded
from precompute.sketches import sketch_shard

SIZES = (2, 4, 8, 16)
"""Batch sizes that are tried; on a processor large ones seldom pay, on a GPU they do."""
_MOST_TOKENS = 512
"""Batches of more tokens aren't tried on a processor: its products are as fast as they get long before, and what the
backward pass needs of every token takes memory."""
_GAIN = 0.95
"""A batch is taken only where it needs at most this share of the time: it costs memory and padding."""


def fastest_batch(model: LanguageModel, sketcher: Sketcher, settings: CacheSettings, encoded: Sequence[Encoded]) -> int:
    """The batch size with which sketching needs the least time an example, tried on some of middling length.

    1 where tensors can't be told apart by sequence, or nothing is gained. Sizes
    grow until one is no faster than the size before it or doesn't fit in memory.
    """
    sample = sorted(encoded, key=lambda item: len(item.ids))
    best, least = 1, math.inf
    for size in (1, *SIZES):
        some = _middle(sample, max(2, size))
        if size > len(sample) or (size > 1 and model.device.type == "cpu" and _tokens(some[-size:]) > _MOST_TOKENS):
            break
        try:
            taken = _seconds(model, sketcher, replace(settings, batch=size), some)
        except (UnsupportedError, NonFiniteError, torch.OutOfMemoryError):
            # What isn't finite is reported with its row when its turn comes.
            break
        if taken > _GAIN * least:
            break
        best, least = size, taken
    return best


def _middle(ordered: Sequence[Encoded], count: int) -> Sequence[Encoded]:
    start = max(0, (len(ordered) - count) // 2)
    return ordered[start : start + count]


def _tokens(batch: Sequence[Encoded]) -> int:
    """Tokens of a padded batch."""
    return len(batch) * max(len(item.ids) for item in batch)


def _seconds(model: LanguageModel, sketcher: Sketcher, settings: CacheSettings, sample: Sequence[Encoded]) -> float:
    """Seconds an example; the first run doesn't count, of the others the median does."""
    runs = []
    for _ in range(4):
        started = time.perf_counter()
        # The sketches come back to the processor, so that a GPU has finished when they are there.
        list(sketch_shard(model, sketcher, settings, list(enumerate(sample))))
        runs.append((time.perf_counter() - started) / len(sample))
    return statistics.median(runs[1:])
