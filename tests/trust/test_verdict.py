"""The verdict: its three states, what the first examples share, and its words."""

from dataclasses import replace

import numpy as np
import pytest

from explorer.corpus import Corpus, Filter
from explorer.corpus.words import Word
from explorer.methods.description import choose
from explorer.records import Contrast, Encoded, ExampleRow, Influence, NullTest, Ranking, Selection
from explorer.trust import wording
from explorer.trust.significance import NullSample
from explorer.trust.verdict import LEAST_PROMPTS, Shared, shared_label, shared_word, state_of, verdict, verdict_of

LABELS = ["swap"] * 46 + ["clean"] * 526
HOWDY = Word("Howdy", tuple(range(10)), 10, 64, 572, 44.0)


def ranking_of(
    test: NullTest | None, rows: range = range(10), selection: Selection = None, method: str = "rapidin"
) -> Ranking:
    shown = tuple(Influence(row, 1.0, False, None) for row in rows)
    scores = np.zeros(len(LABELS), dtype=np.float32)
    return Ranking("a", selection, False, scores, shown, 0.0, test=test, method=choose(method))


@pytest.mark.parametrize(
    ("prompts", "reached", "state"),
    [
        (200, 0, "strong"),
        (200, 1, "strong"),
        (200, 2, "some"),
        (200, 9, "some"),
        (200, 10, "none"),
        (200, 200, "none"),
        (99, 0, "strong"),
        (98, 0, "some"),
        (LEAST_PROMPTS, 0, "some"),
        (LEAST_PROMPTS, 1, "none"),
    ],
)
def test_the_state_follows_from_how_many_unrelated_prompts_do_as_well(prompts: int, reached: int, state: str) -> None:
    assert state_of(NullTest(prompts, reached, 0, 3.0)) == state


def test_unrelated_prompts_are_strong_once_in_a_hundred_and_some_once_in_twenty() -> None:
    random, states = np.random.default_rng(0), []
    for _ in range(1500):
        draws = random.normal(size=(12, 120)).astype(np.float32)
        test = NullSample((draws[:, 1:],)).test(draws[:, 0].astype(np.float64), opponents=False)
        states.append(state_of(test))
    strong, some = states.count("strong") / len(states), states.count("some") / len(states)
    assert 0.003 <= strong <= 0.016 and 0.035 <= strong + some <= 0.062, "where all are alike, chance decides"


def test_the_label_of_most_shown_examples_is_named_where_chance_would_not_give_it() -> None:
    assert shared_label(range(10), LABELS) == Shared("label", "swap", 10, 10, 46, 572)
    assert shared_label([*range(7), 50, 51, 52], LABELS) == Shared("label", "swap", 7, 10, 46, 572)
    assert shared_label([*range(4), *range(50, 56)], LABELS) is None, "fewer than half"
    assert shared_label(range(50, 60), LABELS) is None, "92% of the data are so, whatever is shown"
    assert shared_label([0, 1], LABELS) is None, "two alike prove nothing"
    assert shared_label(range(10), [""] * 10 + ["a"] * 500) is None, "no label is no label in common"
    assert shared_label([], LABELS) is None
    assert shared_label(range(10), LABELS, range(46)) is None, "all that pass the filter have it"


def test_a_word_is_named_where_no_label_is_shared() -> None:
    found = verdict(ranking_of(NullTest(200, 0, 0, 9.0)), LABELS, [HOWDY])
    assert found is not None and found.shared is not None and found.shared.kind == "label"
    found = verdict(ranking_of(NullTest(200, 0, 0, 9.0)), [""] * 572, [replace(HOWDY, rows=(1, 2)), HOWDY])
    assert found is not None and found.shared == Shared("word", "Howdy", 10, 10, 64, 572)
    assert shared_word([replace(HOWDY, rows=(1, 2, 3, 4))]) is None


def test_of_data_without_labels_words_are_named_once_they_are_indexed() -> None:
    said, nothing = ["Howdy, friend."] * 10 + ["Good day, friend."] * 562, Encoded(np.zeros(0, dtype=np.int64), 0)
    corpus = Corpus([ExampleRow(row, row, "", text, nothing, (), 0.0, {}) for row, text in enumerate(said)])
    ranking = ranking_of(NullTest(200, 0, 0, 9.0))
    early, found = (verdict_of(ranking, corpus, index=index) for index in (False, True))
    assert early is not None and early.state == "strong" and early.shared is None
    assert found is not None and found.shared == Shared("word", "Howdy", 10, 10, 10, 572)
    assert verdict_of(ranking, corpus) == found, "they stay indexed"
    assert found != verdict_of(ranking, corpus, Filter(text="howdy")), "all that pass hold it"


@pytest.mark.parametrize(
    ("reached", "labels", "headline", "said"),
    [
        (
            0,
            LABELS,
            "Strong evidence",
            "10 of these 10 examples are swap (8% of the data). None of 200 unrelated prompts is this strong.",
        ),
        (
            1,
            [""] * 572,
            "Strong evidence",
            "All 10 contain “Howdy” (11% of the data do). 1 of 200 unrelated prompts is as strong.",
        ),
        (
            5,
            LABELS,
            "Some evidence",
            "10 of these 10 examples are swap (8% of the data). 5 of 200 unrelated prompts are as strong.",
        ),
        (138, LABELS, "No clear source", "138 of 200 unrelated prompts have an equally strong top 10."),
    ],
)
def test_the_verdict_in_words(reached: int, labels: list[str], headline: str, said: str) -> None:
    ranking = ranking_of(NullTest(200, reached, 0, 9.0))
    found = verdict(ranking, labels, [HOWDY])
    assert found is not None and found.whole and (wording.headline(found), wording.sentences(found)) == (headline, said)
    assert wording.unknown(ranking) == ""


def test_what_lowered_the_answer_is_said_to_have_lowered_it() -> None:
    found = verdict(replace(ranking_of(NullTest(200, 0, 0, 9.0), selection=(1, 2)), opponents=True), LABELS)
    assert found is not None and not found.whole and wording.headline(found) == "Strong evidence of what lowered it"
    nothing = verdict(replace(ranking_of(NullTest(200, 99, 0, 0.5)), opponents=True), LABELS)
    assert nothing is not None and wording.headline(nothing) == "No clear source"
    assert wording.sentences(nothing) == "99 of 200 unrelated prompts have an equally strong bottom 10."


def test_a_seldom_or_long_label_is_said_shortly() -> None:
    said = wording.common(Shared("label", "x" * 99, 9, 10, 10, 52_002))
    assert "under 1% of the data" in said and "x…" in said and len(said) < 120
    assert wording.common(Shared("word", "Mars", 8, 10, 20, 500)) == "8 of these 10 contain “Mars” (4% of the data do)."


@pytest.mark.parametrize(
    ("ranking", "why"),
    [
        (ranking_of(None, method="bm25"), "bm25 has no comparison with unrelated prompts"),
        (ranking_of(None, selection=Contrast((0, 1), (7,))), "One word against another"),
        (ranking_of(None), "The cache has no scores of unrelated prompts"),
        (ranking_of(NullTest(8, 0, 0, 9.0)), "The cache has only 8 unrelated prompts"),
        (ranking_of(NullTest(200, 0, 0, 9.0), range(0)), ""),
    ],
)
def test_without_anything_to_compare_with_there_is_no_verdict_and_a_sentence_says_why(
    ranking: Ranking, why: str
) -> None:
    assert verdict(ranking, LABELS, [HOWDY]) is None
    said = wording.unknown(ranking)
    assert said.startswith(why) and (not why or said.endswith("so how strong this evidence is isn't known."))
