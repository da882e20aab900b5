"""What the training's record says, and where gradients are taken: at its checkpoints, or at points on the way."""

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from explorer.errors import ModelError
from explorer.model.adapter import WEIGHTS
from explorer.model.embedded import Say
from explorer.model.files import (
    Stored,
    folder_hash,
    read_object,
    refuse_codes,
    refuse_infinite,
    refuse_unequal,
    stored_tensors,
    tensors_of,
)
from explorer.model.language_model import Checkpoint, LanguageModel
from explorer.model.way import point_name, point_of
from explorer.records import TrainingRecord
from explorer.text_files import json_value, read_text

TRAINING_RECORD = "training.json"
"""The file beside an adapter that says how it was trained."""
CHECKPOINTS = "checkpoints"
"""The folder in an adapter's folder that holds the tensors of earlier moments of its training."""
SECOND_MOMENTS = "moments"
"""The folder in an adapter's folder that holds AdamW's second moments, by the names of the checkpoints."""
FINAL = "final"
"""The name of the last checkpoint, the adapter itself."""
_OF_TRAINER = re.compile(r"checkpoint-\d+")
"""The folders that transformers' Trainer keeps moments of a training in."""
CHAT, ALPACA, PLAIN = "chat", "alpaca", "plain"
"""The templates that go by a name; others lie in files."""


def taken_at(model: LanguageModel, checkpoints: str, known: TrainingRecord | None = None) -> LanguageModel:
    """The model with gradients taken at the named moments, instead of where they are taken now.

    `checkpoints` is `final`, `all` that the training record lists, or names with commas: of those checkpoints, or of
    points on the way from the base (`25%`; see `way`). `known` is what is known of the training where no record lies
    beside the adapter. Raises ModelError for one that isn't there.
    """
    adapter = Path(model.adapter) if model.adapter else None
    training = read_training_record(adapter, checkpoints, known)
    points = tuple(_moments(model, training))
    fingerprint = model.fingerprint
    files = _kept_files(adapter, training) if adapter else []
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


def read_training_record(
    adapter: str | Path | None, checkpoints: str, known: TrainingRecord | None = None
) -> TrainingRecord:
    """What is known of the training, with the moments that were asked for and their e·η.

    Points on the way share the e·η of the whole training evenly, but those that are `known` already keep theirs.
    """
    record, recorded = _recorded(Path(adapter or "", TRAINING_RECORD) if adapter else None)
    if known and not record.known:
        record, recorded = replace(known, checkpoints=()), dict(known.checkpoints)
    if checkpoints == FINAL:
        return record
    names = list(recorded) if checkpoints == "all" else checkpoints.split(",")
    alphas = {name: alpha for name in names if (alpha := point_of(name)) is not None}
    missing = [name for name in names if name not in recorded and name not in alphas]
    if missing or not names:
        listed = ", ".join(recorded) or "none; train with --checkpoints"
        raise ModelError(
            f"The training's record lists no checkpoint {', '.join(missing) or 'at all'}; it has: {listed}. "
            "Points on the way from the base to the fine-tuned model are given as 25%,50%."
        )
    whole = sum(recorded.values()) or record.scale
    weights = {name: whole / len(alphas) for name in alphas} | recorded
    shown = {name: point_name(alphas[name]) if name in alphas else name for name in names}
    return replace(record, checkpoints=tuple((shown[name], weights[name]) for name in names))


def _recorded(path: Path | None) -> tuple[TrainingRecord, dict[str, float]]:
    """The record of a training, and the e·η of the checkpoints that were kept of it."""
    if path is None or not path.is_file():
        return TrainingRecord(), {}
    try:
        kept = training_record(path.parent)
        recorded = {str(c["name"]): float(c["epochs"]) * float(c["learning_rate"]) for c in kept.get("checkpoints", [])}
        record = TrainingRecord(float(kept["epochs"]), float(kept["learning_rate"]), known=True)
        if not 0 < record.scale < math.inf or not all(0 <= weight < math.inf for weight in recorded.values()):
            raise ValueError("epochs and learning_rate must be positive numbers")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as problem:
        raise _no_record(path, problem) from None
    return record, recorded


def training_record(adapter: Path) -> dict[str, Any]:
    """The record of its training beside an adapter, empty where there is none. Raises ModelError where it's damaged."""
    path = adapter / TRAINING_RECORD
    if not path.is_file():
        return {}
    text = read_text(path, "The training record", ModelError)
    try:
        kept = json_value(text)
    except ValueError as problem:
        raise _no_record(path, problem) from None
    if not isinstance(kept, dict):
        raise _no_record(path, TypeError("it holds no object, with names and values"))
    return kept


def _no_record(path: Path, problem: Exception) -> ModelError:
    return ModelError(f"{path} is no training record ({problem!r}); delete it to assume e·η = 1.")


def recorded_template(adapter: Path | None, template: str) -> str:
    """The name of the template to use: where `auto` was asked for, the recorded one, if there is one.

    Raises ModelError where another one was asked for than was trained with.
    """
    recorded = str(training_record(adapter).get("template") or "") if adapter else ""
    if template == "auto":
        return recorded or template
    # What lay in a file that moved can't be told from its name.
    if recorded and template != recorded and {template, recorded} & {CHAT, ALPACA, PLAIN}:
        raise ModelError(
            f"The adapter {adapter} was trained with the template {recorded}, as its {TRAINING_RECORD} says, and not "
            f"with {template}: leave out --template. A cache that was made with {template} has to be made anew."
        )
    return template


def refuse_other_base(adapter: Path, name: str, base_sha256: str, say: Say) -> None:
    """Raise ModelError where the record beside an adapter names another base than the model of this name and hash.

    Where only the adapter's configuration names another, which is often a place that it had elsewhere, `say` it.
    """
    record = training_record(adapter)
    named, kept = str(record.get("base_model") or ""), str(record.get("base_sha256") or "")
    if kept and kept == base_sha256:
        return
    if kept or (named and _last(named) != _last(name)):
        raise ModelError(
            f"The adapter {adapter} was trained on {named or 'another model'}, as its {TRAINING_RECORD} says, and "
            f"{name} {'has other weights' if kept else 'is another'}. Give that one as --model; or, where {name} is "
            f"the same model, renamed or saved anew, take base_model and base_sha256 out of that file."
        )
    config = adapter / "adapter_config.json"
    own = str(read_object(config).get("base_model_name_or_path") or "") if config.is_file() else ""
    if own and not named and _last(own) != _last(name):
        say(f"{config} names {own} as the base, and {name} is used; scores are right only if the two are the same")


def _last(name: str) -> str:
    """What a model is called wherever it lies: the last part of its path or id."""
    path = Path(name).resolve() if Path(name).is_dir() else Path(name)
    if path.parent.name == "snapshots":
        # So the model hub's client keeps what it fetched: models--owner--name/snapshots/REVISION.
        return path.parent.parent.name.rpartition("--")[2].lower()
    return path.name.lower()


def _kept_files(adapter: Path, training: TrainingRecord) -> list[str]:
    """The checkpoints' weight files, relative to the adapter's folder; the final weights lie in the folder itself."""
    names = [name for name, _ in training.checkpoints if name != FINAL and point_of(name) is None]
    return [os.path.relpath(_kept_file(adapter, name), adapter) for name in names]


def _kept_file(adapter: Path, name: str) -> Path:
    """The file of a checkpoint: our own, or a trainer's, in the adapter's folder or beside it."""
    if not _OF_TRAINER.fullmatch(name):
        return adapter / CHECKPOINTS / f"{name}.safetensors"
    inside = adapter / name / WEIGHTS
    return inside if inside.is_file() else adapter.parent / name / WEIGHTS


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
        kept = _checkpoint_tensors(model, every, name) if alpha is None else model.way.at(alpha, every)
        chosen = {own: kept[own].detach().requires_grad_() for own in trainable}
        yield Checkpoint(name, chosen, share, {own: kept[own] for own in held})


def second_moments(adapter: Path, name: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """v̂ of AdamW at a checkpoint of the training, for some of the trained tensors; None where it wasn't kept.

    In float32 at least. Raises ModelError for a file that doesn't fit.
    """
    path = adapter / SECOND_MOMENTS / f"{name}.safetensors"
    if not path.is_file():
        return None
    what = f"The second moments {path}"
    stored = stored_tensors([path])
    refuse_unequal(what, stored, tensors.keys() - stored.keys(), (), _unequal(tensors, stored))
    refuse_codes(what, stored, lambda own: True)
    kept = dict(tensors_of(stored))
    refuse_infinite(what, kept.items())
    return {
        own: kept[own].to(each.device, torch.promote_types(each.dtype, torch.float32)) for own, each in tensors.items()
    }


def _unequal(tensors: Mapping[str, torch.Tensor], stored: Mapping[str, Stored]) -> dict[str, tuple[Any, Any]]:
    """The tensors whose stored shape isn't their own: both shapes."""
    return {
        own: (stored[own].shape, tuple(tensor.shape))
        for own, tensor in tensors.items()
        if own in stored and stored[own].shape != tensor.shape
    }


def _checkpoint_tensors(
    model: LanguageModel, tensors: Mapping[str, torch.Tensor], name: str
) -> dict[str, torch.Tensor]:
    if not model.adapter:
        raise ModelError(f"Of a whole model no checkpoint ({name}) is read; give points such as 25%,50%, or final.")
    path = _kept_file(Path(model.adapter), name)
    if not path.is_file():
        raise ModelError(f"The checkpoint {path} isn't there; train anew, or use final.")
    own_names = _names_in_files(model.network) if _OF_TRAINER.fullmatch(name) else {}
    stored, what = stored_tensors([path]), f"The checkpoint {path}"
    stored = {own_names.get(own, own): found for own, found in stored.items()}
    unequal = _unequal(tensors, stored)
    refuse_unequal(what, stored, tensors.keys() - stored.keys(), stored.keys() - tensors.keys(), unequal)
    refuse_codes(what, stored, lambda own: True)
    kept = {own_names.get(own, own): tensor for own, tensor in tensors_of(stored)}
    refuse_infinite(what, kept.items())
    return {own: kept[own].to(tensor.device, tensor.dtype) for own, tensor in tensors.items()}


def _names_in_files(network: Any) -> dict[str, str]:
    """The names that PEFT's files have for an adapter's tensors → those that the network knows them by."""
    from peft import get_peft_model_state_dict

    known = {tensor.data_ptr(): name for name, tensor in network.named_parameters()}
    written = get_peft_model_state_dict(network, save_embedding_layers=False)
    return {name: known[tensor.data_ptr()] for name, tensor in written.items() if tensor.data_ptr() in known}
