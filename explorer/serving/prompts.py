"""The ready prompts that a page offers to try."""

from pathlib import Path

from explorer.errors import DataError
from explorer.questions import read_question
from explorer.records import Prompt
from explorer.text_files import json_lines, read_text


def ready_prompts(path: str | Path) -> tuple[tuple[str, Prompt], ...]:
    """(kind, prompt) of every line of a JSON-lines file. Raises DataError naming the line at fault."""
    found = list[tuple[str, Prompt]]()
    for number, row in json_lines(read_text(path, "The ready prompts", DataError), str(path), DataError):
        asked = row if isinstance(row, dict) else {}
        found.append((str(asked.get("kind", "")), read_question(asked, f"{path}, line {number},")))
    return tuple(found)
