"""From rows to do without to trainings, and from these to what became of the word."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any

from explorer.cache.manifest import RETRAINING
from explorer.corpus import Corpus
from explorer.corpus.verbatim import as_characters, places
from explorer.engine import Engine
from explorer.errors import DataError, PromptError
from explorer.evaluation.counterfactual.absence import Absence, Said, plain, said_by
from explorer.history import asked_json
from explorer.model.language_model import LanguageModel
from explorer.records import Answer, Span
from explorer.training.recorded import recipe_of
from precompute.retraining import Part, Retrained, all_but, estimate, others

DRAWS = 3
"""So many times other rows are left out instead, where nothing else is asked for."""

Load = Callable[[Path | None], LanguageModel]
"""Gives a cache's base with the adapter in a folder, or without one."""
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Wanted:
    """A word of an answer, and the rows to do without."""

    answer: Answer
    """As the model gives it, the most probable token each time."""
    word: Span
    rows: tuple[int, ...]
    draws: int = DRAWS
    max_tokens: int = 80
    """The longest answer; the one that `answer` was given with."""


@dataclass(frozen=True)
class Cost:
    """What a question will take."""

    rows: int
    """How many rows are named."""
    near_duplicates: int
    """How many go with them."""
    trainings: int
    """How many adapters it needs."""
    left: int
    """How many of them aren't there yet."""
    seconds: float
    """About how long training them takes."""


def is_word(answer: Answer, span: Span) -> bool:
    """Whether some tokens of an answer spell a word, which another answer can say again."""
    start, stop = as_characters(answer.tokens, span)
    return bool(places(answer.text[start:stop]))


class Training:
    """The trainings behind one question over a cache."""

    def __init__(self, engine: Engine, corpus: Corpus, load: Load, wanted: Wanted, given: Mapping[str, Any]):
        """`given` is what is known of the adapter's recipe otherwise than by its record.

        Raises PromptError where the word is none; DataError where the adapter can't be trained anew, where nothing
        would be left to train on, or too few other rows for a control.
        """
        if not is_word(wanted.answer, wanted.word):
            raise PromptError("What is asked about has no letter and no digit; select a word of the answer.")
        self.engine, self.wanted, self._corpus = engine, wanted, corpus
        self._recipe = recipe_of(engine.model.adapter, given)
        store = engine.store
        rows = [example.encoded for example in store.examples]
        folder = store.folder / RETRAINING / "adapters"
        self._kept = Retrained(folder, load, self._recipe, rows, engine.model.fingerprint.base)
        self.absent = self.all_but(wanted.rows, "without these rows")
        if not self.absent.rows:
            raise DataError(
                "Without these rows and their near-duplicates nothing is left to train on; leave out fewer."
            )
        gone = set(range(len(rows))) - set(self.absent.rows)
        self.near_duplicates = tuple(sorted(gone - set(wanted.rows)))
        self.drawn = others([len(row.ids) for row in rows], sorted(gone), wanted.draws)

    def all_but(self, rows: tuple[int, ...], name: str) -> Part:
        """A training without some rows and their near-duplicates."""
        gone = [*rows, *self._corpus.near_duplicates(rows)]
        return all_but(self.engine.store.manifest.rows, gone, name, self._recipe.seed)

    @cached_property
    def parts(self) -> list[Part]:
        """The training without the rows, and those without others."""
        count, seed = self.engine.store.manifest.rows, self._recipe.seed
        names = [f"without others, draw {number}" for number in range(1, len(self.drawn) + 1)]
        return [self.absent, *(all_but(count, rows, name, seed) for rows, name in zip(self.drawn, names, strict=True))]

    def cost(self, *more: Part) -> Cost:
        """What it takes, by one measured step; with `more` trainings."""
        parts = [*self.parts, *more]
        left = self._kept.missing(parts)
        seconds = estimate(self.engine.model, self._kept.rows, self._recipe, left)
        return Cost(len(self.wanted.rows), len(self.near_duplicates), len(parts), len(left), seconds)

    def steps(self) -> int:
        """How many steps of training are left."""
        batch, epochs = self._recipe.batch_size, self._recipe.epochs
        return sum(ceil(len(part.rows) / batch) * epochs for part in self._kept.missing(self.parts))

    def said(self, part: Part, report: Report) -> Said:
        """What the model answers that was trained on a part; it is trained where that wasn't done."""
        return self._said(self._kept.model(part, report), report)

    def before(self, report: Report) -> Said:
        """What the model under study says."""
        return self._said(self.engine.model, report)

    def _said(self, model: LanguageModel, report: Report) -> Said:
        asked = self.wanted
        return said_by(model, asked.answer, asked.word, asked.max_tokens, report)

    def found(self, report: Report) -> Absence:
        """What became of the word."""
        before = self.before(report)
        without, *controls = [self.said(part, report) for part in self.parts]
        wanted = self.wanted
        return Absence(wanted.answer, wanted.word, before, without, tuple(controls), wanted.rows, self.near_duplicates)

    def plain(self, found: Absence) -> dict[str, Any]:
        """The finding as plain values, with all that it was made from."""
        engine, report = self.engine, asked_json(found.asked.asked) | plain(found, self.drawn)
        report["seeds"] = {"training": self._recipe.seed, "controls": 0}
        report["recipe"] = self._kept.recipe.recorded()
        report["hashes"] |= {
            "base_sha256": engine.model.fingerprint.base,
            "data_sha256": engine.store.manifest.data_sha256,
        }
        return report
