"""A file of training data → its rows, by the file's ending; compressed ones as the files within them."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from explorer.errors import DataError
from explorer.text_files import csv_rows, decoded, json_value, refuse_pointer
from explorer.visible import one_line
from precompute.data.rows import Row

_GZIP, _ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_TEXT = ".txt"


def file_rows(path: Path) -> list[Row]:
    """All rows of a file, also those that can't be read alone. Raises DataError where the file as a whole can't be."""
    ending = _ending(path)
    read = _READERS.get(ending)
    if read is None:
        *others, last = _READERS
        expected = f"{', '.join(others)} or {last}"
        raise DataError(f"{path} ends in {ending or 'nothing'}; expected {expected}, also with .gz or .zst behind it.")
    return read(path, _content(path))


def is_data(path: Path) -> bool:
    """Whether a file's name ends as one of data does."""
    return _ending(path) in _READERS


def is_document(path: Path) -> bool:
    """Whether a file's name ends as one of a single document does."""
    return _ending(path) == _TEXT


def _ending(path: Path) -> str:
    return PurePath(path.name.lower().removesuffix(".gz").removesuffix(".zst")).suffix


def _content(path: Path) -> bytes:
    """The bytes of a file, unpacked. What is packed is told by the first bytes: some programs unpack and keep the name.

    Raises DataError.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        elif content.startswith(_ZSTANDARD):
            content = pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()
    except (OSError, EOFError, zlib.error, pa.ArrowException) as problem:
        raise DataError(f"{path} can't be read ({one_line(str(problem), 200)}).") from None
    refuse_pointer(content, str(path), DataError)
    return content


def _json_lines(path: Path, content: bytes) -> list[Row]:
    rows = list[Row]()
    text = decoded(content, str(path), DataError)
    # Other characters that end a line, such as U+2028, may stand inside a JSON text.
    for line, said in enumerate(text.split("\n"), start=1):
        if said.strip():
            try:
                rows.append(Row(len(rows) + 1, json_value(said), line))
            except ValueError as problem:
                rows.append(Row(len(rows) + 1, None, line, f"is not JSON ({problem})"))
    if len(rows) > 1 and all(row.problem for row in rows) and _is_json(text):
        raise DataError(f"{path} is one JSON text over many lines; a list of rows needs the ending .json.")
    return rows


def _is_json(text: str) -> bool:
    try:
        json_value(text)
    except ValueError:
        return False
    return True


def _json(path: Path, content: bytes) -> list[Row]:
    try:
        rows = json_value(decoded(content, str(path), DataError))
    except ValueError as problem:
        raise DataError(f"{path} is not JSON ({problem}); JSON lines need the ending .jsonl.") from None
    if isinstance(rows, list):
        return [Row(number, row) for number, row in enumerate(rows, start=1)]
    if not isinstance(rows, dict):
        raise DataError(f"{path} holds a JSON {type(rows).__name__}; expected a list of rows.")
    keys = one_line(", ".join(rows), 100) or "nothing in it"
    lists = [one_line(key, 40) for key, value in rows.items() if isinstance(value, list)]
    give = f"; save the list {' or '.join(lists[:3])} alone" if lists else ""
    raise DataError(f"{path} holds one JSON object ({keys}); expected a list of rows{give}.")


def _separated(delimiter: str) -> Callable[[Path, bytes], list[Row]]:
    """A reader of cells with this between them. Every cell is the text it is: a response may be `NA` or `42`."""

    def read(path: Path, content: bytes) -> list[Row]:
        try:
            rows = list(_cells(csv_rows(decoded(content, str(path), DataError), delimiter)))
        except ValueError as problem:
            raise DataError(f"{path}, {problem}; mend or remove that row.") from None
        names = list(rows[0].value) if rows and rows[0].value else []
        if len(names) == 1 and (others := set(names[0]) & (_CALLED.keys() - {delimiter})):
            between = " or ".join(_CALLED[each] for each in sorted(others))
            raise DataError(f"{path} has {between} between its cells; expected {_CALLED[delimiter]}.")
        return rows

    return read


_CALLED = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}


def _cells(found: Iterator[tuple[int, dict[str, str] | str]]) -> Iterator[Row]:
    for number, (line, cells) in enumerate(found, start=1):
        yield Row(number, None, line, cells) if isinstance(cells, str) else Row(number, cells, line)


def _parquet(path: Path, content: bytes) -> list[Row]:
    return _table(path, "parquet", lambda: pq.read_table(pa.BufferReader(content)))


def _arrow(path: Path, content: bytes) -> list[Row]:
    def read() -> pa.Table:
        try:
            return pa.ipc.open_stream(content).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_file(content).read_all()

    return _table(path, "arrow", read)


def _table(path: Path, form: str, read: Callable[[], pa.Table]) -> list[Row]:
    try:
        table = read()
        # What was damaged in a way that reads could trip over is found here.
        table.validate(full=True)
        twice = len(set(table.column_names)) < len(table.column_names)
        rows = [] if twice else table.to_pylist()
    except Exception as problem:  # pyarrow raises errors of many kinds for damaged files.
        raise DataError(f"{path} can't be read as {form}: {one_line(str(problem), 300)}") from None
    if twice:
        raise DataError(f"{path} has two columns of the same name; rename one of them.")
    return [Row(number, row, columnar=True) for number, row in enumerate(rows, start=1)]


def _document(path: Path, content: bytes) -> list[Row]:
    return [Row(1, {"text": decoded(content, str(path), DataError), "document": path.name})]


_READERS: dict[str, Callable[[Path, bytes], list[Row]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".parquet": _parquet,
    ".arrow": _arrow,
    _TEXT: _document,
}
