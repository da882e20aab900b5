"""The training examples as texts with labels: which pass a filter, which say the same, which words tell them apart.

In come examples, filters and rows; out come rows, folded near-duplicates, words and
histograms. It knows nothing of how examples were scored. Numpy only.
"""

from explorer.corpus.corpus import Corpus
from explorer.corpus.duplicates import Fold
from explorer.corpus.filters import EVERYTHING, Filter

__all__ = [
    "EVERYTHING",
    "Corpus",
    "Filter",
    "Fold",
]
