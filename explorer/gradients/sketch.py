"""RapidGrad: a gradient of D numbers as K numbers (paper, section 3.2, Algorithm 1).

The flattened gradient is padded to length P, shuffled λ times by rows and by
columns, multiplied by random signs, and every run of P/K neighbours is summed.
The shuffles compose into one permutation, so all of it is one signed
scatter-add: a table says for every parameter which bucket it is added to, and
with which sign.

- Linear: sketch(a·u + b·v) = a·sketch(u) + b·sketch(v).
- Folds: summing each K/K' neighbours of a K-sketch is the K'-sketch.
- Unbiased: E⟨sketch u, sketch v⟩ = ⟨u, v⟩ over seeds, with a variance of about
  (‖u‖²‖v‖² + ⟨u, v⟩²)/K.

It knows nothing of models.
"""

import hashlib
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from explorer.errors import NonFiniteError
from explorer.gradients.threads import thread_count, threads

_SHORTEST = 1 << 20
"""Gradients are padded at least to this, so that every K up to it folds from the same shuffle."""
_LARGEST_SHUFFLE = 1 << 24
"""Divisors are drawn up to this size, which bounds the memory of one stored permutation."""
_ALONE = 1 << 17
"""Tensors of so few numbers on average are added up sooner by one thread than by several."""
_TOGETHER = 1 << 26
"""A GPU adds up tensors of so many numbers in all by one step: the beginning of a step costs it as much as a small one
does."""
_BLOCK = 1 << 20
"""So many places are moved at a time while the table is made."""
_IN_MEMORY = 1 << 25
"""Tables of more parameters are mapped from an unnamed temporary file, so that the system may drop their pages."""


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
        if self.length > 1 << 30:
            raise ValueError(f"K can be {1 << 30} at most, not {self.length}")
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
        """Make the table of Algorithm 1: one int32 per parameter."""
        self.settings = settings
        self.device = torch.device(device)
        sizes = [math.prod(shape) for _, shape in layout]
        table = _placed(torch.from_numpy(bucket_table(sum(sizes), settings)), self.device)
        self._tables = dict(zip([name for name, _ in layout], table.split(sizes), strict=True))

    def __call__(self, gradient: Mapping[str, torch.Tensor]) -> NDArray[np.float32]:
        """The RapidGrad (K) of a gradient."""
        sketch = self.begin()
        sketch.add(gradient)
        return sketch.values()

    def begin(self) -> "Sketch":
        """A sketch of zero, to which a gradient's tensors are added, all of them or one at a time."""
        return Sketch(self.settings.length, self._tables, self.device)


def _placed(table: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The table on the device; where it would take too much there it stays, and its parts are sent with every gradient.

    They take longer to arrive than a GPU needs for the gradient.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return table.to(device) if table.nbytes <= free // 2 else table
    return table.to(device) if table.numel() <= _IN_MEMORY else table


@dataclass(frozen=True)
class _Piece:
    """A run of a gradient's numbers (n), where they are added, and what they are multiplied by."""

    table: torch.Tensor
    values: torch.Tensor
    factor: float


def _size(pieces: Sequence[_Piece]) -> int:
    return sum(len(piece.values) for piece in pieces)


def _shared_out(pieces: Sequence[_Piece], count: int) -> list[list[_Piece]]:
    """The pieces in order, cut so that every share has as many numbers."""
    shares: list[list[_Piece]] = [[] for _ in range(count)]
    size, filled = -(-_size(pieces) // count), 0
    for piece in pieces:
        start = 0
        while start < len(piece.values):
            stop = start + size - filled % size
            cut = _Piece(piece.table[start:stop], piece.values[start:stop], piece.factor)
            shares[filled // size].append(cut)
            filled, start = filled + len(cut.values), stop
    return shares


def _scatter(signed: torch.Tensor, pieces: Sequence[_Piece]) -> None:
    for piece in pieces:
        signed.index_add_(0, piece.table, piece.values.float(), alpha=piece.factor)


def _scatter_together(signed: torch.Tensor, pieces: Sequence[_Piece]) -> None:
    """The same in as few steps for many pieces as for one."""
    tables = torch.cat([piece.table.to(signed.device, non_blocking=True) for piece in pieces])
    values = torch.cat([piece.values for piece in pieces]).float()
    parts = values.split([len(piece.values) for piece in pieces])
    torch._foreach_mul_(list(parts), [piece.factor for piece in pieces])
    signed.index_add_(0, tables, values)


def _bundled(pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
    """The pieces in order, as many at a time as have `_TOGETHER` numbers; a larger one by itself."""
    some: list[_Piece] = []
    size = 0
    for piece in pieces:
        size += len(piece.values)
        if some and size > _TOGETHER:
            yield some
            some, size = [], len(piece.values)
        some.append(piece)
    if some:
        yield some


class Sketch:
    """A RapidGrad in the making. By linearity the tensors may come one by one, and none need be kept."""

    def __init__(self, length: int, tables: Mapping[str, torch.Tensor], device: torch.device):
        """Use `Sketcher.begin` instead."""
        self._length, self._tables = length, tables
        # Positive entries are summed in the first half, negative ones in the second. Threads have sums of their own.
        self._signed = torch.zeros(1 if device.type != "cpu" else thread_count(), 2 * length, device=device)

    def add(self, parts: Mapping[str, torch.Tensor], factors: Mapping[str, float] | None = None) -> None:
        """Add the gradients of some named tensors, each times its factor."""
        pieces = [
            _Piece(self._tables[name], part.detach().reshape(-1), factors[name] if factors else 1.0)
            for name, part in parts.items()
        ]
        if self._signed.device.type != "cpu":
            for some in _bundled(pieces):
                _scatter_together(self._signed[0], some)
            return
        # torch uses one thread for a scatter-add.
        shares = _shared_out(pieces, len(self._signed)) if _size(pieces) > _ALONE * len(pieces) else [pieces]
        others = [threads().submit(_scatter, *work) for work in zip(self._signed[1:], shares[1:], strict=False)]
        _scatter(self._signed[0], shares[0])
        for other in others:
            other.result()

    def clear(self) -> None:
        """Begin anew."""
        self._signed.zero_()

    def values(self) -> NDArray[np.float32]:
        """The RapidGrad (K) of what was added so far. Raises NonFiniteError where it isn't finite."""
        signed = self._signed.sum(0)
        found: NDArray[np.float32] = (signed[: self._length] - signed[self._length :]).cpu().numpy()
        if not np.isfinite(found).all():
            raise NonFiniteError("a gradient")
        return found


def bucket_table(parameters: int, settings: SketchSettings) -> NDArray[np.int32]:
    """Where every parameter is added (D): its bucket, plus K where its sign is negative."""
    padded = padded_length(parameters, settings.length)
    width = padded // settings.length
    shuffles = list(draw_shuffles(padded, settings))
    table = _room(parameters)

    def fill(start: int) -> None:
        stop = min(start + _BLOCK, parameters)
        places = shuffled_places(np.arange(start, stop), padded, shuffles)
        buckets = places // width + np.where(rademacher(places, settings.seed) < 0, settings.length, 0)
        table[start:stop] = buckets

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        list(threads.map(fill, range(0, parameters, _BLOCK)))
    return table


def _room(parameters: int) -> NDArray[np.int32]:
    """An empty table, in memory or mapped from a file that is gone when the process is."""
    if parameters <= _IN_MEMORY:
        return np.empty(parameters, dtype=np.int32)
    with tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, 4 * parameters)
        return np.memmap(file, dtype=np.int32, shape=(parameters,))


def padded_length(parameters: int, length: int) -> int:
    """P: the next power of two that holds the parameters, at least K and 2²⁰."""
    return max(length, _SHORTEST, 1 << (parameters - 1).bit_length())


@dataclass(frozen=True)
class Shuffle:
    """One shuffle of Algorithm 1: of P places seen as a matrix, by whole rows or by whole columns."""

    by_rows: bool
    to: NDArray[Any]
    """Where each row (or column) goes; a power of two many."""


def draw_shuffles(padded: int, settings: SketchSettings) -> Iterator[Shuffle]:
    """The 2λ shuffles, each of a random number of rows or columns that divides P."""
    choices = [1 << exponent for exponent in range(min(padded, _LARGEST_SHUFFLE).bit_length())]
    for round_ in range(settings.rounds):
        for name in ("rows", "columns"):
            count = int(generator(settings.seed, name, round_).choice(choices))
            to = generator(settings.seed, f"{name} shuffle", round_).permutation(count)
            yield Shuffle(name == "rows", to.astype(np.int32))


def shuffled_places(places: NDArray[np.int64], padded: int, shuffles: Sequence[Shuffle]) -> NDArray[np.int64]:
    """Where the shuffles, one after the other, move the given places of P."""
    for shuffle in shuffles:
        # All numbers are powers of two: row and column are the high and the low bits of a place.
        columns = padded // len(shuffle.to) if shuffle.by_rows else len(shuffle.to)
        shift = columns.bit_length() - 1
        row, column = places >> shift, places & (columns - 1)
        row, column = (shuffle.to[row], column) if shuffle.by_rows else (row, shuffle.to[column])
        places = (row.astype(np.int64) << shift) | column
    return places


def generator(seed: int, *name: str | int) -> np.random.Generator:
    """Randomness as a pure function of a seed and a name."""
    digest = hashlib.sha256(repr((seed, *name)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def rademacher(positions: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """ρ at the given places, ±1 with equal probability: one bit of SplitMix64(place + key)."""
    key = np.uint64(generator(seed, "signs").integers(1 << 63))
    with np.errstate(over="ignore"):
        z = positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return 1.0 - 2.0 * (z & np.uint64(1)).astype(np.float32)
