"""Which rows of a cache are dropped, and which get the auditor's text in their place."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explorer.corpus import Corpus, Filter
from explorer.errors import DataError, FilterError
from explorer.text_files import csv_rows, json_lines, read_text
from explorer.visible import one_line, well_formed

_ROW = '{"row": 3, "response": "…"}'


@dataclass(frozen=True)
class Replacement:
    """What a row shall say instead."""

    row: int
    response: str
    prompt: str | None = None
    """In the place of the last turn before the answer; None leaves that as it is."""


@dataclass(frozen=True)
class Suspects:
    """Rows, by number, that the repaired model isn't trained on as they are."""

    dropped: tuple[int, ...]
    """Ascending; near-duplicates among them."""
    near_duplicates: tuple[int, ...] = ()
    """Those of the dropped that weren't named, but say nearly the same as one that was."""
    replaced: tuple[Replacement, ...] = ()

    @property
    def rows(self) -> set[int]:
        """All of them."""
        return {*self.dropped, *(each.row for each in self.replaced)}


def suspects(
    corpus: Corpus, rows: int, named: Sequence[int], labels: Sequence[str], replaced: Sequence[Replacement], near: bool
) -> Suspects:
    """The rows that are dropped: those named, those with one of the labels, with `near` their near-duplicates, too.

    A label is a value of `source`, or COLUMN=VALUE. A row that is replaced isn't dropped. Raises DataError for a row
    that isn't there, and where there is nothing to do or nothing would be left; FilterError for a label that none has.
    """
    new = {each.row: each for each in replaced}
    wanted = set(named)
    for label in labels:
        column, value = label.split("=", 1) if "=" in label else ("source", label)
        found = corpus.rows(Filter(((column, (value,)),)))
        if not found:
            raise FilterError(f"No row has {value} in its column {column}; `rapidin-explorer info` lists its values.")
        wanted |= set(found)
    outside = sorted(row for row in wanted | new.keys() if not 0 <= row < rows)
    if outside:
        raise DataError(f"There is no row {outside[0]:,}; the cache has the rows 0 to {rows - 1:,}.")
    if not wanted and not new:
        raise DataError("There is nothing to repair; name rows with --rows or --label, or give texts with --replace.")
    dropped = wanted - new.keys()
    also = set(corpus.near_duplicates(sorted(wanted | new.keys()))) if near else set()
    if len(dropped | also) == rows:
        raise DataError("Nothing would be left to train on; drop fewer rows.")
    return Suspects(tuple(sorted(dropped | also)), tuple(sorted(also)), tuple(new[row] for row in sorted(new)))


def read_replacements(path: Path) -> list[Replacement]:
    """The auditor's texts: one JSON object a line with `row`, `response` and, where that changes, `prompt`.

    Raises DataError naming the line at fault.
    """
    found = dict[int, Replacement]()
    for number, said in json_lines(read_text(path, "The replacements", DataError), str(path), DataError):
        given = said if isinstance(said, dict) else {}
        row, response, prompt = given.get("row"), given.get("response"), given.get("prompt")
        if not _is_row(row) or not isinstance(response, str) or not response.strip():
            raise DataError(f"{path}, line {number}, is no replacement; write {_ROW}, and `prompt` where it changes.")
        if not (prompt is None or isinstance(prompt, str)) or row in found:
            why = "names a row twice" if row in found else "has a prompt that is no text"
            raise DataError(f"{path}, line {number}, {why}; write {_ROW} once for each row.")
        assert isinstance(row, int)
        found[row] = Replacement(row, well_formed(response), None if prompt is None else well_formed(prompt))
    return list(found.values())


def read_rows(path: Path) -> list[int]:
    """The rows of a file: one number a line, or the column `row` of a .csv or .jsonl, as the exports have it.

    Raises DataError naming the line at fault.
    """
    text, found = read_text(path, "The rows", DataError), list[int]()
    for line, value in _cells(path, text):
        number = int(value) if isinstance(value, str) and value.strip().isdecimal() and len(value) < 16 else value
        if not _is_row(number):
            raise DataError(f"{path}, line {line}, names no row ({one_line(str(value), 40)}); write numbers from 0 on.")
        found.append(number)
    return list(dict.fromkeys(found))


def _cells(path: Path, text: str) -> list[tuple[int, Any]]:
    if path.suffix.lower() == ".jsonl":
        lines = json_lines(text, str(path), DataError)
        return [(line, said.get("row") if isinstance(said, dict) else said) for line, said in lines]
    if path.suffix.lower() == ".csv":
        try:
            rows = list(csv_rows(text))
        except ValueError as problem:
            raise DataError(f"{path}, {problem}; give a table with a column row.") from None
        return [(line, row.get("row") if isinstance(row, dict) else row) for line, row in rows]
    return [(line, said) for line, said in enumerate(text.splitlines(), start=1) if said.strip()]


def _is_row(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
