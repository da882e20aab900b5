"""Ranks of the same examples by several methods."""

import numpy as np

from explorer.methods.description import choose
from explorer.trust.agreement import BOTH, GRADIENTS, NEITHER, TEXT, agree

N = 40


def scores(*first: int) -> np.ndarray:
    """Scores of which these rows are the first, in order; all others follow by row."""
    found = -np.arange(N, dtype=np.float32)
    for place, row in enumerate(first):
        found[row] = 1000 - place
    return found


def test_ranks_count_from_one_and_a_tie_has_its_last_place() -> None:
    tied = np.zeros(N, dtype=np.float32)
    tied[3] = 1
    found = agree([3, 5], {choose("bm25"): tied, choose("rapidin"): scores(5, 3)})
    assert found.ranks.tolist() == [[1, 2], [N, 1]] and found.of == N
    assert found.methods == (choose("bm25"), choose("rapidin"))


def test_what_texts_and_what_gradients_find_is_told_apart() -> None:
    text = scores(*range(20, 30))
    gradients = scores(*range(25, 35))
    found = agree(
        [20, 30, 25, 39], {choose("embedding"): text, choose("repsim"): scores(39), choose("graddot"): gradients}
    )
    assert found.found_by == (TEXT, GRADIENTS, BOTH, NEITHER)
    assert found.text_only == (20, 21, 22, 23, 24)


def test_nothing_is_told_apart_before_both_kinds_were_asked() -> None:
    for names in (["graddot"], ["rapidin", "gradcos"], ["bm25", "embedding"], ["repsim"]):
        found = agree([0, 30], {choose(name): scores(30) for name in names})
        assert found.found_by == () and found.text_only == ()
    opposite = agree([0], {choose("bm25"): scores(), choose("graddot"): scores()}, opponents=True)
    assert opposite.found_by == (), "texts have no opponents"


def test_a_filter_leaves_ranks_among_those_that_pass() -> None:
    found = agree([30], {choose("graddot"): scores(1, 2, 30), choose("bm25"): scores(1)}, among=[30, 31, 2])
    assert found.of == 3 and found.ranks[0, 0] == 2
    assert 1 not in found.text_only, "what doesn't pass is found by nothing"


def test_opponents_count_from_the_other_end_and_only_by_signed_scores() -> None:
    found = agree([39], {choose("bm25"): scores(), choose("graddot"): scores()}, opponents=True)
    assert found.methods == (choose("graddot"),) and found.ranks.tolist() == [[1]]


def test_nothing_shown_is_no_error() -> None:
    assert agree([], {choose("graddot"): scores()}).ranks.shape == (0, 1)
    assert agree([1], {}).ranks.shape == (1, 0)
