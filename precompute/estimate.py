"""What making a cache will cost, measured on one example before it starts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch

from explorer import gradients
from explorer.cache import CacheSettings
from explorer.gradients import group_count
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded
from explorer.trust.significance import KINDS

_BYTES = {"float16": 2, "int8": 1}
_NULL_PASSES = 4
"""An unrelated prompt takes about as long as four examples: five gradients, most of a part of its answer."""


@dataclass(frozen=True)
class Cost:
    """What is still to be spent on a cache."""

    examples: int
    """Examples to sketch."""
    examples_s: float
    """Seconds for them."""
    tokens: int
    """Tokens to sketch."""
    tokens_s: float
    """Seconds for them."""
    size: int
    """Bytes the whole cache will need on disk."""
    nulls: int = 0
    """Unrelated prompts to answer, and to ask about."""
    nulls_s: float = 0.0
    """Seconds for them."""

    def shared(self, workers: int) -> "Cost":
        """The same where so many workers share the work."""
        return replace(self, examples_s=self.examples_s / workers, tokens_s=self.tokens_s / workers)

    def __str__(self) -> str:
        """One line for a person."""
        parts = []
        if self.examples:
            parts.append(f"{self.examples:,} examples, about {duration(self.examples_s)}")
        if self.tokens:
            parts.append(f"{self.tokens:,} tokens, about {duration(self.tokens_s)}")
        if self.nulls:
            parts.append(f"{self.nulls:,} unrelated prompts, about {duration(self.nulls_s)}")
        return f"to do: {'; '.join(parts) or 'nothing'}; {volume(self.size)} on disk"


def estimate(
    model: LanguageModel,
    encoded: Sequence[Encoded],
    settings: CacheSettings,
    tokens: int,
    done: tuple[int, int] = (0, 0),
    nulls: int = 0,
    nulls_left: bool = True,
) -> Cost:
    """Time one example of middling length, and scale by the positions there are.

    So many `tokens` get a sketch, and all examples are scored on so many `nulls`,
    unrelated prompts, unless that is done; `done` says how many examples and
    tokens are finished already.
    """
    count = len(encoded)
    middle = sorted(encoded, key=lambda item: len(item.ids))[count // 2]
    positions = sum(len(item.ids) for item in encoded)
    examples_left, tokens_left = count - done[0], max(0, tokens - done[1])
    mean_length = positions / count / len(middle.ids)
    per_value, mixed = _BYTES[settings.dtype], settings.mixed_precision
    coarse = sum(length + 4 for length in settings.coarse_lengths)
    return Cost(
        examples=examples_left,
        examples_s=examples_left * mean_length * _example_seconds(model, middle, settings.batch, mixed)
        if examples_left
        else 0.0,
        tokens=tokens_left,
        tokens_s=tokens_left * mean_length * _token_seconds(model, middle, mixed) if tokens_left else 0.0,
        size=count * (settings.length * per_value + coarse + 4 * len(model.fingerprint.layout) + 8)
        + tokens * (settings.token_length * per_value + 4)
        + count * nulls * 4 * len(KINDS),
        nulls=nulls * nulls_left,
        nulls_s=nulls * _NULL_PASSES * _example_seconds(model, middle, 1) if nulls and nulls_left else 0.0,
    )


def _example_seconds(model: LanguageModel, encoded: Encoded, batch: int, mixed: bool = False) -> float:
    def run() -> None:
        with gradients.mixed_precision(model.network, mixed):
            for checkpoint in model.checkpoints:
                gradients.example_gradients(model, checkpoint, [encoded] * batch, lambda sequence, parts: None)

    return seconds_of(model, run) / batch


def _token_seconds(model: LanguageModel, encoded: Encoded, mixed: bool) -> float:
    """A backward pass, and the token's part of a forward pass."""
    with gradients.mixed_precision(model.network, mixed):
        one = seconds_of(model, lambda: next(gradients.token_gradients(model, encoded)))
        two = seconds_of(model, lambda: list(islice(gradients.token_gradients(model, encoded), 2)))
    backward = max(two - one, one / 4) if encoded.response_length > 1 else one
    return backward + max(one - backward, 0) * group_count(encoded) / encoded.response_length


def seconds_of(model: LanguageModel, work: Callable[[], object]) -> float:
    """The faster of two runs after one that warms up."""
    runs = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        runs.append(time.perf_counter() - started)
    return min(runs[1:])


def volume(size: int) -> str:
    """Bytes as a person says them."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"


def duration(seconds: float) -> str:
    """A length of time as a person says it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
