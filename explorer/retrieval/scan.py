"""Inner products of many mapped sketches with one or many questions, near the speed of memory.

Rows are read once, however many questions are asked. One question meets them in float32, as they lie in memory
(`dots.py`). Many questions are bound by arithmetic: int8 rows meet questions that are quantised as they are, and sums
of integer products are exact, whatever their order; float16 rows become float32 or bfloat16 a tile at a time, in a
buffer small enough to stay in the processor's cache. Single rows are multiplied in float32, one by one.

It knows nothing of models or scores.
"""

import threading
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from explorer.cache.shards import quantise
from explorer.gradients.threads import thread_count, threads
from explorer.retrieval.dots import pair_dots
from explorer.retrieval.loops import integer_products, tiled_products

Rows = tuple[NDArray[Any], NDArray[np.float32]]
"""Sketches (n, K) as they are stored, and the scale (n) of each."""

_JOBS = 4
"""A thread's share of the rows comes in so many pieces, in case that another one is slower."""
_JOB_ROWS = 128
"""With many questions and float16 rows, it takes so many rows at a time."""
_TILE = 1 << 18
"""Numbers in a tile: a megabyte of float32, which a core keeps to itself."""
_EXACT = 1 << 17
"""So many products of two int8 fit into an int32 sum."""


def products(rows: Sequence[Rows], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """⟨query, row⟩ for all queries (Q, K) and all rows (N in all, K): (Q, N).

    In float32 for one query. Many are rounded, to bfloat16 where the processor has units for it and rows are float16,
    and as rows are where these are int8; what that adds is about a hundredth of a sketch's own noise.
    """
    scale = np.concatenate([scale for _, scale in rows])
    if len(queries) == 1:
        every = np.zeros(len(scale), dtype=np.int64)
        return (_pair_products(rows, queries, slice(None), every) * scale)[None]
    kernel = _kernel(rows, queries)
    in_tiles = isinstance(kernel, _FloatProducts)
    jobs = _jobs(rows, _JOB_ROWS if in_tiles else _piece(len(scale)))
    found = np.concatenate(list(threads().map(kernel.all, jobs)))
    return np.ascontiguousarray((found * scale[:, None]).T)


def selected_products(
    rows: Sequence[Rows], queries: NDArray[np.float32], wanted: Sequence[NDArray[np.int64]]
) -> list[NDArray[np.float32]]:
    """⟨query, row⟩ of every query (Q, K) with the rows it wants, in the order it names them.

    In float32, and to the same bits whoever else asks for a row. A row is read once, whoever wants it.
    """
    numbers = np.concatenate([np.asarray(some, dtype=np.int64) for some in wanted])
    asking = np.repeat(np.arange(len(wanted)), [len(some) for some in wanted])
    order = np.argsort(numbers, kind="stable")
    values = np.empty(len(order), dtype=np.float32)
    values[order] = _pair_products(rows, queries, numbers[order], asking[order])
    values *= np.concatenate([scale for _, scale in rows])[numbers]
    return np.split(values, np.cumsum([len(some) for some in wanted])[:-1])


def _pair_products(
    rows: Sequence[Rows],
    queries: NDArray[np.float32],
    numbers: NDArray[np.int64] | slice,
    asking: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Products of stored rows, without their scales, each with one of the queries (Q, K): their numbers (n) → (n)."""
    addresses, queries = _addresses(rows, queries.shape[1])[numbers], np.ascontiguousarray(queries)
    found, multiply = np.empty(len(asking), dtype=np.float32), pair_dots(rows[0][0].dtype.name)

    def work(part: slice) -> None:
        multiply(addresses[part], queries, asking[part], found[part])

    list(threads().map(work, _parts(len(found))))
    return found


def _addresses(rows: Sequence[Rows], length: int) -> NDArray[np.int64]:
    """Where every row lies in memory (N). They lie there as long as the rows are held.

    Raises ValueError for rows of another length, or with gaps: what lies beyond them would be read.
    """
    if any(sketches.shape[1] != length or not sketches.flags.c_contiguous for sketches, _ in rows):
        raise ValueError(f"rows and queries must be of one length, {length}, and rows without gaps")
    counts = [len(sketches) for sketches, _ in rows]
    starts = [sketches.__array_interface__["data"][0] for sketches, _ in rows]
    inside = np.arange(sum(counts), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(np.array(starts, dtype=np.int64), counts) + inside * length * rows[0][0].itemsize


def _piece(count: int) -> int:
    """How many of so many make a piece of a thread's share."""
    return max(-(-count // (_JOBS * thread_count())), 1)


def _parts(count: int) -> list[slice]:
    """So many, cut into the pieces of all threads."""
    return [slice(start, start + _piece(count)) for start in range(0, count, _piece(count))]


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


class _Kernel(Protocol):
    """How one thread multiplies stored rows, without their scales, and many queries."""

    def all(self, job: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Some blocks of rows (n in all, K) with every query: (n, Q)."""


class _FloatProducts:
    """Products in float32, or of numbers rounded to bfloat16 on processors that multiply those faster."""

    def __init__(self, queries: NDArray[np.float32], rounded: bool):
        columns = torch.from_numpy(np.ascontiguousarray(queries)).T
        self._columns = columns.bfloat16() if rounded else columns

    def all(self, job: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        height, length = sum(len(rows) for rows in job), len(self._columns)
        width = min(max(_TILE // height, 1), length)
        rooms = _room(height, width, torch.float32), _room(height, width, torch.bfloat16)
        return np.asarray(tiled_products(list(job), self._columns, *rooms).numpy())


class _IntegerProducts:
    """Products of int8 rows with queries that are quantised as rows are."""

    def __init__(self, queries: NDArray[np.float32]):
        stored, self._scale = quantise(queries, "int8")
        self._columns = torch.from_numpy(stored).T.contiguous()

    def all(self, job: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        return np.asarray(integer_products(list(job), self._columns, _EXACT).numpy() * self._scale)


_own = threading.local()


def _room(height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """The same memory every time, another for every thread and format: new pages cost more than their use."""
    memory: torch.Tensor | None = getattr(_own, str(dtype), None)
    if memory is None or memory.numel() < height * width:
        memory = torch.empty(height * width, dtype=dtype)
        setattr(_own, str(dtype), memory)
    return memory[: height * width].view(height, width)


@cache
def _has_bfloat16_units() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32. Not timed: all such machines find the same."""
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


@cache
def _integers_are_exact() -> bool:
    """Whether this processor adds up int8 products without loss; some older ones saturate at 16 bits."""
    ends = torch.full((32, 256), -127, dtype=torch.int8)
    return bool((torch._int_mm(ends, ends.T.contiguous()) == 127 * 127 * 256).all())


def _kernel(rows: Sequence[Rows], queries: NDArray[np.float32]) -> _Kernel:
    # Of matrices with one column, torch 2.13 mistakes the layout.
    if rows[0][0].dtype == np.int8 and queries.shape[1] > 1 and _integers_are_exact():
        return _IntegerProducts(queries)
    return _FloatProducts(queries, rounded=rows[0][0].dtype == np.float16 and _has_bfloat16_units())


def _accept_read_only_arrays() -> None:
    """Let torch give its only warning of arrays that it could write to but mustn't; nothing here writes to them."""
    array = np.zeros(1)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.from_numpy(array)


_accept_read_only_arrays()
