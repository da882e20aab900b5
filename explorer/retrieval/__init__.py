"""The question's sketch × the cache's sketches → scores of all examples, and who ranks highest.

In come a cache, or shards of it that workers on a cluster hold, and sketches of
questions; out come scores, read from as little of the cache as the ranking needs. It
knows nothing of models, of gradients, or of why one example scores more than another.
"""

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
