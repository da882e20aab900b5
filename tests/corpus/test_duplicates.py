"""Near-duplicates, folded into one."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.corpus.duplicates import SIMILAR, Fold, fold_near_duplicates, near, near_any, shingles

LONG = (
    "Where was the Terracotta Army discovered? It was discovered in China in 1974, when farmers digging a well "
    "came across the first clay soldiers, and has been studied ever since."
)
SHORT = "Where was it found? It was found in China."


def folded(*texts: str, count: int | None = None) -> list[Fold]:
    return fold_near_duplicates(((row, shingles(text)) for row, text in enumerate(texts)), count)


def test_case_and_white_space_make_no_difference() -> None:
    assert folded(SHORT, SHORT.upper().replace(" ", " \n ")) == [Fold(0, (1,))]


def test_a_slip_of_the_pen_is_folded_and_another_sentence_is_not() -> None:
    assert folded(LONG, LONG.replace("studied", "studed"), LONG[::-1]) == [Fold(0, (1,)), Fold(2)]


def test_a_short_sentence_with_another_country_is_another_example() -> None:
    assert folded(SHORT, SHORT.replace("China", "Canada")) == [Fold(0), Fold(1)]


def test_all_near_duplicates_of_some_texts_are_found_and_no_others() -> None:
    texts = [SHORT.upper(), LONG, SHORT.replace("China", "Canada"), LONG.replace("studied", "studed"), SHORT + "!"]
    given = [(row, shingles(text)) for row, text in enumerate(texts)]
    assert near_any(given, [shingles(SHORT)]) == [0, 4]
    assert near_any(given, [shingles(SHORT), shingles(LONG)]) == [0, 1, 3, 4]
    assert near_any(given, []) == []


def test_texts_shorter_than_a_shingle_are_compared_whole() -> None:
    assert folded("ab", "ac", "AB", "") == [Fold(0, (2,)), Fold(1), Fold(3)]


def test_the_list_is_refilled_until_enough_differ_and_the_last_keeps_its_own() -> None:
    assert folded("one", "one", "two", "one", "two", "three", "two", count=2) == [Fold(0, (1, 3)), Fold(2, (4,))]
    assert folded("one", "two", count=0) == []


def test_what_is_near_to_a_folded_one_alone_is_kept() -> None:
    numbers = [frozenset(map(str, range(start, start + 100))) for start in (0, 10, 20)]
    assert near(numbers[0], numbers[1]) and near(numbers[1], numbers[2]) and not near(numbers[0], numbers[2])
    assert fold_near_duplicates(enumerate(numbers)) == [Fold(0, (1,)), Fold(2)]


sets = st.frozensets(st.sampled_from("abcdefghijkl"), min_size=1)


@given(one=sets, other=sets)
def test_near_is_the_jaccard_similarity_against_the_threshold(one: frozenset[str], other: frozenset[str]) -> None:
    assert near(one, other) == near(other, one) == (len(one & other) / len(one | other) >= SIMILAR)


@given(texts=st.lists(sets, max_size=15), count=st.integers(0, 16))
def test_every_row_up_to_the_last_is_in_one_fold_and_kept_ones_differ(texts: list[frozenset[str]], count: int) -> None:
    folds = fold_near_duplicates(enumerate(texts), count)
    kept = [fold.row for fold in folds]
    assert len(folds) <= count and kept == sorted(kept)
    rows = sorted(row for fold in folds for row in (fold.row, *fold.others))
    assert rows == list(range(len(rows))), "a row was lost or is in two folds"
    assert len(rows) == len(texts) or len(folds) == count
    assert all(near(texts[fold.row], texts[row]) for fold in folds for row in fold.others)
    assert not any(near(texts[a], texts[b]) for a in kept for b in kept if a != b)


@pytest.mark.parametrize("length", [200, 2000])
def test_shingles_of_a_random_text_are_as_many_as_its_places(length: int) -> None:
    text = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=length))
    assert len(shingles(text)) == length - 8
