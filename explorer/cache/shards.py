"""Arrays as a shard keeps them: quantised, packed as safetensors, memory-mapped. Numpy only."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.cache.manifest import CacheSettings, Shard
from explorer.errors import DamageError

Arrays = dict[str, NDArray[Any]]


def fold(sketch: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """The sketch(es) (..., K) at a coarser length K', which divides K."""
    if sketch.shape[-1] % length:
        raise ValueError(f"a sketch of length {sketch.shape[-1]} can't be folded to {length}")
    return sketch.reshape(*sketch.shape[:-1], length, -1).sum(axis=-1)


def quantise(sketches: NDArray[np.float32], dtype: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Sketches (rows, K) as they are stored, and the scale (rows) that gives them back.

    Each row fills its format's range, whatever its size: int8's whole range,
    and for float16 the largest entry lies between a half and one. That scale is
    a power of two and costs no digit.
    """
    largest = np.abs(sketches).max(axis=1).astype(np.float64)
    if dtype == "float16":
        scale = np.exp2(np.ceil(np.log2(np.where(largest > 0, np.maximum(largest, 2.0**-126), 1.0)))).astype(np.float32)
        return (sketches / scale[:, None]).astype(np.float16), scale
    scale = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    return np.rint(sketches / scale[:, None]).astype(np.int8), scale


ALIGNED = 64
"""Where a file's largest array begins is divisible by it, as vector instructions like it."""


def pack_arrays(arrays: Arrays) -> bytes:
    """Arrays in the safetensors format, with spaces after the header as the format allows."""
    from safetensors.numpy import save

    packed = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    data = 8 + int.from_bytes(packed[:8], "little")
    offsets = [entry["data_offsets"] for entry in json.loads(packed[8:data]).values()]
    largest, _ = max(offsets, key=lambda ends: ends[1] - ends[0], default=(0, 0))
    spaces = -(data + largest) % ALIGNED
    return b"".join([(data - 8 + spaces).to_bytes(8, "little"), packed[8:data], b" " * spaces, packed[data:]])


_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I8": np.int8, "I64": np.int64, "I32": np.int32}


RAGGED = ("rows", "offsets")
"""Arrays that have no row for every row of the shard."""


class Mapped:
    """A listed file, mapped into memory: nothing of it is handed out before its SHA-256 was found right.

    Only touched pages are resident. What is mapped stays readable when the file
    gives way to a newer one.
    """

    def __init__(self, path: Path, sha256: str, size: int | None = None):
        """Raises DamageError when the file is missing or not of its size."""
        self.path, self._sha256 = path, sha256
        try:
            self._raw = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError):
            what = "is empty" if path.is_file() else "is missing"
            raise DamageError(path, what) from None
        if size is not None and len(self._raw) != size:
            what = "is cut short" if len(self._raw) < size else "is too long"
            raise DamageError(path, f"{what} ({len(self._raw):,} bytes of {size:,})")

    @cached_property
    def content(self) -> NDArray[np.uint8]:
        """All bytes. Raises DamageError when they aren't those that were written."""
        if hashlib.sha256(self._raw.data).hexdigest() != self._sha256:
            raise DamageError(self.path, "is damaged (its SHA-256 isn't the manifest's)")
        return self._raw

    @cached_property
    def arrays(self) -> Arrays:
        """The arrays of a safetensors file."""
        return unpack_arrays(self.content, self.path)


def level_names(coarse: int = 0) -> tuple[str, str]:
    """The names of two arrays: the sketches of a coarse length, or the full ones, and their scales."""
    return (f"coarse_{coarse}", f"coarse_{coarse}_scale") if coarse else ("sketch", "scale")


def unpack_arrays(raw: NDArray[np.uint8], path: Path) -> Arrays:
    """The arrays in the bytes of a safetensors file, without a copy."""
    try:
        header = int.from_bytes(raw[:8].tobytes(), "little")
        table = json.loads(raw[8 : 8 + header].tobytes())
        arrays: Arrays = {}
        for name, entry in table.items():
            if name == "__metadata__":
                continue
            start, stop = (8 + header + offset for offset in entry["data_offsets"])
            arrays[name] = raw[start:stop].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
        if "coarse" in arrays:
            # Schema 3 knew one coarse level.
            names = level_names(arrays["coarse"].shape[1])
            arrays |= zip(names, (arrays.pop("coarse"), arrays.pop("coarse_scale")), strict=True)
        return arrays
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise DamageError(path, f"is no safetensors file ({problem})") from None


def misshapen(arrays: Arrays, shard: Shard) -> str:
    """What of a shard's arrays isn't as it is listed; empty when all is well.

    Every array has a row for each that the shard counts; but where examples have
    several rows each, `rows` names the examples and `offsets` where theirs begin.
    """
    examples, count = len(shard.example_ids), shard.count
    offsets = arrays.get("offsets")
    if offsets is not None:
        if len(offsets) != examples + 1 or offsets[0] != 0 or offsets[-1] != count or (np.diff(offsets) < 0).any():
            return "its offsets don't ascend from 0 to its number of rows"
        if not np.array_equal(arrays.get("rows", ()), shard.example_ids):
            return "its rows aren't the examples that are listed"
    elif examples != count:
        return f"it is about {examples} examples and has {count} rows"
    wrong = [name for name, array in arrays.items() if name not in RAGGED and len(array) != count]
    return f"its {wrong[0]} hasn't {count} rows" if wrong else ""


def unlike_settings(arrays: Arrays, kind: str, settings: CacheSettings, layers: int) -> str:
    """What of a shard isn't of the types and lengths that the settings ask for; empty when all is."""
    single: tuple[str, tuple[int, ...]] = ("float32", ())
    whole: tuple[str, tuple[int, ...]] = ("int64", ())
    expected = {
        "sketches": {
            "sketch": (settings.dtype, (settings.length,)),
            "scale": single,
            "norms": ("float32", (layers,)),
            "loss": single,
        },
        "tokens": {
            "sketch": (settings.dtype, (settings.token_length,)),
            "scale": single,
            "rows": whole,
            "offsets": whole,
        },
    }
    for length in settings.coarse_lengths:
        expected["sketches"] |= zip(level_names(length), (("int8", (length,)), single), strict=True)
    for name, (dtype, shape) in expected.get(kind, {}).items():
        if name not in arrays:
            return f"it has no {name}"
        if arrays[name].dtype != dtype or arrays[name].shape[1:] != shape:
            return f"its {name} is {arrays[name].dtype} {arrays[name].shape}"
    return ""


def selected(arrays: Arrays, keep: NDArray[np.bool_]) -> Arrays:
    """A shard's arrays with those examples alone for which `keep` (examples) is true."""
    if "offsets" not in arrays:
        return {name: array[keep] for name, array in arrays.items()}
    lengths = np.diff(arrays["offsets"])
    rows = np.repeat(keep, lengths)
    kept = {name: array[rows] for name, array in arrays.items() if name not in RAGGED}
    offsets = np.concatenate([[0], np.cumsum(lengths[keep])]).astype(np.int64)
    return {**kept, "rows": arrays["rows"][keep], "offsets": offsets}
