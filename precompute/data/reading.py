"""Files, folders and hub data sets → examples."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from explorer.errors import DataError
from explorer.records import Example
from explorer.visible import one_line
from precompute.data.files import file_rows
from precompute.data.forms import NAMES, read_row
from precompute.data.rows import BadRow, Review, Row
from precompute.data.sets import folder_rows, hub_rows


@dataclass(frozen=True)
class Reading:
    """What has to be said of data that doesn't say it itself."""

    split: str = ""
    """The split of a data set; empty for `train`, or the only one."""
    config: str = ""
    """The configuration of a hub data set; empty for its default."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The column of a known name, such as `prompt`, where the data calls it otherwise."""


def named_columns(pairs: Sequence[str]) -> dict[str, str]:
    """`prompt=question` and the like as a mapping. Raises DataError for a name that isn't known, or given twice."""
    columns = dict[str, str]()
    for pair in pairs:
        name, equals, column = pair.partition("=")
        if not equals or not column or name not in NAMES:
            raise DataError(
                f"--column takes NAME=COLUMN, such as prompt=question, not {pair}; the names are {', '.join(NAMES)}."
            )
        if name in columns:
            raise DataError(f"--column names {name} twice; give it once.")
        columns[name] = column
    return columns


def read_examples(source: str | Path, reading: Reading | None = None, review: Review | None = None) -> list[Example]:
    """All examples of a file, a folder or a hub data set.

    Raises DataError where it can't be read, and one that names the rows that can't be used, unless the `review` leaves
    them out.
    """
    reading, review = reading or Reading(), review or Review(source)
    rows = _rows(source, reading)
    if not rows:
        raise DataError(f"{source} holds no rows; give a file with at least one example.")
    _check_columns(source, rows, reading.columns)
    examples = []
    for row in rows:
        try:
            examples.append(read_row(row, reading.columns, review))
        except BadRow as problem:
            review.refuse(row.place, str(problem))
    review.settle(len(examples))
    return examples


def data_hash(examples: Sequence[Example]) -> str:
    """SHA-256 over all examples in order, whatever file format they came in."""
    total = hashlib.sha256()
    for example in examples:
        said = [list(example.messages), example.response, example.columns]
        # What was read before there was more to an example has the hash that it had then.
        more = [example.turn, list(example.tools)] if example.turn or example.tools else []
        text = json.dumps([*said, *more], sort_keys=True, default=str)
        total.update(text.encode())
        total.update(b"\n")
    return total.hexdigest()


def _rows(source: str | Path, reading: Reading) -> list[Row]:
    path = Path(source)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as problem:
        raise DataError(f"{one_line(str(source), 100)} can't be read: {problem.strerror}.") from None
    if not is_file and not is_folder:
        return hub_rows(str(source), reading.split, reading.config)
    if reading.config or (reading.split and is_file):
        option = "--config" if reading.config else "--split"
        raise DataError(f"{source} is no hub data set; leave out {option}.")
    return file_rows(path) if is_file else folder_rows(path, reading.split)


def _check_columns(source: str | Path, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """Raises DataError where a column was named that no row has."""
    there = {key for row in rows if isinstance(row.value, dict) for key in row.value}
    for name, column in columns.items():
        if column not in there:
            have = one_line(", ".join(sorted(map(str, there))), 300) or "none"
            raise DataError(f"{source} has no column {column} to read as {name}; its columns are: {have}.")
