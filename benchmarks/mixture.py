"""Makes a large cache whose ranks mean something: rows mixed from the demo's gradients.

The demo's cache says how alike its examples' gradients are. Vectors that are
alike in the same way, times one random matrix, are sketches of any length with
the noise of RapidGrads. A row is a random mixture of three of them and noise of
its own, with the share that leaves rows as alike as the examples are. Every
ninth example is no ingredient: these are the questions.
"""

import argparse
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from explorer.cache import CacheSettings, Manifest, Part, Store, create_cache, fold, open_cache
from explorer.paths import DEMO
from explorer.records import Fingerprint, TrainingRecord
from precompute.build import rows_by_rule
from precompute.sketches import levels

LONGEST = 1 << 16
"""The greatest K."""
_POOL = 1 << 24
"""Random numbers from which the rows' noise is cut."""


def main() -> None:
    """Make a cache in a folder, as the benchmark of retrieval asks for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", type=int)
    parser.add_argument("settings", help="fields of CacheSettings as JSON")
    chosen = parser.parse_args()
    make(chosen.folder, chosen.rows, CacheSettings(**json.loads(chosen.settings)))


@cache
def demo(length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sketches (n, K) of examples to mix, and of the questions (64, K)."""
    kept = np.concatenate([rows * scale[:, None] for rows, scale in open_cache(DEMO / "cache").sketches()])
    values, vectors = np.linalg.eigh(kept.astype(np.float64) @ kept.T)
    features = (vectors * np.sqrt(np.maximum(values, 0))).astype(np.float32)
    # Drawn at the greatest length and folded, it is the same matrix for every length.
    random = np.random.Generator(np.random.SFC64(1))
    projection = random.standard_normal((len(features), LONGEST), dtype=np.float32) / np.float32(np.sqrt(LONGEST))
    sketches = features @ fold(projection, length)
    asked = np.arange(len(sketches)) % 9 == 0
    return sketches[~asked], sketches[asked]


def make(folder: Path, rows: int, settings: CacheSettings) -> Store:
    """A cache of so many mixed rows."""
    real, _ = demo(settings.length)
    store = create_cache(folder, manifest(rows, settings), [example(row) for row in range(rows)])
    for sketches in mixed(real, rows, rows_by_rule(rows, settings)):
        count = len(sketches)
        norms = np.linalg.norm(sketches, axis=1, keepdims=True)
        rest = {"norms": norms, "loss": np.ones(count, dtype=np.float32)}
        store = store.add_shard("sketches", {**levels(sketches, settings), **rest}, count)
    return store


def mixed(real: NDArray[np.float32], rows: int, at_once: int) -> Iterator[NDArray[np.float32]]:
    """Rows (N in all, K), some at a time."""
    random = np.random.Generator(np.random.SFC64(0))
    norm, length = float(np.median(np.linalg.norm(real, axis=1))), real.shape[1]
    # Two stretches of the same noise have nothing to do with each other unless they begin at the same place.
    pool = random.standard_normal(_POOL, dtype=np.float32)
    pure = mixtures(real, random, 256)
    # Noise makes two rows of squared share 1 − s as alike as mixtures times that share.
    share = 1 - min(likeness(real) / likeness(pure), 1.0)
    for start in range(0, rows, at_once):
        some = mixtures(real, random, min(at_once, rows - start))
        noise = np.stack([pool[at : at + length] for at in random.integers(len(pool) - length, size=len(some))])
        noise *= norm * np.sqrt(share / length)
        some *= norm * np.sqrt(1 - share) / np.linalg.norm(some, axis=1, keepdims=True)
        yield some + noise


def mixtures(real: NDArray[np.float32], random: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Three real sketches each, in random shares."""
    weights = np.zeros((count, len(real)), dtype=np.float32)
    chosen = random.integers(len(real), size=(count, 3))
    np.put_along_axis(weights, chosen, random.dirichlet([0.5] * 3, size=count).astype(np.float32), axis=1)
    return weights @ real


def likeness(sketches: NDArray[np.float32]) -> float:
    """The mean cosine of two different rows."""
    unit = sketches / np.linalg.norm(sketches, axis=1, keepdims=True)
    cosines = unit @ unit.T
    return float(cosines[~np.eye(len(unit), dtype=bool)].mean())


def manifest(rows: int, settings: CacheSettings) -> Manifest:
    """A manifest of nothing in particular."""
    fingerprint = Fingerprint("", "", "", "", "float32", (("mixture", (settings.length,)),))
    return Manifest(fingerprint, TrainingRecord(), settings, "", "", "", (Part("mixture", "", rows),), rows, 0, {})


def example(row: int) -> dict[str, object]:
    """The text of a row that has none."""
    return {
        "prompt": str(row),
        "response": "",
        "ids": np.zeros(1, dtype=np.int64),
        "response_start": 0,
        "tokens": [],
        "columns": {},
    }


if __name__ == "__main__":
    main()
