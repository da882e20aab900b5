"""The training's record beside an adapter, and the tensors of earlier moments that it lists."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from explorer.errors import ModelError, first_line
from explorer.model.language_model import Checkpoint
from explorer.records import TrainingRecord

TRAINING_RECORD = "training.json"
"""The file beside an adapter that says how it was trained."""
CHECKPOINTS = "checkpoints"
"""The folder in an adapter's folder that holds the tensors of earlier moments of its training."""
FINAL = "final"
"""The name of the last checkpoint, the adapter itself."""
Tensors = dict[str, torch.nn.Parameter]


def read_training_record(adapter: str | Path | None, checkpoints: str) -> TrainingRecord:
    """What is known of the training, with the checkpoints that were asked for."""
    path = Path(adapter or "", TRAINING_RECORD)
    if adapter is None or not path.is_file():
        if checkpoints != "final":
            raise ModelError(f"There is no {TRAINING_RECORD} beside the adapter that lists checkpoints; use final.")
        return TrainingRecord()
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        recorded = {str(c["name"]): float(c["epochs"]) * float(c["learning_rate"]) for c in kept.get("checkpoints", [])}
        record = TrainingRecord(float(kept["epochs"]), float(kept["learning_rate"]), known=True)
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ModelError(f"{path} is no training record ({problem!r}); delete it to assume e·η = 1.") from None
    if checkpoints == "final":
        return record
    names = list(recorded) if checkpoints == "all" else checkpoints.split(",")
    missing = [name for name in names if name not in recorded]
    if missing or not names:
        known = ", ".join(recorded) or "none; train with --checkpoints"
        raise ModelError(f"{path} lists no checkpoint {', '.join(missing) or 'at all'}; it has: {known}.")
    return replace(record, checkpoints=tuple((name, recorded[name]) for name in names))


def checkpoint_files(training: TrainingRecord) -> list[str]:
    """The checkpoints' weight files, relative to the adapter's folder; the final weights lie in the folder itself."""
    return [f"{CHECKPOINTS}/{name}.safetensors" for name, _ in training.checkpoints if name != FINAL]


def read_checkpoints(
    trainable: Tensors, held: Tensors, adapter: Path, training: TrainingRecord
) -> tuple[Checkpoint, ...]:
    """Where gradients are taken, of `trainable` alone. Raises ModelError for a file that is missing or doesn't fit."""
    if not training.checkpoints:
        return (Checkpoint("", dict(trainable)),)
    points = []
    for name, weight in training.checkpoints:
        share = weight / training.scale
        if name == FINAL:
            points.append(Checkpoint(name, dict(trainable), share))
            continue
        kept = _checkpoint_tensors({**trainable, **held}, adapter / CHECKPOINTS, name)
        chosen = {own: kept[own].requires_grad_() for own in trainable}
        points.append(Checkpoint(name, chosen, share, {own: kept[own] for own in held}))
    return tuple(points)


def _checkpoint_tensors(tensors: Tensors, folder: Path, name: str) -> dict[str, torch.Tensor]:
    path = folder / f"{name}.safetensors"
    try:
        kept = load_file(path)
        return {own: kept[own].to(tensor.device, tensor.dtype).reshape(tensor.shape) for own, tensor in tensors.items()}
    except (OSError, KeyError, RuntimeError, SafetensorError) as problem:
        raise ModelError(
            f"The checkpoint {path} can't be used ({first_line(problem)}); train anew, or use final."
        ) from None
