"""The file that names people and their tokens."""

from pathlib import Path

from explorer.errors import DataError, ExplorerError
from explorer.serving.entrance.access import checked_token
from explorer.text_files import read_text


def read_people(path: str | Path) -> dict[str, str]:
    """Each person's token under the name, from lines of a name and a token with a space between them.

    Empty lines and those that begin with # are left out. Raises DataError naming the line at fault.
    """
    people = dict[str, str]()
    for number, line in enumerate(read_text(path, "The file of people", DataError).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        *names, token = line.rsplit(maxsplit=1)
        name = "".join(names).strip()
        if not name or not name.isprintable():
            raise _fault(path, number, "has no name and token; expected both with a space between them")
        if name in people or token in people.values():
            raise _fault(path, number, "has a name or a token that an earlier line has; each is one person's")
        try:
            people[name] = checked_token(token)
        except ExplorerError as problem:
            raise _fault(path, number, f"has no usable token. {str(problem).removesuffix('.')}") from None
    if not people:
        raise DataError(f"{path} names nobody; expected lines of a name and a token.")
    return people


def _fault(path: str | Path, number: int, what: str) -> DataError:
    return DataError(f"{path}, line {number}, {what}.")
