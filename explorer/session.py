"""Opens a cache together with the model it was made with."""

import os
from pathlib import Path

from explorer.checkpoints import FINAL
from explorer.embedded import Say
from explorer.engine import Engine
from explorer.loading import load_model
from explorer.store import Store, open_cache


def open_engine(
    cache: str | Path,
    model: str = "",
    adapter: str = "",
    template: str = "",
    device: str = "",
    say: Say = lambda line: None,
) -> Engine:
    """The engine over a cache; what is empty is taken from the cache's manifest.

    Raises CacheError, ModelError or MismatchError, each saying what to do.
    """
    store = open_cache(cache)
    kept = store.manifest
    store.require_complete()
    loaded = load_model(
        model or _beside(store, kept.model),
        adapter or (os.fspath((store.folder / kept.adapter).resolve()) if kept.adapter else None),
        template or kept.template,
        device or None,
        say,
        ",".join(name for name, _ in kept.training.checkpoints) or FINAL,
        kept.fingerprint.precision,
    )
    return Engine(loaded, store)


def _beside(store: Store, name: str) -> str:
    """A model folder is named from the cache's own place; the embedded model and hub ids are names."""
    folder = (store.folder / name).resolve()
    return os.fspath(folder) if folder.is_dir() else name
