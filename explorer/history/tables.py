"""The tables of the history: how they came to be what they are, and how their text is searched.

`PRAGMA user_version` counts the migrations a file has had. A migration that was released is never changed;
a new one is added after it.
"""

import sqlite3
import time
from collections.abc import Sequence

from explorer.errors import HistoryError
from explorer.visible import well_formed

MIGRATIONS: list[tuple[str, ...]] = [
    (
        """CREATE TABLE answers (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            asked REAL NOT NULL,
            document TEXT NOT NULL,
            verdict TEXT NOT NULL DEFAULT '',
            tags TEXT NOT NULL DEFAULT '[]',
            note TEXT NOT NULL DEFAULT ''
        )""",
        """CREATE TABLE questions (
            id TEXT PRIMARY KEY,
            answer TEXT NOT NULL REFERENCES answers (id) ON DELETE CASCADE,
            asked REAL NOT NULL,
            document TEXT NOT NULL,
            scores BLOB
        )""",
        """CREATE TABLE influences (
            question TEXT NOT NULL REFERENCES questions (id) ON DELETE CASCADE,
            rank INTEGER NOT NULL,
            cache TEXT NOT NULL,
            row INTEGER NOT NULL,
            document TEXT NOT NULL,
            arrays BLOB NOT NULL,
            PRIMARY KEY (question, rank)
        )""",
        # An example is kept once a cache, however many questions show it.
        """CREATE TABLE examples (
            cache TEXT NOT NULL,
            row INTEGER NOT NULL,
            data TEXT NOT NULL,
            document TEXT NOT NULL,
            sequence TEXT,
            PRIMARY KEY (cache, row)
        )""",
        """CREATE TABLE remarks (
            data TEXT NOT NULL,
            row INTEGER NOT NULL,
            verdict TEXT NOT NULL,
            tags TEXT NOT NULL,
            note TEXT NOT NULL,
            PRIMARY KEY (data, row)
        )""",
        "CREATE INDEX answers_asked ON answers (asked)",
        "CREATE INDEX questions_answer ON questions (answer)",
        "CREATE INDEX influences_example ON influences (cache, row)",
        "CREATE INDEX examples_data ON examples (data, row)",
    ),
    (
        # Who asked; the empty name is whoever asks without one.
        "ALTER TABLE answers ADD COLUMN person TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX answers_person ON answers (person, asked)",
        "ALTER TABLE remarks RENAME TO remarks_of_all",
        """CREATE TABLE remarks (
            person TEXT NOT NULL,
            data TEXT NOT NULL,
            row INTEGER NOT NULL,
            verdict TEXT NOT NULL,
            tags TEXT NOT NULL,
            note TEXT NOT NULL,
            PRIMARY KEY (person, data, row)
        )""",
        "INSERT INTO remarks SELECT '', data, row, verdict, tags, note FROM remarks_of_all",
        "DROP TABLE remarks_of_all",
    ),
]

_OF_DOCUMENT = ("answer_id", "prompt", "response", "drawn", "origin.cache_sha256")
_EXTRACTED = ", ".join(f"json_extract(document, '$.{name}')" for name in _OF_DOCUMENT)
SAME = f"json_array({_EXTRACTED}, verdict, tags, note)"
"""What saved answers have in common that say the same: prompt, answer, settings, cache and notes."""

_PAUSE = 0.02
"""Seconds between two tries to open a file that others have."""

_SHORTEST_MATCH = 3
"""Characters of the shortest word that an index of trigrams can find."""

_MOST_WORDS, _LONGEST_WORD = 20, 200
"""What is searched for of longer searches, which SQLite has no room for."""


def prepare(file: sqlite3.Connection, patience: float) -> None:
    """Bring a file to today's tables, and set how it is written, waiting at most so many seconds for others.

    Raises HistoryError for a newer file, sqlite3.OperationalError where others have it for longer.
    """
    until = time.monotonic() + patience
    while True:
        try:
            return _prepare(file)
        except sqlite3.OperationalError as problem:
            # Where a file's journal changes hands, SQLite itself gives up at once.
            if problem.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_PAUSE)


def _prepare(file: sqlite3.Connection) -> None:
    file.execute("PRAGMA foreign_keys = ON")
    # With a write-ahead log this loses nothing when the process is killed, and needs no disk sync a change.
    file.execute("PRAGMA synchronous = NORMAL")
    if _version(file) != len(MIGRATIONS):
        file.execute("BEGIN IMMEDIATE")
        try:
            _migrate(file)
            file.execute("COMMIT")
        except BaseException:
            file.execute("ROLLBACK")
            raise
    file.execute("PRAGMA journal_mode = WAL")


def _migrate(file: sqlite3.Connection) -> None:
    version = _version(file)
    if version > len(MIGRATIONS):
        raise HistoryError(
            f"The history was written by a newer version of this program (format {version}, this one knows "
            f"{len(MIGRATIONS)}); update the program, or give another file with --history."
        )
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            file.execute(statement)
    if version == 0:
        _make_words(file)
    file.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _version(file: sqlite3.Connection) -> int:
    return int(file.execute("PRAGMA user_version").fetchone()[0])


def _make_words(file: sqlite3.Connection) -> None:
    """A full-text index of trigrams, which finds words inside words and in scripts without spaces."""
    try:
        file.execute("CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = 'trigram')")
    except sqlite3.OperationalError:
        # This SQLite was built without FTS5: a plain table is searched from end to end.
        file.execute("CREATE TABLE words (text TEXT NOT NULL)")


def has_full_text(file: sqlite3.Connection) -> bool:
    """Whether the words are indexed."""
    made = file.execute("SELECT sql FROM sqlite_master WHERE name = 'words'").fetchone()
    return made is not None and "fts5" in made[0]


def folded(text: str) -> str:
    """Text as it is searched: case doesn't count."""
    return well_formed(text).casefold()


def conditions(text: str, verdicts: Sequence[str], tags: Sequence[str], full_text: bool) -> tuple[str, list[str]]:
    """A condition on `answers` and its parameters: all words of the text, one of the verdicts, all tags."""
    where, values = ["1"], list[str]()
    for word in list(dict.fromkeys(folded(text).split()))[:_MOST_WORDS]:
        word = word[:_LONGEST_WORD]
        if full_text and len(word) >= _SHORTEST_MATCH:
            where.append("number IN (SELECT rowid FROM words WHERE words MATCH ?)")
            values.append('"' + word.replace('"', '""') + '"')
        else:
            where.append("number IN (SELECT rowid FROM words WHERE text LIKE ? ESCAPE '\\')")
            values.append("%" + word.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%")
    if verdicts:
        where.append(f"verdict IN ({', '.join('?' * len(verdicts))})")
        values += map(well_formed, verdicts)
    for tag in tags:
        where.append("EXISTS (SELECT 1 FROM json_each(answers.tags) WHERE value = ?)")
        values.append(well_formed(tag))
    return " AND ".join(where), values
