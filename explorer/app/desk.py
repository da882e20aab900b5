"""Where browsers hand in their questions: the engine's work, scheduled on the one worker.

Streamlit is unknown here. Every browser session has a name; its newer question
of a kind replaces its older one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from explorer.engine import Engine
from explorer.generation import GenerationSettings
from explorer.records import Answer, Ranking, Selection
from explorer.worker import Steps, Task, Urgency, Worker


@dataclass
class Asking:
    """An answer on its way; read it from any thread."""

    task: Task
    prompt: str
    settings: GenerationSettings | None
    """How it is drawn; None for a response from elsewhere."""
    answer: Answer | None = None
    stopped: bool = False
    """True once the person has read enough of it."""

    def stop(self) -> None:
        """End the answer with the token at hand; what there is can be asked about."""
        self.stopped = True

    @property
    def error(self) -> str | None:
        """What went wrong, if anything did."""
        return self.task.error


@dataclass(frozen=True)
class Question:
    """What the page shows training examples for."""

    answer: Answer
    selection: Selection
    opponents: bool
    count: int
    sources: tuple[str, ...] = ()
    """Only examples with one of these sources; all when empty."""
    positions: bool = False
    """Whether tokens are coloured by what passes through their position, not by their own loss."""


@dataclass(frozen=True)
class Explaining:
    """The work behind the shown examples."""

    question: Question
    asked: Task | None
    """None when the question's gradient was known already."""
    refined: Task
    ahead: Task

    @property
    def error(self) -> str | None:
        """What went wrong, if anything did."""
        failed = [task.error for task in (self.asked, self.refined, self.ahead) if task is not None and task.error]
        return failed[0] if failed else None


class Desk:
    """One engine and one worker for all browsers."""

    def __init__(self, engine: Engine):
        """Start the worker."""
        self.engine = engine
        self.worker = Worker()

    def ask(self, session: str, prompt: str, settings: GenerationSettings) -> Asking:
        """Begin an answer, and the gradient of its whole response after it."""
        return self._begin(session, prompt, settings, self.engine.answer(prompt, settings))

    def attribute(self, session: str, prompt: str, response: str) -> Asking:
        """Take a response from elsewhere as the answer, and begin its gradient."""
        # Made when the worker comes to it: the tokenizer is the worker's, too.
        return self._begin(session, prompt, None, (self.engine.given_answer(prompt, response) for _ in range(1)))

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

        for kind in ("asked", "refined", "ahead"):
            self.worker.cancel((session, kind))
        asking = Asking(self.worker.prepare((session, "answer"), Urgency.ASKED, steps()), prompt, settings)
        self.worker.start(asking.task)
        return asking

    def explain(self, session: str, question: Question) -> Explaining:
        """Find the examples behind a question, make them exact, then prepare for the next click."""
        answer, selection = question.answer, question.selection
        asked = None
        if not self.engine.known(answer, selection):
            asked = self.worker.submit((session, "asked"), Urgency.ASKED, self._asked(question))
        refined = self.worker.submit((session, "refined"), Urgency.REFINING, self._refined(question))
        ahead = self.worker.submit((session, "ahead"), Urgency.AHEAD, self._ahead(question))
        return Explaining(question, asked, refined, ahead)

    def ranking(self, question: Question) -> Ranking | None:
        """The examples behind a question as far as they are known now; None before its gradient is."""
        if not self.engine.known(question.answer, question.selection):
            return None
        return self.engine.ranking(
            question.answer, question.selection, question.count, question.opponents, self.rows(question)
        )

    def progress(self, question: Question) -> tuple[int, int]:
        """How many candidates are exact, of how many."""
        candidates = self._candidates(question)
        return self.engine.progress(question.answer, question.selection, candidates), len(candidates)

    def rows(self, question: Question) -> list[int] | None:
        """The rows that pass the question's filter; None for all."""
        if not question.sources:
            return None
        return [row.row for row in self.engine.store.examples if row.source in question.sources]

    def _candidates(self, question: Question) -> list[int]:
        return self.engine.candidates(
            question.answer, question.selection, question.count, question.opponents, self.rows(question)
        )

    def _asked(self, question: Question) -> Steps:
        self.engine.ask(question.answer, question.selection)
        yield

    def _refined(self, question: Question) -> Steps:
        self.engine.ask(question.answer, question.selection)
        yield
        for row in self._candidates(question):
            self.engine.refine(question.answer, question.selection, row)
            yield
        if question.positions:
            ranking = self.ranking(question)
            for influence in ranking.influences if ranking else ():
                self.engine.locate(question.answer, question.selection, influence.row)
                self.engine.sequence(influence.row)
                yield

    def _ahead(self, question: Question) -> Steps:
        """First the gradients of tokens that may be clicked next, then the checksums of what is shown."""
        answer = question.answer
        if not all(self.engine.known(answer, (j, j + 1)) for j in range(len(answer.tokens))):
            yield from self.engine.ask_ahead(answer)
        self.engine.ask(answer, question.selection)
        yield
        ranking = self.ranking(question)
        for influence in ranking.influences if ranking else ():
            self.engine.check(answer, question.selection, influence.row)
            yield
