"""The shown question's scores by other methods: the work for them, and what is known. Streamlit is unknown here."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from explorer.app.desk.desk import Desk
from explorer.app.desk.work import Question
from explorer.concurrency import Steps, Task, Urgency
from explorer.errors import ExplorerError
from explorer.methods.description import askable
from explorer.methods.method import Cost, Stage
from explorer.records import Chosen
from explorer.trust import Agreement, agree


@dataclass
class Agreeing:
    """Methods that are asked one after the other; read it from any thread."""

    task: Task
    at: str = ""
    """Which is asked now."""
    stage: Stage = field(default_factory=Stage)
    dear: list[Chosen] = field(default_factory=list)
    """Those that were left out, because they take long."""
    problems: dict[Chosen, str] = field(default_factory=dict)
    """Why a method can't be asked."""


def methods(desk: Desk, question: Question) -> list[Chosen]:
    """All methods for this cache, and the one that the question was asked by, if it is one with a value."""
    known = askable(desk.engine.fine_tuned is not None, bool(desk.engine.store.awaited))
    return list(dict.fromkeys([*map(Chosen, known.values()), question.method]))


def begin(desk: Desk, session: str, question: Question, everything: bool) -> Agreeing:
    """Ask what costs little, or, `everything`, also fit and ask what takes long, giving way to all else."""
    agreeing: Agreeing

    def steps() -> Steps:
        for method in methods(desk, question):
            agreeing.at = method.name
            asked = desk.bench.of(method)
            try:
                if everything or asked.cost() is Cost.LITTLE:
                    yield from asked.ask_steps(question.answer, question.selection, agreeing.stage)
                elif not asked.known(question.answer, question.selection):
                    agreeing.dear.append(method)
            except ExplorerError as problem:
                agreeing.problems[method] = str(problem)
            yield

    key = (session, "agreed")
    if everything:
        agreeing = Agreeing(desk.worker.prepare(key, Urgency.BATCH, steps()))
        desk.worker.start(agreeing.task)
    else:
        agreeing = Agreeing(desk.attended(key, Urgency.REFINING, steps()))
    return agreeing


def agreement(desk: Desk, question: Question, rows: Sequence[int]) -> Agreement:
    """How the methods whose scores are known rank these examples."""
    asked = question.answer, question.selection
    found = {method: desk.bench.of(method).scores(*asked) for method in methods(desk, question)}
    known = {method: scores for method, scores in found.items() if scores is not None}
    return agree(rows, known, desk.rows(question), question.opponents)
