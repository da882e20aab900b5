"""Trainings without some rows that browsers asked for: one after the other, behind whatever anyone waits for.

Streamlit is unknown here. What is asked for is kept, so that it goes on when the cache is served again.
"""

import threading
from dataclasses import dataclass, field
from functools import partial

from explorer.absence.asking import Cost, Load, Training, Wanted
from explorer.absence.kept import Kept, Shelf
from explorer.app.desk.desk import Desk
from explorer.app.desk.work import Finding, Pace
from explorer.concurrency import Pause, Steps, Task, Urgency, stepwise
from explorer.errors import Cancelled, ExplorerError
from explorer.model.generation import GenerationSettings
from explorer.records import Span


@dataclass
class Going:
    """One question on its way; read it from any thread."""

    wanted: Wanted
    name: str = ""
    """Which training it is at."""
    done: int = 0
    """Steps of training that are done since it was begun here."""
    total: int = 0
    """Steps in all; 0 before that is known."""
    cancelled: bool = False
    finished: bool = False
    error: str = ""
    pace: Pace = field(default_factory=Pace)

    def cancel(self) -> None:
        """Leave it at the next step; what was trained is kept."""
        self.cancelled = True

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take, if it goes on as it went; None before anything was done."""
        return self.pace.seconds_left(self.done, self.total) if self.done else None


class Absences:
    """The questions of all browsers over one cache."""

    def __init__(self, desk: Desk, load: Load):
        """Go on with what was asked for when the cache was served last."""
        self.desk, self._load, self.shelf = desk, load, Shelf(desk.engine.store)
        self._lock, self._queue, self._last = threading.Lock(), list[Going](), list[Going]()
        self._task: Task | None = None
        if waiting := self.shelf.waiting():
            desk.worker.submit(("absences", id(self), "waiting"), Urgency.BATCH, self._take_up(waiting))

    def cost(self, session: str, wanted: Wanted) -> Finding[Cost]:
        """Find what a question will take."""
        costs = (self._training(wanted).cost() for _ in range(1))
        return self.desk.find((session, "absence cost"), Urgency.REFINING, costs)

    def begin(self, wanted: Wanted) -> Going:
        """Begin a question, unless it is on its way. Raises ExplorerError where it can't be kept or queued."""
        if (going := self.going(wanted.answer.id, wanted.word)) is not None and not going.finished:
            return going
        self.shelf.keep(wanted)
        try:
            return self._begun(wanted)
        except ExplorerError:
            self.shelf.forget(wanted)
            raise

    def going(self, answer: str, word: Span) -> Going | None:
        """What was begun last about a word of an answer."""
        every = [one for one in self._last if (one.wanted.answer.id, one.wanted.word) == (answer, word)]
        return every[-1] if every else None

    def _begun(self, wanted: Wanted) -> Going:
        going = Going(wanted)
        with self._lock:
            if self._task is None:
                self._task = self.desk.worker.submit(("absences", id(self)), Urgency.BATCH, self._steps())
            self._queue.append(going)
            self._last = [*self._last[-63:], going]
        return going

    def _take_up(self, waiting: list[Kept]) -> Steps:
        for kept in waiting:
            answer = None
            for grown in self.desk.engine.answer(kept.asked, GenerationSettings(max_tokens=kept.max_tokens)):
                answer = grown
                yield
            if answer is not None and answer.id == kept.answer:
                self._begun(Wanted(answer, kept.word, kept.rows, kept.draws, kept.max_tokens))

    def _steps(self) -> Steps:
        while going := self._next():
            try:
                yield from stepwise(partial(self._answer, going))
            except ExplorerError as problem:
                going.error = "" if isinstance(problem, Cancelled) else str(problem)
                self.shelf.forget(going.wanted)
            going.finished = True

    def _next(self) -> Going | None:
        with self._lock:
            going = self._queue.pop(0) if self._queue else None
            if going is None:
                self._task = None
            return going

    def _answer(self, going: Going, pause: Pause) -> None:
        training = self._training(going.wanted)
        going.total = training.steps()

        def report(name: str, done: int, total: int) -> None:
            if going.cancelled:
                raise Cancelled("The training was cancelled.")
            if name != "answering":
                going.name, going.done = name, going.done + 1
            pause()

        self.shelf.keep(going.wanted, training.plain(training.found(report)))

    def _training(self, wanted: Wanted) -> Training:
        return Training(self.desk.engine, self.desk.corpus, self._load, wanted, {})
