"""Where browsers hand in their questions: the engine's work, scheduled on the one worker.

Streamlit is unknown here. Every browser session has a name; its newer question
of a kind replaces its older one.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial

from explorer.app.desk.work import Asking, Auditing, Explaining, Finding, Fitting, Found, Question
from explorer.auditing.behaviour import Asked, Behaviour, BehaviourSettings, behaviour_steps
from explorer.auditing.run import AuditSettings, Keep, audit
from explorer.cache import Store
from explorer.concurrency import Place, Recent, Steps, Task, Urgency, Worker
from explorer.corpus import Corpus, Filter, Fold
from explorer.engine import Engine
from explorer.errors import ExplorerError
from explorer.evaluation import measuring
from explorer.evaluation.measuring import Measured
from explorer.history import Origin
from explorer.methods import matrix
from explorer.methods.attributor import SPARE, Attributor
from explorer.methods.bench import Bench
from explorer.methods.combined import differing
from explorer.methods.description import DEFAULT, choose
from explorer.methods.method import Cost, Stage
from explorer.model.generation import GenerationSettings
from explorer.records import (
    Answer,
    Can,
    Chosen,
    Contrast,
    Conversation,
    Influence,
    OutputValues,
    Prediction,
    Prompt,
    Ranking,
    Selection,
    Span,
    TokenMatrix,
)
from explorer.trust import Redrawn, Verdict, steadied, verdict_of
from explorer.trust.marks import Mark, marks
from explorer.trust.stability import POOL

Key = tuple[str, Selection, bool, int, Filter, str]
"""What tells questions apart whose candidates may differ."""


def _key(question: Question) -> Key:
    asked = question.answer.id, question.selection, question.opponents
    return (*asked, question.count, question.wanted, question.method.name)


ABSENT = 30.0
"""Seconds after which a session that was not heard of is taken for a closed tab; its page asks more often."""
WIDEST = 16
"""So many times as many rows as are wanted are looked through for examples that differ."""


class Desk:
    """One engine for all browsers, and the worker that uses it."""

    def __init__(self, engine: Engine, worker: Worker | None = None, before: Bench | None = None):
        """Begin what is done before anyone asks; several desks may share a worker.

        `before` knows what was found of the same cache before it had grown.
        """
        self.engine = engine
        self.corpus = Corpus(engine.store.examples)
        self.bench = Bench(engine, before)
        self.own = self.bench.of(choose(DEFAULT))
        self.worker = worker or Worker()
        self._folds: Recent[Key, list[Fold]] = Recent(256)
        self._redrawn: Recent[Key, Redrawn] = Recent(256)
        self._heard: Recent[str, float] = Recent(1024)
        self._fitting: Recent[str, Task] = Recent(1024)
        self.preparing = self.worker.submit(self.corpus, Urgency.REFINING, self.corpus.prepare())
        """Until it has finished, more will be known of the corpus."""

    def over(self, store: Store) -> "Desk":
        """A desk over the cache as it has grown; work that was begun here ends where its page asks there."""
        return Desk(self.engine.over(store), self.worker, self.bench)

    def ask(self, session: str, prompt: Prompt, settings: GenerationSettings, choose: bool = True) -> Asking:
        """Begin an answer, and after it the gradients of what will be asked first.

        With `choose` that is the word which fine-tuning raised most, before the whole response.
        """
        return self._begin(
            session, prompt, settings, self.engine.answer(prompt, settings), choose, urgency=Urgency.ANSWERING
        )

    def attribute(self, session: str, prompt: Prompt, response: str, choose: bool = True) -> Asking:
        """Take a response from elsewhere as the answer, and begin its gradients; see `ask`."""
        # Made when the worker comes to it: the tokenizer is the worker's, too.
        given = (self.engine.given_answer(prompt, response) for _ in range(1))
        return self._begin(session, prompt, None, given, choose)

    def reopen(
        self, session: str, answer: Answer, settings: GenerationSettings | None, selection: Selection = None
    ) -> Asking:
        """Look at an answer again that was kept, however it came about, and at what was selected of it."""
        return self._begin(session, answer.asked, settings, iter([answer]), choose=False, first=selection)

    def _begin(
        self,
        session: str,
        prompt: Prompt,
        settings: GenerationSettings | None,
        answers: Iterator[Answer],
        choose: bool,
        first: Selection = None,
        urgency: Urgency = Urgency.ASKED,
    ) -> Asking:
        asking: Asking

        def steps() -> Steps:
            for answer in answers:
                asking.answer = replace(answer, finished=answer.finished or asking.stopped)
                yield
                if asking.answer.finished:
                    break
            if (complete := asking.answer) is None:
                return
            asking.task.urgency = Urgency.ASKED
            if choose:
                asking.raised = self.engine.raised_word(complete)
            asking.settled = True
            yield
            for selection in (first or asking.raised, None):
                self.engine.ask(complete, selection)
                yield
            self._foresee(session, complete)

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
        task = self.worker.prepare((session, "answer"), urgency, steps())
        asking = Asking(task, Conversation.of(prompt), settings, settled=not choose)
        self.worker.start(asking.task)
        return asking

    def _foresee(self, session: str, answer: Answer) -> None:
        """Begin the gradients of all single tokens: any of them may be clicked next.

        Takes turns with the refining of what is shown, once an answer, so that clicks neither wait for that nor begin
        this again.
        """
        self.attend(session)
        if (fitting := self._fitting.get(session)) is not None and not fitting.finished:
            return
        # In a busy explorer a token is computed when it is clicked.
        with suppress(ExplorerError):
            self.attended((session, "foreseen"), Urgency.REFINING, self.own.ask_ahead(answer))

    def place(self, *tasks: Task | None) -> Place | None:
        """Where the work stands that someone waits for: the first of these tasks that is in a line."""
        return next((place for task in tasks if task and (place := self.worker.place(task))), None)

    def of(self, question: Question) -> Attributor:
        """Who answers a question: its method over this cache. Raises MethodError where there is no such method."""
        return self.bench.of(question.method)

    def explain(self, session: str, *questions: Question) -> Explaining:
        """Find the examples behind questions of one selection, make them exact, then check what is shown.

        What is quick goes first; what isn't takes turns and ends with its tab. What comes after the first view goes
        on for as long as `attend` is called. Raises ExplorerError when too much is waiting already.
        """
        one, stage, asked = questions[0], Stage(), None
        method = self.of(one)
        self.attend(session)
        self.worker.cancel((session, "checked"))
        self.worker.cancel((session, "asked"))
        quick = method.cost() is Cost.LITTLE
        if not method.known(one.answer, one.selection):
            steps = method.ask_steps(one.answer, one.selection, stage)
            if quick:
                asked = self.worker.submit((session, "asked"), Urgency.ASKED, steps)
            else:
                asked = self.attended((session, "asked"), Urgency.REFINING, steps)
        refined = self.attended((session, "refined"), Urgency.REFINING, self._refined(questions, asked, quick, stage))
        if not one.method.can(Can.CHECKS):
            return Explaining(questions, asked, refined, refined, stage)
        checked = self.attended((session, "checked"), Urgency.AHEAD, self._checked(questions))
        return Explaining(questions, asked, refined, checked, stage)

    def fit(self, session: str, method: Chosen) -> Fitting:
        """Compute what a method needs once; it gives way to whatever anyone waits for, and goes on unattended.

        What this session might have clicked next is dropped: what its person asked for goes before it.
        """
        stage = Stage()
        steps = self.bench.of(method).fit_steps(stage)
        fitting = Fitting(self.worker.submit((session, "fitted"), Urgency.BATCH, steps), method, stage)
        self._fitting.put(session, fitting.task)
        self.worker.cancel((session, "foreseen"))
        return fitting

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
        return self.find((session, "predicted"), urgency, (self.engine.predict(answer) for _ in range(1)))

    def marks(self, answer: Answer, passages: Sequence[Span]) -> dict[Span, Mark]:
        """Where the words of an answer come from, as far as that is known by now; computes nothing of the model."""
        expected = self.engine.predicted(answer)
        if expected is None or expected.change is None:
            return {}
        return marks(answer.tokens, expected.change, partial(self.own.state, answer), passages)

    def contrast(self, session: str, answer: Answer, span: Span, text: str) -> Finding[Contrast]:
        """Find the tokens of a word that might have stood in a span's place."""
        contrasts = (self.engine.contrast(answer, span, text) for _ in range(1))
        return self.find((session, "contrasted"), Urgency.ASKED, contrasts)

    def output_values(self, session: str, answer: Answer, row: int) -> Finding[OutputValues]:
        """Find what one training example did to every token of an answer."""
        return self.find((session, "coloured"), Urgency.ASKED, matrix.output_values(self.own, answer, row))

    def tabulate(
        self, session: str, answer: Answer, span: Span | None, row: int, positions: bool
    ) -> Finding[TokenMatrix]:
        """Find the matrix of one training example; `matrix.passes` says in how many steps."""
        lines = matrix.token_matrix(self.own, answer, span, row, positions)
        return self.find((session, "tabulated"), Urgency.REFINING, lines)

    def measure(self, session: str) -> Finding[Measured]:
        """Measure how true the cache's sketches are and how long its questions take; gives way to everyone."""
        return self.find((session, "measured"), Urgency.BATCH, measuring.measure(self.own))

    def audit(
        self, session: str, prompts: Sequence[Prompt], settings: AuditSettings, origin: Origin, keep: Keep
    ) -> Auditing:
        """Begin an audit, which gives way to whatever a person waits for; `keep` is called from the worker's thread."""
        auditing: Auditing
        self.bench.of(settings.method).cost()  # Refuses what this cache can't serve.

        def steps() -> Steps:
            for found in audit(self.bench, self.corpus, prompts, settings, origin, keep, auditing.stage):
                if found is not None:
                    auditing.done.append(found)
                yield

        auditing = Auditing(self.worker.prepare((session, "audit"), Urgency.BATCH, steps()), prompts, settings)
        self.worker.start(auditing.task)
        return auditing

    def behaviour(
        self, session: str, of: Sequence[Asked], against: Sequence[Asked], settings: BehaviourSettings, stage: Stage
    ) -> Finding[Behaviour]:
        """Ask about several answers as one; gives way to whatever a person waits for, and goes on unattended.

        Raises PromptError where these can't be asked about so.
        """
        differing([each.part for each in of], [each.part for each in against])
        steps = behaviour_steps(self.bench, self.corpus, of, against, settings, stage)
        return self.find((session, "behaviour"), Urgency.BATCH, steps)

    def find(self, key: tuple[str, str], urgency: Urgency, results: Iterator[Found | None]) -> Finding[Found]:
        """Find the last of some results, in the place of what the same key was to find."""
        finding: Finding[Found]

        def steps() -> Steps:
            for found in results:
                finding.found, finding.done = found, finding.done + 1
                yield

        finding = Finding(self.worker.prepare(key, urgency, steps()))
        self.worker.start(finding.task)
        return finding

    def ranking(self, question: Question) -> Ranking | None:
        """The examples behind a question as far as they are known now; None before they are.

        No two of them are near-duplicates; `folds` tells what each stands for.
        """
        if not self.known(question):
            return None
        method, candidates = self.of(question), self._candidates(question)
        found = self.ranking_among(question, candidates)
        if found is None or not question.method.can(Can.SEEDS):
            return found
        answer, selection = question.answer, question.selection
        names = [name for name, _ in self.engine.store.manifest.training.checkpoints]
        complete = len(names) > 1 and method.progress(answer, selection, candidates) == len(candidates)
        exact = method.influences(answer, selection, candidates) if complete else ()
        return steadied(found, self.redrawn(question), names, exact)

    def verdict(self, question: Question, ranking: Ranking) -> Verdict | None:
        """What a question's ranking comes to, with what its examples share; None where nothing judges it."""
        return verdict_of(ranking, self.corpus, question.wanted)

    def known(self, question: Question) -> bool:
        """Whether all examples have scores for a question."""
        return self.of(question).known(question.answer, question.selection)

    def ranking_among(self, question: Question, candidates: Sequence[int]) -> Ranking | None:
        """The best of these candidates for a question; None before it is known."""
        if not self.known(question):
            return None
        method = self.of(question)
        return method.ranking(question.answer, question.selection, question.count, question.opponents, candidates)

    def influences(self, question: Question, rows: Sequence[int]) -> tuple[Influence, ...]:
        """What these examples have to do with a question that is known, exact where that is."""
        return self.of(question).influences(question.answer, question.selection, rows)

    def ask_steps(self, question: Question, stage: Stage) -> Steps:
        """The work of scoring all examples for a question."""
        return self.of(question).ask_steps(question.answer, question.selection, stage)

    def refine_steps(self, question: Question, rows: Sequence[int], stage: Stage) -> Steps:
        """The work of making these examples exact."""
        return self.of(question).refine_steps(question.answer, question.selection, rows, stage)

    def exact_count(self, question: Question, rows: Sequence[int]) -> int:
        """How many of these examples are as exact as they can be."""
        return self.of(question).progress(question.answer, question.selection, rows)

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
        asked = question.answer, question.selection
        return self.of(question).candidates(*asked, count, question.opponents, self.rows(question))

    def _candidates(self, question: Question) -> list[int]:
        return [fold.row for fold in self.folds(question)]

    def _refined(self, questions: tuple[Question, ...], asked: Task | None, quick: bool, stage: Stage) -> Steps:
        """Everything that is shown, as exact as its method knows it."""
        while asked is not None and not asked.finished:
            yield
        for question in questions:
            if quick:
                # Others may have asked so much meanwhile that it was forgotten; what takes long isn't asked twice.
                yield from self.ask_steps(question, stage)
            if not self.known(question):
                continue
            self._redraw(question)
            yield
            yield from self.refine_steps(question, self._candidates(question), stage)
            # Around exact scores now, where around the sketches' own at first.
            self._redraw(question)
            yield
            if question.positions:
                for row in self._shown(question):
                    self.of(question).locate(question.answer, question.selection, row)
                    self.engine.sequence(row)
                    yield

    def _redraw(self, question: Question) -> None:
        """Draw other seeds' scores for the candidates and the best of those behind them, folded ones left out."""
        folds = self.folds(question) if question.method.can(Can.SEEDS) else []
        candidates = [fold.row for fold in folds]
        if not candidates:
            return
        known = {row for fold in folds for row in (fold.row, *fold.others)}
        best = self._best(question, POOL - SPARE)
        pool = [*candidates, *(row for row in best if row not in known)]
        asked = question.answer, question.selection
        found = self.of(question).redraw(*asked, pool, question.count, len(candidates), question.opponents)
        if found is not None:
            self._redrawn.put(_key(question), found)

    def _checked(self, questions: tuple[Question, ...]) -> Steps:
        """The checksums of what is shown."""
        yield from self.ask_steps(questions[0], Stage())
        for question in questions:
            for row in self._shown(question):
                self.of(question).check(question.answer, question.selection, row)
                yield

    def _shown(self, question: Question) -> list[int]:
        ranking = self.ranking(question)
        return [influence.row for influence in ranking.influences] if ranking else []
