"""Keeps what is asked in the history, as it becomes known, and says where it is."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import streamlit as st

from explorer.app.desk.work import Asking, Question
from explorer.app.session import resources
from explorer.app.session.state import EXPLORE, Study
from explorer.app.widgets import places
from explorer.errors import HistoryError
from explorer.history import SavedAnswer, SavedQuestion, question_id, saved_question
from explorer.records import Answer, Ranking
from explorer.trust import wording


@dataclass
class _Keeping:
    """How much of the answer at hand is kept by now."""

    asking: Asking
    asked: float = field(default_factory=time.time)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    rows: int = field(default_factory=lambda: resources.store().manifest.rows)
    """Among how many examples it is ranked: what is found when more are read is another saved answer."""
    stages: set[object] = field(default_factory=set)
    """What was written; the page is rerun far more often than anything new is known."""


@dataclass(frozen=True)
class Kept:
    """Where an answer is kept."""

    name: str
    """Its name in the history, or that of the first question about it."""
    problem: str = ""
    """Why it can't be kept; empty where it is."""


def keep(asking: Asking, questions: Sequence[Question], rankings: Sequence[Ranking], study: Study = EXPLORE) -> Kept:
    """Keep the answer, and its rankings when there are some.

    To be called before these are drawn: who sees them may leave the page, and what comes later isn't run then.

    Args:
        asking: How the answer came about.
        questions: What the page shows examples for, one a side; the answer is finished.
        rankings: As far as they are known; what was kept of them is replaced whenever more is.
        study: Whose answer it is.
    """
    kept = _kept(study, asking)
    known = list(zip(questions, rankings, strict=False))
    found_as = _name(kept, questions[0]) if known else kept.id
    stage = tuple((_name(kept, question), question.count, _known(ranking)) for question, ranking in known)
    try:
        if stage not in kept.stages:
            found = tuple(_question(kept, question, ranking) for question, ranking in known)
            resources.history().save(_answer(kept, questions[0].answer, found))
            kept.stages.add(stage)
    except HistoryError as problem:
        return Kept(found_as, str(problem))
    return Kept(found_as)


def show(kept: Kept) -> None:
    """Show the link to what is kept, or why it isn't."""
    if kept.problem:
        st.warning("This question isn't kept.", icon=":material/history_toggle_off:")
        st.text(kept.problem)
        return
    st.page_link(
        places.HISTORY, label="Kept in the history", icon=":material/history:", query_params={places.SAVED: kept.name}
    )


def resume(study: Study, asking: Asking, saved: SavedAnswer) -> None:
    """Go on under the name of a saved answer that is looked at again: what is asked now is kept with it.

    One that was ranked among a part of the data stays as it is.
    """
    if saved.origin.unread_rows:
        return
    st.session_state[study.key("kept")] = _Keeping(asking, saved.asked, saved.id)


def _kept(study: Study, asking: Asking) -> _Keeping:
    kept = st.session_state.get(study.key("kept"))
    if kept is None or kept.asking is not asking or kept.rows != resources.store().manifest.rows:
        kept = st.session_state[study.key("kept")] = _Keeping(asking)
    return kept


def _known(ranking: Ranking) -> tuple[tuple[object, ...], ...]:
    """How much is known of each shown example."""
    return tuple(
        (found.row, found.exact, found.checksum is not None, found.positions is not None, found.steadiness)
        for found in ranking.influences
    )


def _answer(kept: _Keeping, answer: Answer, questions: tuple[SavedQuestion, ...]) -> SavedAnswer:
    drawn = None if kept.asking.settings is None else asdict(kept.asking.settings)
    return SavedAnswer(kept.id, kept.asked, answer, drawn, resources.origin(), questions=questions)


def _question(kept: _Keeping, question: Question, ranking: Ranking) -> SavedQuestion:
    desk = resources.desk()
    engine = desk.engine
    shown = tuple(
        (engine.store.examples[found.row], None if found.positions is None else engine.sequence(found.row))
        for found in ranking.influences
    )
    found = saved_question(kept.id, time.time(), ranking, question.wanted, shown, desk.verdict(question, ranking))
    return replace(found, caution=wording.NOT_YET) if engine.store.awaited else found


def _name(kept: _Keeping, question: Question) -> str:
    return question_id(kept.id, question.selection, question.opponents, question.wanted, question.method)
