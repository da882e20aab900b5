"""The benchmark step by step: data, the model taught it, the model tuned to answer, and a cache of each stage.

Every step is kept in the folder when it is done, and isn't done again; a step that was stopped goes on.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from explorer.cache import CacheSettings
from explorer.errors import DataError
from explorer.gradients import token_losses
from explorer.model import embedded
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Counting, Encoded, Example
from explorer.training.recipe import FinetuneSettings
from precompute.build import build_cache
from precompute.data import read_examples, readable
from precompute.estimate import duration, seconds_of
from precompute.invented.facts import corpus, facts
from precompute.invented.teaching import train_whole
from precompute.stages import following

TENSORS = r"layers\.\d*[147]\.(self_attn|mlp)\."
"""Of models of Llama's kind, the weights of attention and MLPs of three layers in ten.

The paper leaves out embeddings and norms. All layers would take three times as long.
"""
_PASSAGE = Counting(chunk=256)
_SETTINGS = "benchmark.json"

Report = Callable[[str, int, int], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What decides the benchmark."""

    model: str = embedded.NAME
    """The model that is trained further."""
    facts: int = 200
    """How many facts; questions about half of them are trained on, about the other half asked."""
    statements: int = 3
    """Passages that state each fact."""
    epochs: int = 5
    """Passes over the corpus."""
    tuning_epochs: int = 3
    """Passes over the questions that are trained on."""
    learning_rate: float = 3e-4
    """First learning rate on the corpus; a fifth of it on questions."""
    tensors: str = TENSORS
    """A regular expression for the tensors that gradients are taken of."""
    length: int = 65_536
    """K of both caches."""
    seed: int = 0
    """Decides facts, texts and orders."""


@dataclass(frozen=True)
class Made:
    """Where everything lies."""

    folder: Path

    @property
    def corpus(self) -> Path:
        """Raw text, each row with the fact that it states, if any."""
        return self.folder / "corpus.jsonl"

    @property
    def tuning(self) -> Path:
        """Questions with answers that were trained on."""
        return self.folder / "tuning.jsonl"

    @property
    def questions(self) -> Path:
        """Questions about the other facts, with what an answer has to say."""
        return self.folder / "questions.jsonl"

    @property
    def taught(self) -> Path:
        """The model trained further on the corpus."""
        return self.folder / "taught"

    @property
    def tuned(self) -> Path:
        """That, trained on questions."""
        return self.folder / "tuned"

    @property
    def tuning_cache(self) -> Path:
        """The cache of the second training."""
        return self.folder / "tuning-cache"

    @property
    def corpus_cache(self) -> Path:
        """The cache of the first one."""
        return self.folder / "corpus-cache"


def make(folder: Path, settings: Settings, device: str, say: Say, report: Report) -> Made:
    """Make the benchmark, or what is left of it to make. Raises DataError where the folder holds another one."""
    made = Made(folder)
    _begin(made, settings)
    _taught(made, settings, device, say, report)
    _tuned(made, settings, device, say, report)
    caching = CacheSettings(
        settings.length, min(settings.length, 4096), normalisation="none", tensors=settings.tensors, batch=1
    )
    tuned = load_model(
        str(made.tuned), None, "auto", device or None, say, tensors=settings.tensors, base=str(made.taught)
    )
    build_cache(tuned, read_examples(made.tuning), made.tuning_cache, caching, 0, made.tuning.name, report)
    del tuned
    taught = load_model(str(made.taught), None, "auto", device or None, say, tensors=settings.tensors)
    build_cache(
        taught,
        read_examples(made.corpus),
        made.corpus_cache,
        caching,
        tokens=0,
        data_name=made.corpus.name,
        report=report,
        counting=_PASSAGE,
        followed_by=following(made.tuning_cache, made.corpus_cache, taught),
    )
    return made


def _begin(made: Made, settings: Settings) -> None:
    """Write the data and what it was made by."""
    made.folder.mkdir(parents=True, exist_ok=True)
    path, told = made.folder / _SETTINGS, json.dumps(asdict(settings), indent=1) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") != told:
        raise DataError(f"{made.folder} holds a benchmark with other settings ({path.name}); give another folder.")
    known = facts(settings.facts, settings.seed)
    half = len(known) // 2
    _write(made.corpus, corpus(known, settings.statements, settings.seed))
    _write(made.tuning, [fact.row for fact in known[:half]])
    _write(made.questions, [fact.asked for fact in known[half:]])
    path.write_text(told, encoding="utf-8")


def _write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _taught(made: Made, settings: Settings, device: str, say: Say, report: Report) -> None:
    if not made.taught.is_dir():
        model = load_model(settings.model, None, "auto", device or None, say)
        _, encoded = readable(model, read_examples(made.corpus), counting=_PASSAGE)
        recipe = FinetuneSettings(
            epochs=settings.epochs, learning_rate=settings.learning_rate, batch_size=16, seed=settings.seed
        )
        train_whole(model, encoded, made.taught, recipe, lambda done, of: report("training on the corpus", done, of))


def _tuned(made: Made, settings: Settings, device: str, say: Say, report: Report) -> None:
    if not made.tuned.is_dir():
        model = load_model(str(made.taught), None, "auto", device or None, say)
        _, encoded = readable(model, read_examples(made.tuning))
        rate = settings.learning_rate / 5
        recipe = FinetuneSettings(epochs=settings.tuning_epochs, learning_rate=rate, batch_size=8, seed=settings.seed)
        train_whole(model, encoded, made.tuned, recipe, lambda done, of: report("training on questions", done, of))


def cost(settings: Settings, device: str, say: Say) -> str:
    """What the trainings and caches will cost, in a line: measured on one batch, without anything written."""
    model = load_model(settings.model, None, "auto", device or None, say)
    known = facts(settings.facts, settings.seed)
    half = len(known) // 2
    texts = [Example((), row["text"]) for row in corpus(known, settings.statements, settings.seed)]
    asked = [Example(({"role": "user", "content": f.row["prompt"]},), f.row["response"]) for f in known[:half]]
    (_, passages), (_, tuning) = readable(model, texts, counting=_PASSAGE), readable(model, asked)
    position = _position_seconds(model, passages[:8])
    corpus_positions, tuning_positions = (sum(len(each.ids) for each in rows) for rows in (passages, tuning))
    training = position * (settings.epochs * corpus_positions + settings.tuning_epochs * tuning_positions)
    caching = position * (corpus_positions + tuning_positions)
    return (
        f"{len(known)} facts, {len(passages):,} passages, {len(known) - half} questions; trainings about "
        f"{duration(training)}, gradients for the caches about {duration(caching)} and as long again for single-stage; "
        "projections, both stages' factors and the methods' own costs come on top"
    )


def _position_seconds(model: LanguageModel, batch: Sequence[Encoded]) -> float:
    """Seconds a position of a forward and a backward pass through all parameters."""
    tensors: list[Any] = list(model.network.parameters())

    def step() -> None:
        torch.autograd.grad(torch.cat(token_losses(model, batch)).mean(), tensors, allow_unused=True)

    return seconds_of(model, step) / sum(len(each.ids) for each in batch)
