"""The methods of one engine, each opened once; their work in steps, and what they found by now.

Only the engine's one worker takes the steps. What is known may be read from any
thread.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from explorer.concurrency import Pause, Recent, Steps, stepwise
from explorer.engine import Engine, check_selection
from explorer.methods.asking import open_method
from explorer.methods.method import Method, NotFitted
from explorer.records import Answer, Influence, Ranking, Selection

_SCORES_BYTES = 1 << 28
"""Memory for the scores of questions asked lately."""


class Cost(Enum):
    """What has to be computed before a method's examples are known."""

    LITTLE = "little"
    """Some passes a question at most."""
    ONCE = "once"
    """Something that is computed once and then kept."""
    EACH = "each"
    """Many passes for every question."""


@dataclass
class Stage:
    """How far work has come; read it from any thread."""

    name: str = ""
    done: int = 0
    total: int = 0
    started: float = field(default_factory=time.monotonic)

    def tell(self, name: str, done: int, total: int) -> None:
        """So much of this stage is done."""
        if name != self.name:
            self.name, self.started = name, time.monotonic()
        self.done, self.total = done, total

    @property
    def share(self) -> float:
        """The share of the stage that is done."""
        return min(self.done / self.total, 1.0) if self.total else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long the rest of the stage will take, if it goes on as it went; None while that can't be said."""
        if self.done < 2 or not self.total:
            return None
        # Times count from the first step's end, when it was told.
        return (time.monotonic() - self.started) * (self.total - self.done) / (self.done - 1)


class Bench:
    """All methods over one engine's cache."""

    def __init__(self, engine: Engine):
        """No method is opened before it is asked for."""
        self.engine = engine
        self._methods: Recent[str, Method] = Recent(32)
        self._busy: set[Method] = set()
        self._fitted: set[str] = set()
        many = max(1, min(256, _SCORES_BYTES // (4 * engine.store.manifest.rows)))
        self._scores: Recent[tuple[str, Selection, str], NDArray[np.float32]] = Recent(many)
        self._exact: Recent[tuple[str, Selection, str, int], Influence] = Recent(8192)

    def method(self, name: str) -> Method:
        """The method of this name. Raises MethodError where there is none."""
        known = self._methods.get(name)
        if known is None:
            known = open_method(self.engine, name)
            self._methods.put(name, known)
        return known

    def cost(self, name: str) -> Cost:
        """What it takes to ask a method. Raises ExplorerError where this cache can't serve it."""
        if name not in self._fitted:
            # Another one, for that one may be at work.
            kept = open_method(self.engine, name)
            kept.kept_alone = True
            try:
                kept.fit()
            except NotFitted:
                return Cost.ONCE
            self._fitted.add(name)
        return Cost.EACH if self.method(name).slow else Cost.LITTLE

    # Work

    def fit(self, name: str, stage: Stage) -> Steps:
        """Compute what a method needs once."""
        yield from self._stepwise(name, stage, lambda method, pause: method.fit())
        self._fitted.add(name)

    def ask(self, name: str, answer: Answer, selection: Selection, stage: Stage) -> Steps:
        """Score all examples by a method, which is fitted first where it isn't."""
        key = answer.id, selection, name
        check_selection(answer, selection)

        def work(method: Method, pause: Pause) -> None:
            if self._scores.get(key) is None:
                self._scores.put(key, method.scores(answer, selection))

        if self._scores.get(key) is None:
            yield from self._stepwise(name, stage, work)

    def refine(self, name: str, answer: Answer, selection: Selection, rows: Sequence[int], stage: Stage) -> Steps:
        """Make examples exact, with token values, where the method has them; needs `ask` first."""
        left = [row for row in rows if self._exact.get((answer.id, selection, name, row)) is None]

        def work(method: Method, pause: Pause) -> None:
            for row in left:
                values = method.values(answer, selection, row)
                if values is not None:
                    found = Influence(row, float(values.mean(dtype=float)), True, values)
                    self._exact.put((answer.id, selection, name, row), found)
                pause()

        if self.method(name).chosen.description.token_values and left:
            yield from self._stepwise(name, stage, work)

    def _stepwise(self, name: str, stage: Stage, work: Callable[[Method, Pause], None]) -> Steps:
        """Do work of a method whose reports are pauses; where it is at work for somebody else, another one does it.

        Waiting for one that is less urgent could last for ever.
        """
        method = self.method(name)
        if method in self._busy:
            method = open_method(self.engine, name)
        self._busy.add(method)

        def reporting(pause: Pause) -> None:
            def report(name: str, done: int, total: int) -> None:
                stage.tell(name, done, total)
                pause()

            method.report = report
            work(method, pause)

        try:
            yield from stepwise(reporting)
        finally:
            method.report = _silent
            self._busy.discard(method)

    # What is known

    def scores(self, name: str, answer: Answer, selection: Selection) -> NDArray[np.float32] | None:
        """The scores of all examples (N) by a method; None before they are."""
        return self._scores.get((answer.id, selection, name))

    def refined(self, name: str, answer: Answer, selection: Selection, rows: Sequence[int]) -> int:
        """How many of these examples have what `refine` finds."""
        if not self.method(name).chosen.description.token_values:
            return len(rows)
        return sum(self._exact.get((answer.id, selection, name, row)) is not None for row in rows)

    def ranking(
        self, name: str, answer: Answer, selection: Selection, rows: Sequence[int], count: int, opponents: bool
    ) -> Ranking | None:
        """The first `count` of these candidates, ordered by their exact values once all of them are known."""
        scores = self.scores(name, answer, selection)
        if scores is None:
            return None
        shown = list(self.influences(name, answer, selection, rows))
        if self.refined(name, answer, selection, rows) == len(rows):
            shown.sort(key=lambda influence: influence.score, reverse=not opponents)
        return Ranking(answer.id, selection, opponents, scores, tuple(shown[:count]), 0.0, method=name)

    def influences(self, name: str, answer: Answer, selection: Selection, rows: Sequence[int]) -> tuple[Influence, ...]:
        """What these examples have to do with a question, exact where that is known; none before it was asked."""
        scores = self.scores(name, answer, selection)
        if scores is None:
            return ()
        exact = (self._exact.get((answer.id, selection, name, row)) for row in rows)
        precise = self.method(name).exact
        return tuple(
            found or Influence(row, float(scores[row]), precise, None) for row, found in zip(rows, exact, strict=True)
        )


def _silent(name: str, done: int, total: int) -> None:
    """Nobody listens."""
