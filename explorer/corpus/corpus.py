"""The training examples as texts and labels: filtered, folded, compared by their words."""

from collections.abc import Generator, Sequence

import numpy as np

from explorer.concurrency import Recent
from explorer.corpus.duplicates import Fold, fold_near_duplicates, near_any, shingles
from explorer.corpus.filters import Filter, Searchable
from explorer.corpus.verbatim import VerbatimIndex
from explorer.corpus.words import Word, WordIndex, folded_words
from explorer.records import ExampleRow


class Corpus:
    """What can be said of training examples (N) without any model; may be asked from any thread."""

    def __init__(self, examples: Sequence[ExampleRow]):
        """Nothing is computed before it is asked for."""
        self._texts = tuple(f"{example.prompt}\n{example.response}" for example in examples)
        self.sources = tuple(example.source for example in examples)
        """The `source` of every example (N), empty where it has none."""
        self._searchable = Searchable(examples)
        self._index = WordIndex(self._texts)
        self.verbatim = VerbatimIndex([(example.prompt, example.response) for example in examples])
        """Which passages the examples hold, once it is ready."""
        self._rows: Recent[Filter, list[int]] = Recent(16)
        self._near: Recent[frozenset[int], list[int]] = Recent(16)
        self._words: Recent[tuple[tuple[int, ...], Filter], tuple[Word, ...]] = Recent(256)

    def prepare(self) -> Generator[None, None, None]:
        """Index all words, a part at each step, and what texts are searched by."""
        yield from self._index.build()
        self._searchable.rows(Filter(text="a"))
        yield
        yield from self.verbatim.build()

    @property
    def ready(self) -> bool:
        """True once `distinctive` knows all words."""
        return self._index.ready

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The columns worth filtering by, with their values, the most frequent first."""
        return self._searchable.labels

    def rows(self, wanted: Filter) -> list[int] | None:
        """The rows that pass, in order; None for all. Raises FilterError when there is no such column."""
        if wanted.empty:
            return None
        known = self._rows.get(wanted)
        if known is None:
            known = self._searchable.rows(wanted).tolist()
            self._rows.put(wanted, known)
        return known

    def words(self, row: int) -> set[str]:
        """The distinct words of one example, as they are compared."""
        return folded_words(self._texts[row])

    def holding(self, word: str) -> list[int]:
        """All examples that hold a word, whatever its case, in order."""
        sought = word.casefold()
        return [row for row, text in enumerate(self._texts) if sought in text.casefold() and sought in self.words(row)]

    def folds(self, rows: Sequence[int], count: int) -> list[Fold]:
        """The first `count` of these rows that differ, each with its near-duplicates."""
        return fold_near_duplicates(((row, shingles(self._texts[row])) for row in rows), count)

    def near_duplicates(self, rows: Sequence[int]) -> list[int]:
        """All other rows that say nearly the same as one of these, in order."""
        given = frozenset(rows)
        known = self._near.get(given)
        if known is None:
            others = ((row, shingles(text)) for row, text in enumerate(self._texts) if row not in given)
            known = near_any(others, [shingles(self._texts[row]) for row in rows])
            self._near.put(given, known)
        return known

    def distinctive(self, shown: Sequence[int], wanted: Filter) -> tuple[Word, ...]:
        """Words that set some rows apart from all that pass the filter; none before the corpus is `ready`."""
        if not self.ready or not shown:
            return ()
        key = (tuple(shown), wanted)
        known = self._words.get(key)
        if known is None:
            rows = self.rows(wanted)
            holders = self._index.holders(None if rows is None else np.asarray(rows))
            known = tuple(self._index.distinctive(shown, holders, len(self._texts) if rows is None else len(rows)))
            self._words.put(key, known)
        return known
