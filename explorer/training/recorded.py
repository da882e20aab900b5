"""How an adapter was trained: as its record says, its configuration, and whoever asks for it to be trained again."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from explorer.errors import DataError
from explorer.model.adapter import CONFIG
from explorer.model.checkpoints import TRAINING_RECORD, training_record
from explorer.model.files import read_object
from explorer.training.recipe import FinetuneSettings

_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "bias": ("none",),
    "modules_to_save": (None, []),
}
"""What a plain LoRA adapter's configuration says; only such adapters can be trained anew."""
_WANTED = tuple(field.name for field in fields(FinetuneSettings) if field.name != "checkpoints")


def recipe_of(adapter: str, given: Mapping[str, Any] | None = None) -> FinetuneSettings:
    """How to train an adapter anew; `given` values take the place of recorded ones.

    Rank, alpha and targets stand in the adapter's configuration, too. Raises DataError for what isn't known, naming
    it, and for an adapter that is no plain LoRA.
    """
    if not adapter:
        raise DataError(
            "There is no adapter whose training could be done again; `rapidin-explorer finetune` makes one."
        )
    path = Path(adapter, TRAINING_RECORD)
    recorded = {"mixed_precision": False, **_configured(Path(adapter)), **training_record(Path(adapter))}
    known = recorded | dict(given or {})
    missing = [name for name in _WANTED if name not in known]
    if missing:
        options = " ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise DataError(
            f"{path} doesn't say how the adapter was trained: it lacks {', '.join(missing)}. Write them into it, as "
            f"`rapidin-explorer finetune` does, or give `rapidin-explorer counterfactual` the options {options}."
        )
    try:
        found = FinetuneSettings(**{name: known[name] for name in _WANTED} | {"targets": tuple(known["targets"])})
        if not (found.epochs >= 1 and found.batch_size >= 1 and found.rank >= 1 and 0 < found.learning_rate):
            raise ValueError("epochs, batch_size, rank and learning_rate must be positive numbers")
    except (ValueError, TypeError) as problem:
        raise DataError(
            f"{path} doesn't say how the adapter was trained ({problem}); write what `rapidin-explorer finetune` does."
        ) from None
    return found


def _configured(adapter: Path) -> dict[str, Any]:
    """What an adapter's configuration says of its training."""
    path = adapter / CONFIG
    config = read_object(path) if path.is_file() else {}
    unlike = [f"{name} {config[name]!r}" for name, plain in _PLAIN.items() if config.get(name, plain[0]) not in plain]
    if unlike:
        raise DataError(f"{path} has {', '.join(unlike)}; only plain LoRA adapters can be trained anew.")
    found = {"rank": config.get("r"), "alpha": config.get("lora_alpha"), "targets": config.get("target_modules")}
    if isinstance(found["targets"], str):
        raise DataError(f"{path} has a pattern as target_modules; write the names of the layers as a list instead.")
    if isinstance(found["targets"], list):
        found["targets"] = sorted(found["targets"])
    return {name: value for name, value in found.items() if value is not None}
