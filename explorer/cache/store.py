"""The cache on disk: a folder of memory-mapped shards, a table of examples, a manifest.

    manifest.json                what it was made from, how, and every file with its SHA-256
    examples.parquet             prompts, responses, token ids, the user's own columns
    sketches/00000.safetensors   sketch (rows, K), scale (rows), norms (rows, L), loss (rows);
                                 coarse_Kc (rows, Kc), coarse_Kc_scale (rows) for every coarse level
    tokens/00000.safetensors     sketch (tokens, K'), scale (tokens), rows (r), offsets (r + 1)
    nulls/00000.safetensors      response, first, token, end, raised (rows, M): a sketch shard's scores on
                                 unrelated prompts

Sketches are float16 or int8 with one float32 scale per row. A file is written as
`.part`, synced, renamed, and only then listed, so nothing half-written is ever
read; and a file is checked against its SHA-256 before a process first uses it,
so nothing damaged is. Numpy only: it knows nothing of models.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from explorer.cache.files import make_folder, remove, write_whole
from explorer.cache.manifest import (
    COPY,
    EXAMPLES,
    MANIFEST,
    CacheSettings,
    Contents,
    Listed,
    Manifest,
    SchemaError,
    Shard,
    ranges,
)
from explorer.cache.shards import (
    RAGGED,
    Arrays,
    Mapped,
    fold,
    level_names,
    misshapen,
    pack_arrays,
    quantise,
    unlike_settings,
)
from explorer.cache.table import SYSTEM, example_row, examples_table, pack_table, unpack_table
from explorer.errors import CacheError, DamageError, MismatchError
from explorer.normalisation import normalised_norms
from explorer.records import ExampleRow, Fingerprint, SystemPrompts

__all__ = ["Arrays", "CacheSettings", "Store", "check_room", "create_cache", "fold", "open_cache", "quantise"]


class Store:
    """A cache that is open for reading, or being made."""

    def __init__(self, folder: Path, contents: Contents, file: str = MANIFEST, awaited: int = 0):
        """Use `open_cache`, `create_cache` or `so_far` instead; `file` is the manifest's."""
        self.folder, self.contents, self.file = folder, contents, file
        self.manifest, self.shards = contents.manifest, contents.shards
        self.awaited = awaited
        """Examples that aren't read yet, in a view of the others alone (`growing.so_far`)."""
        self._mapped: dict[str, Mapped] = {}
        self._arrays: dict[str, Arrays] = {}
        self._examples: tuple[ExampleRow, ...] = ()

    # Reading

    def shards_of(self, kind: str) -> list[Shard]:
        """The shards of a kind, in order."""
        return self.contents.shards_of(kind)

    @property
    def read(self) -> int:
        """How many examples have their sketch."""
        return sum(shard.count for shard in self.shards_of("sketches"))

    @property
    def complete(self) -> bool:
        """True when every example has its sketch."""
        return self.read == self.manifest.rows + self.awaited

    @property
    def total(self) -> int:
        """The number of all training examples, of those that aren't read yet, too."""
        return self.manifest.rows + self.awaited

    def take_over(self, before: "Store") -> None:
        """Keep what was mapped, checked and read of the same files before."""
        own = {each.file: each.sha256 for each in (self.contents.examples, *self.shards)}
        for each in (before.contents.examples, *before.shards):
            if own.get(each.file) != each.sha256:
                continue
            if each.file in before._mapped:
                self._mapped[each.file] = before._mapped[each.file]
            if each.file in before._arrays:
                self._arrays[each.file] = before._arrays[each.file]
        self._examples = before.examples

    def hold(self) -> None:
        """Map every file: it stays readable whatever becomes of its name. Raises DamageError if one is missing."""
        for listed in (self.contents.examples, *self.shards):
            self._map(listed)

    def damage(self, files: Sequence[Listed] | None = None) -> dict[Listed, DamageError]:
        """Of the files, or of all, those that aren't what was written, and why; checked in parallel, once a store."""
        files = (self.contents.examples, *self.shards) if files is None else files
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return {file: found for file, found in zip(files, pool.map(self._wrong, files), strict=True) if found}

    def check(self) -> None:
        """Raise DamageError unless every file is what was written."""
        for problem in self.damage().values():
            raise problem

    def _wrong(self, listed: Listed) -> DamageError | None:
        try:
            _ = self.shard_arrays(listed) if isinstance(listed, Shard) else self._map(listed).content
        except DamageError as problem:
            return problem
        return None

    def arrays(self, kind: str) -> list[Arrays]:
        """The mapped arrays of every shard of a kind, in order; they are checked in parallel when first asked for."""
        shards = self.shards_of(kind)
        unchecked = [shard for shard in shards if shard.file not in self._arrays]
        if unchecked:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(self.shard_arrays, unchecked))
        return [self._arrays[shard.file] for shard in shards]

    def shard_arrays(self, shard: Shard) -> Arrays:
        """The mapped arrays of one shard. Raises DamageError when it isn't what was written."""
        if shard.file not in self._arrays:
            arrays = self._map(shard).arrays
            layers = len(self.manifest.fingerprint.layout)
            wrong = misshapen(arrays, shard) or unlike_settings(arrays, shard.kind, self.manifest.settings, layers)
            if wrong:
                raise DamageError(self.folder / shard.file, f"isn't what the manifest says ({wrong})")
            self._arrays[shard.file] = arrays
        return self._arrays[shard.file]

    def _map(self, listed: Listed) -> Mapped:
        if listed.file not in self._mapped:
            size = listed.size if isinstance(listed, Shard) else None
            self._mapped[listed.file] = Mapped(self.folder / listed.file, listed.sha256, size)
        return self._mapped[listed.file]

    def sketches(self, length: int = 0) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
        """Every shard's mapped sketches (rows, K) and scales (rows), in example order; or those of a coarse length."""
        sketch, scale = level_names(length if length in self.manifest.settings.coarse_lengths else 0)
        for arrays in self.arrays("sketches"):
            yield arrays[sketch], arrays[scale]

    def sketches_of(self, rows: NDArray[np.int64], length: int) -> NDArray[np.float32]:
        """The sketches of some examples, folded to a length: (rows, length)."""
        shards = list(self.sketches())
        starts = np.cumsum([0, *(len(sketches) for sketches, _ in shards)])
        found = np.empty((len(rows), length), dtype=np.float32)
        for place, row in enumerate(rows.tolist()):
            number = int(np.searchsorted(starts, row, side="right")) - 1
            sketches, scales = shards[number]
            own = row - starts[number]
            found[place] = fold(sketches[own][None].astype(np.float32), length)[0] * scales[own]
        return found

    @cached_property
    def norms(self) -> NDArray[np.float32]:
        """‖∇^l L(s_k)‖ of every example and named tensor (N, L)."""
        return np.concatenate([arrays["norms"] for arrays in self.arrays("sketches")])

    @cached_property
    def sizes(self) -> NDArray[np.float32]:
        """The norm of every example's gradient as it was sketched, normalised (N)."""
        return normalised_norms(self.norms, self.manifest.settings.normalisation)

    @cached_property
    def losses(self) -> NDArray[np.float32]:
        """L(s_k) of every example (N)."""
        return np.concatenate([arrays["loss"] for arrays in self.arrays("sketches")])

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Every example's id (N), ascending: what names it when rows before it have been dropped."""
        return self.contents.ids

    @cached_property
    def _token_places(self) -> dict[int, tuple[Shard, int]]:
        """Example row → shard of its tokens, and its place among the examples there."""
        places = {}
        for shard in self.shards_of("tokens"):
            rows = np.searchsorted(self.ids, shard.example_ids)
            places.update({row: (shard, place) for place, row in enumerate(rows.tolist())})
        return places

    def token_sketches(self, row: int) -> NDArray[np.float32] | None:
        """The token RapidGrads (G, K') of an example, or None where they aren't cached."""
        if row not in self._token_places:
            return None
        shard, place = self._token_places[row]
        arrays = self.shard_arrays(shard)
        tokens = slice(*arrays["offsets"][place : place + 2].tolist())
        return arrays["sketch"][tokens].astype(np.float32) * arrays["scale"][tokens, None]

    @property
    def table(self) -> pa.Table:
        """The table of examples (N rows), as it is kept."""
        return unpack_table(self._map(self.contents.examples).content).slice(0, self.manifest.rows)

    def nulls(self, kind: str) -> tuple[NDArray[np.float32], ...]:
        """Scores (rows, M) of all examples on M unrelated questions of a kind (`significance.KINDS`), by shard.

        Empty where the cache has none, or not for all examples yet.
        """
        if sum(shard.count for shard in self.shards_of("nulls")) != self.manifest.rows:
            return ()
        arrays = list(self.arrays("nulls"))
        return tuple(each[kind] for each in arrays) if all(kind in each for each in arrays) else ()

    @property
    def null_prompts(self) -> int:
        """M, the number of unrelated prompts that the cache began with; 0 where it has none."""
        shards = self.shards_of("nulls")
        return int(self.shard_arrays(shards[0])["response"].shape[1]) if shards else 0

    @cached_property
    def examples(self) -> tuple[ExampleRow, ...]:
        """All training examples (N)."""
        first, count = len(self._examples), self.manifest.rows
        losses = self.losses if self.read == count else np.full(count, np.nan)
        table = self.table.slice(first).to_pylist()
        rows = zip(self.ids[first:].tolist(), table, losses[first:].tolist(), strict=True)
        return self._examples + tuple(example_row(number, *row) for number, row in enumerate(rows, start=first))

    @cached_property
    def system(self) -> SystemPrompts:
        """How many examples begin with a system prompt, and the one that all have; none in early caches."""
        if self.manifest.system is None:
            return SystemPrompts(0, self.manifest.rows, "")
        found = unpack_table(self._map(self.contents.examples).content, [SYSTEM])[SYSTEM].slice(0, self.manifest.rows)
        texts, rows = found.unique().to_pylist(), len(found) - found.null_count
        return SystemPrompts(rows, len(found), texts[0] if len(texts) == 1 and rows else "")

    def check_model(self, fingerprint: Fingerprint) -> None:
        """Raise MismatchError unless the cache was made with this model."""
        made = self.manifest.fingerprint
        for what in ("base", "adapter", "start", "tokenizer", "template", "precision", "layout"):
            if getattr(made, what) != getattr(fingerprint, what):
                names = {
                    "base": "base model",
                    "start": "base that it was fine-tuned from",
                    "layout": "set of trainable tensors",
                    "template": "template, or by an earlier version, which ended answers otherwise than this template",
                }
                raise MismatchError(
                    f"The cache {self.folder} was made with another {names.get(what, what)} "
                    f"(model {self.manifest.model}, adapter {self.manifest.adapter or 'none'}, "
                    f"template {self.manifest.template}). Load that one, or make a cache for this one with "
                    "`rapidin-explorer precompute`."
                )

    def require_complete(self) -> None:
        """Raise CacheError while examples still lack their sketch."""
        if not self.complete:
            raise CacheError(
                f"The cache {self.folder} is unfinished ({self.read:,} of {self.total:,} examples); "
                "run the same `rapidin-explorer precompute` again to finish it. Until then `rapidin-explorer serve` "
                "ranks the examples that are in it."
            )

    # Writing

    def add_shard(self, kind: str, arrays: Arrays, count: int) -> "Store":
        """Write one shard of `count` rows, list it in the manifest, and return the store that has it.

        It is about the examples that its `rows` name by id, or else about the
        next `count` ones.
        """
        known = self.shards_of(kind)
        done = sum(shard.count for shard in known)
        ids = arrays["rows"] if "rows" in arrays else self.ids[done : done + count]
        return self.put_shard(shard_file(kind, len(known), self.manifest.generation), kind, arrays, ids)

    def put_shard(self, file: str, kind: str, arrays: Arrays, ids: NDArray[np.int64]) -> "Store":
        """Write and list a shard about some examples under a name; one of that name gives way to it."""
        shard = write_shard(self.folder, file, kind, arrays, ids)
        grown = Store(self.folder, self.contents.with_shard(shard), self.file)
        grown._mapped = {name: mapped for name, mapped in self._mapped.items() if name != file}
        grown._arrays = {name: known for name, known in self._arrays.items() if name != file}
        grown.save()
        return grown

    def put_table(self, table: pa.Table) -> "Store":
        """Write the table of examples in the place of the one there is, and return the store that has it."""
        payload = pack_table(table)
        write_whole(self.folder / self.contents.examples.file, payload)
        examples = replace(self.contents.examples, sha256=hashlib.sha256(payload).hexdigest())
        grown = Store(self.folder, replace(self.contents, examples=examples), self.file)
        grown.save()
        return grown

    def save(self) -> None:
        """Write the manifest, its copy first: at every moment one of them is whole, and lists what is there."""
        payload = self.contents.encode()
        if self.file == MANIFEST:
            write_whole(self.folder / COPY, payload)
        write_whole(self.folder / self.file, payload)


def write_shard(folder: Path, file: str, kind: str, arrays: Arrays, ids: NDArray[np.int64]) -> Shard:
    """Write a shard about some examples; how a manifest lists it."""
    path, payload = folder / file, pack_arrays(arrays)
    make_folder(path.parent)
    write_whole(path, payload)
    rows = len(next(array for name, array in arrays.items() if name not in RAGGED))
    return Shard(file, hashlib.sha256(payload).hexdigest(), kind, rows, len(payload), ranges(ids))


def shard_file(kind: str, number: int, generation: int) -> str:
    """A shard's name; no other generation has the same, so that no file in use is ever written over."""
    return f"{kind}/{number:05d}{f'-{generation}' if generation else ''}.safetensors"


def examples_file(generation: int) -> str:
    """The name of a generation's table of examples."""
    return f"{Path(EXAMPLES).stem}{f'-{generation}' if generation else ''}.parquet"


def open_cache(folder: str | Path) -> Store:
    """Open an existing cache. Raises CacheError when there is none, or files are missing, or the manifest is damaged.

    What is opened stays as it is, even when another process appends or drops
    rows meanwhile. A file's content is checked when it is first used.
    """
    while True:
        store = load(Path(folder))
        try:
            store.hold()
            return store
        except DamageError:
            # Unless a writer has just put a new manifest in its place, and removed what that doesn't list.
            if load(Path(folder)).contents == store.contents:
                raise


def load(folder: Path, file: str = MANIFEST) -> Store:
    """What the manifest lists, whether the files are there or not. Raises CacheError without a readable manifest."""
    path = folder / file
    if not path.is_file():
        lost = f"; `rapidin-explorer mend` restores it from {COPY}" if (folder / COPY).is_file() else ""
        raise CacheError(
            f"{folder} is no cache (no {file} in it){lost or '; make one with `rapidin-explorer precompute`'}."
        )
    try:
        contents = Contents.decode(path.read_bytes())
    except SchemaError as problem:
        raise CacheError(f"{folder} {problem}; make the cache anew.") from None
    except (OSError, ValueError) as problem:
        raise DamageError(path, f"is damaged ({problem})") from None
    return Store(folder, replace(contents, shards=tuple(_with_ids(folder, shard) for shard in contents.shards)), file)


def _with_ids(folder: Path, shard: Shard) -> Shard:
    """A token shard that schema 2 listed, with the ids that stand in the file alone; without, where it is damaged."""
    if shard.ids or shard.kind != "tokens":
        return shard
    try:
        return replace(shard, ids=ranges(Mapped(folder / shard.file, shard.sha256, shard.size).arrays["rows"]))
    except CacheError:
        return shard


_NAMES = {"versions", "model", "adapter", "generation", "followed_by"}
"""What may differ when a cache is taken up again: where things lie and are called; hashes tell what they are."""


def create_cache(folder: Path, manifest: Manifest, examples: Sequence[Mapping[str, Any]]) -> Store:
    """Begin a cache, or take up the one that a stopped run with the same settings left.

    Raises what `check_room` does, and CacheError when the folder can't be written.
    """
    store = check_room(folder, manifest)
    if store is not None:
        return store
    make_folder(folder)
    # A copy without its manifest lists nothing yet.
    remove(folder / COPY)
    payload = pack_table(examples_table(examples))
    write_whole(folder / EXAMPLES, payload)
    store = Store(folder, Contents(manifest, Listed(EXAMPLES, hashlib.sha256(payload).hexdigest())))
    store.save()
    return store


def check_room(folder: Path, manifest: Manifest) -> Store | None:
    """The cache in a folder that this manifest describes, finished or not, damaged or not; None where one can be begun.

    Raises MismatchError when the folder holds another cache or other things,
    CacheError when it is no folder.
    """
    if (folder / MANIFEST).is_file():
        store = load(folder)
        differing = differences(manifest, store.manifest)
        if differing:
            raise MismatchError(
                f"{folder} already holds a cache with another {', '.join(differing)}; "
                "give another folder, or remove this one to make it anew."
            )
        return store
    if folder.exists() and not folder.is_dir():
        raise CacheError(f"The folder {folder} can't be made: there is a file of that name; give another one.")
    strangers = [path.name for path in folder.iterdir() if path.suffix != ".part"] if folder.is_dir() else []
    strangers = sorted(set(strangers) - {EXAMPLES, COPY})
    if strangers:
        raise MismatchError(f"{folder} holds other files ({strangers[0]}); give an empty or new folder.")
    return None


def differences(one: Manifest, other: Manifest) -> list[str]:
    """The names of what differs between two manifests, but for names and places."""
    kept = [manifest.json() for manifest in (one, other)]
    for fields in kept:
        fields["data"] = [(part["sha256"], part["rows"]) for part in fields.pop("parts")]
    keys = (kept[0].keys() | kept[1].keys()) - _NAMES
    return sorted(key for key in keys if kept[0].get(key) != kept[1].get(key))
