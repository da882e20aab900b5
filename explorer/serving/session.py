"""Opens a cache together with the model it was made with."""

import os
from pathlib import Path
from typing import Any

from explorer.cache import Store, open_cache
from explorer.engine import Engine
from explorer.errors import UnsupportedError
from explorer.model.checkpoints import FINAL
from explorer.model.embedded import Say
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.retrieval import DistributedStore
from explorer.serving.stages import fine_tuned


def open_engine(
    cache: str | Path,
    model: str = "",
    adapter: str = "",
    template: str = "",
    device: str = "",
    say: Say = lambda line: None,
    ray: Any = None,
    workers: int = 0,
) -> Engine:
    """The engine over a cache; what is empty is taken from the cache's manifest.

    With `ray`, a connection to a cluster, so many workers there hold the shards,
    or as many as there is room for. Raises CacheError, ModelError or MismatchError, each saying what to do.
    """
    store = open_cache(cache)
    store.require_complete()
    if ray:
        spread = DistributedStore(ray, store, workers)
        return Engine(model_for(store, model, adapter, template, device, say), spread)
    store.check()
    own = model_for(store, model, adapter, template, device, say)
    return Engine(own, store, fine_tuned(store, own, lambda later: model_for(later, device=device, say=say)))


def model_for(
    store: Store,
    model: str = "",
    adapter: str = "",
    template: str = "",
    device: str = "",
    say: Say = lambda line: None,
) -> LanguageModel:
    """The model that a cache names, or another one given in its place; whether it fits, `Store.check_model` says."""
    kept = store.manifest
    return load_model(
        model or _beside(store, kept.model),
        adapter or (os.fspath((store.folder / kept.adapter).resolve()) if kept.adapter else None),
        template or kept.template,
        device or None,
        say,
        ",".join(name for name, _ in kept.training.checkpoints) or FINAL,
        kept.fingerprint.precision,
        kept.settings.tensors,
        _beside(store, kept.base) if kept.base else "",
        checked=True,
        training=kept.training if kept.training.known else None,
    )


def base_for(
    store: Store,
    model: str = "",
    template: str = "",
    device: str = "",
    say: Say = lambda line: None,
    adapter: Path | None = None,
) -> LanguageModel:
    """The base that a cache names, what a training begins with; or that with what a training made of it.

    Raises UnsupportedError where tokens were added to the base before its training, whose embeddings it doesn't have.
    """
    kept = store.manifest
    name = model or _beside(store, kept.model)
    precision = kept.fingerprint.precision
    base = load_model(name, adapter, template or kept.template, device or None, say, precision=precision, checked=True)
    known = base.network.get_input_embeddings().weight.shape[0]
    if any(int(example.encoded.ids.max()) >= known for example in store.examples):
        raise UnsupportedError(
            f"Tokens were added to {name} before the adapter was trained, and trainings begin at {name} without them. "
            "Save it with its embeddings resized, and make the cache from that."
        )
    return base


def _beside(store: Store, name: str) -> str:
    """A model folder is named from the cache's own place; the embedded model and hub ids are names."""
    folder = (store.folder / name).resolve()
    return os.fspath(folder) if folder.is_dir() else name
