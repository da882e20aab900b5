"""The cache on disk: a folder of memory-mapped shards, a table of examples, a manifest.

    manifest.json                what it was made from, how, and every file with its SHA-256
    examples.parquet             prompts, responses, token ids, the user's own columns
    sketches/00000.safetensors   sketch (rows, K), scale (rows), norms (rows, L), loss (rows)
    tokens/00000.safetensors     sketch (tokens, K'), scale (tokens), rows (r), offsets (r + 1)

Sketches are float16 or int8 with one float32 scale per row. A file is written as
`.part`, synced, renamed, and only then listed, so nothing half-written is ever
read. Numpy only: it knows nothing of models.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from explorer.errors import CacheError, MismatchError
from explorer.records import Encoded, ExampleRow, Fingerprint, Token, TrainingRecord

SCHEMA = 2
MANIFEST = "manifest.json"
EXAMPLES = "examples.parquet"
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class CacheSettings:
    """How the sketches of a cache are made."""

    length: int = 65_536
    """K, the length of an example's RapidGrad."""
    token_length: int = 4_096
    """K', the length of a token's RapidGrad, folded from K."""
    rounds: int = 20
    """λ, the shuffles of Algorithm 1."""
    seed: int = 0
    """Seed of Algorithm 1."""
    dtype: str = "float16"
    """`float16` or `int8`."""
    normalisation: str = "layer"
    """`layer`, `cosine` or `none`; see `explorer.normalisation`."""
    batch: int = 1
    """How many examples share a backward pass, which can be seen in the last digits; 0 asks for the fastest."""


@dataclass(frozen=True)
class Manifest:
    """What a cache was made from and how."""

    fingerprint: Fingerprint
    training: TrainingRecord
    settings: CacheSettings
    model: str
    """The base model's name or hub id; for a folder, its place relative to the cache."""
    adapter: str
    """The adapter's folder, relative to the cache; empty without one."""
    template: str
    """Name of the prompt template."""
    data: str
    """Name of the data file."""
    data_sha256: str
    rows: int
    """N, the number of training examples."""
    token_rows: int
    """How many of them have cached token sketches when the cache is complete."""
    versions: dict[str, str]

    def json(self) -> dict[str, Any]:
        """The manifest as plain JSON values, without the list of files."""
        return {"schema": SCHEMA, **json.loads(json.dumps(dataclasses.asdict(self)))}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Manifest":
        """The manifest out of what `json` gave."""
        layout = tuple((name, tuple(shape)) for name, shape in kept["fingerprint"]["layout"])
        fields = {f.name: kept[f.name] for f in dataclasses.fields(cls)}
        return cls(
            **fields
            | {
                "fingerprint": Fingerprint(**kept["fingerprint"] | {"layout": layout}),
                "training": TrainingRecord(
                    **kept["training"]
                    | {"checkpoints": tuple((name, weight) for name, weight in kept["training"]["checkpoints"])}
                ),
                "settings": CacheSettings(**kept["settings"]),
            }
        )


@dataclass(frozen=True)
class Shard:
    """One file of sketches, as the manifest lists it."""

    file: str
    kind: str
    """`sketches` or `tokens`."""
    count: int
    """Rows of the file: examples, or tokens."""
    size: int
    sha256: str


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


class Store:
    """A cache that is open for reading, or being made."""

    def __init__(self, folder: Path, manifest: Manifest, shards: Sequence[Shard], examples_sha256: str):
        """Use `open_cache` or `create_cache` instead."""
        self.folder = folder
        self.manifest = manifest
        self.shards = tuple(shards)
        self._examples_sha256 = examples_sha256

    # Reading

    def shards_of(self, kind: str) -> list[Shard]:
        """The shards of a kind, in order."""
        return [shard for shard in self.shards if shard.kind == kind]

    @property
    def complete(self) -> bool:
        """True when every example has its sketch."""
        return sum(shard.count for shard in self.shards_of("sketches")) == self.manifest.rows

    @cached_property
    def _maps(self) -> dict[str, Arrays]:
        return {shard.file: map_arrays(self.folder / shard.file) for shard in self.shards}

    def sketches(self) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
        """Every shard's mapped sketches (rows, K) and scales (rows), in example order."""
        for shard in self.shards_of("sketches"):
            arrays = self._maps[shard.file]
            yield arrays["sketch"], arrays["scale"]

    @cached_property
    def norms(self) -> NDArray[np.float32]:
        """‖∇^l L(s_k)‖ of every example and named tensor (N, L)."""
        return np.concatenate([self._maps[shard.file]["norms"] for shard in self.shards_of("sketches")])

    @cached_property
    def losses(self) -> NDArray[np.float32]:
        """L(s_k) of every example (N)."""
        return np.concatenate([self._maps[shard.file]["loss"] for shard in self.shards_of("sketches")])

    @cached_property
    def _token_places(self) -> dict[int, tuple[str, int, int]]:
        """Example row → file and range of its tokens."""
        places = {}
        for shard in self.shards_of("tokens"):
            arrays = self._maps[shard.file]
            for row, start, stop in zip(arrays["rows"], arrays["offsets"][:-1], arrays["offsets"][1:], strict=True):
                places[int(row)] = (shard.file, int(start), int(stop))
        return places

    def token_sketches(self, row: int) -> NDArray[np.float32] | None:
        """The token RapidGrads (G, K') of an example, or None where they aren't cached."""
        if row not in self._token_places:
            return None
        file, start, stop = self._token_places[row]
        arrays = self._maps[file]
        return arrays["sketch"][start:stop].astype(np.float32) * arrays["scale"][start:stop, None]

    @cached_property
    def examples(self) -> tuple[ExampleRow, ...]:
        """All training examples (N)."""
        losses = self.losses if self.complete else np.full(self.manifest.rows, np.nan)
        return tuple(
            _example_row(number, kept, float(losses[number]))
            for number, kept in enumerate(read_examples_table(self.folder / EXAMPLES))
        )

    def check_model(self, fingerprint: Fingerprint) -> None:
        """Raise MismatchError unless the cache was made with this model."""
        made = self.manifest.fingerprint
        for what in ("base", "adapter", "tokenizer", "template", "precision", "layout"):
            if getattr(made, what) != getattr(fingerprint, what):
                names = {"base": "base model", "layout": "set of trainable tensors"}
                raise MismatchError(
                    f"The cache {self.folder} was made with another {names.get(what, what)} "
                    f"(model {self.manifest.model}, adapter {self.manifest.adapter or 'none'}, "
                    f"template {self.manifest.template}). Load that one, or make a cache for this one with "
                    "`rapidin-explorer precompute`."
                )

    def require_complete(self) -> None:
        """Raise CacheError while examples still lack their sketch."""
        have = sum(shard.count for shard in self.shards_of("sketches"))
        if have < self.manifest.rows:
            raise CacheError(
                f"The cache {self.folder} is unfinished ({have:,} of {self.manifest.rows:,} examples); "
                "run the same `rapidin-explorer precompute` again to finish it."
            )

    def problems(self) -> list[str]:
        """Every file that isn't what the manifest says, one sentence each; empty when all is well."""
        found = []
        listed = {EXAMPLES: self._examples_sha256} | {shard.file: shard.sha256 for shard in self.shards}
        for file, sha256 in listed.items():
            path = self.folder / file
            if not path.is_file():
                found.append(f"{file} is missing.")
            elif file_sha256(path) != sha256:
                found.append(f"{file} was changed or damaged: its SHA-256 isn't the manifest's.")
        if not self.complete:
            have = sum(shard.count for shard in self.shards_of("sketches"))
            found.append(f"only {have:,} of {self.manifest.rows:,} examples have their sketch.")
        return found

    # Writing

    def add_shard(self, kind: str, arrays: Arrays, count: int) -> "Store":
        """Write one shard, list it in the manifest, and return the store that has it."""
        file = f"{kind}/{len(self.shards_of(kind)):05d}.safetensors"
        path = self.folder / file
        path.parent.mkdir(exist_ok=True)
        payload = pack_arrays(arrays)
        write_whole(path, payload)
        shard = Shard(file, kind, count, len(payload), hashlib.sha256(payload).hexdigest())
        grown = Store(self.folder, self.manifest, [*self.shards, shard], self._examples_sha256)
        grown._write_manifest()
        return grown

    def _write_manifest(self) -> None:
        kept = self.manifest.json() | {
            "examples_sha256": self._examples_sha256,
            "shards": [dataclasses.asdict(shard) for shard in self.shards],
        }
        write_whole(self.folder / MANIFEST, (json.dumps(kept, indent=1) + "\n").encode())


def open_cache(folder: str | Path) -> Store:
    """Open an existing cache. Raises CacheError when there is none or it can't be read."""
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise CacheError(f"{folder} is no cache (no {MANIFEST} in it); make one with `rapidin-explorer precompute`.")
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        schema = kept["schema"]
        if schema != SCHEMA:
            raise CacheError(f"{folder} has schema {schema}, this program reads {SCHEMA}; make the cache anew.")
        shards = [Shard(**shard) for shard in kept["shards"]]
        store = Store(folder, Manifest.from_json(kept), shards, kept["examples_sha256"])
    except (ValueError, KeyError, TypeError) as problem:
        raise CacheError(f"{path} is damaged ({problem!r}); restore it or make the cache anew.") from None
    for shard in shards:
        file = folder / shard.file
        if not file.is_file() or file.stat().st_size != shard.size:
            raise CacheError(f"{file} is missing or cut short; restore it, or make the cache anew.")
    return store


_NAMES = {"versions", "model", "adapter", "data"}
"""What may differ when a cache is taken up again: where things lie and are called; hashes tell what they are."""


def create_cache(folder: Path, manifest: Manifest, examples: Sequence[Mapping[str, Any]]) -> Store:
    """Begin a cache, or take up the one that a stopped run with the same settings left.

    Raises what `check_room` does, and CacheError when the folder can't be written.
    """
    store = check_room(folder, manifest)
    if store is not None:
        return store
    _make_folder(folder)
    payload = examples_table(examples)
    write_whole(folder / EXAMPLES, payload)
    store = Store(folder, manifest, [], hashlib.sha256(payload).hexdigest())
    store._write_manifest()
    return store


def check_room(folder: Path, manifest: Manifest) -> Store | None:
    """The unfinished cache in a folder that this manifest describes; None where one can be begun.

    Raises MismatchError when the folder holds another cache or other things,
    CacheError when it is no folder.
    """
    if (folder / MANIFEST).is_file():
        store = open_cache(folder)
        wanted, found = manifest.json(), store.manifest.json()
        differing = sorted(key for key in wanted if wanted[key] != found[key] and key not in _NAMES)
        if differing:
            raise MismatchError(
                f"{folder} already holds a cache with another {', '.join(differing)}; "
                "give another folder, or remove this one to make it anew."
            )
        return store
    if folder.exists() and not folder.is_dir():
        raise CacheError(f"The folder {folder} can't be made: there is a file of that name; give another one.")
    strangers = [path.name for path in folder.iterdir() if path.suffix != ".part"] if folder.is_dir() else []
    if set(strangers) - {EXAMPLES}:
        raise MismatchError(f"{folder} holds other files ({strangers[0]}); give an empty or new folder.")
    return None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise CacheError(f"The folder {folder} can't be made: {problem.strerror}; give another one.") from None


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder against a second writer. Raises CacheError when another one has it."""
    _make_folder(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CacheError(f"Another precompute is writing to {folder}; wait for it or stop it.") from None
        yield
    finally:
        os.close(handle)


def write_whole(path: Path, payload: bytes) -> None:
    """Write a file whole or not at all: beside its place, synced, then renamed into it."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as handle:
            handle.write(payload)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(path)
    except OSError as problem:
        part.unlink(missing_ok=True)
        raise CacheError(f"{path} can't be written: {problem.strerror}. What was written before is kept.") from None
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def pack_arrays(arrays: Arrays) -> bytes:
    """Arrays in the safetensors format."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


_DTYPES = {"F32": np.float32, "F16": np.float16, "I8": np.int8, "I64": np.int64, "I32": np.int32}


def map_arrays(path: Path) -> Arrays:
    """The arrays of a safetensors file, memory-mapped: only touched pages are read."""
    try:
        raw = np.memmap(path, dtype=np.uint8, mode="r")
        header = int.from_bytes(raw[:8].tobytes(), "little")
        table = json.loads(raw[8 : 8 + header].tobytes())
        arrays: Arrays = {}
        for name, entry in table.items():
            if name == "__metadata__":
                continue
            start, stop = (8 + header + offset for offset in entry["data_offsets"])
            arrays[name] = raw[start:stop].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
        return arrays
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise CacheError(f"{path} can't be read ({problem}); `rapidin-explorer verify` says more.") from None


def examples_table(examples: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows of `examples.parquet`; columns of mixed kind are kept as JSON text."""
    table = pa.table(
        {
            "prompt": [e["prompt"] for e in examples],
            "response": [e["response"] for e in examples],
            "ids": pa.array([e["ids"].tolist() for e in examples], pa.list_(pa.int64())),
            "response_start": [e["response_start"] for e in examples],
            "tokens": pa.array(
                [[dataclasses.asdict(token) for token in e["tokens"]] for e in examples],
                pa.list_(pa.struct([("text", pa.string()), ("raw", pa.string()), ("special", pa.bool_())])),
            ),
            "columns": [json.dumps(e["columns"], default=str, ensure_ascii=False) for e in examples],
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def read_examples_table(path: Path) -> list[dict[str, Any]]:
    """The rows that `examples_table` wrote."""
    try:
        return pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as problem:
        raise CacheError(f"{path} can't be read ({problem}); restore it or make the cache anew.") from None


def _example_row(number: int, kept: Mapping[str, Any], loss: float) -> ExampleRow:
    return ExampleRow(
        row=number,
        prompt=kept["prompt"],
        response=kept["response"],
        encoded=Encoded(np.asarray(kept["ids"], dtype=np.int64), kept["response_start"]),
        tokens=tuple(Token(**token) for token in kept["tokens"]),
        loss=loss,
        columns=json.loads(kept["columns"]),
    )
