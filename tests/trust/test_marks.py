"""One mark a word: what the evidence says, what stands in the data, and what the base model says, too."""

import numpy as np

from explorer.records import Span, Token
from explorer.trust.marks import MARKS, marks
from explorer.trust.verdict import State

TOKENS = [Token(text) for text in (" Can", "ada", " is", " far", " off", ".", " So")]
CHANGE = np.array([2, 1, 0.02, -3, 0.5, 4, 0.7], dtype=np.float32)


def test_only_raised_words_are_asked_about_and_evidence_comes_first() -> None:
    asked = list[Span]()

    def state(word: Span) -> State | None:
        asked.append(word)
        return {(0, 2): "strong", (4, 5): "some", (6, 7): "none"}[word]  # type: ignore[return-value]

    found = marks(TOKENS, CHANGE, state, [(0, 4)])
    assert asked == [(0, 2), (4, 5), (6, 7)], "neither what fine-tuning hardly moved or lowered, nor punctuation"
    assert found == {(0, 2): "strong", (2, 3): "verbatim", (3, 4): "verbatim", (4, 5): "some", (6, 7): "none"}
    assert set(found.values()) <= set(MARKS)


def test_a_word_of_a_passage_is_in_it_as_a_whole_and_without_one_the_base_models_own() -> None:
    found = marks(TOKENS, CHANGE, lambda word: "none", [(1, 3)])
    assert found[(0, 2)] == "none" and found[(2, 3)] == "verbatim" and found[(3, 4)] == "base"


def test_what_is_not_known_yet_has_no_mark() -> None:
    assert marks(TOKENS, CHANGE, lambda word: None, [(0, 7)]).keys() == {(2, 3), (3, 4)}
