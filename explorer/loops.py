"""The inner loops of a scan, each run without Python's lock from its beginning to its end.

Threads that multiply small tiles would otherwise hand that lock to each other
after every call, which takes longer than the products themselves. TorchScript
runs a loop outside Python, in the torch there is: nothing is compiled by the
machine's own tools. It knows nothing of scales, questions or shards.
"""

import warnings
from collections.abc import Callable
from typing import Any, List  # noqa: UP035  (TorchScript reads annotations, and knows this one)

import torch
from torch import Tensor


def _outside_python(loop: Callable[..., Tensor]) -> Any:
    with warnings.catch_warnings():
        # Torch means to leave TorchScript behind some day; these are plain functions, and would do as they are.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(loop)


@_outside_python
def half_products(blocks: List[Tensor], query: Tensor, as_columns: bool) -> Tensor:  # noqa: UP006
    """Products of blocks (n in all, K) with one query (K), all in float16, in one of torch's two ways: (n)."""
    found: List[Tensor] = []  # noqa: UP006
    for rows in blocks:
        found.append(torch.mm(query[None], rows.t())[0] if as_columns else torch.mv(rows, query))
    return torch.cat(found)


@_outside_python
def single_products(
    blocks: List[Tensor],  # noqa: UP006
    rows: List[List[int]],  # noqa: UP006
    queries: List[Tensor],  # noqa: UP006
    asked: List[List[int]],  # noqa: UP006
    room: Tensor,
) -> Tensor:
    """Products of some rows of blocks (n, K) in float32 with the queries (K) that ask for each, row by row.

    `rows` are those of every block, `asked` the queries' numbers for every row of all blocks; `room` is (K).
    """
    found: List[float] = []  # noqa: UP006
    place = 0
    for block, some in zip(blocks, rows):  # noqa: B905
        for row in some:
            room.copy_(block[row])
            for number in asked[place]:
                # One by one: a product of several rows may round each by how many there are, and where it stands.
                found.append(float(torch.dot(room, queries[number])))
            place += 1
    return torch.tensor(found)


@_outside_python
def integer_products(blocks: List[Tensor], columns: Tensor, exact: int) -> Tensor:  # noqa: UP006
    """Products of int8 blocks (n in all, K) with int8 columns (K, Q): (n, Q), exact before they become float32.

    `exact` is how many products fit into an int32 sum.
    """
    found: List[Tensor] = []  # noqa: UP006
    for rows in blocks:
        total = torch._int_mm(rows[:, :exact], columns[:exact]).double()
        for start in range(exact, rows.shape[1], exact):
            total += torch._int_mm(rows[:, start : start + exact], columns[start : start + exact])
        found.append(total.float())
    return torch.cat(found)


@_outside_python
def weight_products(blocks: List[Tensor], query: Tensor) -> Tensor:  # noqa: UP006
    """Products of int8 blocks (n in all, K) with one bfloat16 query (1, K): float32 sums, rounded to 8 bits: (n)."""
    found: List[Tensor] = []  # noqa: UP006
    for rows in blocks:
        ones = torch.ones(rows.shape[0], dtype=torch.bfloat16)
        found.append(torch._weight_int8pack_mm(query, rows, ones)[0])
    return torch.cat(found)


@_outside_python
def single_integer_products(
    blocks: List[Tensor],  # noqa: UP006
    rows: List[Tensor],  # noqa: UP006
    columns: Tensor,
    exact: int,
    room: Tensor,
) -> Tensor:
    """`integer_products` of some rows of blocks (n, K), put together in `room`, as many at a time as it has rows."""
    found: List[Tensor] = []  # noqa: UP006
    filled, last = 0, len(blocks) - 1
    for number in range(len(blocks)):
        some = rows[number]
        while some.shape[0] > 0:
            count = min(some.shape[0], room.shape[0] - filled)
            torch.index_select(blocks[number], 0, some[:count], out=room[filled : filled + count])
            filled, some = filled + count, some[count:]
            if filled == room.shape[0] or (number == last and some.shape[0] == 0):
                found.append(integer_products([room[:filled]], columns, exact))
                filled = 0
    return torch.cat(found)


@_outside_python
def tiled_products(blocks: List[Tensor], columns: Tensor, room: Tensor) -> Tensor:  # noqa: UP006
    """Products of blocks (n in all, K) with columns (K, Q) in float32, tile by tile in `room` (n, width): (n, Q)."""
    found = torch.zeros(room.shape[0], columns.shape[1])
    for start in range(0, columns.shape[0], room.shape[1]):
        part = columns[start : start + room.shape[1]]
        tile = room[:, : part.shape[0]]
        place = 0
        for rows in blocks:
            tile[place : place + rows.shape[0]].copy_(rows[:, start : start + room.shape[1]])
            place += rows.shape[0]
        found.addmm_(tile, part)
    return found
