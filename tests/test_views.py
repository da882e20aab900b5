"""Records → words and numbers a page shows."""

from dataclasses import replace

import numpy as np
import pytest

from explorer import views
from explorer.records import Contrast, Influence, NullPlace, NullTest, Ranking, Selection, Steadiness, Token
from tests.asking import OWN

VALUES = np.array([1.0, -3.0, 2.0], dtype=np.float32)
SHARES = np.array([0.5, 0.0, -0.75, 0.25], dtype=np.float32)
LOCATED = Influence(3, 0.0, exact=True, values=VALUES, checksum=1e-6, positions=SHARES)


def ranking_of(*influences: Influence) -> Ranking:
    return Ranking("id", None, False, np.zeros(9, dtype=np.float32), influences, 0.1, method=OWN)


@pytest.mark.parametrize(
    ("selection", "asked", "example", "token"),
    [
        (None, "the whole response", "Eq. 5", "Eq. 6"),
        ((2, 3), "the selected token", "Eq. 7", "Eq. 8"),
        ((2, 5), "the selected tokens, their mean", "Eq. 7", "Eq. 8"),
    ],
)
def test_scores_and_colours_name_their_influence(selection: Selection, asked: str, example: str, token: str) -> None:
    by_loss, by_position = views.question_kind(selection), views.question_kind(selection, positions=True)
    score = f"influence of a training example on {asked} ({example})"
    assert by_loss == (score, f"influence of each training token on the same ({token})")
    assert by_position[0] == by_loss[0], "the score stays what it was, however it is divided"
    assert by_position[1] == (
        f"part of it that passes through each position of the example, which add up to the score ({example})"
    )


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


@pytest.mark.parametrize(
    ("token", "label"),
    [
        (Token(" the"), "·the"),
        (Token("\n"), "↵"),
        (Token("a\tb"), "a⇥b"),
        (Token("", raw="F0 9F"), "bytes F0 9F"),
        (Token("<|end|>", special=True), "■ end"),
        (Token("<|pad|>", special=True), "■ <|pad|>"),
        (Token("\u202eevil"), "U+202Eevil"),
        (Token("<b>x</b>"), "<b>x</b>"),
        (Token("x" * 40), "x" * 17 + "…"),
    ],
)
def test_the_label_of_a_token_shows_what_is_in_it(token: Token, label: str) -> None:
    assert views.token_label(token) == label


def test_only_a_selection_that_fine_tuning_left_alone_is_hardly_moved() -> None:
    change = np.array([0.05, -0.09, 2.0, -0.3], dtype=np.float32)
    assert views.hardly_moved(change, (0, 2)) and views.hardly_moved(change, Contrast((1, 2), (7,)))
    assert not any(views.hardly_moved(change, span) for span in (None, (1, 3), (2, 3), (3, 4)))
    assert views.full_change(change[:2]) == 1.0 and views.full_change(10 * change) > 15


def judged(ranking: Ranking, reached: int) -> Ranking:
    return replace(ranking, test=NullTest(200, reached, 17, 3.25))


@pytest.mark.parametrize(
    ("beyond", "said"),
    [
        (200, "Higher than on all 200 unrelated prompts"),
        (199, "Higher than on 199 of 200 unrelated prompts"),
        (1, "Higher than on 1 of 200 unrelated prompts"),
        (0, "Higher than on none of 200 unrelated prompts"),
    ],
)
def test_how_unusual_a_score_is_is_said_as_a_count_and_never_as_certainty(beyond: int, said: str) -> None:
    assert views.unusual(NullPlace(200, beyond, 0.0), opponents=False) == said
    assert views.unusual(NullPlace(200, beyond, 0.0), opponents=True) == said.replace("Higher", "Lower")
    assert views.unusual(None, opponents=False) == ""


@pytest.mark.parametrize(("near", "examples", "shown"), [(0.34, 500, True), (0.09, 500, False), (0.34, 50, False)])
def test_an_example_is_often_near_the_top_beyond_what_chance_gives(near: float, examples: int, shown: bool) -> None:
    place = NullPlace(200, 100, near)
    assert views.often(place, False, examples) == (
        "Generic: in the top 10 for 34% of unrelated prompts" if shown else ""
    )
    assert views.often(place, True, examples) == (
        "Generic: in the bottom 10 for 34% of unrelated prompts" if shown else ""
    )
    assert views.often(None, False, examples) == ""


def test_what_stands_out_is_said_beside_unrelated_prompts() -> None:
    ranking = judged(ranking_of(LOCATED), 37)
    assert views.standing_out(ranking) == (
        "The ten examples that stand out most, row 17 before all, score 3.2 standard deviations above what they score "
        "on unrelated prompts; 37 of 200 such prompts have ten that stand out as much."
    )
    assert "deviations below what they score" in views.standing_out(replace(ranking, opponents=True))
    assert views.standing_out(ranking_of(LOCATED)) == ""


@pytest.mark.parametrize(("reached", "warned"), [(0, False), (9, False), (10, True), (200, True)])
def test_a_reader_is_warned_where_one_unrelated_prompt_in_twenty_does_as_well(reached: int, warned: bool) -> None:
    caution = views.caution(judged(ranking_of(LOCATED), reached))
    assert caution.startswith("Nothing stands out here. The ten examples") == warned and bool(caution) == warned


def test_without_a_null_sample_the_rule_of_thumb_warns() -> None:
    assert "robust standard deviations from the middle" in views.caution(ranking_of(LOCATED))
    assert views.caution(ranking_of()) == "" == views.caution(judged(ranking_of(), 200))
    scores = np.random.default_rng(0).normal(size=99).astype(np.float32)
    assert views.caution(replace(ranking_of(replace(LOCATED, score=9.0)), scores=scores)) == ""


STEADY = Steadiness(0.3982, 0.0213, 0.87, 0.9951, ("1",), ("1", "2"))


def test_a_card_says_what_the_sketch_had_beside_the_exact_score_and_how_firm_its_place_is() -> None:
    exact = replace(LOCATED, score=0.412, steadiness=STEADY)
    assert views.steadiness(exact) == (
        "approximate score was +0.398 ± 0.021 · a candidate by over 99% of random projections · "
        "shown at checkpoint 1 alone, too"
    )
    assert views.steadiness(replace(exact, exact=False, steadiness=replace(STEADY, of=()))) == (
        "approximate score, ± 0.021 · shown by 87% of random projections"
    )
    nowhere = replace(STEADY, examined=1.0, checkpoints=())
    assert views.steadiness(replace(exact, steadiness=nowhere)).endswith(
        "a candidate by all random projections · shown at no checkpoint alone"
    )
    assert views.steadiness(LOCATED) == ""


def test_a_rank_is_counted_from_the_nearer_end() -> None:
    ranking = ranking_of()
    for below in range(9):
        scores = np.arange(9, dtype=np.float32)
        percent = views.percentile(replace(ranking, scores=scores), float(below))
        end = f"Rank {9 - below} of 9 by score" if below > 4 else f"Rank {below + 1} of 9 from the lowest score"
        assert views.place(percent, 9) == end


def test_the_page_says_how_much_of_what_is_shown_another_seed_or_one_checkpoint_would_show() -> None:
    exact = [replace(LOCATED, row=row, steadiness=STEADY) for row in range(2)]
    said = views.stability(ranking_of(*exact), 0.032)
    assert "approximate step: 0.03. With another random projection, 2.0 of these 2 would be candidates" in said
    assert "missed by the first, approximate step: below 0.01." in views.stability(ranking_of(*exact), 1e-61)
    assert said.endswith("Of the 2, gradients at one point alone would show 2 at checkpoint 1 and 0 at checkpoint 2.")
    sketched = [replace(found, exact=False) for found in exact]
    assert (
        views.stability(ranking_of(*sketched), 0.0)
        == "With another random projection, about 1.7 of these 2 would remain."
    )
    assert views.stability(ranking_of(LOCATED), 0.0) == ""
