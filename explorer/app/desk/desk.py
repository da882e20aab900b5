"""Where browsers hand in their questions: the engine's work, scheduled on the one worker.

Streamlit is unknown here. Every browser session has a name; its newer question
of a kind replaces its older one.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace

from explorer.app.desk.work import Asking, Auditing, Explaining, Finding, Fitting, Found, Question
from explorer.auditing.run import AuditSettings, Keep, audit
from explorer.concurrency import Recent, Steps, Task, Urgency, Worker
from explorer.corpus import Corpus, Filter, Fold
from explorer.engine import SPARE, Engine
from explorer.errors import ExplorerError, PromptError
from explorer.evaluation import measuring
from explorer.evaluation.measuring import Measured
from explorer.history import Origin
from explorer.methods import matrix
from explorer.methods.bench import Bench, Cost, Stage
from explorer.model.generation import GenerationSettings
from explorer.records import (
    OWN_METHOD,
    Answer,
    Contrast,
    Influence,
    OutputValues,
    Prediction,
    Ranking,
    Selection,
    Span,
    TokenMatrix,
)
from explorer.retrieval import ranked
from explorer.trust import Redrawn, steadied
from explorer.trust.stability import POOL

Key = tuple[str, Selection, bool, int, Filter, str]
"""What tells questions apart whose candidates may differ."""


def _key(question: Question) -> Key:
    asked = question.answer.id, question.selection, question.opponents
    return (*asked, question.count, question.wanted, question.method)


ABSENT = 20.0
"""Seconds after which a session that was not heard of is taken for a closed tab; its page polls far more often."""
WIDEST = 16
"""So many times as many rows as are wanted are looked through for examples that differ."""


class Desk:
    """One engine for all browsers, and the worker that uses it."""

    def __init__(self, engine: Engine, worker: Worker | None = None):
        """Begin what is done before anyone asks; several desks may share a worker."""
        self.engine = engine
        self.corpus = Corpus(engine.store.examples)
        self.bench = Bench(engine)
        self.worker = worker or Worker()
        self._folds: Recent[Key, list[Fold]] = Recent(256)
        self._redrawn: Recent[Key, Redrawn] = Recent(256)
        self._heard: Recent[str, float] = Recent(1024)
        self.worker.submit(self.corpus, Urgency.AHEAD, self.corpus.prepare())

    def ask(self, session: str, prompt: str, settings: GenerationSettings) -> Asking:
        """Begin an answer, and the gradient of its whole response after it."""
        return self._begin(session, prompt, settings, self.engine.answer(prompt, settings))

    def attribute(self, session: str, prompt: str, response: str) -> Asking:
        """Take a response from elsewhere as the answer, and begin its gradient."""
        # Made when the worker comes to it: the tokenizer is the worker's, too.
        return self._begin(session, prompt, None, (self.engine.given_answer(prompt, response) for _ in range(1)))

    def reopen(self, session: str, answer: Answer, settings: GenerationSettings | None) -> Asking:
        """Look at an answer again that was kept, however it came about."""
        return self._begin(session, answer.prompt, settings, iter([answer]))

    def _begin(
        self, session: str, prompt: str, settings: GenerationSettings | None, answers: Iterator[Answer]
    ) -> Asking:
        asking: Asking

        def steps() -> Steps:
            for answer in answers:
                asking.answer = replace(answer, finished=answer.finished or asking.stopped)
                if asking.answer.finished:
                    break
                yield
            if asking.answer is not None:
                self.engine.ask(asking.answer, None)
                self._foresee(session, asking.answer)

        for kind in (
            "asked",
            "refined",
            "checked",
            "foreseen",
            "predicted",
            "contrasted",
            "coloured",
            "tabulated",
            "agreed",
        ):
            self.worker.cancel((session, kind))
        asking = Asking(self.worker.prepare((session, "answer"), Urgency.ASKED, steps()), prompt, settings)
        self.worker.start(asking.task)
        return asking

    def _foresee(self, session: str, answer: Answer) -> None:
        """Begin the gradients of all single tokens: any of them may be clicked next.

        Takes turns with the refining of what is shown, once an answer, so that clicks neither wait for that nor begin
        this again.
        """
        self.attend(session)
        # In a busy explorer a token is computed when it is clicked.
        with suppress(ExplorerError):
            self.attended((session, "foreseen"), Urgency.REFINING, self.engine.ask_ahead(answer))

    def explain(self, session: str, *questions: Question) -> Explaining:
        """Find the examples behind questions of one selection, make them exact, then check what is shown.

        What comes after the first view goes on for as long as `attend` is called. Raises ExplorerError when too
        much is waiting already.
        """
        if questions[0].method != OWN_METHOD:
            return self._explain_by(session, questions)
        answer, selection = questions[0].answer, questions[0].selection
        asked = None
        self.attend(session)
        self.worker.cancel((session, "asked"))
        if not self.engine.known(answer, selection):
            asked = self.worker.submit((session, "asked"), Urgency.ASKED, self.ask_steps(questions[0], Stage()))
        refined = self.attended((session, "refined"), Urgency.REFINING, self._refined(questions))
        checked = self.attended((session, "checked"), Urgency.AHEAD, self._checked(questions))
        return Explaining(questions, asked, refined, checked)

    def _explain_by(self, session: str, questions: tuple[Question, ...]) -> Explaining:
        """The same by another method: what is quick goes first, what isn't takes turns and ends with its tab."""
        one, stage = questions[0], Stage()
        self.attend(session)
        self.worker.cancel((session, "checked"))
        self.worker.cancel((session, "asked"))
        asked = None
        if self.bench.scores(one.method, one.answer, one.selection) is None:
            steps = self.bench.ask(one.method, one.answer, one.selection, stage)
            if self.bench.cost(one.method) is Cost.LITTLE:
                asked = self.worker.submit((session, "asked"), Urgency.ASKED, steps)
            else:
                asked = self.attended((session, "asked"), Urgency.REFINING, steps)

        def refine() -> Steps:
            while asked is not None and not asked.finished:
                yield
            for question in questions:
                if self.bench.scores(one.method, one.answer, one.selection) is not None:
                    rows = self._candidates(question)
                    yield from self.bench.refine(one.method, one.answer, one.selection, rows, stage)

        refined = self.attended((session, "refined"), Urgency.REFINING, refine())
        return Explaining(questions, asked, refined, refined, stage)

    def fit(self, session: str, method: str) -> Fitting:
        """Compute what a method needs once; it gives way to whatever anyone waits for, and goes on unattended."""
        stage = Stage()
        steps = self.bench.fit(method, stage)
        return Fitting(self.worker.submit((session, "fitted"), Urgency.BATCH, steps), method, stage)

    def attend(self, session: str) -> None:
        """Say that a person of this session looks on, so that the work behind what is shown goes on."""
        self._heard.put(session, time.monotonic())

    def attended(self, key: tuple[str, str], urgency: Urgency, steps: Steps) -> Task:
        """Begin work that is cancelled once its session is not heard of any more: a closed tab holds nobody up."""

        def while_heard() -> Steps:
            # Closed with this, so that what it holds is free for others at once.
            with closing(steps):
                for _ in steps:
                    if time.monotonic() - (self._heard.get(key[0]) or 0.0) > ABSENT:
                        self.worker.cancel(key)
                    yield

        return self.worker.submit(key, urgency, while_heard())

    def predict(self, session: str, answer: Answer, urgency: Urgency = Urgency.ASKED) -> Finding[Prediction]:
        """Find what the model expected at each token of an answer."""
        return self._find((session, "predicted"), urgency, (self.engine.predict(answer) for _ in range(1)))

    def contrast(self, session: str, answer: Answer, span: Span, text: str) -> Finding[Contrast]:
        """Find the tokens of a word that might have stood in a span's place."""
        contrasts = (self.engine.contrast(answer, span, text) for _ in range(1))
        return self._find((session, "contrasted"), Urgency.ASKED, contrasts)

    def output_values(self, session: str, answer: Answer, row: int) -> Finding[OutputValues]:
        """Find what one training example did to every token of an answer."""
        return self._find((session, "coloured"), Urgency.ASKED, matrix.output_values(self.engine, answer, row))

    def tabulate(
        self, session: str, answer: Answer, span: Span | None, row: int, positions: bool
    ) -> Finding[TokenMatrix]:
        """Find the matrix of one training example; `matrix.passes` says in how many steps."""
        lines = matrix.token_matrix(self.engine, answer, span, row, positions)
        return self._find((session, "tabulated"), Urgency.REFINING, lines)

    def measure(self, session: str) -> Finding[Measured]:
        """Measure how true the cache's sketches are and how long its questions take; gives way to everyone."""
        return self._find((session, "measured"), Urgency.BATCH, measuring.measure(self.engine))

    def audit(
        self, session: str, prompts: Sequence[str], settings: AuditSettings, origin: Origin, keep: Keep
    ) -> Auditing:
        """Begin an audit, which gives way to whatever a person waits for; `keep` is called from the worker's thread."""
        auditing: Auditing
        self.bench.cost(settings.method)  # Refuses what this cache can't serve.

        def steps() -> Steps:
            for found in audit(self.bench, prompts, settings, origin, keep, auditing.stage):
                if found is not None:
                    auditing.done.append(found)
                yield

        auditing = Auditing(self.worker.prepare((session, "audit"), Urgency.BATCH, steps()), prompts, settings)
        self.worker.start(auditing.task)
        return auditing

    def _find(self, key: tuple[str, str], urgency: Urgency, results: Iterator[Found | None]) -> Finding[Found]:
        finding: Finding[Found]

        def steps() -> Steps:
            for found in results:
                finding.found, finding.done = found, finding.done + 1
                yield

        finding = Finding(self.worker.prepare(key, urgency, steps()))
        self.worker.start(finding.task)
        return finding

    def ranking(self, question: Question) -> Ranking | None:
        """The examples behind a question as far as they are known now; None before its gradient is.

        No two of them are near-duplicates; `folds` tells what each stands for.
        """
        if not self.known(question):
            return None
        answer, selection, candidates = question.answer, question.selection, self._candidates(question)
        found = self.ranking_among(question, candidates)
        if found is None or question.method != OWN_METHOD:
            return found
        names = [name for name, _ in self.engine.store.manifest.training.checkpoints]
        complete = len(names) > 1 and self.engine.progress(answer, selection, candidates) == len(candidates)
        exact = self.engine.influences(answer, selection, candidates) if complete else ()
        return steadied(found, self.redrawn(question), names, exact)

    def known(self, question: Question) -> bool:
        """Whether all examples have scores for a question."""
        if question.method == OWN_METHOD:
            return self.engine.known(question.answer, question.selection)
        return self.bench.scores(question.method, question.answer, question.selection) is not None

    def ranking_among(self, question: Question, candidates: Sequence[int]) -> Ranking | None:
        """The best of these candidates for a question; None before it is known."""
        answer, selection, method = question.answer, question.selection, question.method
        if not self.known(question):
            return None
        if method == OWN_METHOD:
            return self.engine.ranking(answer, selection, question.count, question.opponents, candidates)
        return self.bench.ranking(method, answer, selection, candidates, question.count, question.opponents)

    def influences(self, question: Question, rows: Sequence[int]) -> tuple[Influence, ...]:
        """What these examples have to do with a question that is known, exact where that is."""
        if question.method == OWN_METHOD:
            return self.engine.influences(question.answer, question.selection, rows)
        return self.bench.influences(question.method, question.answer, question.selection, rows)

    def ask_steps(self, question: Question, stage: Stage) -> Steps:
        """The work of scoring all examples for a question."""
        if question.method != OWN_METHOD:
            yield from self.bench.ask(question.method, question.answer, question.selection, stage)
            return
        self.engine.ask(question.answer, question.selection)
        yield

    def refine_steps(self, question: Question, rows: Sequence[int], stage: Stage) -> Steps:
        """The work of making these examples exact."""
        if question.method != OWN_METHOD:
            yield from self.bench.refine(question.method, question.answer, question.selection, rows, stage)
            return
        for row in rows:
            yield from self.engine.refine_steps(question.answer, question.selection, row)
            yield

    def exact_count(self, question: Question, rows: Sequence[int]) -> int:
        """How many of these examples are exact."""
        if question.method != OWN_METHOD:
            return self.bench.refined(question.method, question.answer, question.selection, rows)
        return self.engine.progress(question.answer, question.selection, rows)

    def redrawn(self, question: Question) -> Redrawn | None:
        """What other sketch seeds would make of the ranking; None while it isn't known."""
        return self._redrawn.get(_key(question))

    def progress(self, question: Question) -> tuple[int, int]:
        """How many candidates are exact, of how many."""
        candidates = self._candidates(question)
        return self.exact_count(question, candidates), len(candidates)

    def rows(self, question: Question) -> list[int] | None:
        """The rows that pass the question's filter; None for all."""
        return self.corpus.rows(question.wanted)

    def folds(self, question: Question) -> list[Fold]:
        """The candidates in the sketches' order, near-duplicates folded into the first of them.

        As many as the engine takes for candidates, where there are so many that
        differ among the first rows.
        """
        key = _key(question)
        known = self._folds.get(key)
        if known is not None:
            return known
        found, wanted = list[Fold](), 0
        for times in (2**power for power in range(WIDEST.bit_length())):
            rows = self._best(question, times * question.count)
            wanted = wanted or len(rows)
            found = self.corpus.folds(rows, wanted)
            if len(found) == wanted or len(rows) < times * question.count:
                break
        self._folds.put(key, found)
        return found

    def _best(self, question: Question, count: int) -> list[int]:
        """So many rows and some to spare that a question's scores put first."""
        answer, selection, among = question.answer, question.selection, self.rows(question)
        if question.method == OWN_METHOD:
            return self.engine.candidates(answer, selection, count, question.opponents, among)
        scores = self.bench.scores(question.method, answer, selection)
        if scores is None:
            raise PromptError("This question was not computed yet, or long ago; ask it again.")
        return ranked(scores, count + SPARE, question.opponents, among).tolist()

    def _candidates(self, question: Question) -> list[int]:
        return [fold.row for fold in self.folds(question)]

    def _refined(self, questions: tuple[Question, ...]) -> Steps:
        for question in questions:
            self.engine.ask(question.answer, question.selection)
            yield
            self._redraw(question)
            yield
            for row in self._candidates(question):
                yield from self.engine.refine_steps(question.answer, question.selection, row)
                yield
            # Around exact scores now, where around the sketches' own at first.
            self._redraw(question)
            yield
            if question.positions:
                for row in self._shown(question):
                    self.engine.locate(question.answer, question.selection, row)
                    self.engine.sequence(row)
                    yield

    def _redraw(self, question: Question) -> None:
        """Draw other seeds' scores for the candidates and the best of those behind them, folded ones left out."""
        folds = self.folds(question)
        candidates = [fold.row for fold in folds]
        if not candidates:
            return
        known = {row for fold in folds for row in (fold.row, *fold.others)}
        answer, selection, opponents = question.answer, question.selection, question.opponents
        best = self.engine.candidates(answer, selection, POOL - SPARE, opponents, self.rows(question))
        pool = [*candidates, *(row for row in best if row not in known)]
        found = self.engine.redraw(answer, selection, pool, question.count, len(candidates), opponents)
        self._redrawn.put(_key(question), found)

    def _checked(self, questions: tuple[Question, ...]) -> Steps:
        """The checksums of what is shown."""
        answer, selection = questions[0].answer, questions[0].selection
        self.engine.ask(answer, selection)
        yield
        for question in questions:
            for row in self._shown(question):
                self.engine.check(answer, selection, row)
                yield

    def _shown(self, question: Question) -> list[int]:
        ranking = self.ranking(question)
        return [influence.row for influence in ranking.influences] if ranking else []
