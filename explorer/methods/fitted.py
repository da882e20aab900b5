"""What methods were fitted to, kept in the cache's folder under `methods/`. Numpy only.

    methods/NAME.safetensors   the arrays
    methods/NAME.json          what they were fitted for, and their SHA-256

The JSON file is written last: without it, or when it was written for anything
else (another model, other data, other settings), nothing was fitted. The
cache's manifest doesn't list these files; whatever is made from a cache can be
made again.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from explorer.cache import Arrays, Store
from explorer.cache.files import make_folder, remove, write_whole
from explorer.cache.manifest import METHODS
from explorer.cache.shards import Mapped, pack_arrays
from explorer.errors import CacheError, DamageError

Key = dict[str, Any]
"""Everything that what was fitted depends on, as plain JSON values."""


def key_of(store: Store, **settings: Any) -> Key:
    """What a fit depends on: the model and the data of a cache, how it was made, and the fit's own settings."""
    made = store.manifest
    return {
        "base": made.fingerprint.base,
        "adapter": made.fingerprint.adapter,
        "tokenizer": made.fingerprint.tokenizer,
        "template": made.fingerprint.template,
        "precision": made.fingerprint.precision,
        "data": made.data_sha256,
        "cache": made.json()["settings"],
        **({"start": made.fingerprint.start} if made.fingerprint.start else {}),
        **({"moments": [name for name, _ in made.training.checkpoints]} if made.training.checkpoints else {}),
        **json.loads(json.dumps(settings)),
    }


def read_fitted(store: Store, name: str, key: Key) -> Arrays | None:
    """The arrays fitted for exactly this, or None. What is damaged counts as not fitted."""
    arrays, listing = _places(store, name)
    try:
        kept = json.loads(listing.read_text(encoding="utf-8"))
        return Mapped(arrays, kept["sha256"]).arrays if kept["for"] == key else None
    except (OSError, ValueError, KeyError, TypeError, DamageError):
        return None


def keep_fitted(store: Store, name: str, key: Key, arrays: Arrays) -> None:
    """Keep arrays for later, in the place of what was fitted under this name before. Raises CacheError."""
    path, listing = _places(store, name)
    payload = pack_arrays(arrays)
    make_folder(path.parent)
    remove(listing)
    write_whole(path, payload)
    kept = {"for": key, "sha256": hashlib.sha256(payload).hexdigest()}
    write_whole(listing, json.dumps(kept, indent=1).encode())


def try_to_keep(store: Store, name: str, key: Key, arrays: Arrays) -> bool:
    """The same, but for a cache in a folder that can't be written: then it is fitted anew by the next process."""
    try:
        keep_fitted(store, name, key, arrays)
    except CacheError:
        return False
    return True


def forget_fitted(store: Store, name: str) -> None:
    """Remove what was kept under this name. Raises CacheError."""
    for path in reversed(_places(store, name)):
        remove(path)


def _places(store: Store, name: str) -> tuple[Path, Path]:
    folder = store.folder / METHODS
    return folder / f"{name}.safetensors", folder / f"{name}.json"
