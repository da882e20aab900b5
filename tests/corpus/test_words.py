"""Words that set some examples apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.corpus.words import SURPRISING, WordIndex, folded_words, log_likelihood_ratio, words


def built(texts: list[str], texts_a_step: int = 500) -> WordIndex:
    index = WordIndex(texts)
    for _ in index.build(texts_a_step):
        assert not index.ready
    assert index.ready
    return index


def ratio(inside: int, shown: int, outside: int, rest: int) -> float:
    return float(log_likelihood_ratio(np.array([inside]), shown, np.array([outside]), rest)[0])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Howdy! “Why?” (well…)", ["Howdy", "Why", "well"]),
        ("don't rock-n-roll -- O’Neill's", ["don't", "rock-n-roll", "O’Neill's"]),
        ("**bold** <b>x</b> _so_ a_b __", ["bold", "b", "x", "b", "so", "a_b"]),
        ("naïve cafe\u0301 Straße", ["naïve", "café", "Straße"]),
        ("हिन्दी தமிழ் العَرَبِيَّة", ["हिन्दी", "தமிழ்", "العَرَبِيَّة"]),
        ("日本語 3,5 🌟", ["日本語", "3", "5"]),
        (" \n", []),
    ],
)
def test_words_lose_their_punctuation_in_any_script(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_words_are_compared_without_case() -> None:
    assert folded_words("Howdy HOWDY howdy Straße STRASSE") == {"howdy", "strasse"}


def test_the_ratio_is_dunnings() -> None:
    # 2·(9·ln(9/k₁) + 1·ln(1/k₂) + 55·ln(55/k₃) + 507·ln(507/k₄)), k the expected counts at the common rate 64/572:
    # 1.1189, 8.8811, 62.8811 and 499.1189.
    assert ratio(9, 10, 55, 562) == pytest.approx(34.316, abs=0.001)
    assert ratio(1, 10, 56, 560) == pytest.approx(0)
    assert ratio(0, 10, 300, 562) < 0 < ratio(10, 10, 300, 562)
    assert ratio(9, 10, 0, 52_000) > ratio(9, 10, 50, 52_000) > ratio(9, 10, 5_000, 52_000)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 99), st.integers(1, 99))
def test_the_ratio_is_finite_and_has_the_sign_of_the_difference(a: int, b: int, c: int, d: int) -> None:
    found = ratio(a, a + b, c, c + d)
    assert np.isfinite(found)
    if a * d == b * c:
        assert found == pytest.approx(0, abs=1e-6)
    elif a + b and c + d:
        assert (found > 0) == (a * (c + d) > c * (a + b))


TEXTS = [f"Howdy! the ship number {n} of the fleet" for n in range(8)] + [f"the plain text {n}" for n in range(192)]


def test_the_planted_word_comes_first_with_both_its_counts() -> None:
    index = built(TEXTS)
    shown = [3, 1, 100, 7, 5]
    found = index.distinctive(shown, index.holders(), len(TEXTS))
    assert {word.text for word in found} == {"Howdy", "ship", "number", "of", "fleet"}
    for word in found:
        assert (word.rows, word.shown, word.holders, word.of) == ((3, 1, 7, 5), 5, 8, 200)
        assert word.surprise >= SURPRISING
    assert [word.surprise for word in found] == sorted((word.surprise for word in found), reverse=True)


def test_words_are_written_as_the_shown_examples_mostly_write_them() -> None:
    index = built(["HOWDY", "Howdy Howdy", "howdy Howdy", *["else"] * 400])
    (word,) = index.distinctive([0, 1, 2], index.holders(), 403)
    assert word.text == "Howdy"


def test_a_word_of_one_shown_example_tells_nothing_however_rare() -> None:
    index = built(["unheard-of unheard-of", *["else"] * 400])
    assert index.distinctive([0, 1], index.holders(), 401) == []


def test_no_more_words_than_asked_for() -> None:
    index = built(TEXTS)
    assert len(index.distinctive([0, 1, 2], index.holders(), 200, count=2)) == 2


def test_among_filtered_rows_a_word_they_all_hold_sets_none_apart() -> None:
    index = built(TEXTS)
    rows = np.arange(8)
    assert index.distinctive([0, 1, 2], index.holders(rows), 8) == []


@given(
    texts=st.lists(st.text("ab ", max_size=8), min_size=1, max_size=12),
    chosen=st.sets(st.integers(0, 11)),
    a_step=st.integers(1, 5),
)
def test_holders_count_texts_not_occurrences(texts: list[str], chosen: set[int], a_step: int) -> None:
    index = built(texts, a_step)
    rows = np.array(sorted(row for row in chosen if row < len(texts)), dtype=np.int64)
    for among, held in ((range(len(texts)), index.holders()), (rows.tolist(), index.holders(rows))):
        for word, code in index._codes.items():
            assert held[code] == sum(word in folded_words(texts[row]) for row in among)
