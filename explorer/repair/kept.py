"""Reports of repairs, kept with the cache that was repaired, so that its pages can show them.

retraining/repairs/DIGEST.json      in the cache's folder: one report, written whole
"""

import json
from typing import Any

from explorer.cache import Store
from explorer.cache.files import make_folder, write_whole
from explorer.cache.manifest import RETRAINING
from explorer.history import origin_of
from explorer.repair.words import as_text

_FOLDER = "repairs"


def keep(store: Store, name: str, report: bytes) -> None:
    """Keep a report, in the place of one of this name. Raises CacheError where that can't be."""
    folder = store.folder / RETRAINING / _FOLDER
    make_folder(folder)
    write_whole(folder / f"{name}.json", report)


def reports(store: Store) -> list[dict[str, Any]]:
    """The reports about a cache as it is now, the newest first; what is damaged, or another program's, is left out."""
    found = list[tuple[float, dict[str, Any]]]()
    for path in (store.folder / RETRAINING / _FOLDER).glob("*.json"):
        try:
            kept, when = json.loads(path.read_text(encoding="ascii")), path.stat().st_mtime
            as_text(kept)
            if kept["hashes"]["before"]["cache_sha256"] == origin_of(store).cache_sha256:
                found.append((when, kept))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return [kept for _, kept in sorted(found, key=lambda each: -each[0])]
