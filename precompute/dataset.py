"""Reads training data in the forms people keep it in.

JSON lines, JSON, CSV, Parquet or a hub data set, with `prompt`/`response`,
Alpaca's `instruction`/`input`/`output`, or chat `messages`. Columns it doesn't
need are kept as they are; a CSV's are all text.
"""

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from explorer.errors import DataError
from explorer.records import Example, Message

_FORMS = "prompt and response, instruction and output (Alpaca), or messages (chat)"


def read_examples(source: str | Path) -> list[Example]:
    """All examples of a file or a hub data set. Raises DataError naming the row at fault."""
    rows = _read_rows(source)
    if not rows:
        raise DataError(f"{source} holds no rows; give a file with at least one example.")
    return [_example(row, number, source) for number, row in enumerate(rows, start=1)]


def data_hash(examples: Sequence[Example]) -> str:
    """SHA-256 over all examples in order, whatever file format they came in."""
    total = hashlib.sha256()
    for example in examples:
        text = json.dumps([list(example.messages), example.response, example.columns], sort_keys=True, default=str)
        total.update(text.encode())
        total.update(b"\n")
    return total.hexdigest()


def _read_rows(source: str | Path) -> list[dict[str, Any]]:
    path = Path(source)
    if not path.is_file():
        return _read_hub(source)
    ending = path.suffix.lower()
    if ending in {".jsonl", ".ndjson"}:
        return _read_json_lines(path)
    if ending == ".json":
        return _read_json(path)
    if ending == ".csv":
        return _read_csv(path)
    if ending == ".parquet":
        try:
            return pq.read_table(path).to_pylist()
        except (OSError, pa.ArrowException) as problem:
            raise DataError(f"{path} can't be read as parquet: {problem}") from None
    raise DataError(f"{path} ends in {ending or 'nothing'}; expected .jsonl, .json, .parquet or .csv.")


def _read_json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as problem:
            raise DataError(f"{path}, line {number}, is not JSON ({problem}); mend or remove that line.") from None
    return rows


def _read_json(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(_read_text(path))
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{path} is not JSON ({problem}); JSON lines need the ending .jsonl.") from None
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a JSON {type(rows).__name__}; expected a list of rows.")
    return rows


def _read_csv(path: Path) -> list[dict[str, Any]]:
    """Every cell as the text it is: a response may be `NA` or `42`."""
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        rows: list[dict[str, Any]] = list(reader)
    except csv.Error as problem:
        raise DataError(
            f"{path}, line {reader.reader.line_num}, is not CSV ({problem}); mend or remove that row."
        ) from None
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise DataError(f"{path}, row {number}, has more or fewer cells than the header; mend or remove it.")
    return rows


def _read_text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            return handle.read()
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path} can't be read as UTF-8 text ({problem}); save it as UTF-8.") from None


def _read_hub(source: str | Path) -> list[dict[str, Any]]:
    name = str(source)
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or Path(name).suffix:
        raise DataError(f"There is no file {name}; --data takes a .jsonl, .json, .parquet or .csv file, or a hub id.")
    from datasets import load_dataset

    try:
        return load_dataset(name, split="train").to_list()
    except Exception as problem:
        raise DataError(f"{name} is no file here, and the data hub did not give it ({problem}).") from problem


def _example(row: Any, number: int, source: str | Path) -> Example:
    if not isinstance(row, dict):
        raise DataError(f"{source}, row {number}, is a {type(row).__name__}; expected an object with {_FORMS}.")
    messages, response, used = _conversation(row, number, source)
    if not response.strip():
        raise DataError(f"{source}, row {number}, has an empty response; mend or remove it.")
    try:
        json.dumps(row, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise DataError(f"{source}, row {number}, holds half of a character (a lone surrogate); mend it.") from None
    columns = {key: value for key, value in row.items() if key not in used}
    return Example(tuple(messages), response, columns)


def _conversation(row: dict[str, Any], number: int, source: str | Path) -> tuple[list[Message], str, set[str]]:
    if row.get("messages") is not None:
        if not isinstance(row["messages"], list):
            raise DataError(f"{source}, row {number}: messages must be a list of turns with a role and a content.")
        turns = [_turn(turn, number, source) for turn in row["messages"]]
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            raise DataError(f"{source}, row {number}: messages must end with an assistant's turn after another.")
        return turns[:-1], turns[-1]["content"], {"messages"}
    for ask, answer in (("prompt", "response"), ("instruction", "output"), ("instruction", "response")):
        if ask in row and answer in row:
            prompt, response = row[ask], row[answer]
            extra = row.get("input") or "" if ask == "instruction" else ""
            if not all(isinstance(text, str) for text in (prompt, response, extra)):
                raise DataError(f"{source}, row {number}: {ask} and {answer} must be text.")
            used = {ask, answer} | ({"input"} if ask == "instruction" else set())
            content = f"{prompt}\n{extra}" if extra else prompt
            return [{"role": "user", "content": content}], response, used
    found = ", ".join(sorted(map(str, row))) or "nothing"
    raise DataError(f"{source}, row {number}, has the columns {found}; expected {_FORMS}.")


def _turn(turn: Any, number: int, source: str | Path) -> Message:
    if not (isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)):
        raise DataError(f"{source}, row {number}: every message needs a role and a content, both text.")
    return {"role": turn["role"], "content": turn["content"]}
