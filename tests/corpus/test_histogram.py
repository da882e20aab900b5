"""The spread of scores."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from explorer.corpus.histogram import BINS, histogram

SCORES = np.array([0.0, 1.0, 2.0, 3.0, 60.0], dtype=np.float32)


def test_every_score_lies_in_one_bin_outliers_too() -> None:
    found = histogram(SCORES, None, {})
    assert found is not None
    assert (found.low, found.high, found.rows, found.of) == (0.0, 60.0, 5, 5)
    assert len(found.counts) == BINS and found.counts[:4] == (1, 1, 1, 1) and found.counts[-1] == 1


def test_only_rows_that_pass_are_counted() -> None:
    found = histogram(SCORES, [1, 3], {})
    assert found is not None and (found.low, found.high, found.rows, found.of) == (1.0, 3.0, 2, 5)
    assert histogram(SCORES, [], {}) is None


def test_a_score_that_is_known_better_is_counted_where_it_is() -> None:
    found = histogram(SCORES, None, {4: 6.0, 0: -6.0})
    assert found is not None and (found.low, found.high) == (-6.0, 6.0)
    assert SCORES[4] == 60.0, "the caller's scores are left alone"


def test_equal_scores_are_one_bar() -> None:
    found = histogram(np.ones(7, dtype=np.float32), None, {})
    assert found is not None and found.counts == (7,)


@given(
    scores=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    shown=st.dictionaries(st.integers(0, 39), st.floats(-1e6, 1e6), max_size=5),
)
def test_the_counts_add_up_and_hold_all_that_is_shown(scores: list[float], shown: dict[int, float]) -> None:
    shown = {row: score for row, score in shown.items() if row < len(scores)}
    found = histogram(np.array(scores, dtype=np.float32), None, shown)
    assert found is not None and sum(found.counts) == found.rows == len(scores)
    assert all(found.low <= score <= found.high for score in shown.values())
