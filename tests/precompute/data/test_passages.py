"""Raw text as training data: documents cut into passages, each with its place."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.errors import DataError
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Counting, Encoded, Example
from explorer.serving.session import open_engine
from explorer.views import passage
from precompute.build import append_examples, build_cache
from precompute.data import Reading, Review, data_hash, read_examples, readable
from tests.asking import asking
from tests.conftest import TINY_SETTINGS, Tiny

STORY = "The sun and the moon of the river.\n\nA star, naïve 🌟, fell into the river and was gone by day. " * 4
SHORT = Counting(chunk=24)


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def document(text: str) -> Example:
    return Example((), text, {"document": "story"}, place="row 1")


def counted(encoded: list[Encoded]) -> list[int]:
    """The tokens in the loss, one passage after the other."""
    return np.concatenate([each.ids[each.positions] for each in encoded]).tolist()


# Reading


def test_a_row_with_a_text_and_no_answer_is_a_document(tmp_path: Path) -> None:
    first, second = read_examples(written(tmp_path, {"text": "One.", "title": "x"}, {"text": "Two.", "document": "b"}))
    assert first == Example((), "One.", {"title": "x", "document": "row 1"}) and first.is_text
    assert second == Example((), "Two.", {"document": "b"})


def test_a_text_beside_an_answer_stays_a_label_unless_it_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, {"prompt": "Why?", "response": "So.", "text": "Why? So."})
    (labelled,) = read_examples(path)
    assert not labelled.is_text and labelled.columns == {"text": "Why? So."}
    (named,) = read_examples(path, Reading(columns={"text": "response"}))
    assert named.is_text and named.response == "So."


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": " \n"}, "has an empty text"),
        ({"text": "One.", "start": 3}, "has a column start, under which the place of a passage is kept"),
    ],
)
def test_a_document_that_cannot_be_used_is_refused(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_examples(written(tmp_path, row))


def test_files_of_text_are_documents_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.txt.gz").write_bytes(gzip.compress(b"Two."))
    (tmp_path / "a.txt").write_text("One.")
    assert read_examples(tmp_path / "a.txt") == [Example((), "One.", {"document": "a.txt"})]
    found = read_examples(tmp_path)
    assert [(each.response, each.columns["document"]) for each in found] == [
        ("One.", "a.txt"),
        ("Two.", "deep/b.txt.gz"),
    ]
    written(tmp_path, {"text": "One."})
    with pytest.raises(DataError, match=r"give a file of data, such as its a\.txt"):
        read_examples(tmp_path)


# Cutting


def test_every_token_of_a_document_is_in_the_loss_once(tiny_model: LanguageModel) -> None:
    _, encoded = readable(tiny_model, [document(STORY)], counting=SHORT)
    end = tiny_model.tokenizer.eos_token_id
    assert counted(encoded) == [*tiny_model.tokenizer(STORY)["input_ids"], end]
    assert all(len(each.ids) <= 24 and each.response_start == 1 for each in encoded)
    # The end of the document before it stands before the first, and the last token before a passage before the others.
    assert [int(each.ids[0]) for each in encoded] == [end, *(int(each.ids[-1]) for each in encoded[:-1])]


def test_passages_are_whole_words_and_know_their_place(tiny_model: LanguageModel) -> None:
    passages, _ = readable(tiny_model, [document(STORY)], counting=SHORT)
    places = [(each.columns["start"], each.columns["stop"]) for each in passages]
    assert places[0][0] == 0 and places[-1][1] == len(STORY)
    assert [stop for _, stop in places[:-1]] == [start for start, _ in places[1:]]
    for each, (start, stop) in zip(passages, places, strict=True):
        assert each.response == STORY[start:stop] and each.columns["document"] == "story"
        assert start == 0 or STORY[start].isspace() or STORY[start - 1].isspace()
    assert [word for each in passages for word in each.response.split()] == STORY.split()


@given(text=st.text(min_size=1, max_size=80).filter(str.strip), chunk=st.integers(16, 40))
def test_any_text_is_cut_without_loss(tiny_cut: LanguageModel, text: str, chunk: int) -> None:
    passages, encoded = readable(tiny_cut, [document(text)], counting=Counting(chunk=chunk))
    assert counted(encoded)[:-1] == tiny_cut.tokenizer(text)["input_ids"]
    assert "".join(each.response for each in passages) == text
    assert all(each.response for each in passages)


@pytest.fixture(scope="module")
def tiny_cut(tiny: Tiny) -> LanguageModel:
    return load_model(str(tiny.model), device="cpu")


@pytest.mark.parametrize(
    ("counting", "last", "first"),
    [
        (Counting(end="none", chunk=24), "g", "T"),
        (Counting(end="<|start|>"), "<|start|>", "<|start|>"),
        (Counting(longest=5), "Ġs", "<|end|>"),
    ],
)
def test_what_ends_a_document_and_where_it_was_cut_is_as_in_the_training(
    tiny_model: LanguageModel, counting: Counting, last: str, first: str
) -> None:
    _, encoded = readable(tiny_model, [document("The song")], counting=counting)
    names = tiny_model.tokenizer.convert_ids_to_tokens
    assert (names(int(encoded[0].ids[0])), names(int(encoded[-1].ids[-1]))) == (first, last)


def test_a_text_without_a_second_token_is_a_bad_row(tiny_model: LanguageModel) -> None:
    with pytest.raises(DataError, match="row 1, can't be read by the model: The text has nothing in it"):
        readable(tiny_model, [document("a")], counting=Counting(end="none"))


def test_what_is_done_with_raw_text_is_said_once(tiny_model: LanguageModel) -> None:
    review = Review()
    readable(tiny_model, [document(STORY), document("Two.")], review)
    assert review.lines() == ["Raw text is cut into passages of 256 tokens at most (2 rows)."]


# Caching


def test_a_cache_of_raw_text_keeps_passages_and_their_places(tiny_model: LanguageModel, tmp_path: Path) -> None:
    documents = [document(STORY), Example((), "Another text.", {"document": "other"})]
    build_cache(tiny_model, documents, tmp_path / "cache", TINY_SETTINGS, 3, "text", counting=SHORT)
    engine = open_engine(tmp_path / "cache", device="cpu")
    passages, encoded = readable(tiny_model, documents, counting=SHORT)
    store = engine.store
    assert store.manifest.counting == SHORT and store.manifest.rows == len(passages)
    assert store.manifest.data_sha256 == data_hash(passages)
    for row, each, ids in zip(store.examples, passages, encoded, strict=True):
        assert (row.prompt, row.response, row.columns) == ("", each.response, each.columns)
        assert row.encoded.ids.tolist() == ids.ids.tolist() and len(row.tokens) == len(ids.ids) - 1
    assert passage(store.examples[1]) == f"Characters {store.examples[0].columns['stop']} to " + (
        f"{store.examples[1].columns['stop']} of the document story"
    )
    grown = append_examples(tiny_model, [document("More and more text.")], tmp_path / "cache", 0, "more")
    assert grown.examples[len(passages)].response == "More and more text."


def test_an_answer_is_attributed_to_passages_token_by_token(tiny_model: LanguageModel, tmp_path: Path) -> None:
    build_cache(tiny_model, [document(STORY)], tmp_path / "cache", TINY_SETTINGS, 0, "text", counting=SHORT)
    engine = open_engine(tmp_path / "cache", device="cpu")
    answer = engine.given_answer("What shines?", "The moon.")
    asked = asking(engine)
    asked.ask(answer, None)
    found = asked.refine(answer, None, 1)
    assert found.values is not None and len(found.values) == len(engine.store.examples[1].tokens)
    assert float(found.values.mean()) == pytest.approx(found.score, rel=1e-5)
