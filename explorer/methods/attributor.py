"""One method over one cache, and the memory of what it found: the one way to ask any method about an answer.

What computes yields between bounded steps, and only the engine's one worker
takes these. What is known by now may be read from any thread. It never asks
which method it has, but what the method can do (`abilities`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from explorer import gradients
from explorer.concurrency import Pause, Recent, Steps, stepwise
from explorer.engine import NOT_ASKED, check_selection
from explorer.errors import MethodError, PromptError
from explorer.methods.abilities import (
    BothWays,
    Checking,
    Foreseeing,
    Judging,
    Locating,
    Redrawing,
    Sketched,
)
from explorer.methods.method import Cost, Method, NotFitted, Stage
from explorer.records import Answer, Contrast, Influence, Ranking, Selection, Span, relative_difference
from explorer.retrieval import ExampleScores, best, ranked
from explorer.trust import NullSample, Redrawn, judged, kind_of
from explorer.trust.significance import RAISED
from explorer.trust.stability import POOL
from explorer.trust.verdict import LEAST_PROMPTS, State, state_of

SPARE = 20
"""So many more candidates than are shown are made exact: their scores may have ranked them too low."""
_SCORES_BYTES = 1 << 28
"""Memory for the scores of questions asked lately."""

Asked = tuple[str, str, Selection]
"""A method's name, an answer's id, and what is selected of it."""
Scores = ExampleScores | NDArray[np.float32]
"""As the cache's levels give them, or as a method has them (N)."""


class Memory:
    """What was found lately, whichever method found it."""

    def __init__(self, rows: int, before: "Memory | None" = None):
        """For scores of so many examples. What was `before` made exact of the first ones of them stays known."""
        self.scores: Recent[Asked, Scores] = Recent(max(1, min(512, _SCORES_BYTES // (9 * rows))))
        self.exact: Recent[tuple[Asked, int], Influence] = before.exact if before else Recent(16384)
        self.states: Recent[Asked, State] = Recent(4096)


class Attributor:
    """A method that can be asked about answers."""

    def __init__(self, method: Method, memory: Memory | None = None):
        """Several methods over one engine may share a memory."""
        self.method, self.engine, self.chosen = method, method.engine, method.chosen
        self._memory = memory or Memory(method.engine.store.manifest.rows)
        self._busy, self._fitted = False, False

    def cost(self) -> Cost:
        """What it takes to ask it. Raises ExplorerError where this cache can't serve it."""
        if not self._fitted:
            # Another one, for this one may be at work.
            kept = self.method.another()
            kept.kept_alone = True
            try:
                kept.fit()
            except NotFitted:
                return Cost.ONCE
            self._fitted = True
        return Cost.EACH if self.method.slow else Cost.LITTLE

    # Work, in steps

    def fit_steps(self, stage: Stage) -> Steps:
        """Compute what the method needs once."""
        yield from self._stepwise(stage, lambda method: method.fit())
        self._fitted = True

    def ask_steps(self, answer: Answer, selection: Selection, stage: Stage | None = None) -> Steps:
        """Score all examples, unless that is known; the method is fitted first where it isn't."""
        check_selection(answer, selection)
        if isinstance(self.method, Sketched):
            self._find_raised(answer, selection)
            self.method.ask(answer, selection)
            yield
        elif not self.known(answer, selection):
            yield from self._stepwise(stage or Stage(), lambda method: self._score(method, answer, selection))

    def ask_ahead(self, answer: Answer) -> Steps:
        """Score all examples for every single token of the answer, where that is to be had together and isn't known."""
        tokens = ((j, j + 1) for j in range(len(answer.tokens)))
        if isinstance(self.method, Foreseeing) and not all(self.known(answer, token) for token in tokens):
            self._find_raised(answer, (0, 1))
            for found in self.method.ask_ahead(answer):
                for selection, scores in found:
                    self._memory.scores.put(self._asked(answer, selection), scores)
                yield

    def refine_steps(
        self, answer: Answer, selection: Selection, rows: Sequence[int], stage: Stage | None = None
    ) -> Steps:
        """Make examples exact, with token values, where the method has them; needs `ask_steps` first."""
        for row in rows:
            if self._exact(answer, selection, row) is None and isinstance(self.method, Sketched):
                self._keep(answer, selection, (yield from self.method.influence_steps(answer, selection, row)))
                yield
            elif self._exact(answer, selection, row) is None and self.chosen.token_values:
                work = partial(self._refine, answer=answer, selection=selection, row=row)
                yield from self._stepwise(stage or Stage(), work)
                yield

    def _stepwise(self, stage: Stage, work: Callable[[Method], None]) -> Steps:
        """Do work of the method whose reports are pauses; where it is at work for somebody else, another one does it.

        Waiting for one that is less urgent could last for ever.
        """
        method, own = (self.method.another(), False) if self._busy else (self.method, True)
        self._busy |= own
        before = method.report

        def reporting(pause: Pause) -> None:
            def report(name: str, done: int, total: int) -> None:
                stage.tell(name, done, total)
                pause()

            method.report = report
            work(method)

        try:
            yield from stepwise(reporting)
        finally:
            method.report = before
            if own:
                self._busy = False

    # Work, at once

    def ask(self, answer: Answer, selection: Selection) -> None:
        """Score all examples, unless that is known."""
        check_selection(answer, selection)
        if isinstance(self.method, Sketched):
            self._find_raised(answer, selection)
            self.method.ask(answer, selection)
        elif not self.known(answer, selection):
            self._score(self.method, answer, selection)

    def refine(self, answer: Answer, selection: Selection, row: int) -> Influence:
        """One example, exact where the method has exact values."""
        found = self._exact(answer, selection, row)
        if found is None and isinstance(self.method, Sketched):
            found = gradients.finished(self.method.influence_steps(answer, selection, row))
            self._keep(answer, selection, found)
        elif found is None and self.chosen.token_values:
            self._refine(self.method, answer, selection, row)
        return self._exact(answer, selection, row) or self.influences(answer, selection, [row])[0]

    def check(self, answer: Answer, selection: Selection, row: int) -> Influence:
        """An exact influence with its checksum: the score beside another computation of it, if the method has one."""
        found = self.refine(answer, selection, row)
        if found.checksum is None and isinstance(self.method, Checking):
            second = self.method.second_value(answer, selection, row)
            found = replace(found, checksum=relative_difference(found.score, second))
            self._keep(answer, selection, found)
        return found

    def locate(self, answer: Answer, selection: Selection, row: int) -> Influence:
        """The exact influence with the other meaning of a token: what of it passes through each position.

        The example's prompt has its share too. Raises UnsupportedError where a
        trainable tensor's gradient isn't a sum over positions.
        """
        found = self.refine(answer, selection, row)
        if found.positions is None and isinstance(self.method, Locating):
            found = replace(found, positions=self.method.positions(answer, selection, row))
            self._keep(answer, selection, found)
        return found

    def output_values(self, answer: Answer, row: int, selection: Span | None = None) -> NDArray[np.float32]:
        """The swapped direction: influence of an example, or of some of its tokens, on every output token (G).

        Raises MethodError where the method doesn't know it.
        """
        if not isinstance(self.method, BothWays):
            raise MethodError(f"{self.chosen.name} can't say what one example did to each token of an answer.")
        return self.method.output_values(answer, row, selection)

    def redraw(
        self,
        answer: Answer,
        selection: Selection,
        rows: Sequence[int],
        shown: int,
        examined: int,
        opponents: bool,
    ) -> Redrawn | None:
        """What other sketch seeds would make of a question's best rows; None where the method can't say."""
        if not isinstance(self.method, Redrawing):
            return None
        found = self.influences(answer, selection, rows[:POOL])
        return self.method.redraw(answer, selection, found, shown, examined, opponents)

    def exact_ranking(
        self,
        answer: Answer,
        selection: Selection,
        count: int = 10,
        opponents: bool = False,
        approximate: bool = False,
        among: Sequence[int] | None = None,
    ) -> Ranking:
        """The ranking with all candidates made exact first, unless `approximate`; of some rows alone with `among`."""
        self.ask(answer, selection)
        if not approximate and self.chosen.token_values:
            rows = self.candidates(answer, selection, count, opponents, among)
            for done, row in enumerate(rows, start=1):
                self.refine(answer, selection, row)
                self.method.report("exact values", done, len(rows))
        return self.ranking(answer, selection, count, opponents, among)

    # What is known

    def known(self, answer: Answer, selection: Selection) -> bool:
        """Whether `ranking` can answer at once."""
        if isinstance(self.method, Sketched):
            return self.engine.known(answer, selection)
        return self._memory.scores.get(self._asked(answer, selection)) is not None

    def scores(self, answer: Answer, selection: Selection) -> NDArray[np.float32] | None:
        """The scores of all examples (N); None before they are known."""
        found = self._scores(answer, selection)
        return None if found is None else _values(found)

    def whole_scores(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """The scores (N) of a question that is known, all by full sketches, of a cache answered by a cascade, too."""
        found = self._required(answer, selection)
        coarse = isinstance(found, ExampleScores) and found.length < self.engine.store.manifest.settings.length
        return self.method.scores(answer, selection) if coarse else _values(found)

    def null_sample(self, kind: str) -> NullSample | None:
        """What the examples score on unrelated questions of a kind; None where that isn't known."""
        return self.method.null_sample(kind) if isinstance(self.method, Judging) else None

    def state(self, answer: Answer, word: Span) -> State | None:
        """How strong the evidence is for a word that fine-tuning raised.

        It is compared with the most raised words of unrelated answers, which are
        the harder test for any other one. None before the word's scores are
        known, or where the cache has too few such words.
        """
        asked = self._asked(answer, word)
        if (known := self._memory.states.get(asked)) is not None:
            return known
        null, scores = self.null_sample(RAISED), self.scores(answer, word)
        if not null or null.prompts < LEAST_PROMPTS or scores is None:
            return None
        found = state_of(null.test(scores / self.size(answer, word), False))
        self._memory.states.put(asked, found)
        return found

    def null_of(self, answer: Answer, selection: Selection) -> NullSample | None:
        """The null sample of questions like this one; a raised word's, where the cache knows any."""
        if self.null_sample(RAISED):
            return self.null_sample(kind_of(answer.tokens, selection, self.engine.raised(answer)))
        return self.null_sample(kind_of(answer.tokens, selection))

    def _find_raised(self, answer: Answer, selection: Selection) -> None:
        """Know which word fine-tuning raised most before one is asked about: another null sample may be its."""
        if selection is not None and not isinstance(selection, Contrast) and self.null_sample(RAISED):
            self.engine.predict(answer)

    def size(self, answer: Answer, selection: Selection) -> float:
        """What scores are divided by to be those of a question of length one; 1 where the method has no such length."""
        return self.method.size(answer, selection) if isinstance(self.method, Judging) else 1.0

    def candidates(
        self,
        answer: Answer,
        selection: Selection,
        count: int = 10,
        opponents: bool = False,
        among: Sequence[int] | None = None,
    ) -> list[int]:
        """The rows worth making exact before `count` of them are shown: those with the best scores, best first."""
        known, wanted = self._required(answer, selection), count + SPARE
        if isinstance(known, ExampleScores) and isinstance(self.method, Sketched):
            deeper = self.method.deepened(answer, selection, known, wanted, among)
            if deeper is not known:
                self._memory.scores.put(self._asked(answer, selection), deeper)
            return [int(row) for row in best(deeper, wanted, opponents, among)]
        assert isinstance(known, np.ndarray)
        return ranked(known, wanted, opponents, among).tolist()

    def ranking(
        self,
        answer: Answer,
        selection: Selection,
        count: int = 10,
        opponents: bool = False,
        among: Sequence[int] | None = None,
    ) -> Ranking:
        """The `count` most influential examples, exact where that is known.

        Which ones are shown follows the scores of all examples until all candidates
        are exact, then the exact scores; their order is always that of the scores
        shown. Raises PromptError for a question that isn't known.
        """
        candidates = self.candidates(answer, selection, count, opponents, among)
        found = self._required(answer, selection)
        shown = list(self.influences(answer, selection, candidates))
        if self.progress(answer, selection, candidates) < len(candidates):
            shown = shown[:count]
        shown.sort(key=lambda influence: influence.score, reverse=not opponents)
        error = coarse = 0.0
        if isinstance(found, ExampleScores) and isinstance(self.method, Sketched):
            error = self.method.sketch_error(answer, selection)
            shorter = self.engine.store.manifest.settings.length / found.length
            coarse = error * float(np.sqrt(shorter)) if shorter > 1 else 0.0
        ranking = Ranking(
            answer.id,
            selection,
            opponents,
            _values(found),
            tuple(shown[:count]),
            error,
            coarse_error=coarse,
            method=self.chosen,
        )
        null = self.null_of(answer, selection)
        return judged(ranking, null, self.size(answer, selection)) if null else ranking

    def influences(self, answer: Answer, selection: Selection, rows: Sequence[int]) -> tuple[Influence, ...]:
        """What these examples have to do with a question that is known, exact where that is."""
        values = _values(self._required(answer, selection))
        return tuple(self._influence(answer, selection, row, float(values[row])) for row in rows)

    def progress(self, answer: Answer, selection: Selection, rows: Sequence[int]) -> int:
        """How many of the rows are as exact as they can be by now."""
        if not self.chosen.token_values:
            return len(rows)
        return sum(self._exact(answer, selection, row) is not None for row in rows)

    def _influence(self, answer: Answer, selection: Selection, row: int, score: float) -> Influence:
        exact = self._exact(answer, selection, row)
        if exact is not None:
            return exact
        values = None
        if isinstance(self.method, Sketched):
            values = self.method.sketched_values(answer, selection, row, score)
        return Influence(row, score, self.method.exact, values)

    def _required(self, answer: Answer, selection: Selection) -> Scores:
        found = self._scores(answer, selection)
        if found is None:
            raise PromptError(NOT_ASKED)
        return found

    def _scores(self, answer: Answer, selection: Selection) -> Scores | None:
        asked = self._asked(answer, selection)
        found = self._memory.scores.get(asked)
        if found is None and isinstance(self.method, Sketched):
            found = self.method.recalled(answer, selection)
            if found is not None:
                self._memory.scores.put(asked, found)
        return found

    def _score(self, method: Method, answer: Answer, selection: Selection) -> None:
        self._memory.scores.put(self._asked(answer, selection), method.scores(answer, selection))

    def _refine(self, method: Method, answer: Answer, selection: Selection, row: int) -> None:
        values = method.values(answer, selection, row)
        if values is not None:
            self._keep(answer, selection, Influence(row, float(values.mean(dtype=float)), True, values))

    def _exact(self, answer: Answer, selection: Selection, row: int) -> Influence | None:
        return self._memory.exact.get((self._asked(answer, selection), row))

    def _keep(self, answer: Answer, selection: Selection, found: Influence) -> None:
        self._memory.exact.put((self._asked(answer, selection), found.row), found)

    def _asked(self, answer: Answer, selection: Selection) -> Asked:
        return self.chosen.name, answer.id, selection


def _values(scores: Scores) -> NDArray[np.float32]:
    """The scores of all examples (N), each as well as it is known."""
    return scores.values if isinstance(scores, ExampleScores) else scores
