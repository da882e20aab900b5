"""What a cache holds and how it was made, as plain values. Numpy only: it knows nothing of models."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explorer.cache.manifest import METHODS, RETRAINING
from explorer.cache.store import Store
from explorer.records import Fingerprint
from explorer.views import moments


def cache_report(store: Store) -> dict[str, Any]:
    """What a cache holds and how it was made."""
    kept = store.manifest
    names = [name for name, _ in kept.training.checkpoints]
    return {
        "folder": str(store.folder),
        "examples": store.total,
        "complete": store.complete,
        "examples_done": store.read,
        "with_token_sketches": kept.token_rows,
        "unrelated_prompts": store.null_prompts,
        "token_sketches_done": sum(shard.count for shard in store.shards_of("tokens")),
        "bytes": sum(shard.size for shard in store.shards),
        "model": kept.model,
        "adapter": kept.adapter or "none: all parameters",
        **({"fine_tuned_from": kept.base} if kept.base else {}),
        **({"followed_by": kept.followed_by.cache} if kept.followed_by else {}),
        "template": kept.template,
        "data": kept.data,
        "checkpoints": ", ".join(names) or "final",
        "gradients_at": moments(names) or "the final model",
        "trainable_parameters": kept.fingerprint.parameters,
        "tensors": len(kept.fingerprint.layout),
        "tensors_named": kept.settings.tensors or "all trainable",
        "sketch_length": kept.settings.length,
        "token_sketch_length": kept.settings.token_length,
        "shuffles": kept.settings.rounds,
        "seed": kept.settings.seed,
        "dtype": kept.settings.dtype,
        "normalisation": kept.settings.normalisation,
        "precision": "mixed" if kept.settings.mixed_precision else kept.fingerprint.precision,
        "examples_a_backward_pass": kept.settings.batch,
        "epochs_x_learning_rate": kept.training.scale if kept.training.known else "1 (no training record)",
        "base_sha256": kept.fingerprint.base,
        "adapter_sha256": kept.fingerprint.adapter,
        "data_sha256": kept.data_sha256,
        "versions": ", ".join(f"{name} {version}" for name, version in kept.versions.items()),
    }


def disk_use(store: Store) -> dict[str, int]:
    """Bytes of every kind of file, by what it holds."""
    used = {
        "example sketches": sum(shard.size for shard in store.shards_of("sketches")),
        "token sketches": sum(shard.size for shard in store.shards_of("tokens")),
        "null sample": sum(shard.size for shard in store.shards_of("nulls")),
        "examples": (store.folder / store.contents.examples.file).stat().st_size,
        "manifest, twice": sum(path.stat().st_size for path in store.folder.glob("manifest*.json")),
        "fitted methods and their results": _below(store.folder / METHODS),
        "trainings without some rows": _below(store.folder / RETRAINING),
    }
    return {what: size for what, size in used.items() if size}


def _below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Comparison:
    """One thing that cache and model must agree on."""

    what: str
    cache: str
    model: str

    @property
    def same(self) -> bool:
        """Whether they do."""
        return self.cache == self.model


def compared(cache: Fingerprint, model: Fingerprint) -> list[Comparison]:
    """The fingerprints of a cache and a model side by side; they fit where all are the same."""
    parts = [
        "base",
        "adapter",
        "tokenizer",
        "template",
        "precision",
        *(["start"] if cache.start or model.start else []),
    ]
    found = [Comparison(part, getattr(cache, part) or "none", getattr(model, part) or "none") for part in parts]
    return [*found, Comparison("trainable tensors", _layout(cache), _layout(model))]


def _layout(fingerprint: Fingerprint) -> str:
    digest = hashlib.sha256(repr(fingerprint.layout).encode()).hexdigest()
    return f"{len(fingerprint.layout):,} of {fingerprint.parameters:,} parameters, {digest[:16]}"
