"""Train without the shown examples, and without as many others: what it costs, how far it is, what became of the word.

Answers of models are untrusted: they are shown letter by letter.
"""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from explorer.absence.asking import Wanted, is_word
from explorer.absence.kept import Kept
from explorer.app.desk.absences import Absences, Going
from explorer.app.evidence import rows
from explorer.app.session import resources, state
from explorer.app.widgets import messages, polling
from explorer.app.widgets.filter_box import plain
from explorer.corpus.verbatim import differing_words
from explorer.errors import ExplorerError
from explorer.records import Answer, span_of
from explorer.visible import one_line

OPEN = "absence"
"""Session key of the panel, which is drawn when it is open."""
_REFUSED = "absence_refused"
_LONGEST = 600
"""Characters of an answer that are shown."""


def show(answer: Answer, shown: Sequence[int]) -> None:
    """The panel for the selected word and the shown rows; closed to one line."""
    panel = st.expander("Train without these", icon=":material/model_training:", key=OPEN, on_change="rerun")
    if not panel.open:
        return
    with panel:
        if resources.in_the_making():
            st.text(resources.NEEDS_ALL)
            return
        span, asking = span_of(state.selection()), state.asking()
        if span is None or not is_word(answer, span):
            st.text("Select a word of the answer first.")
            return
        drawn = asking.settings if asking else None
        if drawn is None or drawn.temperature > 0 or drawn.base:
            st.text("Only an answer of the fine-tuned model's most probable tokens can be compared; ask anew for it.")
            return
        _show(resources.absences(), Wanted(answer, span, tuple(shown), max_tokens=drawn.max_tokens))


def _show(absences: Absences, wanted: Wanted) -> None:
    found = absences.shelf.about(wanted.answer.id, wanted.word)
    for kept in found:
        _show_found(kept)
    going = absences.going(wanted.answer.id, wanted.word)
    if going is not None and not going.finished:
        polling.follow("absence", lambda: _show_going(going), lambda: not going.finished)
        return
    if going is not None and going.error:
        messages.failed(going.error)
    if refused := st.session_state.pop(_REFUSED, ""):
        messages.failed(refused)
    if not any(set(kept.rows) == set(wanted.rows) for kept in found):
        _offer(absences, wanted)


def _offer(absences: Absences, wanted: Wanted) -> None:
    """What it will cost, and the button that begins it."""
    try:
        costing = state.begun(
            "absence cost",
            (wanted.answer.id, wanted.word, wanted.rows),
            lambda: absences.cost(state.session(), wanted),
            lost=lambda begun: begun.task.cancelled,
        )
    except ExplorerError as problem:
        messages.failed(str(problem))
        return
    if costing.task.error:
        messages.failed(costing.task.error)
        return
    if (cost := costing.found) is None:
        task = costing.task
        polling.follow("absence_cost", _say_that_it_measures, lambda: not task.finished)
        return
    gone, controls = cost.rows + cost.near_duplicates, cost.trainings - 1
    time = f", about {polling.duration(cost.seconds)}" if cost.left else ""
    st.text(
        f"Trains the adapter anew without the {cost.rows:,} shown examples and their {cost.near_duplicates:,} "
        f"near-duplicates, and {controls} times without {gone:,} others of similar length: {cost.left} trainings are "
        f"left to do{time}. It goes on in the background; questions go first."
    )
    st.button("Train without these", type="primary", key="absence_begin", on_click=_begin, args=(absences, wanted))


def _say_that_it_measures() -> None:
    st.text("Measuring what it will cost …")


def _begin(absences: Absences, wanted: Wanted) -> None:
    try:
        absences.begin(wanted)
    except ExplorerError as problem:
        st.session_state[_REFUSED] = str(problem)


def _show_going(going: Going) -> None:
    """How far it is, how long it will take, and a way to end it."""
    left = going.seconds_left
    said = f"Training {going.name}: {going.done:,} of {going.total:,} steps" if going.name else "About to begin"
    said += f", about {polling.duration(left)} left" if left is not None else ""
    bar, button = st.columns([5, 1], vertical_alignment="center")
    bar.progress(min(going.done / going.total, 1.0) if going.total else 0.0, plain(said))
    button.button("Cancel", icon=":material/stop:", key="absence_cancel", on_click=going.cancel)


def _show_found(kept: Kept) -> None:
    """The sentence, and below it all answers with the words that differ in bold."""
    found: dict[str, Any] = kept.found or {}
    with st.container(border=True):
        st.markdown(f"**{plain(one_line(found['said'], _LONGEST))}**")
        answers, odds, left_out = found["answers"], found["word"], found["rows"]
        before = str(answers["before"])
        told = [("As it is", before, odds["before"]), ("Without these", answers["without"], odds["without"])]
        for number, (text, each) in enumerate(zip(answers["controls"], odds["controls"], strict=True), start=1):
            told.append((f"Without others, draw {number}", text, each))
        for label, text, each in told:
            st.markdown(f"{label} ({each:+.2f}): {marked(before, str(text))}")
        near = len(left_out["near_duplicates"])
        st.caption(
            f"In brackets the log-odds of “{plain(one_line(odds['text'], 60))}” behind what stood before it, in nats; "
            f"in bold what differs. Left out: {len(left_out['named']):,} examples and {near:,} near-duplicates, or as "
            "many others of similar length. A word that stays may have other causes that suffice."
        )


def marked(before: str, text: str) -> str:
    """A text as Markdown shows it unchanged, the words in bold that another one hasn't in their place."""
    text = text[:_LONGEST]
    shown, end = "", 0
    for _, come in differing_words(before, text):
        if come:
            first, last = come[0].start, come[-1].stop
            shown += f"{rows.spaced(text[end:first])}**{plain(one_line(text[first:last], _LONGEST))}**"
            end = last
    return f"{shown}{rows.spaced(text[end:])}"
