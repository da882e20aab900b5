"""The linear datamodeling score: right in known cases, and wide where little is known."""

import numpy as np
import pytest

from explorer.evaluation.counterfactual import correlation as lds
from explorer.trust import spearman


def test_correlations_are_spearmans_with_and_without_equal_values() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=(4, 30)), random.integers(5, size=(4, 30)).astype(float)
    assert lds.correlations(one, other) == pytest.approx([spearman(a, b) for a, b in zip(one, other, strict=True)])
    assert lds.correlations(np.ones((1, 5)), np.arange(5.0)[None]).tolist() == [0], (
        "nothing varies, nothing is foretold"
    )


def halves(parts: int, rows: int) -> np.ndarray:
    random = np.random.default_rng(1)
    return np.array([np.isin(np.arange(rows), random.permutation(rows)[: rows // 2]) for _ in range(parts)])


def test_a_method_that_knows_all_reaches_one_and_one_that_knows_nothing_nought() -> None:
    random, members = np.random.default_rng(2), halves(40, 60)
    worth = random.normal(size=(12, 60))
    expected = worth @ members.T.astype(float)
    noise = random.normal(size=worth.shape)
    found = lds.figures({"knows": list(worth), "reversed": list(-worth), "guesses": list(noise)}, members, expected)
    assert found["knows"] == {"lds": pytest.approx(1), "low": pytest.approx(1), "high": pytest.approx(1)}
    assert found["reversed"]["lds"] == pytest.approx(-1)
    assert found["guesses"]["low"] < 0 < found["guesses"]["high"] and abs(found["guesses"]["lds"]) < 0.2


def test_intervals_narrow_with_more_halves() -> None:
    random = np.random.default_rng(3)
    wide, narrow = (
        lds.agreement(each, each + random.normal(size=each.shape))
        for each in (random.normal(size=(10, 10)), random.normal(size=(10, 160)))
    )
    assert wide.low < wide.lds < wide.high and narrow.high - narrow.low < (wide.high - wide.low) / 1.5


def test_the_ceiling_is_what_the_mean_over_seeds_would_reach() -> None:
    random = np.random.default_rng(4)
    mean = random.normal(size=(50, 400))
    one, other = (mean + random.normal(size=mean.shape) for _ in range(2))
    reached = lds.correlations(mean, one).mean()
    assert lds.ceiling(one, other) == pytest.approx(reached, abs=0.02)
    assert lds.ceiling(one, -one) == 0
