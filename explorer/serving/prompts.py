"""The ready prompts that a page offers to try."""

from pathlib import Path

from explorer.errors import DataError
from explorer.text_files import json_lines, read_text


def ready_prompts(path: str | Path) -> tuple[tuple[str, str], ...]:
    """(kind, prompt) of every line of a JSON-lines file. Raises DataError naming the line at fault."""
    found = []
    for number, row in json_lines(read_text(path, "The ready prompts", DataError), str(path), DataError):
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
            raise DataError(f'{path}, line {number}, has no text as "prompt"; write {{"prompt": "…", "kind": "…"}}.')
        found.append((str(row.get("kind", "")), row["prompt"]))
    return tuple(found)
