"""The shown question's scores by other methods: the work for them, and what is known. Streamlit is unknown here."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from explorer.app.desk.desk import Desk
from explorer.app.desk.work import Question
from explorer.concurrency import Steps, Task, Urgency
from explorer.errors import ExplorerError
from explorer.methods.bench import Cost, Stage
from explorer.methods.description import METHODS
from explorer.records import OWN_METHOD
from explorer.trust import Agreement, agree


@dataclass
class Agreeing:
    """Methods that are asked one after the other; read it from any thread."""

    task: Task
    at: str = ""
    """Which is asked now."""
    stage: Stage = field(default_factory=Stage)
    dear: list[str] = field(default_factory=list)
    """Those that were left out, because they take long."""
    problems: dict[str, str] = field(default_factory=dict)
    """Why a method can't be asked."""


def names(question: Question) -> list[str]:
    """All methods, and the one that the question was asked by, if it is one with a value."""
    return [*METHODS, *([question.method] if question.method not in METHODS else [])]


def begin(desk: Desk, session: str, question: Question, everything: bool) -> Agreeing:
    """Ask what costs little, or, `everything`, also fit and ask what takes long, giving way to all else."""
    agreeing: Agreeing

    def steps() -> Steps:
        for name in names(question):
            agreeing.at = name
            try:
                if name == OWN_METHOD:
                    desk.engine.ask(question.answer, question.selection)
                elif everything or desk.bench.cost(name) is Cost.LITTLE:
                    yield from desk.bench.ask(name, question.answer, question.selection, agreeing.stage)
                elif scores(desk, question, name) is None:
                    agreeing.dear.append(name)
            except ExplorerError as problem:
                agreeing.problems[name] = str(problem)
            yield

    key = (session, "agreed")
    if everything:
        agreeing = Agreeing(desk.worker.prepare(key, Urgency.BATCH, steps()))
        desk.worker.start(agreeing.task)
    else:
        agreeing = Agreeing(desk.attended(key, Urgency.REFINING, steps()))
    return agreeing


def scores(desk: Desk, question: Question, name: str) -> NDArray[np.float32] | None:
    """The scores of all examples (N) by a method, if they are known."""
    answer, selection = question.answer, question.selection
    if name != OWN_METHOD:
        return desk.bench.scores(name, answer, selection)
    return desk.engine.ranking(answer, selection, 1).scores if desk.engine.known(answer, selection) else None


def agreement(desk: Desk, question: Question, rows: Sequence[int]) -> Agreement:
    """How the methods whose scores are known rank these examples."""
    known = {name: found for name in names(question) if (found := scores(desk, question, name)) is not None}
    return agree(rows, known, desk.rows(question), question.opponents)
