"""What `evaluate` found, kept with all that is needed to find it again. Numpy only: it knows nothing of models.

    methods/results/KIND-DIGEST.json   in a cache's folder, one file a result

The digest is that of kind, settings and what the cache was made from, so that
the same evaluation again takes the place of the one before.
"""

import datetime
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from explorer.cache import Store
from explorer.cache.files import make_folder, write_whole
from explorer.cache.manifest import METHODS
from explorer.errors import DataError
from explorer.methods.fitted import key_of
from explorer.text_files import json_value, read_text

_SCHEMA = 1
Value = float | int | str | None
"""A cell of a table; None where there is no figure."""


@dataclass(frozen=True)
class Table:
    """Figures with one row a method (or a probe's kind, or a sketch's length)."""

    name: str
    """What the table shows; empty where a result has only one."""
    columns: tuple[str, ...]
    """Names of the columns, the first that of the rows' names."""
    rows: tuple[tuple[Value, ...], ...]
    """As many values a row as there are columns."""

    @classmethod
    def of(cls, found: Mapping[str, Mapping[str, Value]], name: str = "", first: str = "method") -> "Table":
        """The table of figures by row and column; a column has no value where a row has no such figure."""
        columns = list(dict.fromkeys(column for row in found.values() for column in row))
        rows = tuple((row, *(_finite(figures.get(column)) for column in columns)) for row, figures in found.items())
        return cls(name, (first, *columns), rows)

    def column(self, name: str) -> tuple[Value, ...]:
        """The values of one column. Raises ValueError where there is none of this name."""
        place = self.columns.index(name)
        return tuple(row[place] for row in self.rows)


@dataclass(frozen=True)
class Best:
    """Which methods did a task best."""

    task: str
    """In words, such as `the 10 rows at either end`."""
    figure: str
    """The column it is told by."""
    methods: tuple[str, ...]
    """More than one where they are equal."""
    value: float


@dataclass(frozen=True)
class Result:
    """One evaluation: what was found, and how it can be found again."""

    kind: str
    """As `evaluate KIND`."""
    data: str
    """Name of the training data's file."""
    command: str
    """The command that made it."""
    made: str
    """When, as ISO 8601 with the time zone."""
    versions: Mapping[str, str]
    """Of Python, the libraries and the explorer."""
    fingerprints: Mapping[str, Any]
    """Model, adapter, data and settings of the cache: `fitted.key_of`."""
    settings: Mapping[str, Any]
    """What else the figures depend on: methods, questions, curvature rows, damping."""
    tables: tuple[Table, ...]
    best: tuple[Best, ...] = ()
    """The best method of each task; empty where methods aren't compared."""
    notes: tuple[str, ...] = ()
    """Sentences that a reader of the tables should know."""

    @property
    def name(self) -> str:
        """The file's name without its ending: the same for the same kind, settings and cache."""
        told = json.dumps([self.kind, self.fingerprints, self.settings], sort_keys=True)
        return f"{self.kind}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    def fits(self, store: Store) -> bool:
        """Whether it was found by what a cache holds now; an append, for one, makes it a result of earlier data."""
        return dict(self.fingerprints) == key_of(store)


def made_with(store: Store, kind: str, command: str, versions: Mapping[str, str], **found: Any) -> Result:
    """A result of now, over this cache; `found` are the other fields of `Result`."""
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Result(kind, store.manifest.data, command, made, dict(versions), key_of(store), **found)


def best_of(table: Table, figure: str, task: str, without: Sequence[str] = ()) -> Best:
    """The methods of a table with the highest value in a column, but for some of them."""
    of = {str(row[0]): value for row, value in zip(table.rows, table.column(figure), strict=True)}
    known = {name: float(v) for name, v in of.items() if isinstance(v, int | float) and name not in without}
    if not known:
        raise DataError(f"No method has a figure for {task} ({figure}).")
    value = max(known.values())
    return Best(task, figure, tuple(name for name, own in known.items() if own == value), value)


def folder_of(store: Store) -> Path:
    """Where the results of a cache are kept."""
    return store.folder / METHODS / "results"


def save(folder: Path, result: Result) -> Path:
    """Keep a result in a folder, in the place of the same evaluation's before. Raises CacheError."""
    make_folder(folder)
    path = folder / f"{result.name}.json"
    plain = {"schema": _SCHEMA, **asdict(result)}
    write_whole(path, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")
    return path


def load(folder: Path, say: Callable[[str], None] = lambda line: None) -> list[Result]:
    """The results in a folder, by kind and data, older ones first; none where there is no such folder.

    A file that is no such result is passed over; `say` is told its name.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(_read(json_value(read_text(path, "The result", DataError))))
        except (DataError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as problem:
            say(f"{path.name} can't be read as a result and is passed over: {problem}")
    return sorted(found, key=lambda result: (result.kind, result.data, result.made))


def _read(plain: Any) -> Result:
    """A result out of plain JSON values. Raises ValueError, TypeError, KeyError or AttributeError for anything else."""
    if plain["schema"] != _SCHEMA:
        raise ValueError(f"it is of version {plain['schema']}, not {_SCHEMA}")
    kept = {field.name: plain[field.name] for field in fields(Result)}
    for name in ("kind", "data", "command", "made"):
        _require(kept[name], str)
    for name in ("versions", "fingerprints", "settings"):
        _require(kept[name], dict)
    datetime.datetime.fromisoformat(kept["made"])
    notes = tuple(_require(note, str) for note in _require(kept["notes"], list))
    tables = tuple(map(_table, _require(kept["tables"], list)))
    best = tuple(map(_best, _require(kept["best"], list)))
    return Result(**kept | {"tables": tables, "best": best, "notes": notes})


def _table(plain: Any) -> Table:
    columns = tuple(_require(column, str) for column in _require(plain["columns"], list))
    rows = tuple(tuple(_require(value, Value) for value in _require(row, list)) for row in plain["rows"])
    if any(len(row) != len(columns) for row in rows):
        raise ValueError("a row is shorter or longer than the head")
    return Table(_require(plain["name"], str), columns, rows)


def _best(plain: Any) -> Best:
    methods = tuple(_require(method, str) for method in _require(plain["methods"], list))
    task, figure = _require(plain["task"], str), _require(plain["figure"], str)
    return Best(task, figure, methods, float(_require(plain["value"], int | float)))


def _require(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.40} isn't of the kind that belongs there")
    return value


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value
