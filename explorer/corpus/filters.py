"""Which training examples are looked at: by the user's own columns and by their text.

`Filter` says it, `Searchable` turns it into rows. Knows nothing of scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from explorer.errors import FilterError
from explorer.records import ExampleRow

MOST_VALUES = 100
"""A column with more distinct values than this is no label."""


@dataclass(frozen=True)
class Filter:
    """What an example must be to be looked at; the empty filter lets all through."""

    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Columns and the values of which an example has one, as text; all columns must fit."""
    text: str = ""
    """What stands in the prompt or in the response, in any case; a run of white space is one space."""

    @property
    def empty(self) -> bool:
        """True when every example passes."""
        return not self.where and not folded(self.text)

    @property
    def description(self) -> str:
        """What it lets through, in words."""
        parts = [f"{column} is {' or '.join(values)}" for column, values in self.where]
        parts += [f"“{self.text.strip()}” in prompt or response"] if self.text.strip() else []
        return f"Only examples where {', and '.join(parts)}." if parts else "All examples."


EVERYTHING = Filter()
"""Lets all examples through."""


class Searchable:
    """Training examples (N) that can be filtered in milliseconds.

    Texts are folded once, columns encoded when they are first asked for.
    """

    def __init__(self, examples: Sequence[ExampleRow]):
        """Nothing is computed yet."""
        self._examples = examples
        self._columns: dict[str, tuple[NDArray[np.int64], dict[str, int]]] = {}

    def rows(self, wanted: Filter) -> NDArray[np.int64]:
        """The rows that pass, in order. Raises FilterError when there is no such column."""
        passes = np.ones(len(self._examples), dtype=bool)
        for column, values in wanted.where:
            codes, names = self._column(column)
            passes &= np.isin(codes, [names[value] for value in values if value in names])
        if needle := folded(wanted.text):
            passes &= np.fromiter((needle in text for text in self._texts), dtype=bool, count=len(passes))
        return np.flatnonzero(passes)

    @cached_property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The columns that divide the examples into few groups, with their values, the most frequent first."""
        found = {}
        for column in self._names:
            codes, names = self._column(column)
            if 2 <= len(names) <= min(MOST_VALUES, len(self._examples) - 1):
                sizes = np.bincount(codes[codes >= 0])
                found[column] = tuple(sorted(names, key=dict(zip(names, -sizes, strict=True)).__getitem__))
        return found

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for example in self._examples for name in example.columns))

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        # Folded text holds no line break, so that nothing is found across the two.
        return tuple(f"{folded(example.prompt)}\n{folded(example.response)}" for example in self._examples)

    def _column(self, name: str) -> tuple[NDArray[np.int64], dict[str, int]]:
        """The column's values as codes (N), −1 where a row has none, and the code of every value."""
        if name not in self._names:
            have = f"it has {', '.join(self._names)}" if self._names else "it has prompts and responses alone"
            raise FilterError(f"The training data has no column {name}; {have}.")
        if name not in self._columns:
            codes: dict[str, int] = {}
            values = (example.columns.get(name) for example in self._examples)
            kept = [-1 if value is None else codes.setdefault(str(value), len(codes)) for value in values]
            self._columns[name] = (np.asarray(kept, dtype=np.int64), codes)
        return self._columns[name]


def folded(text: str) -> str:
    """Text as it is compared: no case, one space for every run of white space."""
    return " ".join(text.casefold().split())
