"""The two sides of a gradient method: the question's direction, and the training gradients it is multiplied with.

A cache made with `cosine` or `none` holds, but for one known number a row, the
sketches of the other, too: they serve both. Layer-wise normalised sketches are
sums of differently divided tensors and serve no other normalisation. Where a
cache can't serve, sketches of a method's own are made once, by one backward
pass over every training example, and kept.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from explorer import gradients, retrieval
from explorer.cache import Arrays, Store
from explorer.cache.shards import quantise
from explorer.concurrency import Recent
from explorer.engine import Engine
from explorer.errors import MethodError, about
from explorer.gradients import Gradient
from explorer.methods.method import Method
from explorer.model.language_model import LanguageModel
from explorer.normalisation import divisors, reciprocals
from explorer.records import Answer, Encoded, Selection
from explorer.retrieval import Rows

_SMALL = 1 << 24
"""Gradients of no more numbers are remembered: 64 MB."""
_known: WeakKeyDictionary[Any, Recent[object, Gradient]] = WeakKeyDictionary()


def at_checkpoint(model: LanguageModel, name: str) -> LanguageModel:
    """The model with gradients taken at one of its checkpoints alone, by default the last. Raises MethodError."""
    points = {point.name: point for point in model.checkpoints}
    if name and name not in points:
        known = ", ".join(filter(None, points)) or "the final model alone; give no value"
        raise MethodError(f"The cache has no checkpoint {name}; it has: {known}.")
    return replace(model, checkpoints=(points[name] if name else model.checkpoints[-1],))


def question_gradient(model: LanguageModel, answer: Answer, selection: Selection, kind: str) -> Gradient:
    """The gradient of what is asked about, divided by the norms of the whole response's as `kind` says."""
    gradient = asked_gradient(model, answer, selection)
    whole = gradient if selection is None else asked_gradient(model, answer, None)
    return gradients.normalised(model, gradient, gradients.norms(whole), kind)


def asked_gradient(model: LanguageModel, answer: Answer, selection: Selection) -> Gradient:
    """A question's gradient, remembered where it is small: method after method wants the same one."""
    if sum(part.numel() for point in model.checkpoints for part in point.tensors.values()) > _SMALL:
        return gradients.gradient(model, answer.encoded, selection)
    asked: Recent[object, Gradient] = _known.setdefault(model.network, Recent(4))
    points = tuple(point.name for point in model.checkpoints)
    key = (points, answer.id, answer.encoded.response_start, selection)
    found = asked.get(key)
    if found is None:
        found = gradients.gradient(model, answer.encoded, selection)
        asked.put(key, found)
    return found


def forget(model: LanguageModel) -> None:
    """Let the next question's gradient be computed anew, to be timed."""
    _known.pop(model.network, None)


def scale(engine: Engine, model: LanguageModel) -> float:
    """The e·η of the checkpoints at which gradients are taken."""
    return engine.store.manifest.training.scale * min(1.0, sum(point.share for point in model.checkpoints))


def serves(store: Store, kind: str) -> bool:
    """Whether the cached sketches serve training gradients divided as `kind` says."""
    return store.manifest.settings.normalisation == kind or (
        "layer" not in (store.manifest.settings.normalisation, kind)
    )


def layers_of(engine: Engine, model: LanguageModel) -> NDArray[np.int64]:
    """The numbers of a model's tensors among all the cache's (L)."""
    places = {name: number for number, (name, _) in enumerate(engine.model.fingerprint.layout)}
    return np.array([places[name] for name in gradients.zeros(model)])


def training_norms(engine: Engine, model: LanguageModel) -> NDArray[np.float32]:
    """‖∇^l L(s_k)‖ of every training example and every tensor of the model (N, L)."""
    return engine.store.norms[:, layers_of(engine, model)]


def sketched_products(
    engine: Engine, model: LanguageModel, direction: Mapping[str, torch.Tensor], kind: str
) -> NDArray[np.float32]:
    """⟨direction, ∇L(s_k)⟩ of all training gradients divided as `kind` says (N), by the cached sketches."""
    return row_factors(engine, model, kind) * scan(engine.store, engine.sketcher(direction))


def scan(store: Store, query: NDArray[np.float32]) -> NDArray[np.float32]:
    """⟨query, sketch⟩ of every cached sketch (N)."""
    return retrieval.level_products(store, query[None], len(query))[0]


def row_factors(engine: Engine, model: LanguageModel, kind: str) -> NDArray[np.float32]:
    """What makes the cached sketches those of gradients divided as `kind` says (N)."""
    store = engine.store
    if kind == "layer":
        return np.ones(store.manifest.rows, dtype=np.float32)
    whole = np.linalg.norm(store.norms, axis=1)
    own = np.linalg.norm(training_norms(engine, model), axis=1)
    held = whole if store.manifest.settings.normalisation == "cosine" else np.ones_like(whole)
    return np.asarray(held * reciprocals(own) if kind == "cosine" else held)


def own_sketches(
    method: Method, model: LanguageModel, kind: str, whole_sequence: bool = False, of: str = "", **told: str
) -> Rows:
    """Sketches (N, K) and scales (N) of training gradients divided as `kind` says: made once, then kept.

    For what the cached ones can't serve, by the same table and in the same
    number format. `whole_sequence` is for the loss of prompts, too; `of` names
    another model than the cache's, which `told` tells from others.
    """
    engine, settings = method.engine, method.engine.store.manifest.settings
    held = "layer" if kind == "layer" else "none"

    def make() -> Arrays:
        examples = engine.store.examples
        stored = np.empty((len(examples), settings.length), dtype=settings.dtype)
        scales, sizes = np.empty((2, len(examples)), dtype=np.float32)
        for row, example in enumerate(examples):
            encoded = with_prompt(example.encoded) if whole_sequence else example.encoded
            gradient = gradients.gradient(model, encoded)
            norms = gradients.norms(gradient)
            with about(f"Row {row} of the cache"):
                sketch = engine.sketcher(gradients.divided(gradient, divisors(norms, held)))
            (stored[row],), (scales[row],) = quantise(sketch[None], settings.dtype)
            sizes[row] = np.linalg.norm(norms)
            method.report("training gradients", row + 1, len(examples))
        return {"sketch": stored, "scale": scales, "size": sizes}

    points = [point.name for point in model.checkpoints]
    name = "-".join(filter(None, ["sketches", held, "whole" if whole_sequence else "", of, *points]))
    kept = method.fitted(name, make, normalisation=held, whole_sequence=whole_sequence, checkpoints=points, **told)
    scales = kept["scale"]
    return kept["sketch"], np.asarray(scales * reciprocals(kept["size"])) if kind == "cosine" else scales


def with_prompt(encoded: Encoded) -> Encoded:
    """A sequence whose loss is that of every token that another one precedes, the prompt's and the template's, too."""
    return Encoded(encoded.ids, 1)


def token_values(engine: Engine, model: LanguageModel, direction: Gradient, kind: str, row: int) -> NDArray[np.float32]:
    """⟨direction, ∇L(s_k^i)⟩ of every response token of one example (G), divided by the whole example's norms."""
    norms = engine.example_norms(row, kind)[layers_of(engine, model)]
    divided = gradients.divided(direction, divisors(norms, kind))
    return gradients.directional_token_losses(model, engine.store.examples[row].encoded, divided)
