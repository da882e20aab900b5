"""What the evidence comes to: strong, some or none, and what the top examples have in common. Numpy and records only.

How strong it is follows from how often unrelated prompts have ten examples that stand out as much, and from nothing
else. What the examples share is looked for afterwards, so it comes with its share of all the data, and never with a
probability.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from explorer.corpus import EVERYTHING, Corpus, Filter
from explorer.corpus.words import SURPRISING, Word, log_likelihood_ratio
from explorer.records import NullTest, Ranking
from explorer.views import UNUSUAL

State = Literal["strong", "some", "none"]
STATES: tuple[State, ...] = ("strong", "some", "none")
STRONG = 0.01
"""Evidence is strong where as much stands out on an unrelated prompt with at most this probability."""
LEAST_PROMPTS = 19
"""With fewer unrelated prompts, even ten examples that stand out more than on any of them prove nothing at 5%."""


@dataclass(frozen=True)
class Shared:
    """What most of the shown examples have in common and the rest of the data seldom has."""

    kind: Literal["label", "word"]
    name: str
    """The label, or the word as the shown examples mostly write it. Untrusted text."""
    shown: int
    """How many of the shown examples have it."""
    of: int
    """How many are shown."""
    holders: int
    """How many of all the examples have it."""
    examples: int
    """How many examples there are."""


@dataclass(frozen=True)
class Verdict:
    """How strong the evidence for one ranking is, and what its first examples share."""

    state: State
    test: NullTest
    shared: Shared | None
    """None where they share nothing that the rest of the data seldom has."""
    opponents: bool
    """Whether it is about what made the answer less likely."""
    whole: bool
    """Whether the whole response was asked about."""


def verdict(
    ranking: Ranking, labels: Sequence[str], words: Iterable[Word] = (), among: Sequence[int] | None = None
) -> Verdict | None:
    """What a ranking's evidence comes to; None where there is nothing to compare it with (`wording.unknown`).

    Args:
        ranking: With its test; more of its examples being made exact doesn't change the state.
        labels: The label of every training example (N), empty for one without.
        words: Those that set the shown examples apart, the most telling first.
        among: The rows that the shown ones were chosen from; None for all.
    """
    if ranking.test is None or ranking.test.prompts < LEAST_PROMPTS or not ranking.influences:
        return None
    shown = [found.row for found in ranking.influences]
    common = shared_label(shown, labels, among) or shared_word(words)
    return Verdict(state_of(ranking.test), ranking.test, common, ranking.opponents, ranking.selection is None)


def verdict_of(ranking: Ranking, corpus: Corpus, wanted: Filter = EVERYTHING, index: bool = False) -> Verdict | None:
    """What a ranking of the examples that pass a filter comes to; see `verdict`, and `shared_words` for `index`."""
    return verdict(ranking, corpus.sources, shared_words(ranking, corpus, wanted, index), corpus.rows(wanted))


def shared_words(ranking: Ranking, corpus: Corpus, wanted: Filter = EVERYTHING, index: bool = False) -> Iterator[Word]:
    """The words that set the shown examples apart, the most telling first; looked for once the first is asked for.

    None before the corpus is `ready`, unless it is to `index` its words then, which takes a look at every text.
    """
    if index and not corpus.ready:
        for _ in corpus.prepare():
            pass
    yield from corpus.distinctive([found.row for found in ranking.influences], wanted)


def state_of(test: NullTest) -> State:
    """The state by calibrated frequency.

    What decides is `NullTest.chance`, (reached + 1) / (M + 1): for a prompt
    that is like the M unrelated ones, the probability that it is at most a is
    at most a, however small M is. So of 200 unrelated prompts one may do as
    well where the evidence is strong, and nine where there is some; with fewer
    than 99 none is ever strong.
    """
    return "strong" if test.chance <= STRONG else "some" if test.chance <= UNUSUAL else "none"


def shared_label(shown: Sequence[int], labels: Sequence[str], among: Sequence[int] | None = None) -> Shared | None:
    """The label of at least half of the shown rows, where chance wouldn't give it so often.

    It is surprising enough where words are: a G² (Dunning 1993) that two equal shares reach once in 10,000.
    """
    if not shown:
        return None
    name, count = Counter(labels[row] for row in shown).most_common(1)[0]
    every = labels if among is None else [labels[row] for row in among]
    held = sum(label == name for label in every)
    inside, outside = np.array([count]), np.array([held - count])
    surprise = log_likelihood_ratio(inside, len(shown), outside, len(every) - len(shown))[0]
    if not name or 2 * count < len(shown) or surprise < SURPRISING:
        return None
    return Shared("label", name, count, len(shown), held, len(every))


def shared_word(words: Iterable[Word]) -> Shared | None:
    """The first of these telling words that at least half of the shown examples hold."""
    for word in words:
        if 2 * len(word.rows) >= word.shown:
            return Shared("word", word.text, len(word.rows), word.shown, word.holders, word.of)
    return None
