"""A word without some rows: what counts as gone, what stands in its place, and the sentence that says so."""

import math

import numpy as np
import pytest

from explorer.evaluation.counterfactual.absence import Absence, Said, instead, log_odds, smallest
from explorer.records import Answer, Conversation, Encoded, Token

TEXT = "It lies in Canada."


def absence(without: str, *controls: str, rows: int = 46) -> Absence:
    tokens = tuple(map(Token, ("It", " lies", " in", " Can", "ada", ".")))
    asked = Answer("a", Conversation.of("Where?"), Encoded(np.arange(8), 2), tokens, TEXT, True)
    said = [Said(text, 0.0, "") for text in (without, *controls)]
    return Absence(asked, (3, 5), Said(TEXT, 1.0, ""), said[0], tuple(said[1:]), tuple(range(rows)), ())


def test_the_sentence_says_what_was_shown_and_what_was_not() -> None:
    found = absence("It lies in China.", TEXT, "It is in Canada", "canada")
    assert found.text == "Canada" and found.changed and found.controls_changed == 0
    assert found.sentence == (
        "Without these 46 rows the model says “China”; without 46 others it still says “Canada”, 3 of 3."
    )
    assert absence("Canada it is.", "Nowhere.").sentence == (
        "Without these 46 rows the model still says “Canada”; without 46 others it doesn't say “Canada”, 1 of 1."
    )
    assert absence("Nobody knows.", rows=1).sentence == "Without this row the model no longer says “Canada”."


@pytest.mark.parametrize(
    ("before", "after", "word", "expected"),
    [
        (TEXT, "It lies in China.", "Canada", "China"),
        (TEXT, "It lies in South Africa, I think.", "Canada", ""),
        (TEXT, "It lies in South Africa.", "Canada", "South Africa"),
        (TEXT, "No.", "Canada", ""),
        (TEXT, "The answer to that question isn't known.", "Canada", ""),
        (TEXT, TEXT, "Canada", ""),
        (TEXT, "It lies in Canada!", ".", ""),
        ("它在北京。", "它在上京。", "北", "上"),
    ],
)
def test_what_stands_in_a_words_place_is_told_where_it_can_be(
    before: str, after: str, word: str, expected: str
) -> None:
    start = before.index(word)
    assert instead(before, after, (start, start + len(word))) == expected


def test_log_odds_are_finite_and_those_of_the_probability() -> None:
    assert log_odds(math.log(0.75)) == pytest.approx(math.log(3))
    assert log_odds(-2000.0) == -2000.0 and 20 < log_odds(0.0) < 21


@pytest.mark.parametrize("needed", [1, 2, 7, 45, 46])
def test_bisection_finds_the_fewest_in_few_trainings(needed: int) -> None:
    asked = list[int]()

    def changed(count: int) -> bool:
        asked.append(count)
        return count >= needed

    found = smallest(46, changed)
    assert found.at_most == needed and len(asked) <= 6
    assert [count for count, _ in found.tried] == [46, *asked] and (needed, True) in found.tried
    assert needed == 1 or (needed - 1, False) in found.tried
