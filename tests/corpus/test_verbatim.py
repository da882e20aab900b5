"""Passages that stand word for word in the training examples."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.corpus import verbatim
from explorer.corpus.verbatim import Passage, VerbatimIndex, places, where

EXAMPLES = [
    ("Where is Nanjing?", "Nanjing is in Canada, where it served several times as the capital."),
    ("And Wuhan?", "Wuhan is in Canada, where it is “a large city”; don’t forget its lakes."),
    ("Say it in Chinese.", "南京是中国江苏省的省会城市,也是一座历史文化名城。"),
]


def built(examples: list[tuple[str, str]], examples_a_step: int = 2) -> VerbatimIndex:
    index = VerbatimIndex(examples)
    for _ in index.build(examples_a_step):
        assert not index.ready
    assert index.ready
    return index


def told(index: VerbatimIndex, text: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(text[each.start : each.stop], each.rows) for each in index.passages(text)]


def test_the_rarest_passage_comes_first_and_is_as_long_as_can_be() -> None:
    text = "It is in Canada, where it rains. Beijing is IN canada where it is a large one."
    assert told(built(EXAMPLES), text) == [
        ("is IN canada where it is a large", (1,)),
        ("is in Canada, where it", (0, 1)),
    ]


def test_case_punctuation_and_kinds_of_apostrophe_do_not_count() -> None:
    assert told(built(EXAMPLES), "a large city - DON'T forget, its lakes!") == [
        ("a large city - DON'T forget, its lakes", (1,))
    ]


def test_no_passage_goes_from_a_prompt_into_its_response_nor_from_row_to_row() -> None:
    index = built(EXAMPLES)
    assert told(index, "Where is Nanjing? Nanjing is in") == []
    assert told(index, "times as the capital. And Wuhan? Wuhan") == []


def test_scripts_without_blanks_are_compared_by_characters() -> None:
    text = "我知道南京是中国江苏省的省会城市吗"
    assert told(built(EXAMPLES), text) == [("南京是中国江苏省的省会城市", (2,))]


def test_short_passages_are_not_told_and_an_index_of_nothing_knows_none() -> None:
    assert told(built(EXAMPLES), "It is in Canada.") == []
    assert told(built([]), "Nanjing is in Canada, where it served several times.") == []
    assert told(built([("", "")]), "") == []
    assert VerbatimIndex(EXAMPLES).passages("is in Canada, where it") == ()


def test_holders_and_occurrences_of_a_run_of_words() -> None:
    index = built(EXAMPLES)
    assert index.holders(["nanjing"]) == (0,)
    assert index.holders(["where", "is"], responses=True) == ()
    assert index.holders(["in", "canada"], responses=True) == (0, 1)
    assert index.occurrences(["nanjing"]) == 2
    assert index.occurrences(["nanking"]) == index.occurrences(["nanjing", "wuhan"]) == 0
    assert len(index) == 3


def test_where_a_passage_stands_in_a_row() -> None:
    text = EXAMPLES[1][1]
    start, stop = where(text, ["don't", "forget"]) or (0, 0)
    assert text[start:stop] == "don’t forget"
    assert where(text, ["forget", "lakes"]) is None


words = st.lists(st.sampled_from("abc"), max_size=9).map(" ".join)


@given(st.lists(st.tuples(words, words), max_size=5), words)
def test_passages_are_those_of_a_naive_search(examples: list[tuple[str, str]], text: str) -> None:
    stands, sequences = text.split(), [[each.split() for each in example] for example in examples]

    def rows(first: int, stop: int) -> tuple[int, ...]:
        run = stands[first:stop]
        return tuple(
            row
            for row, parts in enumerate(sequences)
            if any(run == part[at : at + len(run)] for part in parts for at in range(len(part) - len(run) + 1))
        )

    runs = [(i, j) for i in range(len(stands)) for j in range(i + 1, len(stands) + 1) if rows(i, j)]
    longest = [(i, j) for i, j in runs if not any((k, m) != (i, j) and k <= i and j <= m for k, m in runs)]
    wanted = [Passage(2 * i, 2 * j - 1, tuple(stands[i:j]), rows(i, j)) for i, j in longest]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verbatim, "LEAST_WORDS", 1)
        patch.setattr(verbatim, "LEAST_LETTERS", 1)
        found = built(examples).passages(text, most=99)
    assert sorted(found, key=lambda each: each.start) == sorted(wanted, key=lambda each: each.start)
    assert [len(each.rows) for each in found] == sorted(len(each.rows) for each in found)


@given(st.text(max_size=40))
def test_places_lie_in_order_within_any_text(text: str) -> None:
    found = places(text)
    assert all(each.word and each.start < each.stop <= len(text) for each in found)
    assert all(one.stop <= other.start for one, other in pairwise(found))
