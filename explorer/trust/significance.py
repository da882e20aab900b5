"""How unusual scores are, beside what the same examples score on unrelated prompts. Numpy only.

The null sample holds every example's scores on M unrelated questions of a kind: about whole responses, or about
single tokens: the first of an answer, its end, one in between; or about the word that fine-tuning raised most, which
is what a page asks by itself. All of it is for questions of length one, because a
question with a large gradient, such as an improbable token, has large scores with every example.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.records import NEAR, Contrast, NullPlace, NullTest, Ranking, Selection, Span, Token

Scores = NDArray[np.floating[Any]]

RESPONSE, FIRST, TOKEN, END, RAISED = KINDS = ("response", "first", "token", "end", "raised")
"""The kinds of questions: a whole response; its first token, the end of sequence, any other token; its raised word."""


@dataclass(frozen=True, eq=False)
class NullSample:
    """What all examples score on M unrelated questions of one kind."""

    shards: tuple[NDArray[np.float32], ...]
    """Scores (rows, M) for questions of length one, consecutive rows of the training data."""

    @property
    def prompts(self) -> int:
        """M."""
        return int(self.shards[0].shape[1])

    def place(self, row: int, score: float, opponents: bool) -> NullPlace:
        """Where a score for a question of length one stands among the example's own null scores."""
        beyond = int(_beyond(self._row(row), score, opponents))
        return NullPlace(self.prompts, beyond, float(self._near_the_end[int(opponents)][row]) / self.prompts)

    def beyond(self, scores: Scores, opponents: bool) -> NDArray[np.int64]:
        """`place(...).beyond` of every example's score (N)."""
        starts = np.cumsum([len(shard) for shard in self.shards])[:-1]
        pairs = zip(self.shards, np.split(scores[:, None], starts), strict=True)
        return np.concatenate([_beyond(shard, own, opponents) for shard, own in pairs])

    def test(self, scores: Scores, opponents: bool) -> NullTest:
        """Whether any examples' scores (N), for a question of length one, are unusual for these examples.

        The statistic is the mean of the ten largest standardised scores. It is
        compared with the same statistic of every unrelated prompt, for which
        mean and deviation are those of the other prompts. So the number of
        examples, and how they hang together, is accounted for.
        """
        mean, deviation = self._moments
        standard = _ratio(scores - mean, deviation) * (-1 if opponents else 1)
        deviations = float(np.sort(standard)[-NEAR:].mean())
        reached = int((self._extremes[int(opponents)] >= deviations).sum())
        return NullTest(self.prompts, reached, int(standard.argmax()), deviations)

    def _row(self, row: int) -> NDArray[np.float32]:
        for shard in self.shards:
            if row < len(shard):
                return shard[row]
            row -= len(shard)
        raise IndexError(row)

    @property
    def mean(self) -> Scores:
        """The mean (N) of each example's null scores."""
        return self._moments[0]

    @cached_property
    def _moments(self) -> tuple[Scores, Scores]:
        """Mean and standard deviation (N) of each example's null scores."""
        parts = [(shard.mean(axis=1, dtype=np.float64), _deviations(shard)) for shard in self.shards]
        mean, deviation = (np.concatenate(each) for each in zip(*parts, strict=True))
        return mean, deviation

    @cached_property
    def _extremes(self) -> tuple[Scores, Scores]:
        """The mean of the ten largest standardised scores, for every prompt (M), and of the ten largest negatives."""
        first, last = (_first(sign * _left_out(shard) for shard in self.shards) for sign in (1, -1))
        return first[0].mean(axis=0), last[0].mean(axis=0)

    @cached_property
    def _near_the_end(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For how many prompts each example (N) is among the first ten, and among the last ten."""
        count = sum(len(shard) for shard in self.shards)
        first, last = (_first(sign * shard for shard in self.shards) for sign in (1, -1))
        return np.bincount(first[1].ravel(), minlength=count), np.bincount(last[1].ravel(), minlength=count)


def _first(shards: Iterable[Scores]) -> tuple[Scores, NDArray[np.int64]]:
    """The ten largest values of each prompt and the rows that have them, (10, M) each; fewer of fewer examples."""
    best: list[tuple[Scores, NDArray[np.int64]]] = []
    start = 0
    for shard in shards:
        own = np.broadcast_to(np.arange(start, start + len(shard))[:, None], shard.shape)
        values, rows = (np.concatenate(each) for each in zip(*best, (shard, own), strict=True))
        first = np.argsort(-values, axis=0, kind="stable")[:NEAR]
        best = [(np.take_along_axis(values, first, axis=0), np.take_along_axis(rows, first, axis=0))]
        start += len(shard)
    return best[0]


def judged(ranking: Ranking, null: NullSample, size: float) -> Ranking:
    """The ranking with what a null sample says of it. Scores over `size` are those of a question of length one."""
    shown = tuple(
        replace(found, place=null.place(found.row, found.score / size, ranking.opponents))
        for found in ranking.influences
    )
    return replace(ranking, influences=shown, test=null.test(ranking.scores / size, ranking.opponents))


def kind_of(tokens: Sequence[Token], selection: Selection, raised: Span | None = None) -> str:
    """Which null questions one about some of an answer's tokens is like; empty for a contrast, which none is like.

    `raised` is the word that fine-tuning raised most, where that is known
    (`words.raised_word`). A question about it has a kind of its own, however it
    came to be asked: a word that was chosen for its change looks unusual beside tokens drawn at random.

    First tokens and the ends of answers have kinds of their own: they look
    unusual beside tokens in between, whatever is asked. A span is compared
    with those in between. Its gradient lies between a token's and the whole
    response's, and so do its scores; single tokens have the wider spread, so a
    span has to be more unusual to look so.
    """
    if isinstance(selection, Contrast):
        return ""
    if selection is None:
        return RESPONSE
    if selection == raised:
        return RAISED
    if selection == (0, 1):
        return FIRST
    return END if selection == (len(tokens) - 1, len(tokens)) and tokens[-1].special else TOKEN


def one_of_each_kind(
    tokens: Sequence[Token], random: np.random.Generator, raised: Span | None = None
) -> dict[str, Selection]:
    """A question of every kind that an answer has, the token in between drawn at random; `raised` is its word."""
    found: dict[str, Selection] = {RESPONSE: None}
    if raised:
        found[RAISED] = raised
    for position in random.permutation(len(tokens)).tolist():
        selection = (position, position + 1)
        found.setdefault(kind_of(tokens, selection), selection)
    return {kind: found[kind] for kind in KINDS if kind in found}


def _beyond(null: NDArray[np.float32], score: Scores | float, opponents: bool) -> NDArray[np.int64]:
    """How many null scores (…, M) a score exceeds; an equal one isn't exceeded, so nothing looks too unusual."""
    return np.asarray((null > score) if opponents else (null < score)).sum(axis=-1)


def _deviations(shard: NDArray[np.float32]) -> Scores:
    return shard.std(axis=1, dtype=np.float64, ddof=1)


def _left_out(shard: NDArray[np.float32]) -> Scores:
    """Every null score (rows, M) standardised by mean and deviation of the example's others."""
    others = shard.shape[1] - 1
    distance = shard - shard.mean(axis=1, dtype=np.float64, keepdims=True)
    squares = (distance**2).sum(axis=1, keepdims=True) - distance**2 * (others + 1) / others
    deviation = np.sqrt(np.maximum(squares, 0.0) / (others - 1))
    return _ratio(distance * (others + 1) / others, deviation)


def _ratio(distance: Scores, deviation: Scores) -> Scores:
    """0 for examples whose scores never vary."""
    return np.divide(distance, deviation, out=np.zeros_like(distance, dtype=np.float64), where=deviation > 0)
