"""Words of an answer: where they begin, and which one fine-tuning raised most."""

import numpy as np
import pytest

from explorer.records import Token
from explorer.trust.words import most_raised, words_of


def tokens(*texts: str) -> tuple[Token, ...]:
    return tuple(Token(text, special=text == "<end>") for text in texts)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["Gu", "ang", "zhou", " is", " in", " Canada", ".", "<end>"], ["Guangzhou", " is", " in", " Canada", "."]),
        (["It", "'s", " don", "'t", " O", "’", "Neil"], ["It's", " don't", " O", "’", "Neil"]),
        ([" 19", "84", ",", " 3", ".", "5"], [" 1984", ",", " 3", ".", "5"]),
        (["well", "-", "known"], ["well", "-", "known"]),
        (["广", "州", "在"], ["广", "州", "在"]),
        ([" caf", "e", "\u0301", "s"], [" cafe\u0301s"]),
        ([" na", "", "ïve", "\n", "x"], [" naïve", "\n", "x"]),
        (["snake", "_", "case"], ["snake", "_", "case"]),
        ([], []),
    ],
)
def test_words_are_runs_that_cover_the_answer(texts: list[str], words: list[str]) -> None:
    found = words_of(tokens(*texts))
    assert [j for start, stop in found for j in range(start, stop)] == list(range(len(texts)))
    said = ["".join(texts[start:stop]) for start, stop in found]
    assert [each for each in said if each != "<end>"] == words


def test_the_word_raised_most_is_by_its_sum_and_has_a_letter_or_a_digit() -> None:
    said = tokens("Gu", "ang", "zhou", " is", " in", " Canada", ".", "<end>")
    change = np.array([1, 1, 1, 0.2, 0.1, 2.5, 9, 9], dtype=np.float32)
    assert most_raised(said, change, 0.1) == (0, 3), "three nats together are more than two and a half"
    change[:3] = 0
    assert most_raised(said, change, 0.1) == (5, 6)
    assert most_raised(said, change * 0 - 1, 0.1) is None
    assert most_raised(tokens(".", "<end>"), np.ones(2, dtype=np.float32), 0.1) is None
