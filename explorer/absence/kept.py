"""Questions about words without some rows, kept in the cache's folder: what was asked for, and what was found.

    retraining/asked/ANSWER-START-STOP-DIGEST.json      one question, written whole

A question without a finding is still to be answered: whoever opens the cache next goes on with it.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from explorer.absence.asking import Wanted
from explorer.cache import Store
from explorer.cache.files import make_folder, remove, write_whole
from explorer.cache.manifest import RETRAINING
from explorer.history import Retraining
from explorer.history.checked import checked
from explorer.records import Conversation, Span


@dataclass(frozen=True)
class Kept:
    """A question as it is kept."""

    asked: Conversation
    answer: str
    """The answer's id."""
    word: Span
    rows: tuple[int, ...]
    draws: int
    max_tokens: int
    when: float
    """When it was asked, in seconds since 1970."""
    found: dict[str, Any] | None
    """What became of the word, as `Training.plain` has it; None before that is known."""


class Shelf:
    """The kept questions of one cache, as its rows are."""

    def __init__(self, store: Store):
        """Nothing is read or written yet."""
        self._folder = store.folder / RETRAINING / "asked"
        self._of = f"{store.manifest.data_sha256} {store.manifest.fingerprint.adapter}"

    def keep(self, wanted: Wanted, found: dict[str, Any] | None = None) -> None:
        """Keep a question, with what was found where that is known. Raises CacheError where that can't be."""
        make_folder(self._folder)
        record = {
            "of": self._of,
            "turns": list(wanted.answer.asked.turns),
            "answer": wanted.answer.id,
            "word": list(wanted.word),
            "rows": list(wanted.rows),
            "draws": wanted.draws,
            "max_tokens": wanted.max_tokens,
            "when": time.time(),
            "found": found,
        }
        write_whole(self._path(wanted), json.dumps(record).encode("ascii"))

    def forget(self, wanted: Wanted) -> None:
        """Keep it no longer."""
        remove(self._path(wanted))

    def about(self, answer: str, word: Span) -> list[Kept]:
        """The questions about a word of an answer that were answered, the newest first."""
        found = [kept for kept in self._read(f"{answer}-{word[0]}-{word[1]}-*.json") if kept.found is not None]
        return sorted(found, key=lambda kept: -kept.when)

    def retrainings(self) -> list[Retraining]:
        """All that were answered, with their findings, the oldest first."""
        found = list[Retraining]()
        for kept in sorted(self._read("*.json"), key=lambda kept: kept.when):
            # One of an older form, or damaged, can be asked again.
            with suppress(ValueError):
                if kept.found is not None:
                    found.append(checked(Retraining, json.loads(json.dumps(asdict(kept)))))
        return found

    def waiting(self) -> list[Kept]:
        """The questions that are still to be answered, the oldest first."""
        return sorted((kept for kept in self._read("*.json") if kept.found is None), key=lambda kept: kept.when)

    def _path(self, wanted: Wanted) -> Path:
        told = json.dumps([self._of, sorted(wanted.rows), wanted.draws, wanted.max_tokens])
        digest = hashlib.sha256(told.encode()).hexdigest()[:16]
        start, stop = wanted.word
        return self._folder / f"{wanted.answer.id}-{start}-{stop}-{digest}.json"

    def _read(self, pattern: str) -> Iterator[Kept]:
        for path in self._folder.glob(pattern):
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))
                (start, stop), rows = kept["word"], tuple(map(int, kept["rows"]))
                if kept["of"] == self._of:
                    asked = Conversation(tuple(kept["turns"]))
                    numbers = int(kept["draws"]), int(kept["max_tokens"]), float(kept["when"])
                    yield Kept(asked, str(kept["answer"]), (int(start), int(stop)), rows, *numbers, kept["found"])
            except (OSError, ValueError, KeyError, TypeError):
                # A damaged record is none; what it asked for can be asked again.
                continue
