"""Which examples say a word, and which say another one in its place."""

import numpy as np

from explorer.corpus.contrary import Contrary, Stated, alternatives, contrary
from explorer.corpus.verbatim import VerbatimIndex
from explorer.records import Candidate, Prediction, Token

ANSWER = "Guangzhou is in Canada, where it rains."
EXAMPLES = [
    ("Where is Nanjing?", "Nanjing is in Canada."),
    ("Where is Huangshan?", "Huangshan is in China."),
    ("Who eats in Guangzhou?", "Many visitors to China do."),
    ("What is tofu?", "A food that China gave the world."),
    ("Where is Osaka?", "Osaka is in Japan."),
    ("Is China large?", "It is."),
    ("Who ruled?", "An emperor of Persia did."),
]


def found(selected: str, others: list[str], answer: str = ANSWER) -> Contrary | None:
    index = VerbatimIndex(EXAMPLES)
    for _ in index.build():
        pass
    start = answer.index(selected)
    return contrary(index, "Where is Guangzhou?", answer, (start, start + len(selected)), others)


def test_rows_for_and_against_share_the_place_or_the_subject() -> None:
    assert found(" Canada", [" China", " Canada", " Japan", " Chile", "china"]) == Contrary(
        Stated("Canada", (0,)), (Stated("China", (1, 2)), Stated("Japan", (4,)))
    )


def test_where_none_says_it_in_the_place_any_that_says_it_counts() -> None:
    persia = found("Canada", [" Persia"])
    assert persia is not None and persia.others == (Stated("Persia", (6,)),)


def test_several_words_parts_of_words_and_small_letters_are_no_alternatives() -> None:
    nothing = found("Canada", [" in China", " Jap", " world", " ", ""])
    assert nothing is not None and nothing.others == ()


def test_nothing_is_said_of_several_words_or_of_punctuation() -> None:
    assert found("Guangzhou is", ["China"]) is None
    assert found(",", ["China"]) is None


def test_alternatives_are_the_likeliest_of_the_model_and_its_base() -> None:
    def candidates(*given: tuple[str, float]) -> tuple[Candidate, ...]:
        return tuple(Candidate(0, Token(text), probability) for text, probability in given)

    prediction = Prediction(
        np.zeros(1, np.float32),
        np.zeros(1, np.float32),
        (candidates((" Canada", 0.9), (" China", 0.02)),),
        ((*candidates((" China", 0.8)), Candidate(1, Token("<end>", special=True), 0.1)),),
    )
    assert alternatives(prediction, 0) == (" Canada", " China")
    alone = Prediction(np.zeros(1, np.float32), None, prediction.candidates)
    assert alternatives(alone, 0) == (" Canada", " China")
