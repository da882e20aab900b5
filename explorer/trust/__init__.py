"""How far a ranking can be believed: beside unrelated prompts, other sketch seeds, other methods, other answers.

In come scores and rankings; out come the same with what is known of how unusual and
how stable they are. It knows nothing of how scores came about. Numpy only.
"""

from explorer.trust import wording
from explorer.trust.agreement import Agreement, agree
from explorer.trust.comparing import Comparison, Pair, Standing, compare, differing, spearman
from explorer.trust.significance import NullSample, judged, kind_of
from explorer.trust.stability import Redrawn, noise_covariance, redrawn, steadied
from explorer.trust.verdict import Shared, Verdict, verdict, verdict_of

__all__ = [
    "Agreement",
    "Comparison",
    "NullSample",
    "Pair",
    "Redrawn",
    "Shared",
    "Standing",
    "Verdict",
    "agree",
    "compare",
    "differing",
    "judged",
    "kind_of",
    "noise_covariance",
    "redrawn",
    "spearman",
    "steadied",
    "verdict",
    "verdict_of",
    "wording",
]
