"""Several answers beside as many unrelated ones: how often chance looks like evidence, and what is found."""

import numpy as np
import pytest
from numpy.typing import NDArray

from explorer.trust import wording
from explorer.trust.sets import Alike, Beside, beside_steps, enough
from explorer.trust.significance import NullSample
from explorer.trust.verdict import Verdict, state_of

ROWS, PLANTED = 120, 12


def run(*asked: Alike, opponents: bool = False, draws: int = 99) -> Beside:
    steps = beside_steps(asked, opponents, draws)
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            assert isinstance(ended.value, Beside)
            return ended.value


def scores_of(random: np.random.Generator, prompts: int) -> NDArray[np.float32]:
    """Heavy-tailed scores (ROWS, prompts) of different sizes, most of them in groups of rows that go together."""
    own, shared = random.standard_t(4, (ROWS, prompts)), random.standard_t(4, (ROWS // 10, prompts))
    size = random.lognormal(0, 1, (ROWS, 1))
    return ((own + np.repeat(shared, 10, axis=0)) * size + size).astype(np.float32)


def asked_of(scores: NDArray[np.float32], count: int, against: int = 0) -> Alike:
    """The first of these prompts asked about, the mean of `count` of them less that of `against`, and the others."""
    weights = np.array([1 / count] * count + [-1 / max(against, 1)] * against)
    return Alike(
        NullSample((scores[:50, len(weights) :], scores[50:, len(weights) :])), scores[:, : len(weights)], weights
    )


@pytest.mark.parametrize(("count", "against"), [(1, 0), (12, 0), (4, 4)])
def test_sets_of_unrelated_prompts_are_strong_once_in_a_hundred_and_name_rows_once_in_twenty(
    count: int, against: int
) -> None:
    random, states, named = np.random.default_rng(count), [], 0
    for _ in range(200):
        found = run(asked_of(scores_of(random, 60), count, against))
        states.append(state_of(found.test))
        named += found.test.chance <= 0.05 and bool((found.false_share <= 0.05).any())
    strong, some = states.count("strong") / 200, states.count("some") / 200
    # Three standard deviations of a share of 200 above 1% and 5%.
    assert strong <= 0.031 and strong + some <= 0.096 and named / 200 <= 0.096
    assert strong + some > 0.005, "a test that never says so tells nothing"


def test_of_the_named_rows_no_more_are_false_than_is_said_and_most_planted_ones_are_named() -> None:
    random, false, found = np.random.default_rng(3), [], []
    for _ in range(60):
        scores = scores_of(random, 68)
        scores[:PLANTED, :4] += 8 * scores[:PLANTED].std(axis=1, keepdims=True)
        named = np.flatnonzero(run(asked_of(scores, 4, 4)).false_share <= 0.1)
        false.append((named >= PLANTED).mean() if len(named) else 0.0)
        found.append((named < PLANTED).sum() / PLANTED)
    assert np.mean(false) <= 0.1 and np.mean(found) > 0.9


def test_opponents_are_the_other_end_and_sizes_and_kinds_are_weighed() -> None:
    scores = scores_of(np.random.default_rng(4), 60)
    scores[7, :5] -= 30 * scores[7].std()
    up, down = run(asked_of(scores, 5)), run(asked_of(scores, 5), opponents=True)
    assert down.test.row == 7 and down.test.reached < up.test.reached and down.false_share[7] == down.false_share.min()
    other = asked_of(scores_of(np.random.default_rng(5), 60), 3)
    both = run(asked_of(scores, 5), other, opponents=True)
    assert both.test.together == 8 and both.test.row == 7
    heavy = Alike(other.null, other.scores, other.weights * 1000)
    assert run(asked_of(scores, 5), heavy, opponents=True).test.row != 7, "what weighs nothing decides nothing"


def test_few_unrelated_prompts_are_not_enough_and_constant_rows_stand_out_nowhere() -> None:
    scores = scores_of(np.random.default_rng(6), 30)
    assert enough([asked_of(scores, 5)]) and not enough([asked_of(scores, 12)]) and not enough([asked_of(scores, 16)])
    scores[3] = 5.0
    assert run(asked_of(scores, 5)).false_share[3] > 0.5


def test_the_words_say_what_was_compared() -> None:
    scores = scores_of(np.random.default_rng(7), 60)
    scores[:10, :5] += 20 * scores[:10].std(axis=1, keepdims=True)
    test = run(asked_of(scores, 5)).test
    said = wording.sentences(Verdict("strong", test, None, opponents=False, whole=True))
    assert said == "None of 99 sets of 5 answers, drawn from these and unrelated prompts, has an equally strong top 10."
