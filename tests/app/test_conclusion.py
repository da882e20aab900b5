"""The Compare page's first sentence: what is behind the one answer and not behind the other."""

import pytest

from explorer.app.compare.conclusion import Side, conclusion, holders
from explorer.corpus import Corpus
from explorer.trust import Shared
from tests.saved_samples import example_of


def label(name: str, shown: int) -> Shared:
    return Shared("label", name, shown, 10, 46, 572)


SWAP = label("swap", 8)


@pytest.mark.parametrize(
    ("left", "right", "counts", "told"),
    [
        (SWAP, None, (0, 0), "Examples from swap are behind A (8 of 10), not behind B (0 of 10)."),
        (None, SWAP, (6, 0), "Examples from swap are behind B (8 of 10), also behind A (6 of 10)."),
        (SWAP, label("swap", 7), (8, 7), "Examples from swap are behind both answers: 8 of 10 for A, 7 of 10 for B."),
        (
            SWAP,
            Shared("word", "Howdy", 10, 10, 64, 572),
            (1, 2),
            "Examples from swap are behind A (8 of 10), not behind B (2 of 10). "
            "Examples with “Howdy” are behind B (10 of 10), not behind A (1 of 10).",
        ),
        (None, None, (0, 0), "have no common source"),
    ],
)
def test_the_conclusion_names_what_is_behind_each_answer(
    left: Shared | None, right: Shared | None, counts: tuple[int, int], told: str
) -> None:
    assert told in conclusion(Side("A", left, True), Side("B", right, True), *counts, opponents=False)


def test_what_has_no_clear_source_is_not_said_to_have_one() -> None:
    said = conclusion(Side("A", SWAP, True), Side("B", label("facts", 6), False), 0, 1, opponents=True)
    assert said == "Examples from swap are against A (8 of 10), not against B (1 of 10). B has no clear source."
    assert "no common source" in conclusion(Side("A", SWAP, False), Side("B", None, True), 0, 0, opponents=False)


def test_the_other_sides_rows_with_the_same_label_or_word_are_counted() -> None:
    corpus = Corpus([example_of(row, text) for row, text in enumerate(("swap", "facts", "swap"))])
    assert holders([0, 1], SWAP, corpus) == {0} and holders([0, 1], None, corpus) == set()
    assert holders([0, 1, 2], Shared("word", "Facts", 1, 1, 1, 3), corpus) == {1}
