"""What a cache says of itself: settings, manifest and the list of its files, as records and as bytes.

`docs/cache-format.md` describes the file.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.cache.files import sealing_line
from explorer.records import LAST_ANSWER, Counting, Fingerprint, TrainingRecord

SCHEMA = 4
MANIFEST = "manifest.json"
COPY = "manifest.copy.json"
"""The manifest's twin, written before it, so that a damaged manifest costs nothing."""
PENDING = "pending.json"
"""The next manifest while an append grows it; readers don't look at it."""
EXAMPLES = "examples.parquet"
METHODS = "methods"
"""The folder of what methods were fitted to, which the manifest doesn't list; see `methods.fitted`."""
RETRAINING = "retraining"
"""The folder of what trainings on some of the rows found, which it doesn't list, either."""

Ranges = tuple[tuple[int, int], ...]
"""Ascending numbers as half-open ranges."""


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
    tensors: str = ""
    """A regular expression that the names of the differentiated tensors match; empty for all trainable ones."""
    coarse_lengths: tuple[int, ...] = ()
    """Kc of every coarse level, ascending: folded from K and kept as int8, read before the full sketches."""
    shard_rows: int = 0
    """Examples a file of sketches; 0 asks for the rule of `precompute.build`."""
    mixed_precision: bool = False
    """Whether products with frozen weights were taken in bfloat16; see `explorer.gradients.mixed`."""


@dataclass(frozen=True)
class Part:
    """Training data that came into a cache at once."""

    name: str
    """Name of the data file."""
    sha256: str
    """Hash of its examples, whatever the file's format."""
    rows: int
    """How many examples it had; some may have been dropped since."""


@dataclass(frozen=True)
class FollowedBy:
    """The fine-tuning that followed the training which a cache is of, such as pre-training."""

    cache: str
    """The folder of its cache, relative to this one's."""
    model: str
    """SHA-256 of what it led to: of the adapter, or of a wholly fine-tuned model."""
    data: str
    """SHA-256 of its data."""


_LATER = {"base", "system", "counting", "followed_by"}
"""Fields that early caches lack."""


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
    parts: tuple[Part, ...]
    """The training data in the order it came. Their rows, counted through from 0, are the examples' ids."""
    rows: int
    """N, the number of training examples."""
    token_rows: int
    """How many of them have cached token sketches when the cache is complete."""
    versions: dict[str, str]
    base: str = ""
    """The model that a wholly fine-tuned one comes from, named as `model` is; empty where none was given."""
    generation: int = 0
    """How often rows were appended or dropped."""
    system: str | None = None
    """The system prompt that all rows had when the cache was made, with which unrelated prompts are asked; empty where
    they had none in common, None where no row is known to begin with one: then the table has no column of them."""

    counting: Counting = LAST_ANSWER
    """Which tokens of its rows are in the loss."""

    followed_by: FollowedBy | None = None
    """The fine-tuning of the model, of a cache of what was trained on before it; None for any other cache."""

    @property
    def data(self) -> str:
        """The names of the data files."""
        return ", ".join(part.name for part in self.parts)

    @property
    def data_sha256(self) -> str:
        """One hash of all examples in their order: that of the only part, or of the parts and what became of them."""
        if not self.generation:
            return self.parts[0].sha256
        history = [[part.sha256 for part in self.parts], self.generation, self.rows]
        return hashlib.sha256(json.dumps(history).encode()).hexdigest()

    @property
    def outcome(self) -> str:
        """SHA-256 of what the training led to: of the adapter, or of a wholly trained model."""
        return self.fingerprint.adapter or self.fingerprint.base

    @property
    def next_id(self) -> int:
        """The id that the next appended example gets."""
        return sum(part.rows for part in self.parts)

    def json(self) -> dict[str, Any]:
        """The manifest as plain JSON values, without the list of files."""
        kept = {"schema": SCHEMA, **json.loads(json.dumps(dataclasses.asdict(self)))}
        # What isn't so has no key, as in all caches that were made before there was one.
        if self.system is None:
            del kept["system"]
        if not self.settings.mixed_precision:
            del kept["settings"]["mixed_precision"]
        if self.counting == LAST_ANSWER:
            del kept["counting"]
        elif self.counting.chunk == LAST_ANSWER.chunk:
            del kept["counting"]["chunk"]
        if self.followed_by is None:
            del kept["followed_by"]
        return kept

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Manifest":
        """The manifest out of what `json` gave."""
        layout = tuple((name, tuple(shape)) for name, shape in kept["fingerprint"]["layout"])
        checkpoints = tuple((name, weight) for name, weight in kept["training"]["checkpoints"])
        coarse = tuple(kept["settings"]["coarse_lengths"])
        fields = {f.name: kept[f.name] for f in dataclasses.fields(cls) if f.name in kept or f.name not in _LATER}
        return cls(
            **fields
            | {
                "fingerprint": Fingerprint(**kept["fingerprint"] | {"layout": layout}),
                "training": TrainingRecord(**kept["training"] | {"checkpoints": checkpoints}),
                "settings": CacheSettings(**kept["settings"] | {"coarse_lengths": coarse}),
                "parts": tuple(Part(**part) for part in kept["parts"]),
                "counting": Counting(**kept.get("counting", {})),
                "followed_by": FollowedBy(**kept["followed_by"]) if "followed_by" in kept else None,
            }
        )


@dataclass(frozen=True)
class Listed:
    """A file of the cache, as the manifest lists it."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Shard(Listed):
    """One file of arrays, as the manifest lists it."""

    kind: str
    """The folder it lies in: `sketches`, `tokens`, …"""
    count: int
    """Rows of the file: examples, or tokens."""
    size: int
    """Bytes."""
    ids: Ranges
    """The examples it is about, by their ids."""

    @property
    def example_ids(self) -> NDArray[np.int64]:
        """The same, one by one."""
        return expand(self.ids)


@dataclass(frozen=True)
class Contents:
    """All that a manifest file says."""

    manifest: Manifest
    examples: Listed
    shards: tuple[Shard, ...] = ()

    def with_shard(self, shard: Shard) -> "Contents":
        """The contents with one more shard; one of the same file gives way to it."""
        others = [shard if known.file == shard.file else known for known in self.shards]
        return replace(self, shards=(*others,) if shard in others else (*others, shard))

    @property
    def files(self) -> list[str]:
        """The names of all files but the manifest's own."""
        return [self.examples.file, *(shard.file for shard in self.shards)]

    def shards_of(self, kind: str) -> list[Shard]:
        """The shards of a kind, in order."""
        return [shard for shard in self.shards if shard.kind == kind]

    @property
    def ids(self) -> NDArray[np.int64]:
        """The id of every example (N), ascending: what keeps naming it when others are dropped.

        Examples that have no sketch yet are the last ones.
        """
        done = expand(span for shard in self.shards_of("sketches") for span in shard.ids)
        end = self.manifest.next_id
        return np.concatenate([done, np.arange(end - (self.manifest.rows - len(done)), end)])

    def encode(self) -> bytes:
        """The manifest file: its first line holds the SHA-256 of all that follows."""
        kept = self.manifest.json() | {"examples": dataclasses.asdict(self.examples)}
        shards = ",\n".join(f"  {json.dumps(dataclasses.asdict(shard))}" for shard in self.shards)
        rest = f'{json.dumps(kept, indent=1)[2:-2]},\n "shards": [\n{shards}\n ]\n}}\n'.encode()
        return sealing_line(rest) + rest

    @classmethod
    def decode(cls, payload: bytes) -> "Contents":
        """What `encode` wrote, or a program that wrote schema 3 or 2.

        Raises SchemaError for any other schema, ValueError when anything in the
        file was changed. Schema 2 has no checksum of its own, and the token
        shards' ids stand in these files alone: they are left empty.
        """
        try:
            kept = json.loads(payload)
            schema = kept["schema"]
            if is_sealed(payload) or schema == SCHEMA:
                line, _, rest = payload.partition(b"\n")
                if line + b"\n" != sealing_line(rest):
                    raise ValueError("its SHA-256 isn't the one in its first line")
                if schema not in (SCHEMA, 3):
                    raise SchemaError(schema)
            elif schema == 2:
                kept = _from_schema_2(kept)
            else:
                raise SchemaError(schema)
            if schema != SCHEMA:
                kept = _from_schema_3(kept)
            shards = [Shard(**shard | {"ids": tuple(map(tuple, shard["ids"]))}) for shard in kept["shards"]]
            return cls(Manifest.from_json(kept), Listed(**kept["examples"]), tuple(shards))
        except (KeyError, TypeError, AttributeError, RecursionError) as problem:
            raise ValueError(repr(problem)) from None


class SchemaError(ValueError):
    """The manifest is of a schema that this program doesn't read."""

    def __init__(self, schema: object):
        """`schema` is what was found."""
        super().__init__(f"has schema {schema}, this program reads 2 to {SCHEMA}")


def is_sealed(payload: bytes) -> bool:
    """Whether a manifest file has its checksum in it, as all since schema 3."""
    return payload.startswith(b'{"sha256"')


def _from_schema_2(kept: Mapping[str, Any]) -> dict[str, Any]:
    """One data file, nothing dropped, 32 examples a shard, and the same arrays in the files."""
    shards, first = [], 0
    for shard in kept["shards"]:
        ids = [[first, first + shard["count"]]] if shard["kind"] == "sketches" else []
        first += shard["count"] if ids else 0
        shards.append({**shard, "ids": ids})
    return {
        **kept,
        "settings": {**kept["settings"], "shard_rows": 32},
        "parts": [{"name": kept["data"], "sha256": kept["data_sha256"], "rows": kept["rows"]}],
        "generation": 0,
        "examples": {"file": EXAMPLES, "sha256": kept["examples_sha256"]},
        "shards": shards,
    }


def _from_schema_3(kept: Mapping[str, Any]) -> dict[str, Any]:
    """One coarse level, or none; the arrays of a file say which (`shards.unpack_arrays`)."""
    settings = dict(kept["settings"])
    length = settings.pop("coarse_length", 0)
    return {**kept, "settings": {**settings, "coarse_lengths": [length] if length else []}}


def ranges(ids: Iterable[int]) -> Ranges:
    """Ascending numbers as half-open ranges."""
    found: list[tuple[int, int]] = []
    for number in map(int, ids):
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return tuple(found)


def expand(spans: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """The numbers that half-open ranges stand for, in order."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(*span) for span in spans)])
