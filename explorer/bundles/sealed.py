"""Bundles as bytes: one JSON object whose first line holds the SHA-256 of all that follows.

Answers stand in it as they stand in the history's JSON export, findings of trainings as they are kept with a cache.
What is read may come from anybody: it is bounded in size, nothing in it names a file, nothing is unpickled, and every
value is checked. The checksum finds damage; who wrote the file it can't say. `docs/bundle-format.md` describes the
file. Numpy and records only.
"""

import hashlib
import json
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from explorer.cache.files import sealing_line, write_whole
from explorer.errors import BundleError
from explorer.history import Retraining, SavedAnswer, answer_json, json_bytes
from explorer.history.checked import checked
from explorer.history.export import moment
from explorer.history.reading import read_exported
from explorer.history.saved import Describe
from explorer.records import ExampleRow
from explorer.text_files import json_value
from explorer.visible import one_line

FORMAT = "rapidin-explorer bundle 1"
ENDING = "bundle.json"
"""How the names of bundles end."""
MOST_BYTES = 128_000_000
"""No larger file is read, nor written."""
_LIBRARIES = ("rapidin-explorer", "numpy", "peft", "torch", "transformers")
_SEALED = b'{"sha256": "'


@dataclass(frozen=True, eq=False)
class Bundle:
    """What a sealed file holds."""

    made: float
    """When, in seconds since 1970, UTC."""
    versions: dict[str, str]
    """Of the program and the libraries that wrote it."""
    answers: tuple[SavedAnswer, ...]
    retrainings: tuple[Retraining, ...] = ()
    """What became of words of these answers without some rows."""
    rows: tuple["RowHash", ...] = ()
    """The hash of every training example that an answer shows."""
    sha256: str = ""
    """The file's checksum; empty before it is written."""


@dataclass(frozen=True)
class RowHash:
    """One training example, by its place in some data."""

    data_sha256: str
    row: int
    sha256: str


@dataclass(frozen=True)
class _File:
    """The file's own keys."""

    format: str
    made: float
    versions: dict[str, str]
    rows: tuple[RowHash, ...]
    answers: tuple[Any, ...]
    retrainings: tuple[Retraining, ...]


def row_sha256(example: ExampleRow) -> str:
    """The hash of what a training example says: its prompt, its response and the other columns."""
    said = [example.prompt, example.response, example.columns]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def bundle_of(answers: Sequence[SavedAnswer], retrainings: Iterable[Retraining] = ()) -> Bundle:
    """A bundle of these answers, with those of the findings that are about one of them."""
    asked = {saved.answer.id for saved in answers}
    shown = {
        (saved.origin.data_sha256, one.influence.row, row_sha256(one.example))
        for saved in answers
        for question in saved.questions
        for one in question.shown
    }
    rows = tuple(RowHash(*each) for each in sorted(shown))
    about = tuple(each for each in retrainings if each.answer in asked)
    return Bundle(time.time(), _versions(), tuple(answers), about, rows)


def to_bytes(bundle: Bundle) -> bytes:
    """The file. Raises BundleError where it would be larger than may be read."""
    rest = json_bytes(
        {
            "format": FORMAT,
            "made": bundle.made,
            "versions": bundle.versions,
            "rows": [asdict(row) for row in bundle.rows],
            "answers": [answer_json(saved) for saved in bundle.answers],
            "retrainings": [asdict(each) for each in bundle.retrainings],
        },
        indent=None,
    )[1:]
    payload = sealing_line(rest) + rest
    if len(payload) > MOST_BYTES:
        raise BundleError(
            f"These {len(bundle.answers):,} answers take {len(payload) / 1e6:,.0f} MB, and a bundle holds at most "
            f"{MOST_BYTES / 1e6:,.0f} MB; choose fewer of them."
        )
    return payload


def write(path: Path, bundle: Bundle) -> str:
    """Write the file whole, and say its checksum. Raises BundleError or CacheError where that can't be."""
    payload = to_bytes(bundle)
    write_whole(path, payload)
    return _checksum(payload, str(path))


def read(path: Path, describe: Describe) -> Bundle:
    """The bundle of a file. Raises BundleError where the file isn't what was written, or isn't a bundle."""
    return from_bytes(_content(path), describe, str(path))


def plain(path: Path) -> dict[str, Any]:
    """The file as plain values, its checksum among them. Raises BundleError as `read` does, but for the values."""
    return _parsed(_content(path), str(path))


def from_bytes(payload: bytes, describe: Describe, name: str = "The bundle") -> Bundle:
    """The bundle that `to_bytes` wrote. Raises BundleError."""
    told = _parsed(payload, name)
    try:
        kept: _File = checked(_File, told)
        _ = moment(kept.made)
        answers = tuple(read_exported(one, describe, f"answers[{at}]") for at, one in enumerate(kept.answers))
    except (ValueError, OSError, OverflowError, RecursionError) as problem:
        raise _malformed(name, problem) from None
    found = Bundle(kept.made, kept.versions, answers, kept.retrainings, kept.rows, told["sha256"])
    if bundle_of(answers).rows != kept.rows:
        raise BundleError(f"{name} has hashes of training examples that aren't those of its answers; ask for another.")
    return found


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            payload = handle.read(MOST_BYTES + 1)
    except OSError as problem:
        raise BundleError(f"{path} can't be read: {problem.strerror or problem}.") from None
    if len(payload) > MOST_BYTES:
        raise BundleError(f"{path} has more than {MOST_BYTES / 1e6:,.0f} MB, which no bundle has.")
    return payload


def _parsed(payload: bytes, name: str) -> dict[str, Any]:
    _checksum(payload, name)
    try:
        told = json_value(payload.decode("ascii"))
    except ValueError as problem:
        raise _malformed(name, problem) from None
    if told.get("format") != FORMAT:
        raise BundleError(
            f"{name} says that its format is {one_line(str(told.get('format')), 60)}; this program reads “{FORMAT}”. "
            "Update it, or ask for a bundle of that format."
        )
    return dict(told)


def _checksum(payload: bytes, name: str) -> str:
    """The SHA-256 in the first line. Raises BundleError where it isn't that of the rest."""
    line, _, rest = payload.partition(b"\n")
    if not line.startswith(_SEALED):
        raise BundleError(f"{name} is no bundle, or its first line was changed; ask for it again.")
    if line + b"\n" != sealing_line(rest):
        raise BundleError(
            f"{name} was changed since it was written: its checksum isn't the one in its first line. Ask for it again."
        )
    return line[len(_SEALED) :].split(b'"')[0].decode("ascii")


def _malformed(name: str, problem: Exception) -> BundleError:
    return BundleError(f"{name} has its checksum, but isn't as this program writes bundles ({problem}).")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
