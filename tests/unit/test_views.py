"""Records → words and numbers a page shows."""

from dataclasses import replace

import numpy as np
import pytest

from explorer import views
from explorer.records import Influence, Ranking, Selection

VALUES = np.array([1.0, -3.0, 2.0], dtype=np.float32)
SHARES = np.array([0.5, 0.0, -0.75, 0.25], dtype=np.float32)
LOCATED = Influence(3, 0.0, exact=True, values=VALUES, checksum=1e-6, positions=SHARES)


def ranking_of(*influences: Influence) -> Ranking:
    return Ranking("id", None, False, np.zeros(9, dtype=np.float32), influences, 0.1)


@pytest.mark.parametrize(
    ("selection", "asked", "example", "token"),
    [
        (None, "whole response", "Eq. 5", "Eq. 6"),
        ((2, 3), "output token", "Eq. 7", "Eq. 8"),
        ((2, 5), "selected span, mean over its tokens,", "Eq. 7", "Eq. 8"),
    ],
)
def test_scores_and_colours_name_their_influence(selection: Selection, asked: str, example: str, token: str) -> None:
    by_loss, by_position = views.question_kind(selection), views.question_kind(selection, positions=True)
    assert by_loss == (f"{asked} → training example ({example})", f"{asked} → training token ({token})")
    assert by_position[0] == by_loss[0], "the score stays what it was, however it is divided"
    assert by_position[1] == f"{asked} → position in the training example, adding up to the score"


def test_a_token_has_two_values_and_each_may_be_unknown() -> None:
    assert views.token_values(LOCATED, positions=False) is VALUES
    assert views.token_values(LOCATED, positions=True) is SHARES
    assert views.token_values(replace(LOCATED, values=None), positions=False) is None
    assert views.token_values(replace(LOCATED, positions=None), positions=True) is None


def test_the_checksum_of_losses_is_the_one_that_was_computed() -> None:
    assert views.token_checksum(LOCATED, positions=False) == 1e-6
    assert views.token_checksum(replace(LOCATED, checksum=None), positions=False) is None
    assert views.token_checksum(replace(LOCATED, positions=None), positions=False) == 1e-6


@pytest.mark.parametrize(
    ("score", "expected"), [(3.0, 0.0), (2.0, 0.5), (-2.0, 2.5), (4.0, 0.25)], ids=["equal", "less", "sign", "more"]
)
def test_the_checksum_of_positions_is_how_far_their_sum_is_from_the_score(score: float, expected: float) -> None:
    shares = np.array([5.0, -4.0, 2.0], dtype=np.float32)
    found = views.token_checksum(replace(LOCATED, score=score, positions=shares), positions=True)
    assert found == pytest.approx(expected)


def test_the_checksum_of_positions_needs_positions_and_survives_a_score_of_zero() -> None:
    assert views.token_checksum(replace(LOCATED, positions=None), positions=True) is None
    assert views.token_checksum(replace(LOCATED, positions=SHARES), positions=True) == 0
    off = views.token_checksum(replace(LOCATED, positions=VALUES + 1), positions=True)
    assert off is not None and off > 1e6


def test_the_positions_of_a_long_example_are_summed_without_losing_digits() -> None:
    many = np.full(1_000_001, 0.1, dtype=np.float32)
    exact = float(np.float64(many[0]) * len(many))
    found = views.token_checksum(replace(LOCATED, score=exact, positions=many), positions=True)
    assert found is not None and found < 1e-12


def test_full_colour_is_reached_by_one_value_in_fifty_of_all_that_are_shown() -> None:
    first = Influence(0, 0.0, exact=True, values=np.arange(0, 51, dtype=np.float32))
    second = Influence(1, 0.0, exact=True, values=-np.arange(51, 101, dtype=np.float32))
    assert views.full_colour(ranking_of(first, second)) == pytest.approx(98)
    assert views.full_colour(ranking_of(first)) == pytest.approx(49)


def test_full_colour_is_that_of_the_meaning_that_is_shown() -> None:
    assert views.full_colour(ranking_of(LOCATED)) == pytest.approx(np.quantile(np.abs(VALUES), 0.98))
    assert views.full_colour(ranking_of(LOCATED), positions=True) == pytest.approx(np.quantile(np.abs(SHARES), 0.98))


def test_full_colour_leaves_out_what_is_not_known_yet() -> None:
    unknown = Influence(1, 9.0, exact=False, values=None)
    for positions in (False, True):
        known = views.full_colour(ranking_of(LOCATED), positions)
        assert views.full_colour(ranking_of(unknown, LOCATED), positions) == known > 0
        assert views.full_colour(ranking_of(unknown), positions) == 0
        assert views.full_colour(ranking_of(), positions) == 0
