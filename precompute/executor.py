"""Where shards are made: in this process, or wherever else an executor of the same shape sends them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from explorer.cache import Arrays, CacheSettings
from explorer.gradients import Sketcher
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded
from precompute.sketches import sketch_shard, token_shard


@dataclass(frozen=True, eq=False)
class Job:
    """All that a shard is a pure function of, beside the model."""

    kind: str
    """`sketches` or `tokens`."""
    settings: CacheSettings
    rows: tuple[tuple[int, Encoded], ...]
    """The examples it is about, by their ids."""
    norms: Mapping[int, NDArray[np.float32]]
    """For tokens: the norms (L) of every one of these examples."""

    @property
    def units(self) -> int:
        """How many units of work it takes: its examples, or their tokens."""
        return len(self.rows) if self.kind == "sketches" else sum(item.response_length for _, item in self.rows)


class Executor(Protocol):
    """Makes shards, one worker or many at a time."""

    workers: int
    """How many shards are being made at a time."""

    def shards(self, jobs: Iterable[Job]) -> Iterator[Arrays | None]:
        """Yield None after every unit of work, and the arrays of every job, in the order of the jobs."""


class InProcess:
    """Makes one shard after the other in this process."""

    workers = 1

    def __init__(self, model: LanguageModel, sketcher: Sketcher):
        self._model, self._sketcher = model, sketcher

    def shards(self, jobs: Iterable[Job]) -> Iterator[Arrays | None]:
        """See `Executor`."""
        for job in jobs:
            if job.kind == "sketches":
                yield from sketch_shard(self._model, self._sketcher, job.settings, job.rows)
            else:
                yield from token_shard(self._model, self._sketcher, job.settings, job.norms, job.rows)
