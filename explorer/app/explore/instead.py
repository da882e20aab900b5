"""Compare with another word: what the model might have said at the selected place, to click or to type.

For the answer of any study: the Explore page's, or a side of the Compare page.
"""

import streamlit as st

from explorer.app.desk.work import Finding
from explorer.app.session import resources
from explorer.app.session.state import Study
from explorer.app.widgets import messages
from explorer.app.widgets.component import Choice, instead_event
from explorer.concurrency import Urgency
from explorer.records import Answer, Contrast, Prediction, span_of
from explorer.trust.words import words_of
from explorer.views import shown_name

TYPED, WORD = "instead_typed", "instead_word"
"""A study's keys: what was typed and isn't asked about yet: the answer's id, the span, the text; and the field."""
PATIENCE = 0.4
"""Seconds a rerun waits for the tokens of a typed word."""


def predicted(study: Study, answer: Answer, urgency: Urgency = Urgency.REFINING) -> Finding[Prediction]:
    """What the model expected at each token, on its way; by itself it lets the examples behind a click go first."""
    return study.begun("predicted", answer.id, lambda: resources.desk().predict(study.owner, answer, urgency))


def take_typed(study: Study, answer: Answer) -> tuple[str | None, bool]:
    """Ask about the word that was typed, once its tokens are known.

    Returns:
        What is wrong with it, if anything is; and whether its tokens are still on their way.
    """
    typed = st.session_state.get(study.key(TYPED))
    if typed is None or typed[0] != answer.id:
        return None, False
    _, span, text = typed
    finding = study.begun("contrasted", typed, lambda: resources.desk().contrast(study.owner, answer, span, text))
    finding.task.wait(PATIENCE)
    if finding.found is not None:
        st.session_state[study.key(TYPED)] = None
        study.select(finding.found)
    return finding.task.error, not finding.task.finished


def choices(study: Study, answer: Answer) -> tuple[list[Choice] | None, str]:
    """What the model might have said at the first token of the selected word, and what stands before it or instead."""
    selection = study.selection()
    span = span_of(selection)
    if span is None:
        return None, ""
    if span[1] - span[0] > 1 and span not in words_of(answer.tokens):
        return None, "For several words, type below what might have stood in their place."
    finding = predicted(study, answer)
    if finding.found is None:
        return None, "Computing what else the model might have said …"
    said = int(answer.encoded.ids[answer.encoded.response_start + span[0]])
    asked = selection.instead if isinstance(selection, Contrast) else ()
    candidates = finding.found.candidates[span[0]]
    return [
        Choice(each.id, each.token, each.probability, each.id == said, (each.id,) == asked) for each in candidates
    ], "Compare with:"


def choose(study: Study, strip: str) -> None:
    """Compare what was said with the token that was clicked; a second click takes it back.

    Of a word of several tokens the first alone is compared: the choices are what might have stood there.
    """
    answer, selected = study.answer(), span_of(study.selection())
    event = instead_event(strip, answer_id=answer.id) if answer else None
    if answer is None or event is None or selected is None or selected[0] != event[0]:
        return
    span = (event[0], event[0] + 1)
    found = predicted(study, answer).found
    for candidate in found.candidates[event[0]] if found else ():
        if candidate.id == event[1]:
            text = candidate.token.text.strip() or shown_name(candidate.token.text, candidate.token.special)
            contrast = Contrast(span, (candidate.id,), candidate.token.text if candidate.token.special else text)
            word = next(word for word in words_of(answer.tokens) if word[0] <= event[0] < word[1])
            study.select(word if study.selection() == contrast else contrast)


def field(study: Study, answer: Answer, problem: str | None) -> None:
    """Where another word is typed."""
    if study.selection() is None:
        return
    with st.form(study.key("instead"), border=False):
        left, right = st.columns([3, 2], vertical_alignment="bottom")
        left.text_input(
            "Compare with another word",
            key=study.key(WORD),
            placeholder="Compare with another word",
            label_visibility="collapsed",
        )
        right.form_submit_button("Compare with this", on_click=type_word, args=(study, answer.id))
    if problem:
        messages.failed(problem)
    if isinstance(study.selection(), Contrast):
        st.caption("Positive: favoured what was said over the other word. Negative: the reverse.")


def type_word(study: Study, answer_id: str) -> None:
    """Take over what was typed."""
    span = span_of(study.selection())
    if span is not None:
        st.session_state[study.key(TYPED)] = (answer_id, span, str(st.session_state[study.key(WORD)]))
