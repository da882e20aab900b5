"""Plain JSON values that anybody may have written → values of the types that records declare, or what is wrong.

Nothing is converted but lists to tuples and arrays: a text where a number belongs is an error, as is a number that no
array could hold. Keys that aren't declared are passed over, so that later versions may write more.
"""

import dataclasses
import math
import types
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from explorer.visible import one_line

_LARGEST = 2**63 - 1
"""No whole number is larger, in arrays and in databases."""


def checked(kind: Any, value: Any, where: str = "") -> Any:
    """The value as one of a declared type.

    Args:
        kind: A dataclass, `str`, `int`, `float`, `bool`, `Any`, a literal, a union, a tuple, a mapping or an array.
        value: As `json` reads it. For a float null stands for a number that isn't finite.
        where: The value's place, such as `answers[0].prompt`.

    Raises:
        ValueError: It is of another type; the message begins with its place.
    """
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _one_of(get_args(kind), value, where)
    if origin is Literal:
        if value in get_args(kind) and isinstance(value, str):
            return value
        raise _unlike(where, value, "one of " + ", ".join(map(str, get_args(kind))))
    if origin is np.ndarray:
        return array(value, get_args(get_args(kind)[1])[0], where)
    if origin is tuple:
        return _tuple(get_args(kind), value, where)
    if origin is dict:
        _, held = get_args(kind)
        named = _of(dict, "an object", value, where)
        return {key: checked(held, each, f"{where}.{one_line(key, 40)}") for key, each in named.items()}
    return _PLAIN[kind](value, where)


def array(value: Any, dtype: Any, where: str) -> NDArray[Any]:
    """A list of numbers as an array (n); null becomes NaN where the type has one."""
    numbers = _of(list, "a list of numbers", value, where)
    if np.issubdtype(dtype, np.integer):
        return np.asarray([_whole(each, where) for each in numbers], dtype=dtype)
    with np.errstate(over="ignore"):
        found = np.asarray([_number(each, where) for each in numbers], dtype=np.float64).astype(dtype)
    if np.isinf(found).any():
        raise ValueError(f"{where} has a number that is too large")
    return found


def _record(kind: Any, value: Any, where: str) -> Any:
    given = _of(dict, "an object", value, where)
    found = {}
    for name, (declared, needed) in _fields(kind).items():
        if name in given:
            found[name] = checked(declared, given[name], f"{where}.{name}" if where else name)
        elif needed:
            raise ValueError(f"{where or 'it'} has no {name}")
    return kind(**found)


@lru_cache(maxsize=64)
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Every field of a dataclass: its type, and whether it has to be there."""
    hints, missing = get_type_hints(kind), dataclasses.MISSING
    return {
        field.name: (hints[field.name], field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(kind)
    }


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    problems = []
    for kind in kinds:
        if kind is not type(None):
            try:
                return checked(kind, value, where)
            except ValueError as problem:
                problems.append(problem)
    raise problems[0]


def _tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    each = _of(list, "a list", value, where)
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = (kinds[0],) * len(each)
    if len(each) != len(kinds):
        raise ValueError(f"{where} has {len(each)} values; expected {len(kinds)}")
    return tuple(checked(kind, one, f"{where}[{at}]") for at, (kind, one) in enumerate(zip(kinds, each, strict=True)))


def _of(kind: type, name: str, value: Any, where: str) -> Any:
    if not isinstance(value, kind):
        raise _unlike(where, value, name)
    return value


def _text(value: Any, where: str) -> str:
    return str(_of(str, "a text", value, where))


def _flag(value: Any, where: str) -> bool:
    return bool(_of(bool, "true or false", value, where))


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _unlike(where, value, "a whole number")
    if abs(value) > _LARGEST:
        raise ValueError(f"{where} is too large a number")
    return value


def _number(value: Any, where: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unlike(where, value, "a number")
    if isinstance(value, int):
        return float(_whole(value, where))
    if not math.isfinite(value):
        raise ValueError(f"{where} is no finite number")
    return value


def _unlike(where: str, value: Any, expected: str) -> ValueError:
    found = "null" if value is None else f"a JSON {type(value).__name__}"
    return ValueError(f"{where or 'it'} is {found}; expected {expected}")


_PLAIN: dict[Any, Callable[[Any, str], Any]] = {str: _text, bool: _flag, int: _whole, float: _number}
