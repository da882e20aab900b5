"""Rows on their way to examples: where each stands, and one report of all that can't be used."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explorer.errors import DataError

FIRST = 10
"""So many of the rows that can't be used are named."""
_WHOLE, _LONGEST = 3, 200
"""So many different reasons are said whole, of more than these so many characters each."""


class BadRow(Exception):
    """A row can't be used; the message is the rest of a sentence that begins with the row."""


@dataclass(frozen=True)
class Row:
    """One row as it stands in the data."""

    number: int
    """Its place in the data, from 1."""
    value: Any
    line: int = 0
    """The line of the file that it begins in; 0 where the file has no lines."""
    problem: str = ""
    """What is wrong with it, where it can't be read at all."""
    columnar: bool = False
    """Whether it comes from a table of typed columns, where an object has every key that any row's has, or None."""

    @property
    def place(self) -> str:
        """Where it stands, for a person."""
        return f"row {self.number:,}" + (f" (line {self.line:,})" if self.line else "")


class Review:
    """What is to be said of some data when all its rows have been looked at."""

    def __init__(self, source: str | Path = "The data", skip: bool | None = None):
        """`skip` leaves out the rows that can't be used; None where nobody can ask for that."""
        self.source, self._skip = source, skip
        self._bad: list[tuple[str, str]] = []
        self._notes: Counter[str] = Counter()

    def refuse(self, place: str, reason: str) -> None:
        """The row at this place can't be used; the `reason` is the rest of a sentence."""
        self._bad.append((place, " ".join(reason.split()).rstrip(".")))

    def note(self, note: str) -> None:
        """Something that holds of one more row; it is said once, with the number of rows."""
        self._notes[note] += 1

    def forget(self, note: str) -> None:
        """It doesn't hold after all, of any row."""
        self._notes.pop(note, None)

    def settle(self, kept: int) -> None:
        """All rows were looked at, and so many can be used. Raises DataError about all others, unless they are skipped.

        Where none is left, it raises in any case.
        """
        if not self._bad or (self._skip and kept):
            return
        way = "mend or remove it" if len(self._bad) == 1 else "mend or remove them"
        if self._skip is not None and kept:
            way += ", or leave out what can't be used with --skip-bad"
        if len(self._bad) == 1:
            ((place, reason),) = self._bad
            raise DataError(f"{self.source}, {place}, {reason}; {way}.")
        raise DataError(f"{self.source} has {len(self._bad):,} rows that can't be used: {self._listed()}; {way}.")

    def lines(self) -> list[str]:
        """What a person should know of the rows that are used, and of those that were left out."""
        said = [f"{note} ({count:,} row{'s' * (count != 1)})." for note, count in self._notes.items()]
        if self._bad:
            count = len(self._bad)
            said.append(f"{count:,} row{'s' * (count != 1)} of {self.source} left out: {self._listed()}.")
        return said

    def _listed(self) -> str:
        """The first bad rows, those with the same reason together, and how many more there are."""
        by_reason = dict[str, list[str]]()
        for place, reason in self._bad[:FIRST]:
            by_reason.setdefault(reason, []).append(place)
        longest = _LONGEST if len(by_reason) > _WHOLE else sys.maxsize
        shown = [
            f"{', '.join(places)}: {reason if len(reason) <= longest else reason[: longest - 1] + '…'}"
            for reason, places in by_reason.items()
        ]
        more = len(self._bad) - FIRST
        return "; ".join([*shown, f"and {more:,} more"] if more > 0 else shown)
