"""Makes shards on a Ray cluster, with one model a worker, whatever becomes of the workers.

A shard comes back to the process that asked for it, which alone writes: workers
need the model and nothing else. Each has a GPU to itself, or as many threads as
the process that asked, because the number of threads shows in the last digits.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from explorer.cache import Arrays, CacheSettings
from explorer.engine import make_sketcher
from explorer.errors import ClusterError, ExplorerError, MismatchError, first_line
from explorer.model.language_model import LanguageModel
from explorer.records import Fingerprint
from explorer.retrieval.cluster import places
from precompute.executor import InProcess, Job

AHEAD = 2
"""So many shards a worker may be made before the first of them is written: they wait in memory."""
DEATHS = 3
"""So many workers may die over one shard, or one after the other before they have loaded the model."""

Load = Callable[[], LanguageModel]
"""Loads the model; it is sent to the workers. Its paths are followed from the folder of the process that asked."""


class Worker:
    """The actor: one model, one shard at a time."""

    def begin(self, load: Load, fingerprint: Fingerprint, settings: CacheSettings, threads: int, folder: Path) -> None:
        """Load the model. Raises MismatchError when it isn't the one that was meant."""
        with suppress(FileNotFoundError):
            os.chdir(folder)
        torch.set_num_threads(threads)
        model = load()
        if model.fingerprint != fingerprint:
            raise MismatchError("A node of the cluster has another model of that name; give all nodes the same files.")
        self._executor = InProcess(model, make_sketcher(model, settings))

    def make(self, job: Job) -> Arrays:
        """The arrays of a shard."""
        (arrays,) = (step for step in self._executor.shards([job]) if step is not None)
        return arrays


@dataclass(eq=False)
class _Task:
    """A job on its way."""

    number: int
    job: Job
    deaths: int = 0


class RayExecutor:
    """An `Executor` whose workers are Ray actors; they end with the `with` block it is used in."""

    def __init__(
        self, ray: Any, load: Load, fingerprint: Fingerprint, settings: CacheSettings, device: str = "", count: int = 0
    ):
        """`count` workers, or as many as the cluster has room for; on GPUs unless the `device` is another.

        Raises ClusterError when there is room for none.
        """
        threads = torch.get_num_threads()
        on_gpus = device.startswith("cuda") or (not device and places(ray, "GPU", 1) > 0)
        needs = {"num_gpus": 1} if on_gpus else {"num_cpus": threads}
        self.workers = count or places(ray, *(("GPU", 1) if on_gpus else ("CPU", threads)))
        if not self.workers:
            what = "GPU; give --device cpu" if on_gpus else f"{threads} processors; set OMP_NUM_THREADS to fewer"
            raise ClusterError(f"No node of the Ray cluster has a {what}, or start nodes that have.")
        self._ray = ray
        self._actor = ray.remote(Worker).options(max_restarts=0, **needs)
        self._orders = (load, fingerprint, settings, threads, Path.cwd())
        self._busy: dict[Any, tuple[Any, _Task | None]] = {}
        self._free: list[Any] = []
        self._failed_starts = 0

    def __enter__(self) -> "RayExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        for actor in [*self._free, *(actor for actor, _ in self._busy.values())]:
            self._ray.kill(actor)

    def shards(self, jobs: Iterable[Job]) -> Iterator[Arrays | None]:
        """See `Executor`. Raises ClusterError when workers keep dying."""
        waiting = deque(_Task(number, job) for number, job in enumerate(jobs))
        made: dict[int, Arrays] = {}
        given, total = 0, len(waiting)
        while len(self._free) + len(self._busy) < min(self.workers, total):
            self._start()
        while given < total:
            while self._free and waiting and waiting[0].number < given + AHEAD * self.workers:
                actor, task = self._free.pop(), waiting.popleft()
                self._busy[actor.make.remote(task.job)] = actor, task
            done, arrays = self._next()
            if done and arrays is None:
                waiting.appendleft(done)
            elif done and arrays is not None:
                made[done.number] = arrays
                yield from [None] * done.job.units
            while given in made:
                yield made.pop(given)
                given += 1

    def _start(self) -> None:
        actor = self._actor.remote()
        self._busy[actor.begin.remote(*self._orders)] = actor, None

    def _next(self) -> tuple[_Task | None, Arrays | None]:
        """Wait until a worker has done what it was to do, or died: the task, if that was one, and its arrays."""
        (reference,), _ = self._ray.wait(list(self._busy), num_returns=1)
        actor, task = self._busy.pop(reference)
        try:
            arrays: Arrays | None = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as problem:
            raise (problem.cause if isinstance(problem.cause, ExplorerError) else problem) from None
        except self._ray.exceptions.RayError as problem:
            self._bury(actor, task, problem)
            return task, None
        self._free.append(actor)
        self._failed_starts = 0
        return task, arrays

    def _bury(self, actor: Any, task: _Task | None, problem: Exception) -> None:
        """Put another worker in the place of one that died."""
        with suppress(self._ray.exceptions.RayError):
            # It may merely be out of reach.
            self._ray.kill(actor)
        if task is None:
            self._failed_starts += 1
        else:
            task.deaths += 1
        if (task.deaths if task else self._failed_starts) >= DEATHS:
            what = "loading the model" if task is None else _named(task.job)
            raise ClusterError(
                f"{DEATHS} workers died one after the other over {what} (the last: {first_line(problem)}). Usually "
                "their memory doesn't suffice: fewer workers a node or a smaller --batch help. What was finished is "
                "kept, and the same command goes on."
            )
        self._start()


def _named(job: Job) -> str:
    """A shard as a person says it."""
    first, last = job.rows[0][0], job.rows[-1][0]
    return f"the {'token ' if job.kind == 'tokens' else ''}sketches of the examples {first} to {last}"
