"""Where gradients are taken: at checkpoints that the training's record lists, or at points on the way to the model."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from explorer.errors import ModelError, first_line
from explorer.model.hashes import folder_hash
from explorer.model.language_model import Checkpoint, LanguageModel
from explorer.model.way import point_name, point_of
from explorer.records import TrainingRecord
from explorer.text_files import json_value, read_text

TRAINING_RECORD = "training.json"
"""The file beside an adapter that says how it was trained."""
CHECKPOINTS = "checkpoints"
"""The folder in an adapter's folder that holds the tensors of earlier moments of its training."""
FINAL = "final"
"""The name of the last checkpoint, the adapter itself."""


def taken_at(model: LanguageModel, checkpoints: str) -> LanguageModel:
    """The model with gradients taken at the named moments, instead of where they are taken now.

    `checkpoints` is `final`, `all` that the training record lists, or names with commas: of those checkpoints, or of
    points on the way from the base (`25%`; see `way`). Raises ModelError for one that isn't there.
    """
    adapter = Path(model.adapter) if model.adapter else None
    training = read_training_record(adapter, checkpoints)
    points = tuple(_moments(model, training))
    fingerprint = model.fingerprint
    files = checkpoint_files(training)
    return replace(
        model,
        checkpoints=points,
        training=training,
        fingerprint=replace(
            fingerprint,
            adapter=folder_hash(adapter, "adapter_*", *files) if adapter and files else fingerprint.adapter,
            layout=tuple((c.qualified(n), tuple(t.shape)) for c in points for n, t in c.tensors.items()),
        ),
    )


def read_training_record(adapter: str | Path | None, checkpoints: str) -> TrainingRecord:
    """What is known of the training, with the moments that were asked for and their e·η.

    Points on the way share the e·η of the whole training evenly.
    """
    record, recorded = _recorded(Path(adapter or "", TRAINING_RECORD) if adapter else None)
    if checkpoints == FINAL:
        return record
    names = list(recorded) if checkpoints == "all" else checkpoints.split(",")
    alphas = {name: alpha for name in names if (alpha := point_of(name)) is not None}
    missing = [name for name in names if name not in recorded and name not in alphas]
    if missing or not names:
        known = ", ".join(recorded) or "none; train with --checkpoints"
        raise ModelError(
            f"The training's record lists no checkpoint {', '.join(missing) or 'at all'}; it has: {known}. "
            "Points on the way from the base to the fine-tuned model are given as 25%,50%."
        )
    whole = sum(recorded.values()) or record.scale
    weights = recorded | {name: whole / len(alphas) for name in alphas}
    shown = {name: point_name(alphas[name]) if name in alphas else name for name in names}
    return replace(record, checkpoints=tuple((shown[name], weights[name]) for name in names))


def _recorded(path: Path | None) -> tuple[TrainingRecord, dict[str, float]]:
    """The record of a training, and the e·η of the checkpoints that were kept of it."""
    if path is None or not path.is_file():
        return TrainingRecord(), {}
    text = read_text(path, "The training record", ModelError)
    try:
        kept = json_value(text)
        recorded = {str(c["name"]): float(c["epochs"]) * float(c["learning_rate"]) for c in kept.get("checkpoints", [])}
        record = TrainingRecord(float(kept["epochs"]), float(kept["learning_rate"]), known=True)
        if not 0 < record.scale < math.inf or not all(0 <= weight < math.inf for weight in recorded.values()):
            raise ValueError("epochs and learning_rate must be positive numbers")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as problem:
        raise ModelError(f"{path} is no training record ({problem!r}); delete it to assume e·η = 1.") from None
    return record, recorded


def checkpoint_files(training: TrainingRecord) -> list[str]:
    """The checkpoints' weight files, relative to the adapter's folder; the final weights lie in the folder itself."""
    names = [name for name, _ in training.checkpoints if name != FINAL and point_of(name) is None]
    return [f"{CHECKPOINTS}/{name}.safetensors" for name in names]


def _moments(model: LanguageModel, training: TrainingRecord) -> Iterator[Checkpoint]:
    """Where gradients are taken. Raises ModelError for a file that is missing or doesn't fit."""
    trainable, held = model.trainable, model.held
    if not training.checkpoints:
        yield Checkpoint("", dict(trainable))
    for name, weight in training.checkpoints:
        share, alpha = weight / training.scale, point_of(name)
        if name == FINAL:
            yield Checkpoint(name, dict(trainable), share)
            continue
        every = {**trainable, **held}
        kept = (
            _checkpoint_tensors(every, Path(model.adapter) / CHECKPOINTS, name)
            if alpha is None
            else model.way.at(alpha, every)
        )
        chosen = {own: kept[own].detach().requires_grad_() for own in trainable}
        yield Checkpoint(name, chosen, share, {own: kept[own] for own in held})


def _checkpoint_tensors(tensors: Mapping[str, torch.Tensor], folder: Path, name: str) -> dict[str, torch.Tensor]:
    path = folder / f"{name}.safetensors"
    try:
        kept = load_file(path)
        return {own: kept[own].to(tensor.device, tensor.dtype).reshape(tensor.shape) for own, tensor in tensors.items()}
    except (OSError, KeyError, RuntimeError, SafetensorError) as problem:
        raise ModelError(
            f"The checkpoint {path} can't be used ({first_line(problem)}); train anew, or use final."
        ) from None
