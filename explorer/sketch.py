"""RapidGrad: a gradient of D numbers as K numbers (paper, section 3.2, Algorithm 1).

The flattened gradient is padded to length P, shuffled λ times by rows and by
columns, multiplied by random signs, and every run of P/K neighbours is summed.
The shuffles compose into one permutation, so all of it is one signed
scatter-add: parameter p is added, with its sign, to bucket[p].

- Linear: sketch(a·u + b·v) = a·sketch(u) + b·sketch(v).
- Folds: summing each K/K' neighbours of a K-sketch is the K'-sketch.
- Unbiased: E⟨sketch u, sketch v⟩ = ⟨u, v⟩ over seeds, with a variance of about
  (‖u‖²‖v‖² + ⟨u, v⟩²)/K.

It knows nothing of models or files.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

_PAD_UNIT = 1 << 20
"""Lengths are padded to a multiple of this, so that every K up to it folds from the same shuffle."""
_LARGEST_SHUFFLE = 1 << 24
"""Divisors are drawn up to this size, which bounds the memory of one stored permutation."""


@dataclass(frozen=True)
class SketchSettings:
    """What decides a sketch, besides the layout of the parameters."""

    length: int = 65_536
    """K, a power of two."""
    rounds: int = 20
    """λ, the number of row and column shuffles."""
    seed: int = 0
    """Decides divisors, permutations and signs."""

    def __post_init__(self) -> None:
        """Refuse what Algorithm 1 can't do."""
        if self.length < 1 or self.length & (self.length - 1):
            raise ValueError(f"K must be a power of two, not {self.length}")
        if self.rounds < 1:
            raise ValueError(f"λ must be at least 1, not {self.rounds}")


class Sketcher:
    """Turns gradients of one layout into RapidGrads."""

    def __init__(
        self,
        layout: Sequence[tuple[str, tuple[int, ...]]],
        settings: SketchSettings,
        device: torch.device | str = "cpu",
    ):
        """Compose the shuffles once; the table holds one int64 per parameter."""
        self.settings = settings
        sizes = [math.prod(shape) for _, shape in layout]
        padded = padded_length(sum(sizes), settings.length)
        positions = shuffled_positions(sum(sizes), padded, settings.rounds, settings.seed)
        signs = torch.from_numpy(rademacher(positions, settings.seed)).to(device)
        buckets = torch.from_numpy(positions // (padded // settings.length)).to(device)
        names = [name for name, _ in layout]
        self._tables = dict(zip(names, zip(buckets.split(sizes), signs.split(sizes), strict=True), strict=True))

    def __call__(self, gradient: Mapping[str, torch.Tensor]) -> NDArray[np.float32]:
        """The RapidGrad (K) of a gradient."""
        first = next(iter(gradient.values()))
        total = torch.zeros(self.settings.length, dtype=torch.float32, device=first.device)
        for name, part in gradient.items():
            buckets, signs = self._tables[name]
            total.index_add_(0, buckets, part.detach().flatten().float() * signs)
        return total.cpu().numpy()


def padded_length(parameters: int, length: int) -> int:
    """P: the parameters padded to a multiple of K and of 2²⁰."""
    unit = max(length, _PAD_UNIT)
    return -(-parameters // unit) * unit


def divisors(number: int, largest: int) -> list[int]:
    """All divisors of `number` up to `largest`, ascending."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({d for s in small for d in (s, number // s) if d <= largest})


def generator(seed: int, *name: str | int) -> np.random.Generator:
    """Randomness as a pure function of a seed and a name."""
    digest = hashlib.sha256(repr((seed, *name)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def shuffled_positions(parameters: int, padded: int, rounds: int, seed: int) -> NDArray[np.int64]:
    """Where Algorithm 1 moves each of the first `parameters` of `padded` places."""
    choices = divisors(padded, _LARGEST_SHUFFLE)
    where = np.arange(parameters, dtype=np.int64)
    for round_ in range(rounds):
        rows = int(generator(seed, "rows", round_).choice(choices))
        row, column = np.divmod(where, padded // rows)
        where = generator(seed, "row shuffle", round_).permutation(rows)[row] * (padded // rows) + column
        columns = int(generator(seed, "columns", round_).choice(choices))
        row, column = np.divmod(where, columns)
        where = row * columns + generator(seed, "column shuffle", round_).permutation(columns)[column]
    return where


def rademacher(positions: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """ρ at the given places, ±1 with equal probability: one bit of SplitMix64(place + key)."""
    key = np.uint64(generator(seed, "signs").integers(1 << 63))
    with np.errstate(over="ignore"):
        z = positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return 1.0 - 2.0 * (z & np.uint64(1)).astype(np.float32)
