"""Who ranks highest, and how exact values take their places."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.engine import Engine
from explorer.errors import PromptError
from explorer.records import Answer, Influence, Ranking
from explorer.retrieval import scores
from tests.asking import OWN, asking
from tests.tiny import ROWS

TIED = np.array([1.0, 3.0, -2.0, 3.0, 0.0, -2.0], dtype=np.float32)


@pytest.fixture
def answer(tiny_engine: Engine) -> Answer:
    return tiny_engine.given_answer("What shines by night?", "It is the moon.")


def test_proponents_come_largest_first_and_ties_by_row() -> None:
    assert scores.ranked(TIED, 4).tolist() == [1, 3, 0, 4]


def test_opponents_come_smallest_first_and_ties_by_row() -> None:
    assert scores.ranked(TIED, 3, opponents=True).tolist() == [2, 5, 4]


def test_a_ranking_among_some_rows_keeps_their_numbers() -> None:
    assert scores.ranked(TIED, 2, among=[4, 2, 0]).tolist() == [0, 4]
    assert scores.ranked(TIED, 9, opponents=True, among=[4, 5, 2]).tolist() == [2, 5, 4]


def test_a_ranking_among_no_rows_is_empty() -> None:
    assert scores.ranked(TIED, 5, among=[]).tolist() == []


@given(values=st.lists(st.integers(-4, 4), min_size=1, max_size=30), count=st.integers(1, 40), opponents=st.booleans())
def test_a_ranking_is_the_head_of_a_stable_sort(values: list[int], count: int, opponents: bool) -> None:
    found = scores.ranked(np.array(values, dtype=np.float32), count, opponents).tolist()
    order = sorted(range(len(values)), key=lambda row: (values[row] if opponents else -values[row], row))
    assert found == order[:count]


def test_the_order_is_exact_once_all_candidates_are(
    tiny_engine: Engine, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explorer.methods.attributor.SPARE", 2)
    asking(tiny_engine).ask(answer, None)
    before = asking(tiny_engine).ranking(answer, None, count=4)
    assert not before.exact
    candidates = asking(tiny_engine).candidates(answer, None, count=4)
    assert len(candidates) == 6, "two more than are shown are candidates"
    for done, row in enumerate(candidates):
        assert asking(tiny_engine).progress(answer, None, candidates) == done
        shown = asking(tiny_engine).ranking(answer, None, count=4)
        assert {found.row for found in shown.influences} == {found.row for found in before.influences}, (
            "another example came in while some candidates were not exact yet"
        )
        asking(tiny_engine).refine(answer, None, row)
    after = asking(tiny_engine).ranking(answer, None, count=4)
    exact = sorted((asking(tiny_engine).refine(answer, None, row).score for row in candidates), reverse=True)[:4]
    assert after.exact
    assert [found.score for found in after.influences] == exact


@pytest.mark.parametrize("opponents", [False, True])
def test_the_order_is_that_of_the_scores_shown_while_some_are_exact(
    tiny_engine: Engine, answer: Answer, monkeypatch: pytest.MonkeyPatch, opponents: bool
) -> None:
    monkeypatch.setattr("explorer.methods.attributor.SPARE", 1)
    asking(tiny_engine).ask(answer, None)
    rows = asking(tiny_engine).candidates(answer, None, count=4, opponents=opponents)
    before = asking(tiny_engine).ranking(answer, None, count=4, opponents=opponents)
    last = before.influences[-1].score
    # The first turns out to be the weakest of those shown.
    moved = Influence(rows[0], last + (1 if opponents else -1), exact=True, values=None)
    asking(tiny_engine)._keep(answer, None, moved)
    shown = asking(tiny_engine).ranking(answer, None, count=4, opponents=opponents).influences
    scores = [found.score for found in shown]
    assert scores == sorted(scores, reverse=not opponents)
    assert [found.row for found in shown] == [*rows[1:4], rows[0]]


def test_exact_scores_move_a_candidate_the_sketches_ranked_too_low(
    tiny_engine: Engine, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explorer.methods.attributor.SPARE", 1)
    asking(tiny_engine).ask(answer, None)
    candidates = asking(tiny_engine).candidates(answer, None, count=2)
    for score, row in enumerate(candidates):
        asking(tiny_engine)._keep(answer, None, Influence(row, float(score), exact=True, values=None))
    shown = asking(tiny_engine).ranking(answer, None, count=2)
    assert [found.row for found in shown.influences] == candidates[::-1][:2]


def test_opponents_are_exactly_ordered_from_below(tiny_engine: Engine, answer: Answer) -> None:
    asking(tiny_engine).ask(answer, (0, 1))
    for row in asking(tiny_engine).candidates(answer, (0, 1), count=len(ROWS), opponents=True):
        asking(tiny_engine).refine(answer, (0, 1), row)
    ranking = asking(tiny_engine).ranking(answer, (0, 1), count=len(ROWS), opponents=True)
    found = [influence.score for influence in ranking.influences]
    assert ranking.opponents and found == sorted(found) and len(found) == len(ROWS)


def test_only_the_wanted_rows_are_shown(tiny_engine: Engine, answer: Answer) -> None:
    asking(tiny_engine).ask(answer, None)
    sky = [row for row, kept in enumerate(ROWS) if kept["source"] == "sky"]
    ranking = asking(tiny_engine).ranking(answer, None, count=5, among=sky)
    assert sorted(found.row for found in ranking.influences) == sky
    assert len(ranking.scores) == len(ROWS), "percentiles are over all examples"


def test_a_question_that_was_not_asked_is_refused(tiny_engine: Engine, answer: Answer) -> None:
    assert not tiny_engine.known(answer, (1, 2))
    with pytest.raises(PromptError, match="ask it again"):
        asking(tiny_engine).ranking(answer, (1, 2))


@pytest.mark.parametrize("selection", [(-1, 2), (2, 2), (3, 1), (0, 999)])
def test_a_selection_outside_the_answer_is_refused(
    tiny_engine: Engine, answer: Answer, selection: tuple[int, int]
) -> None:
    with pytest.raises(PromptError, match=f"the answer has the tokens 0 to {len(answer.tokens) - 1}"):
        asking(tiny_engine).ask(answer, selection)


def test_the_announced_sketch_error_is_the_formulas(tiny_engine: Engine, answer: Answer) -> None:
    asking(tiny_engine).ask(answer, None)
    tensors = len(tiny_engine.model.trainable)
    length = tiny_engine.store.manifest.settings.length
    query = float(np.linalg.norm(tiny_engine.sketch(answer, None)))
    expected = tiny_engine.store.manifest.training.scale * query * np.sqrt(tensors / length)
    assert asking(tiny_engine).ranking(answer, None).sketch_error == pytest.approx(expected, rel=1e-6)


def ranking_of(scores_: list[float], opponents: bool = False) -> Ranking:
    values = np.array(scores_, dtype=np.float32)
    rows = scores.ranked(values, 1, opponents)
    shown = tuple(Influence(int(row), float(values[row]), exact=False, values=None) for row in rows)
    return Ranking("id", None, opponents, values, shown, 0.0, method=OWN)


def test_standing_out_counts_robust_deviations_from_the_median() -> None:
    usual = list(np.random.default_rng(0).normal(size=999))
    assert ranking_of([*usual, 50.0]).standing_out == pytest.approx(50, rel=0.1)
    assert ranking_of([*usual, -50.0], opponents=True).standing_out == pytest.approx(50, rel=0.1)
    assert ranking_of(usual).standing_out < ranking_of(usual).chance + 1


def test_standing_out_is_zero_where_nothing_varies() -> None:
    assert ranking_of([1.0, 1.0, 1.0]).standing_out == 0.0
    assert dataclasses.replace(ranking_of([1.0, 2.0]), influences=()).standing_out == 0.0
