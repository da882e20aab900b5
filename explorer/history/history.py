"""Every question asked, kept in one SQLite file.

Safe with many threads of one server and with several servers at once: write-ahead log, one short
transaction a change, and a wait where another has the file. What a call returned from is kept, whatever
ends the process. Texts that people search are kept once more, folded, in a full-text index. Knows
nothing of models and pages.
"""

import copy
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from explorer.errors import HistoryError
from explorer.history import saved
from explorer.history.reader import Reader
from explorer.history.saved import Annotation, SavedAnswer, SavedInfluence, SavedQuestion
from explorer.history.tables import SAME, conditions, folded, has_full_text, prepare
from explorer.records import Speaker
from explorer.views import selected_text
from explorer.visible import well_formed

_PATIENCE = 10.0
"""Seconds to wait while another process writes."""


@dataclass(frozen=True)
class Summary:
    """A saved answer as a list shows it."""

    id: str
    asked: float
    prompt: str
    """The last turn of what was asked."""
    response: str
    said_by: Speaker
    """Whose words it is; see `SavedAnswer.said_by`."""
    model: str
    cache: str
    """Name of the cache's folder; empty where it wasn't kept."""
    annotation: Annotation
    questions: int
    """How many questions about it are kept."""
    times: int = 1
    """For how many repetitions it stands."""
    person: str = ""
    """Who asked; empty where that isn't known."""


@dataclass(frozen=True)
class Use:
    """A saved question that a training example influenced."""

    question: str
    """The question's id."""
    asked: float
    prompt: str
    said_by: Speaker
    """Whose words the answer is; see `SavedAnswer.said_by`."""
    selected: str
    """What was asked about, in words."""
    opponents: bool
    rank: int
    score: float
    exact: bool
    method: str
    """By which method examples were scored."""


class History:
    """The saved answers of one file, as somebody sees them: everything, unless `of` says whose they are.

    What a person doesn't see is as if it weren't there, whatever id is tried.
    """

    def __init__(self, path: Path, describe: saved.Describe):
        """Open the file, or begin it. Raises HistoryError when it can't be used.

        Args:
            path: The SQLite file.
            describe: What a method is whose name was kept.
        """
        self.path, self._describe, self._reader = path, describe, Reader()
        self._lock = threading.RLock()
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            # What people ask is their own: nobody else may read the file or SQLite's companions of it.
            path.touch(mode=0o600, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            prepare(self._file, _PATIENCE)

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._file.close()

    def of(self, reader: Reader) -> "History":
        """The same file as this person sees it."""
        seen = copy.copy(self)
        seen._reader = reader
        return seen

    # Writing

    def save(self, new: SavedAnswer) -> None:
        """Keep an answer with these questions, each in the place of what was kept of it before.

        What the file knows of the answer otherwise, its other questions and what was noted, stays.
        Raises HistoryError where the answer is there, and the person doesn't see it.
        """
        with self._change() as file:
            added = file.execute(
                "INSERT INTO answers (id, asked, document, person) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                (new.id, new.asked, saved.answer_document(new), self._reader.person),
            )
            if added.rowcount:
                self._index(file, new.id)
            self._require(file, new.id)
            for question in new.questions:
                self._save_question(file, new, question)

    def _save_question(self, file: sqlite3.Connection, about: SavedAnswer, new: SavedQuestion) -> None:
        cache, data = about.origin.cache_sha256, about.origin.data_sha256
        file.execute("DELETE FROM influences WHERE question = ?", (new.id,))
        document = saved.question_document(new)
        known = file.execute("UPDATE questions SET document = ? WHERE id = ?", (document, new.id))
        if not known.rowcount:
            # The scores are the sketches' and stay, whatever of the ranking becomes exact.
            file.execute(
                "INSERT INTO questions (id, answer, asked, document, scores) VALUES (?, ?, ?, ?, ?)",
                (new.id, about.id, new.asked, document, saved.scores_bytes(new)),
            )
        for rank, shown in enumerate(new.shown, start=1):
            row = shown.influence.row
            document, sequence = saved.example_document(shown.example), saved.sequence_document(shown.sequence)
            file.execute(
                "INSERT INTO examples (cache, row, data, document, sequence) VALUES (?, ?, ?, ?, ?) ON CONFLICT "
                "(cache, row) DO UPDATE SET sequence = excluded.sequence WHERE excluded.sequence IS NOT NULL",
                (cache, row, data, document, sequence),
            )
            file.execute(
                "INSERT INTO influences (question, rank, cache, row, document, arrays) VALUES (?, ?, ?, ?, ?, ?)",
                (new.id, rank, cache, row, saved.influence_document(shown), saved.influence_bytes(shown)),
            )

    def annotate(self, answer_id: str, new: Annotation) -> None:
        """Replace an answer's verdict, tags and note. Raises HistoryError when there is no such answer."""
        sees, values = self._reader.sees
        with self._change() as file:
            changed = file.execute(
                f"UPDATE answers SET verdict = ?, tags = ?, note = ? WHERE id = ? AND {sees}",
                (*_columns(new), answer_id, *values),
            )
            if not changed.rowcount:
                raise _missing(answer_id)
            self._index(file, answer_id)

    def annotate_example(self, data_sha256: str, row: int, new: Annotation) -> None:
        """Replace what is noted about a training example, for all questions over the same data."""
        with self._change() as file:
            whose = (self._reader.notes, data_sha256, row)
            file.execute("DELETE FROM remarks WHERE person = ? AND data = ? AND row = ?", whose)
            if new != Annotation():
                file.execute(
                    "INSERT INTO remarks (person, data, row, verdict, tags, note) VALUES (?, ?, ?, ?, ?, ?)",
                    (*whose, *_columns(new)),
                )

    def delete(self, *answer_ids: str) -> None:
        """Forget answers and their questions, as far as the person may. What is noted about examples stays."""
        may, values = self._reader.may_delete
        with self._change() as file:
            for answer_id in map(well_formed, answer_ids):
                these = f"FROM answers WHERE id = ? AND {may}"
                file.execute(f"DELETE FROM words WHERE rowid = (SELECT number {these})", (answer_id, *values))
                file.execute(f"DELETE {these}", (answer_id, *values))
            file.execute("DELETE FROM examples WHERE (cache, row) NOT IN (SELECT cache, row FROM influences)")

    def _index(self, file: sqlite3.Connection, answer_id: str) -> None:
        """Make an answer's words searchable."""
        number = file.execute("SELECT number FROM answers WHERE id = ?", (answer_id,)).fetchone()[0]
        kept = self._answer(file, answer_id)
        note = kept.annotation
        words = (
            answer_id,
            kept.answer.prompt,
            kept.answer.text,
            kept.origin.model,
            note.verdict,
            *note.tags,
            note.note,
        )
        file.execute("DELETE FROM words WHERE rowid = ?", (number,))
        file.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (number, folded("\n".join(words))))

    # Reading

    def may_delete(self, answer_id: str) -> bool:
        """Whether the person may delete this answer."""
        may, values = self._reader.may_delete
        with self._read() as file:
            return bool(file.execute(f"SELECT 1 FROM answers WHERE id = ? AND {may}", (answer_id, *values)).fetchone())

    def answer(self, name: str) -> SavedAnswer:
        """The saved answer of this id, or the one that a question of this id is about, with all its questions.

        Raises HistoryError when there is none.
        """
        name, (sees, values) = well_formed(name), self._reader.sees
        with self._read() as file:
            found = file.execute(
                f"SELECT answer FROM questions JOIN answers ON answers.id = answer WHERE questions.id = ? AND {sees}",
                (name, *values),
            ).fetchone()
            kept = self._answer(file, found[0] if found else name)
            return replace(kept, questions=tuple(self._questions(file, kept.id)))

    def find(
        self,
        text: str = "",
        verdicts: Sequence[str] = (),
        tags: Sequence[str] = (),
        limit: int = -1,
        skip: int = 0,
        together: bool = False,
    ) -> tuple[list[Summary], int]:
        """Saved answers, newest first, and how many there are in all.

        Args:
            text: Every one of these words must occur in prompt, response, verdict, tags, note or model.
            verdicts: One of these; any when empty.
            tags: All of these.
            limit: At most so many; all when negative.
            skip: Leave out so many of the newest.
            together: Whether the newest of several repetitions stands for all of them (`repetitions`).
        """
        with self._read() as file:
            where, values = conditions(text, verdicts, tags, has_full_text(file))
            where, values = f"{self._reader.sees[0]} AND {where}", [*self._reader.sees[1], *values]
            by = f"GROUP BY {SAME}" if together else "GROUP BY number"
            counted = f"SELECT count(*) FROM (SELECT 1 FROM answers WHERE {where} {by})"
            total = file.execute(counted, values).fetchone()[0]
            # Beside max(), SQLite gives the columns of the row that has it.
            rows = file.execute(
                "SELECT id, asked, document, verdict, tags, note, "
                "(SELECT count(*) FROM questions WHERE answer = answers.id), times, person FROM answers JOIN "
                f"(SELECT id AS newest, count(*) AS times, max(asked * 1.0) FROM answers WHERE {where} {by}) "
                "ON newest = id ORDER BY asked DESC, number DESC LIMIT ? OFFSET ?",
                (*values, limit, skip),
            ).fetchall()
        return [_summary(*row) for row in rows], int(total)

    def repetitions(self, answer_id: str) -> list[str]:
        """The ids of all saved answers that say the same, this one among them, newest first.

        They have the same prompt and answer, settings and cache, and the same notes. Empty when there is none.
        """
        sees, values = self._reader.sees
        with self._read() as file:
            rows = file.execute(
                f"SELECT id FROM answers WHERE ({SAME}) IS (SELECT {SAME} FROM answers WHERE id = ?) AND {sees} "
                "ORDER BY asked DESC, number DESC",
                (well_formed(answer_id), *values),
            ).fetchall()
        return [row[0] for row in rows]

    def verdicts(self) -> list[str]:
        """The verdicts given so far, in order of the alphabet."""
        return self._distinct("verdict", "answers WHERE verdict != ''")

    def tags(self) -> list[str]:
        """The tags given so far to answers, in order of the alphabet."""
        return self._distinct("value", "answers, json_each(answers.tags) WHERE 1")

    def example_annotation(self, data_sha256: str, row: int) -> Annotation:
        """What is noted about a training example."""
        with self._read() as file:
            return self._remark(file, data_sha256, row)

    def uses(self, data_sha256: str, row: int) -> list[Use]:
        """The saved questions whose shown examples include this one, newest first."""
        sees, values = self._reader.sees
        with self._read() as file:
            rows = file.execute(
                "SELECT questions.id, questions.asked, answers.id, answers.asked, answers.document, "
                "questions.document, influences.rank, influences.document "
                "FROM examples JOIN influences USING (cache, row) JOIN questions ON questions.id = influences.question "
                "JOIN answers ON answers.id = questions.answer WHERE examples.data = ? AND examples.row = ? "
                f"AND {sees} ORDER BY questions.asked DESC",
                (data_sha256, row, *values),
            ).fetchall()
        found = []
        for name, asked, answer, begun, text, document, rank, score in rows:
            whole = saved.read_answer(text, id=answer, asked=begun)
            about = whole.answer
            question = saved.read_question(document, None, self._describe, id=name, asked=asked, shown=())
            selected = selected_text(about, question.selection)
            kept = json.loads(score)
            shown = rank, kept["score"], kept["exact"], question.method.name
            found.append(Use(name, asked, about.asked.question, whole.said_by, selected, question.opponents, *shown))
        return found

    def _require(self, file: sqlite3.Connection, answer_id: str) -> None:
        """Raise HistoryError unless the person sees this answer."""
        sees, values = self._reader.sees
        if not file.execute(f"SELECT 1 FROM answers WHERE id = ? AND {sees}", (answer_id, *values)).fetchone():
            raise _missing(answer_id)

    def _distinct(self, value: str, source: str) -> list[str]:
        sees, values = self._reader.sees
        with self._read() as file:
            return sorted(row[0] for row in file.execute(f"SELECT DISTINCT {value} FROM {source} AND {sees}", values))

    def _answer(self, file: sqlite3.Connection, answer_id: str) -> SavedAnswer:
        """An answer without its questions."""
        sees, values = self._reader.sees
        row = file.execute(
            f"SELECT asked, document, verdict, tags, note FROM answers WHERE id = ? AND {sees}", (answer_id, *values)
        ).fetchone()
        if row is None:
            raise _missing(answer_id)
        return saved.read_answer(row[1], id=answer_id, asked=row[0], annotation=_annotation(*row[2:]))

    def _questions(self, file: sqlite3.Connection, answer_id: str) -> Iterator[SavedQuestion]:
        rows = file.execute(
            "SELECT id, asked, document, scores FROM questions WHERE answer = ? ORDER BY asked, rowid", (answer_id,)
        ).fetchall()
        for name, asked, document, scores in rows:
            shown = tuple(self._influences(file, name))
            yield saved.read_question(document, scores, self._describe, id=name, asked=asked, shown=shown)

    def _influences(self, file: sqlite3.Connection, question: str) -> Iterator[SavedInfluence]:
        rows = file.execute(
            "SELECT row, data, influences.document, arrays, examples.document, sequence FROM influences "
            "JOIN examples USING (cache, row) WHERE question = ? ORDER BY rank",
            (question,),
        ).fetchall()
        for row, data, document, arrays, example, sequence in rows:
            yield saved.read_influence(
                row,
                document,
                arrays,
                example=saved.read_example(row, example),
                sequence=saved.read_sequence(sequence),
                annotation=self._remark(file, data, row),
            )

    def _remark(self, file: sqlite3.Connection, data: str, row: int) -> Annotation:
        found = file.execute(
            "SELECT verdict, tags, note FROM remarks WHERE person = ? AND data = ? AND row = ?",
            (self._reader.notes, data, row),
        ).fetchone()
        return _annotation(*found) if found else Annotation()

    # The file

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the file."""
        with self._transaction("BEGIN") as file:
            yield file

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A change that is made whole or not at all."""
        with self._transaction("BEGIN IMMEDIATE") as file:
            yield file

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock, self._explained():
            self._file.execute(begin)
            try:
                yield self._file
                self._file.execute("COMMIT")
            except BaseException:
                self._file.rollback()
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as problem:
            raise HistoryError(
                f"The history {self.path} can't be used ({problem}). Free it, restore it from a copy, or give another "
                "file with --history."
            ) from None


def _missing(name: str) -> HistoryError:
    return HistoryError(f"The history has no saved question {name}; it may have been deleted. Look for it in the list.")


def _columns(new: Annotation) -> tuple[str, str, str]:
    tags = sorted({tag for tag in (well_formed(tag).strip() for tag in new.tags) if tag})
    return well_formed(new.verdict).strip(), json.dumps(tags), well_formed(new.note)


def _annotation(verdict: str, tags: str, note: str) -> Annotation:
    return Annotation(verdict, tuple(json.loads(tags)), note)


def _summary(
    name: str, asked: float, document: str, verdict: str, tags: str, note: str, questions: int, times: int, person: str
) -> Summary:
    kept = saved.read_answer(document, id=name, asked=asked)
    annotation, about = _annotation(verdict, tags, note), kept.answer
    return Summary(
        id=name,
        asked=asked,
        prompt=about.asked.question,
        response=about.text,
        said_by=kept.said_by,
        model=kept.origin.model,
        cache=kept.origin.cache,
        annotation=annotation,
        questions=questions,
        times=times,
        person=person,
    )
