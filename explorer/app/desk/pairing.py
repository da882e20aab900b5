"""Two questions about two answers, compared: the work for it, and what is known so far. Streamlit is unknown here.

Near-duplicates are folded alike on both sides: one example stands for them on either, so that it can be shared. The
sides' answers are asked for under names of their own, for newer work of a name replaces older.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from explorer.app.desk.desk import Desk
from explorer.app.desk.work import Question
from explorer.concurrency import Steps, Task, Urgency
from explorer.corpus import Fold
from explorer.errors import PromptError
from explorer.methods.method import Cost, Stage
from explorer.records import Ranking
from explorer.trust import Comparison, compare

FIRST = 10
"""So many of each side's examples are compared one by one."""
COLOURED = 3
"""So many of each side's examples get the values of their tokens, whether or not all become exact."""
KINDS = ("compared", "compared exactly", "compared ahead")


@dataclass(eq=False)
class Comparing:
    """Two questions, the work behind their comparison, and what is known of it; read it from any thread."""

    desk: Desk
    questions: tuple[Question, Question]
    """About the left answer and about the right one; both of proponents or both of opponents, with one filter."""
    exact: bool
    """Whether everything that is shown becomes exact."""
    tasks: list[Task] = field(default_factory=list)
    stage: Stage = field(default_factory=Stage)
    """How far a slow method has come with what it is at."""

    @property
    def error(self) -> str | None:
        """What went wrong, if anything did."""
        return next((task.error for task in self.tasks if task.error), None)

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of what is shown."""
        return all(task.finished for task in self.tasks if task.urgency < Urgency.AHEAD)

    @property
    def known(self) -> bool:
        """Whether both questions are."""
        return all(self.desk.known(question) for question in self.questions)

    @property
    def rows(self) -> list[int] | None:
        """The rows that pass the filter; None for all."""
        return self.desk.rows(self.questions[0])

    def comparison(self) -> Comparison | None:
        """What is known by now; None before both questions are."""
        if not self.known:
            return None
        left, right = self.questions
        others = [self.desk.influences(each, self.shown()) for each in self.questions]
        return compare(self.ranking(left), self.ranking(right), others[0], others[1], self.rows)

    def ranking(self, question: Question) -> Ranking:
        """One side's examples, near-duplicates folded; both questions must be known."""
        found = self.desk.ranking_among(question, self.candidates(question))
        if found is None:
            raise PromptError("This question was not computed yet, or long ago; ask it again.")
        return found

    def fold(self, row: int) -> Fold:
        """An example that is shown, with the near-duplicates it stands for on either side."""
        return self._folds[row]

    def progress(self) -> tuple[int, int]:
        """How many of the exact values are there that the comparison takes, of how many as far as is known."""
        done = total = 0
        for question in self.questions:
            rows = sorted({*self.candidates(question), *self.shown()})
            done += self.desk.exact_count(question, rows)
            total += len(rows)
        return done, total

    def candidates(self, question: Question) -> list[int]:
        """One side's examples worth making exact, in the sketches' order."""
        return list(dict.fromkeys(self._stands[fold.row] for fold in self.desk.folds(question)))

    def uncoloured(self, question: Question) -> list[int]:
        """Those of one side's first examples whose tokens have no values yet; none where the method has no such."""
        if not question.method.token_values:
            return []
        return [found.row for found in self.ranking(question).influences[:COLOURED] if found.values is None]

    def shown(self) -> list[int]:
        """The rows that either side shows."""
        return sorted({found.row for each in self.questions for found in self.ranking(each).influences})

    @cached_property
    def _folds(self) -> dict[int, Fold]:
        """The candidates of both sides, near-duplicates of either joined, by the one that stands for them."""
        return {fold.row: fold for fold in joined(self.desk, [self.desk.folds(each) for each in self.questions])}

    @cached_property
    def _stands(self) -> dict[int, int]:
        """Which example stands for each."""
        return {row: fold.row for fold in self._folds.values() for row in (*fold.others, fold.row)}


def joined(desk: Desk, sides: Sequence[Sequence[Fold]]) -> list[Fold]:
    """The folds of several rankings in one: of near-duplicates the one that comes first stands for all."""
    members: dict[int, list[int]] = {}
    for fold in (fold for side in sides for fold in side):
        members.setdefault(fold.row, []).extend(fold.others)
    folds = desk.corpus.folds(list(members), len(members))
    kept = {fold.row for fold in folds}

    def others(fold: Fold) -> list[int]:
        found = [other for row in (fold.row, *fold.others) for other in (row, *members[row])]
        return [row for row in dict.fromkeys(found) if row not in kept]

    return [Fold(fold.row, tuple(others(fold))) for fold in folds]


def begin(desk: Desk, session: str, questions: tuple[Question, Question], exact: bool) -> Comparing:
    """Find the examples behind both, make them exact where that is wanted, then prepare for the next click."""
    comparing = Comparing(desk, questions, exact)
    # What takes long gives way to others, and ends with its tab.
    slow = desk.of(questions[0]).cost() is not Cost.LITTLE
    submit = desk.attended if slow else desk.worker.submit
    work = [
        (Urgency.REFINING if slow else Urgency.ASKED, _asked(comparing)),
        (Urgency.REFINING, _refined(comparing, slow)),
        (Urgency.AHEAD, _ahead(comparing)),
    ]
    desk.attend(session)
    comparing.tasks += [
        submit((session, kind), urgency, steps) for kind, (urgency, steps) in zip(KINDS, work, strict=True)
    ]
    return comparing


def stop(desk: Desk, session: str) -> None:
    """Leave what is on its way."""
    for kind in KINDS:
        desk.worker.cancel((session, kind))


def _asked(comparing: Comparing) -> Steps:
    for question in comparing.questions:
        yield from comparing.desk.ask_steps(question, comparing.stage)


def _refined(comparing: Comparing, slow: bool) -> Steps:
    """The first of each side; where all is to be exact, before them the candidates, which decide the order."""
    if not slow:
        yield from _asked(comparing)
    while not comparing.known:
        # What takes long isn't asked twice.
        if comparing.tasks and comparing.tasks[0].finished:
            return
        yield
    if not comparing.exact:
        for question in comparing.questions:
            # What becomes exact may fall behind others, which are the first ones then.
            while rows := comparing.uncoloured(question):
                yield from comparing.desk.refine_steps(question, rows, comparing.stage)
        return
    for wanted in (comparing.candidates, lambda _: comparing.shown()):
        for question in comparing.questions:
            yield from comparing.desk.refine_steps(question, wanted(question), comparing.stage)


def _ahead(comparing: Comparing) -> Steps:
    """The scores of tokens that may be clicked next, where the method has them together."""
    for question in comparing.questions:
        yield from comparing.desk.of(question).ask_ahead(question.answer)
