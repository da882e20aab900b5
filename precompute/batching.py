"""How many examples share a backward pass: whatever is fastest here, by measurement."""

import statistics
import time
from collections.abc import Sequence

import torch

from explorer import gradients
from explorer.errors import UnsupportedError
from explorer.gradients import Receive
from explorer.model import LanguageModel
from explorer.records import Encoded

SIZES = (2, 4, 8, 16)
"""Batch sizes that are tried; on a processor large ones seldom pay, on a GPU they do."""
_GAIN = 0.95
"""A batch is taken only where it needs at most this share of the time: it costs memory and padding."""


def fastest_batch(model: LanguageModel, encoded: Sequence[Encoded]) -> int:
    """The batch size that needs the least time an example, tried on some examples of middling length.

    1 where tensors can't be told apart by sequence, or nothing is gained. Sizes
    grow until one is no faster than the size before it or doesn't fit in memory.
    """
    sample = sorted(encoded, key=lambda item: len(item.ids))
    best, least = 1, _seconds(model, _middle(sample, 2), 1)
    for size in SIZES:
        if size > len(sample):
            break
        try:
            taken = _seconds(model, _middle(sample, size), size)
        except (UnsupportedError, torch.OutOfMemoryError):
            break
        if taken > _GAIN * least:
            break
        best, least = size, taken
    return best


def _middle(ordered: Sequence[Encoded], count: int) -> Sequence[Encoded]:
    start = max(0, (len(ordered) - count) // 2)
    return ordered[start : start + count]


def _seconds(model: LanguageModel, sample: Sequence[Encoded], size: int) -> float:
    """Seconds an example in batches of `size`; the first run doesn't count, of the others the median does."""
    ignore: Receive = lambda sequence, name, part: None  # noqa: E731
    runs = []
    for _ in range(4):
        started = time.perf_counter()
        for start in range(0, len(sample), size):
            gradients.example_gradients(model, model.checkpoints[0], sample[start : start + size], ignore)
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        runs.append((time.perf_counter() - started) / len(sample))
    return statistics.median(runs[1:])
