"""How true RapidGrad's scores are to exact inner products, over K, λ and number formats."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks.common import load, options, show
from explorer import gradients
from explorer.engine import SPARE
from explorer.model import LanguageModel
from explorer.normalisation import KINDS, divisors
from explorer.records import Encoded
from explorer.scores import ranked
from explorer.sketch import Sketcher, SketchSettings
from explorer.store import fold, quantise

LENGTHS = [1 << exponent for exponent in range(10, 21)]
ROUNDS = (20, 100)
TOP = 10


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=512, help="training examples (512)")
    parser.add_argument("--queries", type=int, default=20, help="questions: the data's last examples (20)")
    parser.add_argument("--normalisation", choices=KINDS, default="layer", help="of gradients (layer)")
    chosen = parser.parse_args()
    model, encoded = load(chosen, None)
    queries = encoded[-chosen.queries :]
    rows = encoded[: -chosen.queries][: chosen.rows]
    show(measure(model, queries, rows, chosen.normalisation), chosen.json)


def measure(
    model: LanguageModel, queries: list[Encoded], rows: list[Encoded], normalisation: str
) -> dict[str, int | str | list[dict[str, float | int | str]]]:
    """Every gradient is computed once, sketched at the largest K under each λ, and folded to the others."""
    layout = model.fingerprint.layout
    sketchers = [Sketcher(layout, SketchSettings(LENGTHS[-1], rounds), model.device) for rounds in ROUNDS]
    directions = [normalised(model, query, normalisation) for query in queries]
    asked = [np.stack([sketcher(direction) for direction in directions]) for sketcher in sketchers]
    # One matrix a tensor holds all queries, so that an example's exact scores are one product each.
    stacked = {name: torch.stack([d[name].flatten().float() for d in directions]) for name in directions[0]}
    exact = np.empty((len(rows), len(queries)))
    kept = [np.empty((len(rows), LENGTHS[-1]), dtype=np.float32) for _ in sketchers]
    for number, row in enumerate(rows):
        gradient = normalised(model, row, normalisation)
        parts = [stacked[name] @ part.flatten().float() for name, part in gradient.items()]
        exact[number] = torch.stack(parts).double().sum(0).cpu().numpy()
        for sketcher, sketches in zip(sketchers, kept, strict=True):
            sketches[number] = sketcher(gradient)
    found = []
    for rounds, sketches, questions in zip(ROUNDS, kept, asked, strict=True):
        for length in LENGTHS:
            short, query = fold(sketches, length), fold(questions, length)
            for dtype in ("float32", "float16", "int8"):
                found.append({"k": length, "rounds": rounds, "dtype": dtype, **agreement(short, query, dtype, exact)})
    return {
        "rows": len(rows),
        "queries": len(queries),
        "parameters": model.fingerprint.parameters,
        "normalisation": normalisation,
        "settings": found,
    }


def normalised(model: LanguageModel, encoded: Encoded, kind: str) -> gradients.Gradient:
    """The gradient of the mean response loss, normalised."""
    gradient = gradients.gradient(model, encoded)
    return gradients.divided(gradient, divisors(gradients.norms(gradient), kind))


def agreement(
    sketches: NDArray[np.float32], queries: NDArray[np.float32], dtype: str, exact: NDArray[np.float64]
) -> dict[str, float]:
    """Means over the queries: Pearson and Spearman over all rows, overlap of the top ten before and after re-rank."""
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
                "spearman": np.corrcoef(pd.Series(true).rank(), pd.Series(found).rank())[0, 1],
                "overlap": len(best & set(candidates[:TOP].tolist())) / TOP,
                "overlap_reranked": len(best & set(reranked.tolist())) / TOP,
            }
        )
    return {name: float(value) for name, value in pd.DataFrame(figures).mean().items()}


if __name__ == "__main__":
    main()
