"""Several answers' questions asked as one, by any method: their scores and exact values, each times its weight.

A gradient method is linear in the question's gradient, so this is the question whose gradient is the weighted sum of
theirs, each divided by the norms of its own whole response as ever. Its scores are the weighted sums of the single
ones. Where a method can, exact values come along that one gradient, at the cost of a single question.
"""

import hashlib
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.concurrency import Steps
from explorer.errors import PromptError
from explorer.methods.abilities import Combining
from explorer.methods.attributor import SPARE, Attributor
from explorer.methods.method import Stage
from explorer.records import Influence, Part, Ranking, relative_difference
from explorer.retrieval import ranked
from explorer.trust import NullSample
from explorer.trust.sets import Alike, Beside, beside_steps, enough

MOST_PARTS = 400
"""So many answers are asked about as one: the scores of all of them are held."""


def differing(of: Sequence[Part], against: Sequence[Part] = ()) -> tuple[Part, ...]:
    """The mean of some answers' questions, less the mean of others; each question counts once.

    Raises PromptError where there is none, where there are too many, or where one is on both sides.
    """
    sides = [list({(part.answer.id, part.selection): part for part in side}.items()) for side in (of, against)]
    if not sides[0]:
        raise PromptError("No answer was given; give at least one to ask about.")
    if {name for name, _ in sides[0]} & {name for name, _ in sides[1]}:
        raise PromptError("An answer stands on both sides; leave it out on one of them.")
    if (count := sum(map(len, sides))) > MOST_PARTS:
        raise PromptError(f"{count:,} answers were given; ask about at most {MOST_PARTS:,} as one.")
    return tuple(
        Part(part.answer, part.selection, sign / len(side))
        for sign, side in zip((1.0, -1.0), sides, strict=True)
        for _, part in side
    )


class Combined:
    """One method, asked about several answers at once."""

    def __init__(self, asked: Attributor, parts: Sequence[Part], exact: bool = True):
        """`parts` are what `differing` gives; `exact` is whether any example is to be made so."""
        self.parts, self._asked, self._wanted = tuple(parts), asked, exact
        named = [(part.answer.id, str(part.selection), part.weight) for part in parts]
        self.id = hashlib.sha256(repr(named).encode()).hexdigest()[:16]
        self._single = list[NDArray[np.float32]]()
        self._sizes, self._nulls = list[float](), list[NullSample | None]()
        self._direction: Any = None
        self._exact: dict[int, Influence] = {}

    # Work, in steps

    def ask_steps(self, stage: Stage) -> Steps:
        """Score all examples for every answer, and add up their gradients where the method can use the sum."""
        method = self._asked.method
        for number, part in enumerate(self.parts, start=1):
            yield from self._asked.ask_steps(part.answer, part.selection, stage)
            self._single.append(self._asked.whole_scores(part.answer, part.selection))
            self._sizes.append(self._asked.size(part.answer, part.selection))
            self._nulls.append(self._asked.null_of(part.answer, part.selection))
            if self._wanted and isinstance(method, Combining):
                # At once, while the engine remembers the answer's gradient.
                self._direction = method.added(self._direction, part)
                yield
            stage.tell("answers scored", number, len(self.parts))

    def refine_steps(self, rows: Sequence[int], stage: Stage) -> Steps:
        """Make examples exact where the method has exact values; needs `ask_steps` first."""
        if not self._asked.chosen.token_values:
            return
        for number, row in enumerate(rows, start=1):
            self._exact[row] = yield from self._refined(row, stage)
            stage.tell("exact values", number, len(rows))

    def _refined(self, row: int, stage: Stage) -> Generator[None, None, Influence]:
        method = self._asked.method
        if isinstance(method, Combining):
            found = yield from method.along_steps(self._direction, row)
            checksum = relative_difference(found.score, method.second_along(self._direction, row))
            return Influence(row, found.score, True, found.values, checksum, parts=found.parts)
        single = list[NDArray[np.float64]]()
        for part in self.parts:
            yield from self._asked.refine_steps(part.answer, part.selection, [row], stage)
            own = self._asked.refine(part.answer, part.selection, row).values
            assert own is not None, "a method that says so knows token values"
            single.append(part.weight * own.astype(np.float64))
        values = np.sum(single, axis=0)
        return Influence(row, float(values.mean()), True, values.astype(np.float32))

    def beside_steps(self, opponents: bool) -> Generator[None, None, Beside | None]:
        """Compare with as many unrelated answers; None where too few of them are known. Needs `ask_steps` first."""
        kinds: dict[int, list[int]] = {}
        for place, null in enumerate(self._nulls):
            kinds.setdefault(id(null), []).append(place)
        asked = list[Alike]()
        for places in kinds.values():
            null = self._nulls[places[0]]
            if null is None:
                return None
            sizes = np.array([self._sizes[place] for place in places])
            weights = np.array([self.parts[place].weight for place in places])
            single = [self._single[place] / np.float32(self._sizes[place]) for place in places]
            asked.append(Alike(null, np.stack(single, axis=1), sizes * weights))
        return (yield from beside_steps(asked, opponents)) if enough(asked) else None

    # What is known

    @property
    def scores(self) -> NDArray[np.float32]:
        """The scores of all examples (N)."""
        summed = np.zeros(len(self._single[0]))
        for part, own in zip(self.parts, self._single, strict=True):
            summed += part.weight * own
        return summed.astype(np.float32)

    def candidates(self, count: int, opponents: bool) -> list[int]:
        """The rows worth making exact before `count` of them are shown."""
        return ranked(self.scores, count + SPARE, opponents).tolist()

    def ranking(self, count: int, opponents: bool) -> Ranking:
        """The `count` most influential examples: by exact scores where all candidates have them, else by sketches."""
        rows, scores = self.candidates(count, opponents), self.scores
        exact = self._asked.method.exact
        if all(row in self._exact for row in rows):
            shown = sorted((self._exact[row] for row in rows), key=lambda each: each.score, reverse=not opponents)
        else:
            shown = [Influence(row, float(scores[row]), exact, None) for row in rows]
        method = self._asked.method
        error = method.sum_error(self.parts) if isinstance(method, Combining) else 0.0
        return Ranking(self.id, None, opponents, scores, tuple(shown[:count]), error, method=self._asked.chosen)
