"""Opens a cache together with the model it was made with."""

from pathlib import Path

from explorer.embedded import Say
from explorer.engine import Engine
from explorer.model import load_model
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
        model or kept.model,
        adapter or adapter_of(store) or None,
        template or kept.template,
        device or None,
        say,
    )
    return Engine(loaded, store)


def adapter_of(store: Store) -> str:
    """The adapter folder the manifest names, found from the cache's own place."""
    return str((store.folder / store.manifest.adapter).resolve()) if store.manifest.adapter else ""
