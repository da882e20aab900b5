"""What a method may be able to do besides scoring, each ability a type: methods have them or don't.

Whoever wants something of a method asks whether it has the ability (`isinstance`),
never which method it is. `records.Can` says the same of a method without opening
it; `ABILITIES` puts the two side by side.
"""

from collections.abc import Generator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from explorer.records import Answer, Can, Influence, Part, Selection, Span
from explorer.retrieval import ExampleScores
from explorer.trust import NullSample, Redrawn


@runtime_checkable
class Sketched(Protocol):
    """Is answered by the cache's own sketches, in small steps, for any number of people at once.

    What it computes for a question is the question's sketch; all else follows
    from that and the cache, and may be asked for from any thread.
    """

    def ask(self, answer: Answer, selection: Selection) -> None:
        """Compute the question's sketch, unless it is remembered."""

    def recalled(self, answer: Answer, selection: Selection) -> ExampleScores | None:
        """The scores of all examples; None where the question's sketch isn't remembered."""

    def deepened(
        self, answer: Answer, selection: Selection, known: ExampleScores, count: int, among: Sequence[int] | None
    ) -> ExampleScores:
        """The scores with so much more of the cache read that the best `count` among those rows are found."""

    def sketched_values(
        self, answer: Answer, selection: Selection, row: int, score: float
    ) -> NDArray[np.float32] | None:
        """The influence of every response token (G) of an example by cached token sketches; None without these."""

    def sketch_error(self, answer: Answer, selection: Selection) -> float:
        """The standard deviation of the sketch's noise on one score."""

    def influence_steps(self, answer: Answer, selection: Selection, row: int) -> Generator[None, None, Influence]:
        """One example's influence without sketch noise, with its tokens' values, in steps."""


@runtime_checkable
class Combining(Protocol):
    """Is linear in the question's gradient, so that several questions are answered along the sum of theirs."""

    def added(self, total: Any, part: Part) -> Any:
        """A sum of directions, None at first, and another question's direction times its weight."""

    def sum_error(self, parts: Sequence[Part]) -> float:
        """The standard deviation of the sketch's noise on one score of their sum."""

    def along_steps(self, direction: Any, row: int) -> Generator[None, None, Influence]:
        """One example's influence along what `added` gave, without sketch noise, with its tokens' values."""

    def second_along(self, direction: Any, row: int) -> float:
        """The same score by a backward pass of its own."""


@runtime_checkable
class Foreseeing(Protocol):
    """Finds the scores of all single tokens of an answer for less than they cost one by one."""

    def ask_ahead(self, answer: Answer) -> Generator[Sequence[tuple[Selection, ExampleScores]], None, None]:
        """Yield after every step what was found in it."""


@runtime_checkable
class Judging(Protocol):
    """Knows what the examples score on unrelated questions."""

    def null_sample(self, kind: str) -> NullSample | None:
        """The scores on unrelated questions of a kind; None in a cache that doesn't keep them."""

    def size(self, answer: Answer, selection: Selection) -> float:
        """What scores are divided by to be those of a question of length one."""


@runtime_checkable
class Redrawing(Protocol):
    """Knows what other sketch seeds would make of a ranking."""

    def redraw(
        self,
        answer: Answer,
        selection: Selection,
        found: Sequence[Influence],
        shown: int,
        examined: int,
        opponents: bool,
    ) -> Redrawn:
        """See `stability.redrawn`: of the best rows, those found, so many are shown and so many examined."""


@runtime_checkable
class Checking(Protocol):
    """Can compute an example's score a second time, independently of the first."""

    def second_value(self, answer: Answer, selection: Selection, row: int) -> float:
        """The example's score by a backward pass of its own."""


@runtime_checkable
class Locating(Protocol):
    """Knows the other meaning of a token: what of a score passes through its position."""

    def positions(self, answer: Answer, selection: Selection, row: int) -> NDArray[np.float32]:
        """The share of each position of prompt and response (T); they add up to the score."""


@runtime_checkable
class BothWays(Protocol):
    """Knows the swapped direction: what one training example did to every token of an answer."""

    def output_values(self, answer: Answer, row: int, selection: Span | None = None) -> NDArray[np.float32]:
        """The influence of the example, or of some of its response tokens, on every output token (G)."""


ABILITIES: dict[Can, type] = {
    Can.FOUR_INFLUENCES: Sketched,
    Can.NULLS: Judging,
    Can.SEEDS: Redrawing,
    Can.CHECKS: Checking,
    Can.POSITIONS: Locating,
    Can.BOTH_WAYS: BothWays,
}
"""What a method must have that says it can; `Can.TEXTS` needs nothing."""
