"""How true RapidGrad's scores are to exact inner products, over K, λ and number formats."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from explorer import gradients
from explorer.cache import fold
from explorer.cache.shards import quantise
from explorer.evaluation.exact import Directions, normalised
from explorer.gradients import Sketcher, SketchSettings
from explorer.methods.attributor import SPARE
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded
from explorer.retrieval import ranked
from explorer.trust import spearman

LENGTHS = tuple(1 << exponent for exponent in range(10, 21))
TOP = 10
"""So many of the highest are looked for."""

Figures = dict[str, float | int | str]


def measure(
    model: LanguageModel,
    queries: Sequence[Encoded],
    rows: Sequence[Encoded],
    normalisation: str,
    report: Callable[[int, int], None],
    rounds: Sequence[int] = (20,),
    formats: Sequence[str] = ("float32", "float16", "int8"),
    seed: int = 0,
) -> list[Figures]:
    """The agreement for every λ, every K of `LENGTHS` and every format, means over the queries.

    Every gradient is computed once, at all of the model's checkpoints, sketched
    at the largest K under each λ, and folded to the others. `report` is told how
    many of how many rows are done.
    """
    layout = model.fingerprint.layout
    sketchers = [Sketcher(layout, SketchSettings(LENGTHS[-1], each, seed), model.device) for each in rounds]
    asked = [gradients.weighted(model, normalised(model, query, normalisation)) for query in queries]
    questions = [np.stack([sketcher(direction) for direction in asked]) for sketcher in sketchers]
    directions, exact = Directions(asked), np.empty((len(rows), len(queries)))
    kept = [np.empty((len(rows), LENGTHS[-1]), dtype=np.float32) for _ in sketchers]
    for number, row in enumerate(rows):
        gradient = normalised(model, row, normalisation)
        exact[number] = directions(gradient)
        for sketcher, sketches in zip(sketchers, kept, strict=True):
            sketches[number] = sketcher(gradient)
        report(number + 1, len(rows))
    found: list[Figures] = []
    for each, sketches, query in zip(rounds, kept, questions, strict=True):
        for length in LENGTHS:
            short, shorter = fold(sketches, length), fold(query, length)
            for dtype in formats:
                found.append({"k": length, "rounds": each, "dtype": dtype, **agreement(short, shorter, dtype, exact)})
    return found


def agreement(
    sketches: NDArray[np.float32], queries: NDArray[np.float32], dtype: str, exact: NDArray[np.float64]
) -> dict[str, float]:
    """Sketches (N, K) and queries (Q, K) against exact scores (N, Q), means over the queries.

    Pearson and Spearman over all rows; the overlap of the true top ten with that
    by sketch, and with the best ten of those that are made exact.
    """
    if dtype != "float32":
        stored, scale = quantise(sketches, dtype)
        sketches = stored.astype(np.float32) * scale[:, None]
    scores = sketches @ queries.T
    figures = []
    for query in range(scores.shape[1]):
        true, found = exact[:, query], scores[:, query]
        best = set(ranked(true, TOP).tolist())
        candidates = ranked(found, TOP + SPARE)
        reranked = candidates[np.argsort(-true[candidates], kind="stable")][:TOP]
        figures.append(
            {
                "pearson": np.corrcoef(true, found)[0, 1],
                "spearman": spearman(true, found),
                "overlap": len(best & set(candidates[:TOP].tolist())) / TOP,
                "overlap_reranked": len(best & set(reranked.tolist())) / TOP,
            }
        )
    return {name: float(np.mean([each[name] for each in figures])) for name in figures[0]}
