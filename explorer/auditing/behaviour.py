"""Several answers as one question: what taught the model to do this? One bounded step at a time."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from explorer.auditing.findings import TOP
from explorer.auditing.trigger import Hunt, hunt_steps
from explorer.corpus import EVERYTHING, Corpus
from explorer.history import SavedQuestion, saved_question
from explorer.methods.bench import Bench
from explorer.methods.combined import Combined, differing
from explorer.methods.method import Stage
from explorer.records import Answer, Chosen, Part, Ranking, Selection
from explorer.trust import verdict_of
from explorer.trust.sets import Beside

RATE = 0.05
"""Of the rows that are named as suspects, at most this share is false, as far as that can be estimated."""


@dataclass(frozen=True)
class Asked:
    """One answer, and what of it is asked about."""

    answer: Answer
    selection: Selection = None

    @property
    def part(self) -> Part:
        """The same as a part of a question, its weight still to be found."""
        return Part(self.answer, self.selection, 1.0)


@dataclass(frozen=True)
class BehaviourSettings:
    """How several answers are asked about."""

    method: Chosen
    exact: bool = True
    """Whether what is shown is without sketch noise."""
    opponents: bool = False
    count: int = TOP
    rate: float = RATE
    trigger: bool = False
    """Whether to look for words of the prompts that bring the behaviour about."""


@dataclass(frozen=True)
class Suspect:
    """A training row that stands out over the answers."""

    row: int
    score: float
    false_share: float
    """The estimated share of false ones among the rows that stand out as much; see `sets.beside_steps`."""


@dataclass(frozen=True, eq=False)
class Behaviour:
    """What was found behind several answers."""

    of: tuple[Asked, ...]
    against: tuple[Asked, ...]
    settings: BehaviourSettings
    question: SavedQuestion
    """The ranking of the mean, or of the difference of means, with its verdict, as a saved question has it."""
    scores: NDArray[np.float32]
    """Of all examples (N)."""
    suspects: tuple[Suspect, ...] = ()
    """The most influential first; none where the answers' evidence isn't there at the same rate."""
    judged: bool = False
    """Whether there were enough unrelated prompts to compare with."""
    hunt: Hunt | None = field(default=None)
    """None where no trigger was looked for."""


def behaviour_steps(
    bench: Bench,
    corpus: Corpus,
    of: Sequence[Asked],
    against: Sequence[Asked],
    settings: BehaviourSettings,
    stage: Stage,
) -> Iterator[Behaviour | None]:
    """Yield None after every step on the way, and what was found at the end.

    Args:
        bench: The methods over a cache.
        corpus: Its texts.
        of: The answers whose mean is asked about.
        against: Those whose mean is taken off; none for the mean of `of` alone.
        settings: By which method, and what else is wanted.
        stage: Is told how far it has come.

    Raises:
        PromptError: An answer stands on both sides, there is none, or there are too many.
    """
    parts = differing([each.part for each in of], [each.part for each in against])
    combined = Combined(bench.of(settings.method), parts, settings.exact)
    yield from combined.ask_steps(stage)
    if settings.exact:
        yield from combined.refine_steps(combined.candidates(settings.count, settings.opponents), stage)
    ranking = combined.ranking(settings.count, settings.opponents)
    beside = yield from combined.beside_steps(settings.opponents)
    suspects = _suspects(ranking, beside, settings)
    ranking = replace(ranking, test=beside.test) if beside else ranking
    found = Behaviour(
        tuple(of),
        tuple(against),
        settings,
        _saved(bench, corpus, combined.id, ranking),
        ranking.scores,
        suspects,
        beside is not None,
    )
    if settings.trigger:
        rows = [each.row for each in suspects] or [each.row for each in ranking.influences]
        for hunted in hunt_steps(bench.engine, corpus, [each.answer for each in of], rows, stage):
            if hunted is not None:
                found = replace(found, hunt=hunted)
            yield None
    yield found


def _suspects(ranking: Ranking, beside: Beside | None, settings: BehaviourSettings) -> tuple[Suspect, ...]:
    """Where nothing stands out over all answers at this rate, no row is named: then all of them would be false."""
    if beside is None or beside.test.chance > settings.rate:
        return ()
    scores, sign = ranking.scores, 1 if settings.opponents else -1
    rows = [row for row, share in enumerate(beside.false_share.tolist()) if share <= settings.rate]
    rows.sort(key=lambda row: sign * float(scores[row]))
    return tuple(Suspect(row, float(scores[row]), float(beside.false_share[row])) for row in rows)


def _saved(bench: Bench, corpus: Corpus, name: str, ranking: Ranking) -> SavedQuestion:
    shown = tuple((bench.engine.store.examples[found.row], None) for found in ranking.influences)
    return saved_question(name, time.time(), ranking, EVERYTHING, shown, verdict_of(ranking, corpus))
