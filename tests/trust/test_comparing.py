"""Two answers side by side: token differences, shared and separate examples, and how alike two rankings are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.records import Influence, Ranking, Token
from explorer.trust.comparing import compare, differing, spearman
from tests.asking import OWN


def tokens(*texts: str) -> tuple[Token, ...]:
    return tuple(map(Token, texts))


def influence(row: int, score: float) -> Influence:
    return Influence(row, score, exact=False, values=None)


def ranking(scores: list[float], first: int, opponents: bool = False) -> Ranking:
    order = sorted(range(len(scores)), key=lambda row: scores[row] if opponents else -scores[row])[:first]
    shown = tuple(influence(row, scores[row]) for row in order)
    return Ranking("id", None, opponents, np.array(scores, dtype=np.float32), shown, 0.1, method=OWN)


def others(scores: list[float], shown: Ranking) -> list[Influence]:
    return [influence(found.row, scores[found.row]) for found in shown.influences]


def test_tokens_outside_the_common_blocks_differ() -> None:
    left, right = differing(tokens("The", " moon", " is", " old"), tokens("The", " sun", " is", " old", "."))
    assert left == (False, True, False, False) and right == (False, True, False, False, True)


def test_equal_answers_differ_nowhere_and_unlike_ones_everywhere() -> None:
    assert not any(map(any, differing(tokens("a", "b"), tokens("a", "b"))))
    assert all(map(all, differing(tokens("a"), tokens("b", "c"))))
    assert differing((), tokens("a")) == ((), (True,))


def test_a_word_at_the_beginning_is_the_same_word_behind_a_blank() -> None:
    left, right = differing(tokens("Guang", "zhou", " is"), tokens("In", " China", ",", " Guang", "zhou", " is"))
    assert not any(left) and right == (True, True, True, False, False, False)
    assert differing(tokens("a", "\n\n"), tokens("a", " ")) == ((False, True), (False, True)), (
        "blanks are what they are"
    )


def test_a_control_token_is_not_the_text_that_spells_it() -> None:
    assert differing((Token("x", special=True),), (Token("x"),)) == ((True,), (True,))


@given(st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.sampled_from("abc"), max_size=30))
def test_what_does_not_differ_is_the_same_text_in_both(left: list[str], right: list[str]) -> None:
    marks = differing(tokens(*left), tokens(*right))
    same = [
        [text for text, mark in zip(texts, side, strict=True) if not mark]
        for texts, side in zip((left, right), marks, strict=True)
    ]
    assert same[0] == same[1]


def test_shared_and_separate_examples_come_with_both_scores_and_both_ranks() -> None:
    lefts, rights = [5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 5.0, 2.0, 4.0, 3.0]
    left, right = ranking(lefts, 2), ranking(rights, 2)
    found = compare(left, right, others(lefts, right), others(rights, left))
    assert [pair.row for pair in found.shared] == [1]
    assert [pair.row for pair in found.left] == [0] and [pair.row for pair in found.right] == [3]
    (shared,), (only,) = found.shared, found.left
    assert (shared.left.rank, shared.right.rank) == (2, 1)
    assert (shared.left.influence.score, shared.right.influence.score) == (4.0, 5.0)
    assert (only.left.rank, only.left.first) == (1, True)
    assert (only.right.rank, only.right.first, only.right.influence.score) == (5, False, 1.0)
    assert found.by_chance == pytest.approx(4 / 5)


def test_ranks_of_opponents_count_from_the_other_end() -> None:
    lefts, rights = [5.0, 4.0, 3.0, 2.0], [1.0, 5.0, 2.0, 4.0]
    left, right = ranking(lefts, 1, opponents=True), ranking(rights, 1, opponents=True)
    found = compare(left, right, others(lefts, right), others(rights, left))
    assert [pair.row for pair in found.left] == [3] and found.left[0].right.rank == 3
    assert [pair.row for pair in found.right] == [0] and found.right[0].left.rank == 4


def test_nobody_outside_the_first_ones_ranks_among_them() -> None:
    scores = [3.0, 2.0, 1.0]
    # Exact values put row 2 first, whom the sketches have last.
    left = Ranking("id", None, False, np.array(scores, dtype=np.float32), (influence(2, 9.0),), 0.1, method=OWN)
    right = ranking(scores, 1)
    found = compare(left, right, [influence(0, 3.0)], [influence(2, 1.0)])
    assert found.right[0].left.rank == 2


def test_what_does_not_pass_the_filter_counts_nowhere() -> None:
    lefts, rights, among = [5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 5.0, 2.0, 4.0, 3.0], [0, 2, 4]
    shown = [
        Ranking("id", None, False, np.array(scores, dtype=np.float32), (influence(row, scores[row]),), 0.1, method=OWN)
        for scores, row in ((lefts, 0), (rights, 4))
    ]
    found = compare(shown[0], shown[1], others(lefts, shown[1]), others(rights, shown[0]), among)
    assert found.examples == 3 and found.by_chance == pytest.approx(1 / 3)
    assert found.correlation == pytest.approx(-1)
    assert (found.left[0].right.rank, found.right[0].left.rank) == (3, 3)
    nothing = ranking([1.0, 2.0], 0)
    assert compare(nothing, nothing, [], [], []).examples == 0


def test_rankings_of_other_examples_or_ends_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same examples"):
        compare(ranking([1.0, 2.0], 1), ranking([1.0], 1), [], [])
    with pytest.raises(ValueError, match="same end"):
        compare(ranking([1.0, 2.0], 1), ranking([1.0, 2.0], 1, opponents=True), [], [])


def test_rank_correlation_is_one_for_any_rising_map_and_minus_one_for_a_falling_one() -> None:
    scores = np.random.default_rng(0).normal(size=50)
    assert spearman(scores, np.exp(scores)) == pytest.approx(1)
    assert spearman(scores, -(scores**3)) == pytest.approx(-1)


def test_equal_scores_share_a_rank_and_constant_ones_have_no_correlation() -> None:
    # By hand: ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert spearman(np.array([0, 1, 1, 2.0]), np.arange(4.0)) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert np.isnan(spearman(np.ones(4), np.arange(4.0)))
