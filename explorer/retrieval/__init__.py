"""TODO."""

from explorer.retrieval.cascade import ExampleScores, best, coarse_lengths, example_scores, level_products, rescored
from explorer.retrieval.distributed import DistributedStore
from explorer.retrieval.scan import Rows, products
from explorer.retrieval.scores import ranked

__all__ = [
    "DistributedStore",
    "ExampleScores",
    "Rows",
    "best",
    "coarse_lengths",
    "example_scores",
    "level_products",
    "products",
    "ranked",
    "rescored",
]
