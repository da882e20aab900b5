"""The one way to read a text file that a person gave: its characters, and JSON and CSV in it.

Text is UTF-8, with or without a byte-order mark; its line ends stay as they are.
"""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from explorer.errors import ExplorerError
from explorer.visible import one_line

DEEPEST = 100
"""JSON that is nested deeper is refused: what is written from it would fail later, or elsewhere."""

_MARKS = {b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_POINTER = b"version https://git-lfs.github.com/spec/"

# One cell may hold a whole conversation; the csv module's own limit is 128 kB.
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


def read_text(path: str | Path, what: str, error: type[ExplorerError]) -> str:
    """A file's text, its line ends as they are. `what` it is begins the message of the `error` that is raised."""
    try:
        content = Path(path).read_bytes()
    except OSError as problem:
        raise error(f"{what} {path} can't be read: {problem.strerror or problem}.") from None
    return decoded(content, f"{what} {path}", error)


def decoded(content: bytes, name: str, error: type[ExplorerError]) -> str:
    """The text of a file's bytes. Raises the `error` that says what they are instead, beginning with the `name`."""
    refuse_pointer(content, name, error)
    for mark, form in _MARKS.items():
        if content.startswith(mark):
            raise error(f"{name} is {form}, and no UTF-8 text; save it as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise error(f"{name} is no UTF-8 text ({problem.reason}, in line {line}); save it as UTF-8.") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise error(f"{name} holds a NUL character in line {line}, which no text has; save it as UTF-8 text.")
    return text


def refuse_pointer(content: bytes, name: str, error: type[ExplorerError]) -> None:
    """Raises the `error` where git left a pointer to a large file in its place."""
    if content.startswith(_POINTER):
        raise error(f"{name} is a git-lfs pointer to a file that wasn't fetched; run git lfs pull where it lies.")


def json_value(text: str) -> Any:
    """What JSON says. Raises ValueError where it isn't JSON, names a key twice in one object, or is nested too deep."""
    try:
        value = json.loads(text, object_pairs_hook=_each_once)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    except json.JSONDecodeError as problem:
        after = " after a comma" if text[: problem.pos].rstrip().endswith(",") else ""
        line = f"line {problem.lineno}, " if "\n" in text else ""
        raise ValueError(f"{problem.msg}{after}: {line}column {problem.colno}") from None
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _held(outer)]
        if not level:
            return value
    raise ValueError(f"nested deeper than {DEEPEST} levels")


def _held(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f'the key "{one_line(twice, 40)}" stands twice in one object')
    return found


def json_lines(text: str, name: str, error: type[ExplorerError]) -> Iterator[tuple[int, Any]]:
    """What every line that isn't blank says, with its number. Raises the `error` for a line that isn't JSON."""
    # Other characters that end a line, such as U+2028, may stand inside a JSON text.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = json_value(line)
            except ValueError as problem:
                raise error(f"{name}, line {number}, is no JSON ({problem}); write one object a line.") from None
            yield number, value


def csv_rows(text: str, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str] | str]]:
    """Every row of a CSV with the line that it begins in: its cells by the header's names, or what is wrong with it.

    Cells are the text they are. Where several columns have no name, they must be empty, and are left out. Raises
    ValueError with the line where the text isn't CSV, or the header names a column twice.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    names, unnamed = list[str](), set[int]()
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as problem:
            raise ValueError(f"line {reader.line_num}, is no CSV ({problem})") from None
        if cells is None:
            return
        if cells and not names:
            names, unnamed = cells, _unnamed(cells, line)
        elif len(cells) != len(names):
            # An empty line isn't a row.
            if cells:
                yield line, "has more or fewer cells than the header"
        elif any(cells[place] for place in unnamed):
            yield line, "has a cell in one of several columns without a name"
        else:
            yield line, {name: cells[place] for place, name in enumerate(names) if place not in unnamed}


def _unnamed(names: list[str], line: int) -> set[int]:
    """The places of columns without a name, where there are several. Raises ValueError for a name that stands twice."""
    blank = {place for place, name in enumerate(names) if not name.strip()}
    twice = [name for name, count in Counter(names).items() if count > 1 and name.strip()]
    if twice:
        raise ValueError(f"line {line}, names the column {one_line(twice[0], 40)} twice; rename one of the two")
    return blank if len(blank) > 1 else set()
