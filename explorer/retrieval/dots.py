"""Products of stored rows with questions, in float32 and as fast as memory delivers rows: compiled by numba.

Torch multiplies float16 rows at half that speed, and rounds each product to 11 bits. Rows are named by their
addresses, so that one call does a thread's whole share, outside Python's lock, wherever its rows are mapped. What
is added up in which order depends on nothing but the length: a row has the same product wherever it lies.

It knows nothing of scales, questions or shards.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

_BITS = {"float16": np.int16, "int8": np.int8}
"""As what numba reads numbers of a kind: it has no float16 of its own."""


@intrinsic
def _number(_: Any, bits: Any) -> Any:
    """A stored number as float32: int8, or float16 of these bits."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        if bits == types.int8:
            return builder.sitofp(arguments[0], ir.FloatType())
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(bits), code


@intrinsic
def _pointer(_: Any, address: Any) -> Any:
    """An address as what it points to."""

    def code(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), code


@cache
def pair_dots(
    dtype: str,
) -> Callable[[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]], None]:
    """A function of addresses (n) of rows, questions (Q, K), which of them meets each row (n), and where to put (n)."""
    bits = _BITS[dtype]

    @njit(nogil=True, fastmath=True)
    def dots(addresses: Any, queries: Any, asking: Any, found: Any) -> None:
        length, last = queries.shape[1], len(addresses) - 1
        # Four side by side keep memory busy. Where fewer are left, the last is multiplied again: all take the same way.
        for first in range(0, len(addresses), 4):
            second, third, fourth = min(first + 1, last), min(first + 2, last), min(first + 3, last)
            a, of_a = carray(_pointer(addresses[first]), length, bits), queries[asking[first]]
            b, of_b = carray(_pointer(addresses[second]), length, bits), queries[asking[second]]
            c, of_c = carray(_pointer(addresses[third]), length, bits), queries[asking[third]]
            d, of_d = carray(_pointer(addresses[fourth]), length, bits), queries[asking[fourth]]
            sum_a = sum_b = sum_c = sum_d = np.float32(0)
            for place in range(length):
                sum_a += _number(a[place]) * of_a[place]
                sum_b += _number(b[place]) * of_b[place]
                sum_c += _number(c[place]) * of_c[place]
                sum_d += _number(d[place]) * of_d[place]
            found[first], found[second], found[third], found[fourth] = sum_a, sum_b, sum_c, sum_d

    return dots
