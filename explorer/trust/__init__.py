"""TODO."""

from explorer.trust.agreement import Agreement, agree
from explorer.trust.comparing import Comparison, Pair, Standing, compare, differing, spearman
from explorer.trust.significance import NullSample, judged, kind_of
from explorer.trust.stability import Redrawn, noise_covariance, redrawn, steadied

__all__ = [
    "Agreement",
    "Comparison",
    "NullSample",
    "Pair",
    "Redrawn",
    "Standing",
    "agree",
    "compare",
    "differing",
    "judged",
    "kind_of",
    "noise_covariance",
    "redrawn",
    "spearman",
    "steadied",
]
