"""What a trainer wrote of its settings, in YAML, JSON or its model card, under the names that this program uses.

What is pickled, such as `training_args.bin`, is left alone: reading it could run code.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from explorer.errors import ModelError, first_line
from explorer.text_files import json_value, read_text
from explorer.visible import one_line

_FILES = ("training_args.yaml", "training_args.json", "llamaboard_config.yaml", "axolotl_config.yaml", "config.yaml")
_CARD = "README.md"
_CARD_CONFIG = re.compile(r"```yaml\n(.*?)\n```", re.DOTALL)
_CARD_TAGS = {"axolotl": "axolotl", "llama-factory": "LLaMA-Factory", "unsloth": "unsloth", "trl": "TRL"}
"""What trainers put among a card's tags."""
_CARD_LINE = re.compile(r"^- ([a-z_]+): ([^\s]+)$", re.MULTILINE)
_LARGEST = 1 << 20
"""A larger file holds no settings."""


@dataclass(frozen=True)
class Settings:
    """What was said of a training; what wasn't is None, or empty."""

    files: tuple[str, ...] = ()
    """The names of the files that said it."""
    trainer: str = ""
    """Whose they are, where that shows."""
    base: str = ""
    template: str = ""
    """A template of this program that the named one is."""
    loss: str = ""
    """See `Counting`."""
    longest: int = 0
    epochs: float | None = None
    learning_rate: float | None = None
    batch: int | None = None
    """Examples a step, over all devices and accumulated gradients as far as they are known."""
    data: str = ""
    """The data's file, where one is named."""


def read_settings(folder: Path) -> Settings:
    """What the files in a folder say. Raises ModelError for one that is damaged."""
    found, files, trainer = dict[str, Any](), list[str](), ""
    for name in [*_FILES, *sorted(path.name for path in folder.glob("*.y*ml") if path.name not in _FILES)]:
        path = folder / name
        if path.is_file() and path.stat().st_size < _LARGEST and (said := _mapping(path)):
            found, files = {**said, **found}, [*files, name]
    card = folder / _CARD
    if card.is_file() and card.stat().st_size < _LARGEST:
        text = read_text(card, "The model card", ModelError)
        trainer = next((name for tag, name in _CARD_TAGS.items() if f"\n- {tag}\n" in text), "")
        if said := _of_card(text):
            found, files = {**said, **found}, [*files, _CARD]
    return _settings(found, tuple(files), trainer)


def _mapping(path: Path) -> dict[str, Any]:
    text = read_text(path, "The settings", ModelError)
    try:
        said = json_value(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as problem:
        raise ModelError(f"{path} can't be read ({first_line(problem)}); mend it, or take it out.") from None
    if not isinstance(said, dict):
        return {}
    # LLaMA-Factory's page writes its fields as train.learning_rate or top.model_path.
    return {str(key).rpartition(".")[2]: value for key, value in said.items()}


def _of_card(text: str) -> dict[str, Any]:
    """What a model card says: axolotl's configuration in it, and the list of hyperparameters."""
    listed = {name: yaml.safe_load(value) for name, value in _CARD_LINE.findall(text) if ":" not in value}
    for block in _CARD_CONFIG.findall(text):
        try:
            said = yaml.safe_load(block)
        except (yaml.YAMLError, RecursionError):
            continue
        if isinstance(said, dict) and ("base_model" in said or "model_name_or_path" in said):
            return {**listed, **said}
    return listed


def _settings(said: Mapping[str, Any], files: tuple[str, ...], trainer: str) -> Settings:
    axolotl = "base_model" in said and any(key in said for key in ("micro_batch_size", "sequence_len", "datasets"))
    factory = any(key in said for key in ("cutoff_len", "finetuning_type", "template", "dataset_dir"))
    data = said.get("datasets")
    first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
    loss, template = ("", "")
    if axolotl:
        loss, template = _of_axolotl(said, first)
    elif factory:
        loss, template = _of_factory(said)
    return Settings(
        files=files,
        trainer=trainer or ("axolotl" if axolotl else "LLaMA-Factory" if factory else ""),
        base=_text(said, "base_model", "model_name_or_path", "model_name"),
        template=template,
        loss=loss,
        longest=int(_number(said, "cutoff_len", "sequence_len", "max_seq_length", "max_length") or 0),
        epochs=_number(said, "num_epochs", "num_train_epochs"),
        learning_rate=_number(said, "learning_rate"),
        batch=_batch(said),
        data=_text(first, "path"),
    )


def _of_axolotl(said: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[str, str]:
    """What is in the loss, and the template."""
    kind = str(data.get("type") or "")
    loss = "prompt" if said.get("train_on_inputs") or kind == "completion" else "all"
    template = "alpaca" if kind.startswith("alpaca") else "chat" if kind in ("chat_template", "sharegpt") else ""
    return loss, template


def _of_factory(said: Mapping[str, Any]) -> tuple[str, str]:
    loss = "prompt" if said.get("train_on_prompt") else "last" if said.get("mask_history") else "all"
    named = str(said.get("template") or "")
    # It saves its own templates as the tokenizer's, beside the model.
    return loss, {"alpaca": "alpaca", "vanilla": "plain", "empty": "plain"}.get(named, "chat" if named else "")


def _batch(said: Mapping[str, Any]) -> int | None:
    whole = _number(said, "total_train_batch_size")
    each = _number(said, "micro_batch_size", "per_device_train_batch_size", "train_batch_size", "batch_size")
    if whole or not each:
        return int(whole) if whole else None
    return int(each * (_number(said, "gradient_accumulation_steps") or 1) * (_number(said, "num_devices") or 1))


def _number(said: Mapping[str, Any], *names: str) -> float | None:
    """The first of some names that says a positive number; YAML takes 1e-4 for a text."""
    for name in names:
        try:
            number = float(said.get(name))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue
        if 0 < number < float("inf"):
            return number
    return None


def _text(said: Mapping[str, Any], *names: str) -> str:
    """The first of some names that says a text."""
    return next((one_line(said[name], 500) for name in names if isinstance(said.get(name), str) and said[name]), "")
