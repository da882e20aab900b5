"""Compare with another word: what the model might have said at the selected place, to click or to type.

For the answer of any study: the Explore page's, or a side of the Compare page.
"""

import streamlit as st

from explorer.app.desk.work import Finding
from explorer.app.session import resources
from explorer.app.session.state import Study
from explorer.app.widgets import messages
from explorer.app.widgets.component import Choice, instead_event
from explorer.app.widgets.filter_box import plain
from explorer.concurrency import Urgency
from explorer.records import Answer, Candidate, Contrast, Prediction, Selection, Span, Token, span_of
from explorer.trust.words import words_of
from explorer.views import shown_name
from explorer.visible import one_line

TYPED, WORD = "instead_typed", "instead_word"
"""A study's keys: what was typed and isn't asked about yet: the answer's id, the span, the text; and the field."""
AT_ONCE = 2
"""So many other words are offered beneath the answer; the less likely ones behind a button."""
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
    """What the model said at the first token of the selected word and what it most likely would have said else.

    With it what stands before them, or in their place. The less likely ones wait behind the field's button.
    """
    selection = study.selection()
    span = span_of(selection)
    if span is None:
        return None, ""
    if _several(answer, span):
        return None, "For several words, type what might have stood in their place."
    finding = predicted(study, answer)
    if finding.found is None:
        return None, "Computing what else the model might have said …"
    asked = selection.instead if isinstance(selection, Contrast) else ()
    said, others = candidates(answer, finding.found, span[0])
    shown = sorted([*said, *_near(others, selection)], key=lambda each: -each.probability)
    return [
        Choice(each.id, each.token, each.probability, each in said, (each.id,) == asked) for each in shown
    ], "Compare with:"


def candidates(answer: Answer, found: Prediction, place: int) -> tuple[list[Candidate], list[Candidate]]:
    """What was said at a token, where it is among the likeliest, and what else might have been, the likeliest first.

    Tokens that are the same word but for blanks and case are one: nobody asks why a word was said and not itself.
    """
    said = int(answer.encoded.ids[answer.encoded.response_start + place])
    known, others = {_word(answer.tokens[place])}, []
    for each in found.candidates[place]:
        if each.id != said and _word(each.token) not in known:
            known.add(_word(each.token))
            others.append(each)
    return [each for each in found.candidates[place] if each.id == said], others


def _near(others: list[Candidate], selection: Selection) -> list[Candidate]:
    """Those that stand beneath the answer: the likeliest, and the one that is asked about."""
    asked = selection.instead if isinstance(selection, Contrast) else ()
    return [each for number, each in enumerate(others) if number < AT_ONCE or (each.id,) == asked]


def _several(answer: Answer, span: Span) -> bool:
    return span[1] - span[0] > 1 and span not in words_of(answer.tokens)


def _word(token: Token) -> str:
    return token.raw or token.text.strip().casefold() or token.text


def choose(study: Study, strip: str) -> None:
    """Compare what was said with the token that was clicked; a second click takes it back.

    Of a word of several tokens the first alone is compared: the choices are what might have stood there.
    """
    answer = study.answer()
    event = instead_event(strip, answer_id=answer.id) if answer else None
    if answer is not None and event is not None:
        compare(study, answer, *event)


def compare(study: Study, answer: Answer, place: int, token: int) -> None:
    """Compare what was said at a place with a token that the model might have said there, or no longer."""
    selected = span_of(study.selection())
    if selected is None or selected[0] != place:
        return
    span = (place, place + 1)
    found = predicted(study, answer).found
    for candidate in found.candidates[place] if found else ():
        if candidate.id == token:
            text = candidate.token.text.strip() or shown_name(candidate.token.text, candidate.token.special)
            contrast = Contrast(span, (candidate.id,), candidate.token.text if candidate.token.special else text)
            word = next(word for word in words_of(answer.tokens) if word[0] <= place < word[1])
            study.select(word if study.selection() == contrast else contrast)


def field(study: Study, answer: Answer, problem: str | None) -> None:
    """Where another word is chosen among the less likely ones, or typed."""
    span = span_of(study.selection())
    if span is None:
        return
    with st.popover(
        "Another word",
        key=study.key("instead_menu"),
        type="tertiary",
        help="Compare what was said with a less likely word, or with one that you type",
    ):
        for each in _rest(study, answer, span):
            name = plain(one_line(shown_name(each.token.text.strip() or each.token.text, each.token.special), 60))
            st.button(
                f"{name} {100 * each.probability:.2g}%",
                key=study.key(f"instead_{each.id}"),
                on_click=compare,
                args=(study, answer, span[0], each.id),
            )
        _form(study, answer)
    if problem:
        messages.failed(problem)
    if isinstance(study.selection(), Contrast):
        st.caption("Positive: favoured what was said over the other word. Negative: the reverse.")


def _rest(study: Study, answer: Answer, span: Span) -> list[Candidate]:
    """What the model might have said, too, that doesn't stand beneath the answer."""
    found = predicted(study, answer).found
    if found is None or _several(answer, span):
        return []
    others = candidates(answer, found, span[0])[1]
    near = _near(others, study.selection())
    return [each for each in others if each not in near]


def _form(study: Study, answer: Answer) -> None:
    with st.form(study.key("instead"), border=False):
        st.text_input(
            "Compare with another word",
            key=study.key(WORD),
            placeholder="Compare with another word",
            label_visibility="collapsed",
        )
        st.form_submit_button("Compare with this", on_click=type_word, args=(study, answer.id))


def type_word(study: Study, answer_id: str) -> None:
    """Take over what was typed."""
    span = span_of(study.selection())
    if span is not None:
        st.session_state[study.key(TYPED)] = (answer_id, span, str(st.session_state[study.key(WORD)]))
