"""The cache on disk: sketches, token sketches, norms, null scores, the table of examples, the manifest.

In come numpy arrays and records; out come memory-mapped arrays, checked against
their checksums. What is written is written whole or not at all, and nothing is
pickled. It knows nothing of models and of what the numbers mean. Numpy only.
"""

from explorer.cache.generations import drop
from explorer.cache.growing import Progress, later, progress, so_far
from explorer.cache.inventory import cache_report
from explorer.cache.manifest import CacheSettings, Contents, FollowedBy, Manifest, Part, Shard
from explorer.cache.objects import fetch, upload
from explorer.cache.shards import Arrays, fold
from explorer.cache.store import Store, create_cache, open_cache

__all__ = [
    "Arrays",
    "CacheSettings",
    "Contents",
    "FollowedBy",
    "Manifest",
    "Part",
    "Progress",
    "Shard",
    "Store",
    "cache_report",
    "create_cache",
    "drop",
    "fetch",
    "fold",
    "later",
    "open_cache",
    "progress",
    "so_far",
    "upload",
]
