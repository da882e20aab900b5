"""How often sets of unrelated prompts look like a behaviour, and how often rows are named for them, falsely.

Some of a cache's unrelated prompts are asked about as one, beside the others. The figures are shares of these sets:
`strong` and `strong_or_some` have that much evidence, `named` name any row at the rate of 5%.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figures, show
from explorer.auditing.behaviour import RATE
from explorer.cache.store import open_cache
from explorer.paths import DEMO
from explorer.trust.sets import Alike, Beside, beside_steps
from explorer.trust.significance import NullSample
from explorer.trust.verdict import state_of

SIZES = ((1, 0), (5, 0), (20, 0), (10, 10))
"""How many answers' mean, less that of how many others."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", default=str(DEMO / "cache"), help="a cache with unrelated prompts (the demo's)")
    parser.add_argument("--sets", type=int, default=400, help="sets of each size (400)")
    parser.add_argument("--draws", type=int, default=199, help="sets that each is compared with (199)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args()
    figures: Figures = {}
    for kind in ("response", "raised"):
        scores = np.concatenate(open_cache(chosen.cache).nulls(kind))
        for of, against in SIZES:
            found = [_told(one) for one in _sets(scores, of, against, chosen.sets, chosen.draws)]
            for name, share in zip(("strong", "strong_or_some", "named"), np.mean(found, axis=0).tolist(), strict=True):
                figures[f"{kind}_{of}_against_{against}_{name}"] = share
    show(figures, chosen.json)


def _told(found: Beside) -> tuple[bool, bool, bool]:
    state = state_of(found.test)
    return state == "strong", state != "none", found.test.chance <= RATE and bool((found.false_share <= RATE).any())


def _sets(scores: NDArray[np.float32], of: int, against: int, sets: int, draws: int) -> Iterator[Beside]:
    random = np.random.default_rng(0)
    weights = np.array([1 / of] * of + [-1 / max(against, 1)] * against)
    for _ in range(sets):
        asked, others = np.split(random.permutation(scores.shape[1]), [len(weights)])
        steps = beside_steps([Alike(NullSample((scores[:, others],)), scores[:, asked], weights)], False, draws)
        while True:
            try:
                next(steps)
            except StopIteration as ended:
                yield ended.value
                break


if __name__ == "__main__":
    main()
