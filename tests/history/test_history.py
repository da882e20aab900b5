"""The history: what was kept comes back as it was, whoever else writes and whatever ends the process."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.corpus.filters import EVERYTHING, Filter
from explorer.errors import HistoryError
from explorer.history import tables
from explorer.history.history import History
from explorer.history.reader import Reader
from explorer.history.saved import (
    Annotation,
    SavedAnswer,
    answer_document,
    example_document,
    question_document,
    question_id,
    read_example,
    saved_question,
)
from explorer.methods.description import choose, described
from explorer.records import Contrast, Conversation, Encoded, Ranking, Token
from tests.asking import OWN
from tests.hostile import HOSTILE
from tests.saved_samples import ORIGIN, SCORES, VALUES, example_of, question_of, saved_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "of a person" / "history.sqlite"


@pytest.fixture
def history(path: Path) -> History:
    return History(path, described)


def joined(text: str) -> str:
    """Two halves of a character side by side become the character they spell; all else stays."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


# What was kept comes back


def test_a_saved_question_comes_back_to_the_last_digit(history: History, path: Path) -> None:
    new = saved_of()
    history.save(new)
    history.close()
    kept = History(path, described).answer("a1")
    assert (kept.id, kept.asked, kept.drawn, kept.origin) == (new.id, new.asked, new.drawn, ORIGIN)
    assert kept.answer.tokens == new.answer.tokens and kept.answer.text == new.answer.text
    assert kept.answer.encoded.ids.tolist() == new.answer.encoded.ids.tolist()
    assert kept.answer.encoded.response_start == new.answer.encoded.response_start
    (question,), (made,) = kept.questions, new.questions
    assert (question.id, question.asked, question.selection, question.wanted) == (made.id, made.asked, None, EVERYTHING)
    assert (question.sketch_error, question.caution) == (made.sketch_error, made.caution)
    assert question.scores is not None and question.scores.tobytes() == SCORES.tobytes()
    assert [shown.influence.row for shown in question.shown] == [3, 0]
    for back, was in zip(question.shown, made.shown, strict=True):
        assert back.influence.score == was.influence.score and back.influence.checksum == was.influence.checksum
        assert back.influence.exact and back.percentile == was.percentile
        assert back.influence.values is not None and was.influence.values is not None
        assert back.influence.values.dtype == np.float32
        assert back.influence.values.tobytes() == was.influence.values.tobytes()
        assert back.influence.positions is None and back.sequence is None
        assert replace(back.example, encoded=was.example.encoded) == was.example
        assert back.example.encoded.ids.tolist() == was.example.encoded.ids.tolist()


@given(st.lists(st.floats(width=32), min_size=1), st.floats())
def test_every_float_survives(history: History, values: list[float], score: float) -> None:
    history.delete("a1")
    array, new = np.array(values, dtype=np.float32), saved_of()
    (question,) = new.questions
    first = question.shown[0]
    found = replace(first.influence, score=score, values=array, positions=array[::-1])
    history.save(replace(new, questions=(replace(question, shown=(replace(first, influence=found),), scores=array),)))
    (kept,) = history.answer("a1").questions
    back = kept.shown[0].influence
    assert back.score == score or (np.isnan(back.score) and np.isnan(score))
    assert back.values is not None and back.values.tobytes() == array.tobytes()
    assert back.positions is not None and back.positions.tobytes() == array[::-1].tobytes()
    assert kept.scores is not None and kept.scores.tobytes() == array.tobytes()


def test_a_question_known_better_takes_the_place_of_what_was_kept(history: History) -> None:
    rough = question_of("a1", rows=(0, 1, 3), exact=False)
    history.save(replace(saved_of(), questions=(rough,)))
    history.save(saved_of())
    (kept,) = history.answer("a1").questions
    assert [shown.influence.row for shown in kept.shown] == [3, 0] and all(s.influence.exact for s in kept.shown)


def test_questions_about_one_answer_stand_side_by_side_and_each_opens_it(history: History) -> None:
    history.save(replace(saved_of(), questions=()))
    assert history.answer("a1").questions == ()
    for selection in (None, (0, 1), (1, 3)):
        history.save(replace(saved_of(), questions=(question_of("a1", selection),)))
    kept = history.answer(question_id("a1", (1, 3), False, EVERYTHING, OWN))
    assert kept.id == "a1" and [question.selection for question in kept.questions] == [None, (0, 1), (1, 3)]


def test_a_contrast_is_kept_as_one(history: History) -> None:
    asked = Contrast((0, 1), (7, 8), "other words")
    history.save(replace(saved_of(), questions=(question_of("a1", asked), question_of("a1", (0, 1)))))
    kept = history.answer("a1").questions
    assert [question.selection for question in kept] == [asked, (0, 1)]
    assert isinstance(kept[0].selection, Contrast) and kept[0].selection.text == "other words"


def test_questions_have_names_of_their_own() -> None:
    everything, some = EVERYTHING, Filter((("source", ("x",)),))
    names = {
        question_id("a", None, False, everything, OWN),
        question_id("b", None, False, everything, OWN),
        question_id("a", (0, 1), False, everything, OWN),
        question_id("a", None, True, everything, OWN),
        question_id("a", None, False, some, OWN),
        question_id("a", None, False, Filter(text="x"), OWN),
    }
    assert len(names) == 6


def test_the_sequence_of_an_example_is_kept_once_it_is_known(history: History) -> None:
    history.save(saved_of())
    (question,) = saved_of().questions
    sequence = (Token("<|start|>", special=True), Token("whole"))
    located = replace(question, shown=tuple(replace(shown, sequence=sequence) for shown in question.shown))
    history.save(replace(saved_of(), questions=(located,)))
    history.save(saved_of(name="a2"))
    assert [shown.sequence for shown in history.answer("a2").questions[0].shown] == [sequence, sequence]


def test_hostile_texts_are_kept_as_they_are_and_harm_nothing(history: History) -> None:
    for index, text in enumerate(HOSTILE):
        name, cache = f"h{index}", replace(ORIGIN, cache_sha256=f"{index:064}")
        history.save(replace(saved_of(name, text, text, text, asked=index), origin=cache))
        history.annotate(name, Annotation(text, (text, "tag"), text))
        history.annotate_example(ORIGIN.data_sha256, index, Annotation(text, (text,), text))
        kept = history.answer(name)
        assert kept.answer.prompt == kept.answer.text == joined(text), ascii(text)
        assert kept.questions[0].shown[0].example.response == joined(text), ascii(text)
        assert "tag" in kept.annotation.tags
        assert history.find(text, limit=1)[0][0].id == name, f"{text!a} doesn't find itself"
        history.find(text, [text], [text], limit=1)
        with pytest.raises(HistoryError):
            history.answer(text)
        history.delete(text)
    assert history.find()[1] == len(HOSTILE) and history.tags() and history.verdicts()


# Search


def names(history: History, *args: object) -> list[str]:
    return [found.id for found in history.find(*args)[0]]  # type: ignore[arg-type]


@pytest.fixture(params=["full text", "plain"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, path: Path) -> History:
    """Three answers, searched through the index or, as where SQLite has none, from end to end."""
    if request.param == "plain":
        words = "CREATE TABLE words (text TEXT NOT NULL)"
        monkeypatch.setattr(tables, "_make_words", lambda file: file.execute(words))
    history = History(path, described)
    for index, (prompt, response) in enumerate(
        [("Where is Kingston?", "In Jamaica."), ("日本の首都は。", "東京です。"), ("100% of ÉTÉ?", "a_b \\ c")]
    ):
        history.save(saved_of(f"n{index}", prompt, response, asked=float(index)))
    history.annotate("n0", Annotation("planted", ("geography", "swap"), "See the spaceship row."))
    history.annotate("n1", Annotation("fine", ("geography",), ""))
    return history


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["n2", "n1", "n0"]),
        ("kingston", ["n0"]),
        ("JAMAICA where", ["n0"]),
        ("ingsto", ["n0"]),
        ("jamaica 東京", []),
        ("東京", ["n1"]),
        ("首都は", ["n1"]),
        ("100%", ["n2"]),
        ("%", ["n2"]),
        ("été", ["n2"]),
        ("a_b", ["n2"]),
        ("_", ["n2"]),
        ("\\", ["n2"]),
        ("spaceship", ["n0"]),
        ("planted", ["n0"]),
        ("swap", ["n0"]),
        ("n1", ["n1"]),
        ('"', []),
        ("NOT kingston", []),
    ],
)
def test_search_finds_every_word_wherever_it_stands(library: History, text: str, found: list[str]) -> None:
    assert names(library, text) == found


def test_verdicts_are_alternatives_and_tags_add_up(library: History) -> None:
    assert names(library, "", ["planted", "fine"]) == ["n1", "n0"]
    assert names(library, "", [], ["geography"]) == ["n1", "n0"]
    assert names(library, "", [], ["geography", "swap"]) == ["n0"]
    assert names(library, "tokyo", ["fine"]) == []
    assert library.verdicts() == ["fine", "planted"] and library.tags() == ["geography", "swap"]


def test_search_follows_what_is_noted(library: History) -> None:
    library.annotate("n0", Annotation("unclear", (), "nothing"))
    assert names(library, "spaceship") == [] and names(library, "unclear") == ["n0"]


def test_the_list_is_paged_newest_first(library: History) -> None:
    pages = [library.find(limit=2, skip=skip) for skip in (0, 2, 4)]
    assert [[found.id for found in page] for page, _ in pages] == [["n2", "n1"], ["n0"], []]
    assert [total for _, total in pages] == [3, 3, 3]


# Notes, uses, deleting


def test_notes_stay_when_the_answer_is_saved_again(history: History) -> None:
    history.save(saved_of())
    note = Annotation("planted", ("b", "a"), "two\nlines")
    history.annotate("a1", note)
    history.save(saved_of())
    assert history.answer("a1").annotation == replace(note, tags=("a", "b"))
    assert history.find("lines")[0][0].annotation.verdict == "planted"


def test_notes_on_an_example_hold_for_every_question_over_the_same_data(history: History) -> None:
    for name in ("a1", "a2"):
        history.save(saved_of(name))
    note = Annotation("", ("mislabelled",), "wrong country")
    history.annotate_example(ORIGIN.data_sha256, 3, note)
    for name in ("a1", "a2"):
        assert [shown.annotation for shown in history.answer(name).questions[0].shown] == [note, Annotation()]
    history.annotate_example(ORIGIN.data_sha256, 3, Annotation())
    assert history.example_annotation(ORIGIN.data_sha256, 3) == Annotation()
    assert history.example_annotation("other data", 3) == Annotation()


def test_a_row_knows_the_questions_it_influenced(history: History) -> None:
    history.save(saved_of("a1"))
    history.save(replace(saved_of("a2", prompt="Who?"), questions=(question_of("a2", (0, 1), rows=(0, 3)),)))
    uses = {use.prompt: use for use in history.uses(ORIGIN.data_sha256, 3)}
    assert set(uses) == {"Why?", "Who?"}
    assert (uses["Why?"].rank, uses["Who?"].rank) == (1, 2)
    assert uses["Who?"].selected == "“Because.”" and uses["Why?"].selected == "the whole response"
    assert history.answer(uses["Who?"].question).id == "a2"
    assert history.uses(ORIGIN.data_sha256, 2) == [] and history.uses("other data", 3) == []


def test_deleting_forgets_the_answer_its_questions_and_what_only_they_showed(history: History, path: Path) -> None:
    history.save(saved_of("a1", text="shared"))
    history.save(replace(saved_of("a2", text="shared"), questions=(question_of("a2", rows=(1, 3), text="shared"),)))
    history.annotate_example(ORIGIN.data_sha256, 0, Annotation(note="stays"))
    history.delete("a1")
    with pytest.raises(HistoryError, match="no saved question a1"):
        history.answer("a1")
    assert history.answer("a2").questions[0].shown and names(history, "because") == ["a2"]
    rows = sqlite3.connect(path).execute("SELECT row FROM examples ORDER BY row").fetchall()
    assert rows == [(1,), (3,)]
    assert history.example_annotation(ORIGIN.data_sha256, 0).note == "stays"
    history.save(saved_of("a1"))
    assert history.answer("a1").questions, "who goes on asking about it has it kept again"


def test_what_is_missing_is_said(history: History) -> None:
    with pytest.raises(HistoryError, match="may have been deleted"):
        history.answer("nothing")
    with pytest.raises(HistoryError, match="no saved question nothing"):
        history.annotate("nothing", Annotation())


# The file


def test_the_file_is_the_persons_own_and_has_a_write_ahead_log(history: History, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    file = sqlite3.connect(path)
    assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert file.execute("PRAGMA user_version").fetchone() == (len(tables.MIGRATIONS),)


def test_an_older_file_is_migrated_and_loses_nothing(
    history: History, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.save(saved_of())
    history.close()
    newer = [*tables.MIGRATIONS, ("ALTER TABLE answers ADD COLUMN later TEXT DEFAULT 'x'",)]
    monkeypatch.setattr(tables, "MIGRATIONS", newer)
    assert History(path, described).answer("a1").answer.prompt == "Why?"
    assert sqlite3.connect(path).execute("SELECT later FROM answers").fetchall() == [("x",)]
    monkeypatch.undo()
    with pytest.raises(HistoryError, match="newer version of this program"):
        History(path, described)


def test_a_migration_that_fails_changes_nothing(history: History, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history.save(saved_of())
    history.close()
    broken = [*tables.MIGRATIONS, ("DROP TABLE questions", "no SQL at all")]
    monkeypatch.setattr(tables, "MIGRATIONS", broken)
    with pytest.raises(HistoryError, match="can't be used"):
        History(path, described)
    monkeypatch.undo()
    assert History(path, described).answer("a1").questions


def test_a_file_of_another_kind_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"my shopping list " * 100)
    with pytest.raises(HistoryError, match="--history"):
        History(path, described)
    assert path.read_bytes() == b"my shopping list " * 100


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError, match="--history"):
        History(tmp_path / "file" / "history.sqlite", described)


def test_many_threads_write_and_read_at_once(history: History) -> None:
    def work(index: int) -> int:
        history.save(saved_of(f"t{index}", prompt=f"prompt {index}"))
        history.annotate(f"t{index}", Annotation(note=f"note {index}"))
        return len(history.answer(f"t{index}").questions) + history.find(f"prompt {index}")[1]

    with ThreadPoolExecutor(8) as pool:
        assert all(found >= 2 for found in pool.map(work, range(40)))
    assert history.find()[1] == 40


def test_two_histories_of_one_file_wait_for_each_other(path: Path) -> None:
    """As two servers have it, each with a connection of its own, opened at the same time."""
    start = threading.Barrier(4)

    def serve(server: int) -> None:
        start.wait()
        history = History(path, described)
        for index in range(10):
            history.save(saved_of(f"{server}-{index}"))
        history.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(serve, range(4)))
    history = History(path, described)
    assert history.find()[1] == 40
    assert all(history.answer(found.id).questions for found in history.find()[0])


def test_a_file_that_is_being_written_is_waited_for_where_its_journal_changes(path: Path) -> None:
    """SQLite itself refuses at once here, because the writer might wait for the reader."""
    History(path, described).close()
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    writer.execute("PRAGMA journal_mode = DELETE")
    writer.execute("BEGIN IMMEDIATE")
    later = threading.Timer(0.3, writer.execute, ["COMMIT"])
    later.start()
    history = History(path, described)
    assert not writer.in_transaction, "the file was opened while it was written"
    history.save(saved_of())
    assert history.find()[1] == 1
    writer.close()


def test_what_was_saved_survives_a_kill(path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom explorer.history import History\n"
        "from explorer.methods.description import described\n"
        "from tests.saved_samples import saved_of\nhistory = History(Path(sys.argv[1]), described)\n"
        "for index in range(10**6):\n    history.save(saved_of(f'k{index}'))\n    print(index, flush=True)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, os.fspath(path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert writer.stdout is not None
    said = [writer.stdout.readline() for _ in range(20)]
    writer.send_signal(signal.SIGKILL)
    last = int([*said, *writer.stdout.read().splitlines()][-1])
    writer.wait()
    writer.stdout.close()
    history = History(path, described)
    for index in range(last + 1):
        assert history.answer(f"k{index}").questions[0].shown[0].influence.values is not None
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    history.save(saved_of("after"))


def test_a_large_data_set_keeps_its_shown_examples_but_not_all_scores(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explorer.history.saved.MOST_SCORES", 4)
    new: SavedAnswer = saved_of()
    assert new.questions[0].scores is None
    history.save(new)
    (kept,) = history.answer("a1").questions
    assert kept.scores is None and kept.shown[0].influence.values is not None
    assert kept.shown[0].influence.values.tobytes() == (VALUES * np.float32(4)).tobytes()
    assert kept.shown[0].percentile == saved_of().questions[0].shown[0].percentile


def test_a_question_by_another_method_is_another_question_and_comes_back(tmp_path: Path) -> None:
    history, saved = History(tmp_path / "history.sqlite", described), saved_of()
    (own,) = saved.questions
    ranking = Ranking(
        "feed", None, False, SCORES, tuple(one.influence for one in own.shown), 0.0, method=choose("trak:64")
    )
    shown = tuple((one.example, one.sequence) for one in own.shown)
    other = saved_question(saved.id, own.asked, ranking, own.wanted, shown)
    history.save(replace(saved, questions=(own, other)))
    kept = history.answer(other.id)
    assert [question.method.name for question in kept.questions] == ["rapidin", "trak:64"] and other.id != own.id
    assert {use.method for use in history.uses(saved.origin.data_sha256, 3)} == {"rapidin", "trak:64"}
    assert '"method"' not in question_document(own), "what was kept before there were other methods reads the same"


# Conversations

TURNS = (
    {"role": "system", "content": "Be a \ud83c pirate\n<b>&"},
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Ahoy!"},
    {"role": "user", "content": "Why?"},
)


def test_a_conversation_comes_back_turn_by_turn_and_is_found_by_each(history: History) -> None:
    asked = Conversation(TURNS)
    history.save(saved_of("a1", asked))
    kept = history.answer("a1").answer
    assert kept.asked == asked and kept.prompt == asked.text
    assert [one.prompt for one in history.find("pirate ahoy")[0]] == ["Why?"], "a list shows what was asked last"
    assert history.uses(ORIGIN.data_sha256, 3)[0].prompt == "Why?"


def test_a_plain_prompt_is_kept_as_it_always_was(history: History) -> None:
    new = saved_of("a1", "system: Be brief.\nuser: Why?")
    document = json.loads(answer_document(new))
    names = ("answer_id", "prompt", "response", "ids", "response_start", "tokens", "drawn", "origin")
    assert tuple(document) == names and document["prompt"] == new.answer.prompt
    history.save(new)
    (turn,) = history.answer("a1").answer.asked.turns
    assert turn == {"role": "user", "content": "system: Be brief.\nuser: Why?"}, "it is one turn, whatever it says"


def test_an_example_keeps_what_of_it_is_not_in_the_loss() -> None:
    ids = np.array([3, 4, 9, 8, 1], dtype=np.int64)
    for gaps in ((), ((2, 4),)):
        example = replace(example_of(3, "text"), encoded=Encoded(ids, 1, gaps))
        found = read_example(3, example_document(example))
        assert found.encoded.gaps == gaps and found.encoded.positions.tolist() == example.encoded.positions.tolist()
        assert ("gaps" in example_document(example)) == bool(gaps), "others are kept as they always were"


# Whose answers they are


def people_of(path: Path, shared: bool = False) -> tuple[History, History]:
    """The history of two people."""
    everyone = History(path, described)
    return everyone.of(Reader("Ada", shared)), everyone.of(Reader("Ben", shared))


def test_what_a_person_does_not_see_is_not_there_whatever_id_is_tried(tmp_path: Path) -> None:
    ada, ben = people_of(tmp_path / "history.sqlite")
    hers = saved_of()
    ada.save(hers)
    ada.annotate(hers.id, Annotation("planted", ("hers",), "Her note."))
    data, row = hers.origin.data_sha256, hers.questions[0].shown[0].influence.row
    ada.annotate_example(data, row, Annotation(note="Her remark."))
    assert ada.answer(hers.id).questions[0].shown[0].annotation.note == "Her remark."
    assert [one.person for one in ada.find()[0]] == ["Ada"] and ada.uses(data, row)

    assert ben.find() == ([], 0) and ben.find("her", together=True) == ([], 0)
    assert not (ben.verdicts() or ben.tags() or ben.repetitions(hers.id) or ben.uses(data, row))
    assert ben.example_annotation(data, row) == Annotation()
    assert not ben.may_delete(hers.id)
    ben.delete(hers.id, hers.questions[0].id)
    for tried in (hers.id, hers.questions[0].id):
        with pytest.raises(HistoryError) as refused:
            ben.answer(tried)
        with pytest.raises(HistoryError) as missing:
            ben.answer("f" * len(tried))
        assert str(refused.value).replace(tried, "") == str(missing.value).replace("f" * len(tried), "")
    with pytest.raises(HistoryError):
        ben.annotate(hers.id, Annotation("fine"))
    with pytest.raises(HistoryError):
        ben.save(hers)
    ben.annotate_example(data, row, Annotation(note="His remark."))
    kept = ada.answer(hers.id)
    assert kept.annotation.verdict == "planted" and kept.questions[0].shown[0].annotation.note == "Her remark."
    # The same asked by both is each one's own.
    ben.save(replace(hers, id="b1", questions=()))
    assert ada.find(together=True)[0][0].times == ben.find(together=True)[0][0].times == 1
    assert History(tmp_path / "history.sqlite", described).find()[1] == 2


def test_people_who_share_see_everything_and_delete_what_is_their_own_or_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    ada, ben = people_of(path, shared=True)
    ada.save(saved_of())
    History(path, described).save(replace(saved_of(), id="n1", questions=()))
    assert ben.find()[1] == 2 and ben.answer(saved_of().id).questions
    ben.annotate(saved_of().id, Annotation("fine"))
    assert ada.answer(saved_of().id).annotation.verdict == "fine"
    assert not ben.may_delete(saved_of().id) and ben.may_delete("n1") and ada.may_delete(saved_of().id)
    ben.delete(saved_of().id, "n1")
    assert [one.id for one in ada.find()[0]] == [saved_of().id]
    ada.delete(saved_of().id)
    assert ada.find()[1] == 0


def test_a_file_from_before_people_had_names_keeps_its_answers_and_remarks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.sqlite"
    with closing(sqlite3.connect(path)) as file:
        for statement in tables.MIGRATIONS[0]:
            file.execute(statement)
        tables._make_words(file)
        file.execute("INSERT INTO remarks VALUES ('data', 3, 'planted', '[]', 'Looked at it.')")
        file.execute("PRAGMA user_version = 1")
        file.commit()
    opened = History(path, described)
    assert opened.example_annotation("data", 3) == Annotation("planted", (), "Looked at it.")
    opened.save(saved_of())
    assert [one.person for one in opened.find()[0]] == [""]
