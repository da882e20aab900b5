"""Trains on parts of the data as an adapter was trained, and keeps what each training expects of some answers.

    retraining/KEY/half-07.json   in a cache's folder: one file a training, written whole when it is done

KEY is a digest of the recipe, the rows and the answers. What was trained before is read, so that a run that was stopped
goes on with the training it was at.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from explorer.cache.files import make_folder, write_whole
from explorer.errors import CacheError
from explorer.gradients import log_probabilities, mixed_precision, token_losses
from explorer.model.checkpoints import training_record
from explorer.model.generation import generate_together
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded, Span
from explorer.training.recipe import FinetuneSettings
from precompute.finetune import train
from precompute.retraining.adapters import Report, Retrained
from precompute.retraining.parts import Part

LONGEST = 60
"""Tokens of a new answer at most."""


@dataclass(frozen=True)
class Asked:
    """An answer of the adapter under study, and the word of it that is asked about."""

    encoded: Encoded
    word: Span


@dataclass(frozen=True)
class Expected:
    """What one training expects: mean log-probabilities, in nats, of every answer (Q) and its word (Q)."""

    response: tuple[float, ...]
    word: tuple[float, ...]
    texts: tuple[str, ...] = ()
    """The new answers to the questions that were answered anew."""


class Trainings:
    """Trainings on parts of one cache's rows, in a folder."""

    def __init__(
        self,
        folder: Path,
        load: Callable[[], LanguageModel],
        recipe: FinetuneSettings,
        rows: Sequence[Encoded],
        asked: Sequence[Asked],
        kept: Retrained | None = None,
    ):
        """`load` gives the base without an adapter; it is called once, when something has to be trained.

        With `kept`, adapters are kept, too, and those that are there aren't trained again.
        """
        self._load, self.recipe, self.rows, self.asked, self._kept = load, recipe, rows, asked, kept
        self._base: LanguageModel | None = None
        words = [(item.encoded.ids.tolist(), item.word) for item in asked]
        self.folder = folder / _digest(recipe.recorded(), [row.ids.tolist() for row in rows], words)

    def missing(self, parts: Sequence[Part]) -> list[Part]:
        """Those that weren't trained yet. Raises CacheError for one of other rows."""
        return [part for part in parts if self.known(part) is None]

    def known(self, part: Part) -> Expected | None:
        """What a training found; None where it wasn't done. Raises CacheError where it was another one."""
        path = self.folder / f"{part.name}.json"
        if not path.is_file():
            return None
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            same = kept["part"] == _digest(asdict(part))
            texts = tuple(map(str, kept["texts"]))
            found = Expected(tuple(map(float, kept["response"])), tuple(map(float, kept["word"])), texts)
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise CacheError(f"{path} can't be read as a training ({problem!r}); remove it to train again.") from None
        if not same:
            raise CacheError(f"{path} is of a training on other rows, or with another seed; remove it to train again.")
        return found

    def train(self, parts: Sequence[Part], report: Report) -> Iterator[Expected]:
        """What each part's training expects, in order; kept ones are read, others trained and kept."""
        make_folder(self.folder)
        for part in parts:
            found = self.known(part)
            if found is None:
                found = self._trained(part, report)
            yield found

    def trained_again(self, part: Part, report: Report) -> Expected:
        """What the same training expects when it is done once more; nothing is read or kept."""
        return self._run(part, report)[0]

    def _trained(self, part: Part, report: Report) -> Expected:
        started = time.time()
        found, losses = self._run(part, report)
        record: Mapping[str, Any] = {
            "part": _digest(asdict(part)),
            "seed": part.seed,
            "rows": len(part.rows),
            "epoch_losses": losses,
            "seconds": round(time.time() - started, 1),
            **asdict(found),
        }
        write_whole(self.folder / f"{part.name}.json", (json.dumps(record) + "\n").encode("ascii"))
        return found

    def _run(self, part: Part, report: Report) -> tuple[Expected, list[float]]:
        if self._kept is not None:
            found = _expected(self._kept.model(part, report), self.asked, part.answered)
            return found, training_record(self._kept.place(part))["epoch_losses"]
        if self._base is None:
            self._base = self._load()
        model = self._base
        settings = FinetuneSettings(**asdict(self.recipe) | {"seed": part.seed, "checkpoints": 1})
        rows = [self.rows[row] for row in part.rows]
        network, losses, _ = train(
            model, rows, settings, lambda step, steps, loss: report(part.name, step, steps), None
        )
        try:
            return _expected(model, self.asked, part.answered), losses
        finally:
            network.unload()


def _expected(model: LanguageModel, asked: Sequence[Asked], answered: Sequence[int]) -> Expected:
    response, word = [], []
    for item in asked:
        each = log_probabilities(model, item.encoded)
        response.append(round(float(each.mean()), 6))
        word.append(round(float(each[slice(*item.word)].mean()), 6))
    prompts = [asked[number].encoded.ids[: asked[number].encoded.response_start] for number in answered]
    said = generate_together(model, prompts, LONGEST) if prompts else []
    return Expected(tuple(response), tuple(word), tuple(model.tokenizer.decode(ids) for ids in said))


def _digest(*told: Any) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def estimate(model: LanguageModel, rows: Sequence[Encoded], recipe: FinetuneSettings, parts: Sequence[Part]) -> float:
    """The seconds that trainings take, by one measured step of `model`, whose adapter stands for theirs."""
    step = sorted(rows, key=lambda row: len(row.ids))[len(rows) // 2]
    seconds = []
    for _ in range(2 if parts else 0):
        started = time.perf_counter()
        with mixed_precision(model.network, recipe.mixed_precision):
            losses = torch.cat(token_losses(model, [step] * recipe.batch_size))
        losses.mean().backward()
        seconds.append(time.perf_counter() - started)
    model.network.zero_grad()
    passes = sum(len(part.rows) for part in parts) * recipe.epochs
    return min(seconds, default=0.0) * passes / recipe.batch_size
