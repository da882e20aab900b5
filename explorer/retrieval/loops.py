"""The inner loops of a scan with many questions, each run without Python's lock from its beginning to its end.

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
def tiled_products(blocks: List[Tensor], columns: Tensor, room: Tensor, narrow: Tensor) -> Tensor:  # noqa: UP006
    """Products of float16 blocks (n in all, K) with columns (K, Q), tile by tile: (n, Q) in float32.

    Tiles become float32 in `room` (n, width), and where columns are in bfloat16, that in `narrow` (n, width).
    """
    found = torch.zeros(room.shape[0], columns.shape[1])
    for start in range(0, columns.shape[0], room.shape[1]):
        part = columns[start : start + room.shape[1]]
        tile = room[:, : part.shape[0]]
        place = 0
        for rows in blocks:
            tile[place : place + rows.shape[0]].copy_(rows[:, start : start + room.shape[1]])
            place += rows.shape[0]
        if columns.dtype == torch.bfloat16:
            found += torch.mm(narrow[:, : part.shape[0]].copy_(tile), part)
        else:
            found.addmm_(tile, part)
    return found
