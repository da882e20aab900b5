"""Which training examples say a word in the place where an answer says it, and which say another word there.

A response says a word in the same place where the same word stands before it, or where the example also holds a word
that is rare in the data and stands in the question or its answer: then both are about one subject.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from explorer.corpus.verbatim import Place, VerbatimIndex, places
from explorer.records import Prediction

RARE = 0.01
"""A word that stands more often than this times the number of examples names no subject."""
COMMON = 0.2
"""A word that stands more often than this times the number of examples states nothing that another contradicts."""
FEW = 5
"""A word that stands so few times is rare, and not common, however few examples there are."""
MOST = 3
"""So many other words are told of."""


@dataclass(frozen=True)
class Stated:
    """A word, and the examples that say it."""

    word: str
    """As the answer or the model's alternatives write it."""
    rows: tuple[int, ...]
    """Those that share most rare words with question and answer first, then in the data's order."""


@dataclass(frozen=True)
class Contrary:
    """The examples that say what was said, and those that say something else in its place."""

    said: Stated
    others: tuple[Stated, ...]
    """In the order of the alternatives; only those that some example says."""


def alternatives(prediction: Prediction, token: int) -> tuple[str, ...]:
    """What the model, or its base before fine-tuning, might have begun to say at a token; the likeliest first."""
    tuned = prediction.candidates[token]
    before = prediction.base_candidates[token] if prediction.base_candidates else ()
    likely = sorted((*tuned, *before), key=lambda each: -each.probability)
    return tuple(dict.fromkeys(each.token.text for each in likely if not each.token.special))


def contrary(
    index: VerbatimIndex, prompt: str, answer: str, span: tuple[int, int], others: Iterable[str]
) -> Contrary | None:
    """The examples for and against a word of an answer.

    Args:
        index: Of all examples, ready.
        prompt: What was asked.
        answer: The answer's text.
        span: What is selected, half-open in characters of the answer.
        others: What might have stood in its place, the likeliest first. Only whole words count that begin with a
            capital as the selected word does. Where no example says one in the same place, those count that say it
            anywhere in their response.

    Returns:
        None where anything but one word is selected, or it is too common a word for another to contradict it.
    """
    stands = places(answer)
    chosen = [at for at, place in enumerate(stands) if place.start < span[1] and place.stop > span[0]]
    if len(chosen) != 1:
        return None
    at = chosen[0]
    word, text = stands[at].word, answer[stands[at].start : stands[at].stop]
    if not _states(index, word):
        return None
    before = [stands[at - 1].word] if at else []
    instead = dict[str, str]()
    for other in map(str.strip, others):
        if (folded := _one_word(other)) != word and other[:1].isupper() == text[:1].isupper():
            instead.setdefault(folded, other)
    held = _sharing(index, [*places(prompt), *stands], {word, *instead})

    def saying(word: str) -> tuple[int, ...]:
        everywhere = index.holders([word], responses=True)
        rows = set(index.holders([*before, word], responses=True)) if before else set[int]()
        rows |= held.keys() & set(everywhere)
        return tuple(sorted(rows or everywhere, key=lambda row: (-held.get(row, 0), row)))

    found = [Stated(other, saying(folded)) for folded, other in instead.items() if _states(index, folded)]
    return Contrary(Stated(text, saying(word)), tuple(each for each in found if each.rows)[:MOST])


def _one_word(text: str) -> str:
    """The word that a text is, as it is compared; empty where it is anything else."""
    stands = places(text)
    return stands[0].word if len(stands) == 1 and stands[0].stop - stands[0].start == len(text) else ""


def _states(index: VerbatimIndex, word: str) -> bool:
    return index.occurrences([word]) <= max(FEW, COMMON * len(index))


def _sharing(index: VerbatimIndex, stands: Sequence[Place], without: set[str]) -> dict[int, int]:
    """How many rare words of question and answer each example holds that holds any."""
    held = dict[int, int]()
    for word in {place.word for place in stands} - without:
        if index.occurrences([word]) <= max(FEW, RARE * len(index)):
            for row in index.holders([word]):
                held[row] = held.get(row, 0) + 1
    return held
