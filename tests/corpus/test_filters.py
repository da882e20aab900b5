"""Which training examples pass a filter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.corpus.corpus import Corpus
from explorer.corpus.filters import EVERYTHING, MOST_VALUES, Filter, Searchable
from explorer.errors import FilterError
from explorer.records import Encoded, ExampleRow

NOTHING = Encoded(np.zeros(0, dtype=np.int64), 0)


def example(row: int, prompt: str = "", response: str = "", **columns: object) -> ExampleRow:
    return ExampleRow(row, row, prompt, response, NOTHING, (), 0.0, columns)


EXAMPLES = (
    example(0, "What is STRASSE?", "A  street\nin German.", source="words", stars=5),
    example(1, "Straße?", "I don't know.", source="words", stars=4, note="odd"),
    example(2, "Count.", "One, two.", source="numbers", stars=5),
    example(3, "in", "German", stars=None),
)


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        (EVERYTHING, [0, 1, 2, 3]),
        (Filter((("source", ("words",)),)), [0, 1]),
        (Filter((("source", ("numbers", "words")),)), [0, 1, 2]),
        (Filter((("source", ("words",)), ("stars", ("5",)))), [0]),
        (Filter((("source", ("nowhere",)),)), []),
        (Filter((("stars", ("None",)),)), []),
        (Filter((("note", ("odd",)),)), [1]),
        (Filter(text="count"), [2]),
        (Filter(text="straße"), [0, 1]),
        (Filter(text=" Street  in "), [0]),
        (Filter(text="in german"), [0]),
        (Filter((("source", ("words",)),), "know"), [1]),
        (Filter(text=".*"), []),
    ],
)
def test_rows_pass_where_all_columns_and_the_text_fit(wanted: Filter, rows: list[int]) -> None:
    assert Searchable(EXAMPLES).rows(wanted).tolist() == rows


def test_a_column_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(FilterError, match="no column colour; it has source, stars, note"):
        Searchable(EXAMPLES).rows(Filter((("colour", ("red",)),)))
    with pytest.raises(FilterError, match="prompts and responses alone"):
        Searchable((example(0),)).rows(Filter((("source", ("a",)),)))


def test_labels_are_columns_that_divide_the_examples() -> None:
    rows = [
        example(n, id=n, many=n // 2, kind=str(n % 3), same=1, mixed=n % 2 == 0) for n in range(2 * MOST_VALUES + 2)
    ]
    labels = Searchable(rows).labels
    assert list(labels) == ["kind", "mixed"]
    assert labels["mixed"] == ("True", "False")
    assert Searchable(EXAMPLES).labels == {"source": ("words", "numbers"), "stars": ("5", "4")}


@given(
    texts=st.lists(st.tuples(st.text("abC \n", max_size=6), st.text("abC \n", max_size=6)), max_size=12),
    needle=st.text("abC \n", max_size=3),
)
def test_a_text_is_found_in_prompt_or_response_but_never_across(texts: list[tuple[str, str]], needle: str) -> None:
    searchable = Searchable([example(row, *pair) for row, pair in enumerate(texts)])
    found = searchable.rows(Filter(text=needle)).tolist()
    plain = " ".join(needle.lower().split())
    expected = [row for row, pair in enumerate(texts) if any(plain in " ".join(t.lower().split()) for t in pair)]
    assert found == (expected if plain else list(range(len(texts))))


def test_an_empty_filter_leaves_the_ranking_alone_and_a_blank_text_is_empty() -> None:
    corpus = Corpus(EXAMPLES)
    assert corpus.rows(EVERYTHING) is None and corpus.rows(Filter(text=" \n ")) is None
    assert corpus.rows(Filter(text="nothing of the kind")) == []


def test_near_duplicates_of_the_same_rows_are_sought_once(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus([example(0, "Count to ten."), example(1, "count to TEN."), example(2, "Stop.")])
    assert corpus.near_duplicates([0]) == [1] and corpus.near_duplicates([0, 1]) == []
    monkeypatch.delattr("explorer.corpus.corpus.shingles")
    assert corpus.near_duplicates([0]) == [1] and corpus.near_duplicates([1, 0]) == []
    with pytest.raises(NameError):
        corpus.near_duplicates([2])
