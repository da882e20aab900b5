"""The two answers of the Compare page: their strips, how each came about, what else might stand there, edits."""

from functools import partial

import streamlit as st

from explorer import views
from explorer.app.compare.form import A, B, attribute, title
from explorer.app.desk.work import Asking
from explorer.app.explore import conversation, instead
from explorer.app.session.state import Study
from explorer.app.widgets import messages
from explorer.app.widgets.component import strip_event, token_strip
from explorer.records import Answer, Conversation, span_of
from explorer.trust import differing
from explorer.visible import visible


def show_sides() -> bool:
    """Both answers, their differing tokens marked; whether both are there to be compared."""
    # Read once: an answer that was complete for its strip and not for the comparison would leave nothing that polls.
    answers = [study.answer() for study in (A, B)]
    complete = [answer if answer and answer.finished else None for answer in answers]
    left, right = complete
    marks = differing(left.tokens, right.tokens) if left and right else ((), ())
    for column, study, answer, differs in zip(st.columns(2, gap="large"), (A, B), answers, marks, strict=True):
        with column:
            _show_side(study, answer, differs)
    if left and right:
        count = sum(map(sum, marks))
        st.caption(
            "Both answers are the same, token by token." if not count else "Underlined with dashes: in one answer only."
        )
    return left is not None and right is not None


def _show_side(study: Study, answer: Answer | None, differs: tuple[bool, ...]) -> None:
    st.markdown(f"**{title(study)}**")
    if refused := st.session_state.get(study.key("refused")):
        messages.failed(refused)
        return
    asking = study.asking()
    if asking is None:
        _show_missing(study)
        return
    if asking.asked.alone:
        st.text(visible(views.shortened(asking.asked.text, views.LONGEST_PROMPT)))
    conversation.show(asking.asked)
    conversation.hint("as System prompt above", asking.asked)
    st.caption(described(asking))
    if note := study.note():
        st.caption(note)
    if asking.error:
        messages.failed(asking.error)
        return
    if answer is None or not answer.finished:
        token_strip(
            f"compared_strip {study.name}",
            answer_id="streaming",
            tokens=answer.tokens if answer else (),
            selection=None,
            streaming=True,
            on_change=lambda: None,
            label=f"Tokens of answer {study.name}",
        )
        st.button("Stop", icon=":material/stop:", on_click=asking.stop, key=f"stop {study.name}")
        return
    _show_strip(study, answer, differs)
    with st.popover("Edit the answer", icon=":material/edit:"):
        _edit(study, asking.asked, answer)


def _show_strip(study: Study, answer: Answer, differs: tuple[bool, ...]) -> None:
    """The complete answer, and what the model might have said at what is selected of it."""
    key = f"compared_strip {study.name}"
    problem, waiting = instead.take_typed(study, answer)
    # Before what is drawn: it may become known in between, and has to be drawn once more then.
    pending = waiting or (study.selection() is not None and not instead.predicted(study, answer).task.finished)
    choices, note = instead.choices(study, answer)
    token_strip(
        key,
        answer_id=answer.id,
        tokens=answer.tokens,
        selection=span_of(study.selection()),
        streaming=False,
        on_change=partial(_take_selection, study, key),
        pending=pending,
        choices=choices,
        choices_note=note,
        on_instead=partial(instead.choose, study, key),
        label=f"Tokens of answer {study.name}",
        differs=differs,
    )
    instead.field(study, answer, problem)


def _show_missing(study: Study) -> None:
    """Where the other side's answer can be edited into this one's."""
    other = A if study == B else B
    asking, answer = other.asking(), other.answer()
    if asking is None or asking.error:
        st.text("Nothing is asked yet.")
    elif answer is None or not answer.finished:
        st.text(f"Here {other.name}’s answer can be edited once it is complete.")
    else:
        _edit(study, asking.asked, answer)


def _edit(study: Study, asked: Conversation, answer: Answer) -> None:
    key = f"edited {study.name} {answer.id}"
    with st.form(f"edit {study.name}", border=False):
        st.text_area("Ask about this text as if the model had said it", answer.text, key=key)
        st.form_submit_button(
            "Attribute this text",
            on_click=lambda: attribute(study, asked, str(st.session_state[key])),
            key=f"attribute {study.name}",
        )


def described(asking: Asking) -> str:
    """How an answer came about."""
    settings = asking.settings
    if settings is None:
        return "A given text, attributed as if the model had said it."
    drawn = (
        f"Drawn at temperature {settings.temperature:g} with the seed {settings.seed}."
        if settings.temperature > 0
        else "The most probable token each time."
    )
    if not settings.base:
        return f"The fine-tuned model. {drawn}"
    return (
        f"Said by the base model, its adapter switched off. {drawn} The base model wasn't trained on this data: the "
        "examples are those that made the *fine-tuned* model more or less likely to say this text, attributed by that "
        "model's gradients."
    )


def _take_selection(study: Study, key: str) -> None:
    answer = study.answer()
    event = strip_event(key, answer_id=answer.id, count=len(answer.tokens)) if answer else None
    if event is not None:
        study.select(event.selection)
