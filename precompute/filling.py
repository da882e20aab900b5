"""Fills a cache with the shards it lacks, and makes damaged ones anew.

An executor makes their arrays; this is the one place that lists them, in order,
so that a cache's bytes are the same whoever made them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from explorer.cache import Arrays, Shard, Store
from explorer.errors import CacheError
from explorer.records import Encoded
from precompute.executor import Executor, Job

Report = Callable[[str, int, int], None]
"""Called with the stage (`examples`, `tokens`, `mended examples`, …), how many are done, and how many there are."""

STAGES = {"sketches": "examples", "tokens": "tokens"}
"""Every kind of shard that can be made, in the order of making, and what its work is counted in."""


def ignored(store: Store) -> None:
    """Nobody looks at a cache before it is complete."""


@dataclass(frozen=True)
class Maker:
    """Makes shards of a cache by an executor."""

    executor: Executor
    encoded: Mapping[int, Encoded]
    """The examples' token ids, by example id."""
    report: Report
    listed: Callable[[Store], None] = ignored
    """Called with the cache when one more shard is in it."""

    def fill(self, store: Store, kind: str, ids: Sequence[int], per_shard: int) -> Store:
        """Make the shards of one kind about these examples that are missing."""
        covered = {number for shard in store.shards_of(kind) for number in shard.example_ids.tolist()}
        left = [number for number in ids if number not in covered]
        done, total = self._units(kind, covered.intersection(ids)), self._units(kind, ids)
        jobs = [self._job(store, kind, left[start : start + per_shard]) for start in range(0, len(left), per_shard)]
        for arrays in self._made(jobs, STAGES[kind], done, total):
            store = store.add_shard(kind, arrays, len(arrays["sketch"]))
            self.listed(store)
        return store

    def mend(self, store: Store, shards: Iterable[Shard]) -> Store:
        """Make these listed shards anew, and nothing else."""
        # Token sketches are divided by the norms that lie beside the examples' sketches.
        for kind in STAGES:
            damaged = [shard for shard in shards if shard.kind == kind]
            for shard in damaged:
                if not shard.ids:
                    raise CacheError(
                        f"What {store.folder / shard.file} was about stood in itself alone (schema 2); "
                        "restore it from a copy, or make the cache anew."
                    )
            jobs = [self._job(store, kind, shard.example_ids.tolist()) for shard in damaged]
            total = sum(job.units for job in jobs)
            for shard, arrays in zip(damaged, self._made(jobs, f"mended {STAGES[kind]}", 0, total), strict=True):
                store = store.put_shard(shard.file, kind, arrays, shard.example_ids)
        return store

    def _job(self, store: Store, kind: str, ids: Sequence[int]) -> Job:
        rows = tuple((number, self.encoded[number]) for number in ids)
        with_norms = ids if kind == "tokens" else []
        norms = {number: store.norms[np.searchsorted(store.ids, number)] for number in with_norms}
        return Job(kind, store.manifest.settings, rows, norms)

    def _units(self, kind: str, ids: Iterable[int]) -> int:
        return sum(1 if kind == "sketches" else self.encoded[number].response_length for number in ids)

    def _made(self, jobs: Sequence[Job], stage: str, done: int, total: int) -> Iterator[Arrays]:
        """The arrays of every job, in order, reporting after every unit of work."""
        for step in self.executor.shards(jobs):
            if step is None:
                done += 1
                self.report(stage, done, total)
            else:
                yield step
