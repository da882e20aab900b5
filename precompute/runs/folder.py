"""The folder of a training run → where its model lies, from which base, and the moments of its training.

A trainer writes the finished adapter or model into its output folder, or leaves it in the last `checkpoint-*` alone.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from explorer.errors import ModelError
from explorer.model.adapter import CONFIG, WEIGHTS
from explorer.model.checkpoints import FINAL, training_record
from explorer.model.files import read_object
from explorer.records import TrainingRecord
from precompute.runs.logs import Entry, Log, read_log
from precompute.runs.settings import Settings, read_settings

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("*.pt", "*.pth", "*.bin", "*.pkl")


@dataclass(frozen=True)
class Moment:
    """A moment of the training that was kept."""

    name: str
    """The folder's name, or what our own record calls it."""
    step: int
    epoch: float | None
    """How often the data had been read by then; None where that isn't known."""
    learning_rate: float | None
    """That of its step; None where that isn't known."""
    weight: float
    """e·η of the steps since the moment before: their epochs times their mean learning rate; 0 where unknown."""


@dataclass(frozen=True)
class Run:
    """What a folder holds, and says of its training."""

    folder: Path
    kind: str
    """Whose folder it is, for a person."""
    adapter: Path | None
    """The folder of the finished adapter; None where a whole model was trained."""
    model: str
    """The base that the adapter goes on, or the whole model; empty where it isn't named."""
    base: str
    """The model that a whole one was trained from; empty where that isn't known."""
    moments: tuple[Moment, ...] = ()
    epochs: float | None = None
    learning_rate: float | None = None
    """The largest of the training."""
    batch: int | None = None
    log: Log = field(default_factory=Log)
    settings: Settings = field(default_factory=Settings)
    template: str = ""
    """The template that its record or its settings name; empty where none does."""
    left_alone: tuple[str, ...] = ()
    """Pickled files, which weren't read."""
    own: bool = False
    """Whether `finetune` made it, so that its record says how rows were read: the last answer, and its template."""

    @property
    def training(self) -> TrainingRecord | None:
        """The run as our own record of a training says it; None where epochs or learning rates aren't known."""
        if not self.epochs or not self.learning_rate:
            return None
        kept = tuple((moment.name, moment.weight) for moment in self.moments if moment.weight)
        return TrainingRecord(self.epochs, self.learning_rate, known=True, checkpoints=kept)


def open_run(folder: Path) -> Run:
    """What is in a folder. Raises ModelError where it is no run, or a file in it is damaged."""
    if not folder.is_dir():
        raise ModelError(f"There is no folder {folder}; give the one that the trainer wrote.")
    kept = _checkpoints(folder)
    if not _holds_model(folder) and not kept:
        raise ModelError(_nothing(folder))
    final = folder if _holds_model(folder) else kept[-1][1]
    log = read_log(folder)
    if not log.entries and not log.epochs:
        # Of several states the last one has all lines of those before it.
        log = next((found for _, path in reversed(kept) if (found := read_log(path)).epochs), log)
    settings = _settings(folder, final)
    adapter = final if (final / CONFIG).is_file() else None
    model, base = _models(final, adapter, settings)
    left = sorted(
        {path.name for where in (folder, *(path for _, path in kept)) for name in _PICKLED for path in where.glob(name)}
    )
    if adapter and training_record(adapter):
        return _ours(folder, adapter, model, tuple(left))
    moments = _moments(folder, kept, final, log)
    return Run(
        folder=folder,
        kind=settings.trainer or ("transformers' Trainer" if log.entries or kept else ""),
        adapter=adapter,
        model=model,
        base=base,
        moments=moments,
        epochs=log.epochs or settings.epochs,
        learning_rate=settings.learning_rate or log.peak_rate,
        batch=settings.batch or log.batch or None,
        log=log,
        settings=settings,
        template=settings.template,
        left_alone=tuple(left),
    )


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The steps and folders of the checkpoints that hold weights, in the order of their steps."""
    named = [(_CHECKPOINT.fullmatch(path.name), path) for path in folder.glob("checkpoint-*")]
    return sorted((int(match[1]), path) for match, path in named if match and _holds_model(path))


def _holds_model(folder: Path) -> bool:
    """Whether an adapter's or a model's weights lie in a folder."""
    return (folder / WEIGHTS).is_file() or any((folder / name).is_file() for name in _WEIGHTS)


def _nothing(folder: Path) -> str:
    pickled = [path.name for name in ("adapter_model.bin", "pytorch_model*.bin") for path in folder.glob(name)]
    if pickled:
        return (
            f"{folder} keeps its weights in {pickled[0]}, and only safetensors are read, which run no code. Save it "
            "again with save_pretrained."
        )
    return (
        f"{folder} holds no adapter (adapter_model.safetensors), no model (model.safetensors) and no checkpoint-* with "
        "one; give the output folder of a training."
    )


def _settings(folder: Path, final: Path) -> Settings:
    found = read_settings(folder)
    return found if found.files or final == folder else read_settings(final)


def _models(final: Path, adapter: Path | None, settings: Settings) -> tuple[str, str]:
    """The model to load, and the base of a whole one; empty where it isn't named."""
    if adapter is None:
        return str(final), settings.base
    named = read_object(adapter / CONFIG).get("base_model_name_or_path")
    return str(named or settings.base or ""), ""


def _moments(folder: Path, kept: list[tuple[int, Path]], final: Path, log: Log) -> tuple[Moment, ...]:
    """The checkpoints, of which the finished model is the last one where it is one of them."""
    found, after, before = list[Moment](), 0, 0.0
    for step, path in kept:
        epoch = _epoch_of(path, step, log)
        rate = log.mean_rate(after, step)
        weight = rate * (epoch - before) if rate and epoch is not None and epoch > before else 0.0
        name = FINAL if path == final or (step == log.steps and folder == final) else path.name
        found.append(Moment(name, step, epoch, log.rate_at(step), weight))
        after, before = step, before if epoch is None else epoch
    return tuple(found)


def _epoch_of(path: Path, step: int, log: Log) -> float | None:
    own = read_log(path)
    if own.steps == step and own.epochs:
        return own.epochs
    return log.epochs * step / log.steps if log.steps else None


def _ours(folder: Path, adapter: Path, model: str, left: tuple[str, ...]) -> Run:
    """A run of `finetune`, which says all of this in its own record."""
    record = training_record(adapter)
    try:
        batch = int(record.get("batch_size") or 0)
        per_epoch = -(-int(record.get("examples") or 0) // batch) if batch else 0
        moments, epoch = list[Moment](), 0.0
        for each in record.get("checkpoints", []):
            epochs, rate = float(each["epochs"]), float(each["learning_rate"])
            epoch += epochs
            moments.append(Moment(str(each["name"]), round(epoch * per_epoch), epoch, rate, epochs * rate))
        return Run(
            folder=folder,
            kind="rapidin-explorer finetune",
            adapter=adapter,
            model=str(record.get("base_model") or model),
            base="",
            moments=tuple(moments),
            epochs=float(record["epochs"]),
            learning_rate=float(record["learning_rate"]),
            batch=batch or None,
            log=_epoch_losses(record.get("epoch_losses", [])),
            template=str(record.get("template") or ""),
            left_alone=left,
            own=True,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise ModelError(
            f"The training record beside {adapter} is damaged ({problem!r}); mend it or remove it."
        ) from None


def _epoch_losses(losses: list[float]) -> Log:
    entries = tuple(Entry(number, float(number), float(loss), None) for number, loss in enumerate(losses, start=1))
    return Log(entries, float(len(entries)))
