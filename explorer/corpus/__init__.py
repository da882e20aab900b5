"""TODO."""

from explorer.corpus.corpus import Corpus
from explorer.corpus.duplicates import Fold
from explorer.corpus.filters import EVERYTHING, Filter

__all__ = [
    "EVERYTHING",
    "Corpus",
    "Filter",
    "Fold",
]
