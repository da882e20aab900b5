"""What retrieval costs against reading the same bytes: scan and cascade, one question and many, warm and cold.

Times are the best of several runs, reading and scanning in turns.
"""

import argparse
import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import Figures, seconds, show
from benchmarks.mixture import demo
from benchmarks.plot import plot
from explorer.cache import CacheSettings, Store, open_cache
from explorer.cache.shards import pack_arrays
from explorer.retrieval import ExampleScores, cascade

TOP = 100
RUNS = 7
REFERENCE = 2_000
"""So many examples are read and multiplied one at a time: more than a processor's cache holds."""
GROWTH_ROWS, GROWTH_LENGTHS = (1_000, 4_000, 16_000), (4_096, 16_384, 65_536)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=52_002, help="training examples (52002, Alpaca's)")
    parser.add_argument("--k", type=int, default=65_536, help="sketch length (65536)")
    parser.add_argument("--coarse-k", type=int, nargs="*", help="lengths of the coarse levels (16384 32768)")
    parser.add_argument("--dtype", choices=["float16", "int8"], default="float16", help="how sketches are stored")
    parser.add_argument("--queries", type=int, default=64, help="questions asked together (64)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "retrieval", help="for the caches")
    parser.add_argument("--recall", action="store_true", help="recall over how much coarse scores are doubted")
    parser.add_argument("--sweep", action="store_true", help="growth with rows and K; writes docs/retrieval.svg")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args()
    if chosen.sweep:
        found = growth(chosen.folder, chosen.dtype)
        plot(found, Path("docs/retrieval.svg"))
        return show({"growth": found}, chosen.json)
    coarse = coarse_below(chosen.k) if chosen.coarse_k is None else tuple(sorted(chosen.coarse_k))
    settings = CacheSettings(
        chosen.k, min(1024, chosen.k), dtype=chosen.dtype, normalisation="none", coarse_lengths=coarse
    )
    store = made(chosen.folder, chosen.rows, settings)
    _, questions = demo(chosen.k)
    questions = questions[: chosen.queries]
    show({"recall": recalls(store, questions)} if chosen.recall else measure(store, questions), chosen.json)


def coarse_below(length: int) -> tuple[int, ...]:
    """The coarse levels of new caches of this K."""
    return tuple(one for one in cascade.COARSE if one < length)


def mixture_settings(length: int, dtype: str, coarse: tuple[int, ...]) -> CacheSettings:
    """How a mixture is kept: as it is, not normalised."""
    return CacheSettings(length, min(1024, length), dtype=dtype, normalisation="none", coarse_lengths=coarse)


def made(folder: Path, rows: int, settings: CacheSettings) -> Store:
    """The cache of this size, made by another process where there is none, so that this one's memory is its own."""
    place = folder / "-".join(map(str, (rows, *settings.coarse_lengths, settings.length, settings.dtype)))
    if not place.is_dir() or not open_cache(place).complete:
        call = [sys.executable, "-m", "benchmarks.mixture", str(place), str(rows), json.dumps(asdict(settings))]
        subprocess.run(call, check=True)
    return open_cache(place)


def measure(store: Store, questions: NDArray[np.float32]) -> Figures:
    """All figures of one cache."""
    settings, size = store.manifest.settings, sum(rows.nbytes for rows, _ in store.sketches())
    anonymous = PeakAnonymous()
    cold = cold_seconds(store, questions[:1]) if settings.coarse_lengths else 0.0
    alone = Alternating(RUNS)
    alone.add("read_s", lambda: read(store))
    alone.add("scan_s", lambda: cascade.scan(store, questions[:1]))
    if settings.coarse_lengths:
        alone.add("cascade_s", lambda: cascade.cascade(store, questions[:1]))
    together = Alternating(3)
    together.add("batch_s", lambda: cascade.scan(store, questions))
    if settings.coarse_lengths:
        together.add("batch_cascade_s", lambda: cascade.cascade(store, questions))
    times = alone.best() | together.best()
    peak = anonymous.stop()
    found: Figures = {
        "rows": store.manifest.rows,
        "k": settings.length,
        "coarse_k": ", ".join(map(str, settings.coarse_lengths)),
        "dtype": settings.dtype,
        "queries": len(questions),
        "threads": torch.get_num_threads(),
        "bytes": size,
        **times,
        "read_gbps": size / times["read_s"] / 1e9,
        "scan_gbps": size / times["scan_s"] / 1e9,
        "scan_over_read": times["read_s"] / times["scan_s"],
        "batch_over_scan": times["batch_s"] / times["scan_s"],
        "scan_error": float(error(cascade.scan(store, questions[:1])[0], store, questions[0])),
        "reference_s": reference_seconds(store, questions[0]),
        "peak_anonymous_bytes": peak,
    }
    if settings.coarse_lengths:
        found["cascade_cold_s"] = cold
        whole = cascade.rescored(store, questions, cascade.scan(store, questions))
        alike = {"batch_": cascade.cascade(store, questions)}
        alike[""] = [cascade.cascade(store, query[None])[0] for query in questions]
        for how, cascades in alike.items():
            for name, opponents in (("recall_at_100", False), ("recall_at_100_opponents", True)):
                pairs = zip(whole, cascades, strict=True)
                found[how + name] = float(np.mean([recall(*pair, opponents) for pair in pairs]))
        found["reference_over_cascade"] = float(found["reference_s"]) / times["cascade_s"]
    return found


class Alternating:
    """The best time of each of several works that take turns, so that a busy moment of the machine meets them all."""

    def __init__(self, runs: int) -> None:
        self._runs = runs
        self._works: dict[str, Callable[[], Any]] = {}

    def add(self, name: str, work: Callable[[], Any]) -> None:
        """One more work; its first run doesn't count."""
        work()
        self._works[name] = work

    def best(self) -> dict[str, float]:
        """Run all and return seconds."""
        rounds = [{name: seconds(work) for name, work in self._works.items()} for _ in range(self._runs)]
        return {name: min(times[name] for times in rounds) for name in self._works}


class PeakAnonymous:
    """The most memory of this process that belongs to no file, looked at many times a second."""

    def __init__(self) -> None:
        self._peak, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            self._peak = max(self._peak, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))

    def stop(self) -> int:
        """Bytes."""
        self._done.set()
        self._thread.join()
        return self._peak * 1024


def read(store: Store) -> None:
    """Touch every byte of the full sketches and add them up, each thread shards of its own."""
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        list(threads.map(lambda level: level[0].view(np.int64).sum(), store.sketches()))


def cold_seconds(store: Store, query: NDArray[np.float32]) -> float:
    """A cascade over files that the system has to read from disk."""
    store.check()
    for mapped in store._mapped.values():
        mapping: mmap.mmap = vars(mapped._raw)["_mmap"]
        mapping.madvise(mmap.MADV_DONTNEED)  # What is mapped can't be dropped.
        handle = os.open(mapped.path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
    return seconds(lambda: cascade.cascade(store, query))


def recall(whole: ExampleScores, some: ExampleScores, opponents: bool) -> float:
    """The share of the scan's best hundred that the cascade's have."""
    true = cascade.best(whole, TOP, opponents)
    return len(np.intersect1d(true, cascade.best(some, TOP, opponents))) / len(true)


def error(found: ExampleScores, store: Store, query: NDArray[np.float32]) -> float:
    """The scan's error on the first 512 rows, relative to their scores."""
    rows, scale = (np.concatenate(parts)[:512] for parts in zip(*list(store.sketches())[:16], strict=True))
    true = (rows.astype(np.float64) @ query) * scale
    return float(np.linalg.norm(found.first[: len(true)] - true) / np.linalg.norm(true))


def reference_seconds(store: Store, query: NDArray[np.float32]) -> float:
    """One file an example, loaded and multiplied one at a time as published; a sample, scaled to all rows."""
    asked = torch.from_numpy(query)
    sketches = next(iter(store.sketches()))[0]
    with tempfile.TemporaryDirectory(dir=store.folder.parent) as folder:
        paths = [Path(folder) / f"{number}.safetensors" for number in range(REFERENCE)]
        for number, path in enumerate(paths):
            path.write_bytes(pack_arrays({"sketch": sketches[number % len(sketches)]}))

        def run() -> None:
            from safetensors.torch import load_file

            for path in paths:
                torch.dot(load_file(path)["sketch"].float(), asked).item()

        return min(seconds(run) for _ in range(3)) / REFERENCE * store.manifest.rows


def recalls(store: Store, questions: NDArray[np.float32]) -> list[dict[str, float]]:
    """Recall at 100 of single cascades over how much the levels' scores are doubted, and the rows read on the way."""
    whole = cascade.rescored(store, questions, cascade.scan(store, questions))
    first, found = cascade.first_scores(store, questions, cascade.coarse_to_full(store)), []
    for doubt in (2.0, 2.25, 2.5, 2.75, 3.0):
        cascade.DOUBT = doubt
        cascades = cascade.rescored(store, questions, first)
        ends = [np.mean([recall(*pair, end) for pair in zip(whole, cascades, strict=True)]) for end in (False, True)]
        rows = {
            f"rows_{length}": float(np.mean([np.isfinite(each.levels[step]).sum() for each in cascades]))
            for step, length in enumerate(cascades[0].lengths)
        }
        found.append({"doubt": doubt, "best": float(ends[0]), "worst": float(ends[1]), **rows})
    return found


def growth(folder: Path, dtype: str) -> list[dict[str, float]]:
    """Seconds of scan and cascade over rows and K."""
    found = []
    for length in GROWTH_LENGTHS:
        for rows in GROWTH_ROWS:
            store = made(folder, rows, mixture_settings(length, dtype, (length // 2,)))
            query = demo(length)[1][:1]
            works = Alternating(RUNS)
            works.add("read_s", partial(read, store))
            works.add("scan_s", partial(cascade.scan, store, query))
            works.add("cascade_s", partial(cascade.cascade, store, query))
            found.append({"rows": rows, "k": length, **works.best()})
    return found


if __name__ == "__main__":
    main()
