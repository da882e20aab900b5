"""Inner products of many mapped sketches with one or many questions, near the speed of memory.

Rows are read once, however many questions are asked. int8 rows meet questions
that are quantised as they are: sums of integer products are exact, whatever
their order. float16 rows become float32 a tile at a time, in a buffer small enough to
stay in the processor's cache. Both are too slow for one question, which torch multiplies
as it is: sums in float32, results rounded to float16's 11 bits, or bfloat16's 8 where rows are int8.
Single rows are multiplied exactly, or in float32, one by one.

It knows nothing of models or scores.
"""

import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from explorer.loops import (
    half_products,
    integer_products,
    single_integer_products,
    single_products,
    tiled_products,
    weight_products,
)
from explorer.store import quantise
from explorer.threads import thread_count, threads

Rows = tuple[NDArray[Any], NDArray[np.float32]]
"""Sketches (n, K) as they are stored, and the scale (n) of each."""

_JOBS = 4
"""With one question, a thread's share of the rows comes in so many pieces, in case that another one is slower."""
_JOB_ROWS = 128
"""With many questions, it takes so many rows."""
_TILE = 1 << 17
"""Numbers in a tile: half a megabyte of float32, which a core keeps to itself."""
_FEW = 32
"""With one question, so many single rows of int8 are put together: a megabyte at most lengths."""
_VECTOR = 16
"""Bytes; rows of other lengths or at other places are none for torch's product of int8 weights."""
_EXACT = 1 << 17
"""So many products of two int8 fit into an int32 sum."""


def products(rows: Sequence[Rows], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """⟨query, row⟩ for all queries (Q, K) and all rows (N in all, K): (Q, N).

    For one query, to a relative 2⁻¹¹ of float16 rows and 2⁻⁹ of int8 rows.
    """
    kernel = _quickest(rows, queries)
    total = sum(len(sketches) for sketches, _ in rows)
    in_tiles = len(queries) > 1 and isinstance(kernel, _FloatProducts)
    jobs = _jobs(rows, _JOB_ROWS if in_tiles else -(-total // (_JOBS * thread_count())))
    found = np.concatenate(list(threads().map(kernel.all, jobs)))
    return np.ascontiguousarray((found * np.concatenate([scale for _, scale in rows])[:, None]).T)


def selected_products(
    rows: Sequence[Rows], queries: NDArray[np.float32], wanted: Sequence[NDArray[np.int64]]
) -> list[NDArray[np.float32]]:
    """⟨query, row⟩ of every query (Q, K) with the rows it wants, in the order it names them.

    A row is read once, whoever wants it.
    """
    kernel = _kernel(rows, queries)
    starts = np.cumsum([0, *(len(sketches) for sketches, _ in rows)])
    needed = np.zeros(starts[-1], dtype=np.bool_)
    for some in wanted:
        needed[some] = True
    numbers, place = np.flatnonzero(needed), np.cumsum(needed) - 1
    asked = np.zeros((len(numbers), len(queries)), dtype=np.bool_)
    for query, some in enumerate(wanted):
        asked[place[some], query] = True
    number = np.searchsorted(starts, numbers, side="right") - 1
    inside = numbers - starts[number]

    def work(part: slice) -> NDArray[np.float32]:
        own, first = np.unique(number[part], return_index=True)
        blocks = [torch.from_numpy(rows[block][0]) for block in own.tolist()]
        return kernel.single(blocks, np.split(inside[part], first[1:]), asked[part])

    size = max(-(-len(numbers) // (_JOBS * thread_count())), 1)
    size = size if len(queries) == 1 else min(size, _JOB_ROWS)
    parts = [slice(start, start + size) for start in range(0, len(numbers), size)]
    found = np.zeros(asked.shape, dtype=np.float32)
    found[asked] = np.concatenate([np.empty(0, dtype=np.float32), *threads().map(work, parts)])
    found *= np.concatenate([scale for _, scale in rows])[numbers, None]
    return [found[place[some], query] for query, some in enumerate(wanted)]


def _accept_read_only_arrays() -> None:
    """Let torch give its only warning of arrays that it could write to but mustn't; nothing here writes to them."""
    array = np.zeros(1)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.from_numpy(array)


_accept_read_only_arrays()


class _Whole(Protocol):
    """How one thread multiplies stored rows, without their scales, and the queries."""

    def all(self, job: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Some blocks of rows (n in all, K) with every query: (n, Q)."""


class _Kernel(_Whole, Protocol):
    """The same, and single rows, each to the same value whoever else asks for it and for what beside it."""

    def single(
        self, blocks: Sequence[torch.Tensor], rows: Sequence[NDArray[np.int64]], asked: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Some rows of every block (n in all) with the queries (n, Q) that ask for each: the values, row by row."""


class _FloatProducts:
    """Products in float32."""

    def __init__(self, queries: NDArray[np.float32]):
        self._queries = torch.from_numpy(np.ascontiguousarray(queries))
        self._each = list(self._queries)

    def all(self, job: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        height, length = sum(len(rows) for rows in job), self._queries.shape[1]
        room = _room(height, min(max(_TILE // height, 1), length), torch.float32)
        return np.asarray(tiled_products(list(job), self._queries.T, room).numpy())

    def single(
        self, blocks: Sequence[torch.Tensor], rows: Sequence[NDArray[np.int64]], asked: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        asking = np.split(np.nonzero(asked)[1], np.cumsum(asked.sum(axis=1))[:-1])
        room = _room(1, self._queries.shape[1], torch.float32)[0]
        numbers = [some.tolist() for some in rows], [some.tolist() for some in asking]
        return np.asarray(single_products(list(blocks), numbers[0], self._each, numbers[1], room).numpy())


class _HalfProducts:
    """For one query and float16 rows: torch's own product, as fast as memory."""

    def __init__(self, query: NDArray[np.float32]):
        # Stored entries are at most one, so no product with a query of this norm leaves float16's range.
        self._factor = np.float32(np.linalg.norm(query) * np.sqrt(len(query)) / 2**15 or 1.0)
        self._half = torch.from_numpy((query / self._factor).astype(np.float16))
        self._as_columns = _as_columns_is_faster()

    def all(self, job: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        found = half_products(list(job), self._half, self._as_columns).float()
        return np.asarray(found[:, None].numpy() * self._factor)


class _IntegerProducts:
    """Products of int8 rows with queries that are quantised as rows are."""

    def __init__(self, queries: NDArray[np.float32]):
        stored, self._scale = quantise(queries, "int8")
        self._columns = torch.from_numpy(stored).T.contiguous()

    def all(self, job: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        return np.asarray(integer_products(list(job), self._columns, _EXACT).numpy() * self._scale)

    def single(
        self, blocks: Sequence[torch.Tensor], rows: Sequence[NDArray[np.int64]], asked: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        together = _FEW if self._columns.shape[1] == 1 else _JOB_ROWS
        room = _room(min(together, len(asked)), len(self._columns), torch.int8)
        places = [torch.from_numpy(some) for some in rows]
        found = single_integer_products(list(blocks), places, self._columns, _EXACT, room).numpy() * self._scale
        return np.asarray(found[asked])


class _WeightProducts:
    """For one query and int8 rows: torch's own product for a network's int8 weights, nearly as fast as memory."""

    def __init__(self, query: NDArray[np.float32], otherwise: _Whole):
        self._query, self._otherwise = torch.from_numpy(query[None]), otherwise

    def all(self, job: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        if any(rows.data_ptr() % _VECTOR for rows in job):
            return self._otherwise.all(job)
        # Rounded here, by one thread: in the main thread torch would wake its others, which takes longer than a job.
        return np.asarray(weight_products(list(job), self._query.bfloat16()).float()[:, None].numpy())


_own = threading.local()


def _room(height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """The same memory every time, another for every thread and format: new pages cost more than their use."""
    name = str(dtype)
    memory: torch.Tensor | None = getattr(_own, name, None)
    if memory is None or memory.numel() < height * width:
        memory = torch.empty(height * width, dtype=dtype)
        setattr(_own, name, memory)
    return memory[: height * width].view(height, width)


@cache
def _integers_are_exact() -> bool:
    """Whether this processor adds up int8 products without loss; some older ones saturate at 16 bits."""
    ends = torch.full((32, 256), -127, dtype=torch.int8)
    return bool((torch._int_mm(ends, ends.T.contiguous()) == 127 * 127 * 256).all())


@cache
def _as_columns_is_faster() -> bool:
    """Which of two ways to ask torch for float16 rows times one query; it depends on the processor."""
    rows = torch.ones(128, 4096, dtype=torch.float16)
    ways = [partial(half_products, [rows], rows[0] / 4096, as_columns) for as_columns in (False, True)]
    return _seconds(ways[1]) < _seconds(ways[0])


def _seconds(work: Callable[[], object]) -> float:
    """The least time of some runs, in a thread as those that scan."""

    def run(_: int) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return min(threads().map(run, range(8)))


def _kernel(rows: Sequence[Rows], queries: NDArray[np.float32]) -> _Kernel:
    # Of matrices with one column, torch 2.13 mistakes the layout.
    if rows[0][0].dtype == np.int8 and queries.shape[1] > 1 and _integers_are_exact():
        return _IntegerProducts(queries)
    return _FloatProducts(queries)


def _quickest(rows: Sequence[Rows], queries: NDArray[np.float32]) -> _Whole:
    if len(queries) == 1 and rows[0][0].dtype == np.float16:
        return _HalfProducts(queries[0])
    kernel = _kernel(rows, queries)
    # No timing decides here: the rounding differs, and all processes on such machines shall find the same scores.
    vectors = torch.backends.cpu.get_cpu_capability() == "AVX512" and queries.shape[1] % _VECTOR == 0
    if len(queries) == 1 and isinstance(kernel, _IntegerProducts) and vectors:
        return _WeightProducts(queries[0], kernel)
    return kernel


def _jobs(rows: Sequence[Rows], size: int) -> Iterator[list[torch.Tensor]]:
    """Blocks of rows, cut and put together so that each job has `size` rows, the last one fewer."""
    job: list[torch.Tensor] = []
    room = size
    for sketches, _ in rows:
        block = torch.from_numpy(sketches)
        while len(block):
            some, block = block[:room], block[room:]
            job.append(some)
            room -= len(some)
            if not room:
                yield job
                job, room = [], size
    if job:
        yield job
