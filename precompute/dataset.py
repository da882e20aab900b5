"""Reads training data in the forms people keep it in.

JSON lines or JSON with `prompt`/`response`, Alpaca's `instruction`/`input`/
`output`, or chat `messages`; Parquet, CSV and hub data sets through
`datasets`. Columns it doesn't need are kept as they are.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    if ending in {".parquet", ".csv"}:
        from datasets import load_dataset

        try:
            kind = ending.removeprefix(".")
            return load_dataset(kind, data_files=str(path), split="train").to_list()
        except Exception as problem:
            raise DataError(f"{path} can't be read as {kind}: {problem}") from problem
    raise DataError(f"{path} ends in {ending or 'nothing'}; expected .jsonl, .json, .parquet or .csv.")


def _read_json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as problem:
            raise DataError(f"{path}, line {number}, is not JSON ({problem}); mend or remove that line.") from None
    return rows


def _read_json(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(_read_text(path))
    except ValueError as problem:
        raise DataError(f"{path} is not JSON ({problem}); JSON lines need the ending .jsonl.") from None
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a JSON {type(rows).__name__}; expected a list of rows.")
    return rows


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path} can't be read as UTF-8 text ({problem}).") from None


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
    columns = {key: value for key, value in row.items() if key not in used}
    return Example(tuple(messages), response, columns)


def _conversation(row: dict[str, Any], number: int, source: str | Path) -> tuple[list[Message], str, set[str]]:
    if "messages" in row:
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
