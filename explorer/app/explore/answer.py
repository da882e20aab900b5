"""The page's left column: the answer, how it is drawn, and what is selected of it."""

from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from explorer.app.desk.work import Asking
from explorer.app.evidence import data_panel, verbatim_panel
from explorer.app.explore import colours, conversation, instead, matrix_panel, permalink
from explorer.app.session import resources, state
from explorer.app.widgets.component import strip_event, token_strip
from explorer.app.widgets.polling import queued
from explorer.errors import ExplorerError
from explorer.model.generation import GenerationSettings
from explorer.records import Answer, Conversation, span_of

STRIP = "answer_strip"


def begin(start: Callable[[], Asking]) -> None:
    """Look at another answer; errors are shown where it would stand."""
    st.session_state.pop("refused", None)
    permalink.leave()
    try:
        resources.take_up()
        state.begin(start())
    except ExplorerError as problem:
        st.session_state["refused"] = str(problem)


def generation_settings() -> GenerationSettings:
    """How the next answer is drawn, as set on the page."""
    usual = GenerationSettings()
    return GenerationSettings(
        max_tokens=int(st.session_state.get("max_tokens", usual.max_tokens)),
        temperature=float(st.session_state.get("temperature", usual.temperature)),
        top_p=float(st.session_state.get("top_p", usual.top_p)),
        seed=int(st.session_state.get("seed", usual.seed)),
    )


def show_answer(asked: Conversation, answer: Answer | None) -> None:
    """The answer as a strip of tokens, below the turns that it follows.

    What comes and goes has a place of its own: an open form beneath it closes when its own place changes.
    """
    conversation.show(asked)
    asking = state.asking()
    if answer is None or not answer.finished:
        token_strip(
            STRIP,
            answer_id="streaming",
            tokens=answer.tokens if answer else (),
            selection=None,
            streaming=True,
            on_change=selection_changed,
        )
        if answer is None:
            show_place(asking)
            st.button("Cancel", icon=":material/close:", on_click=withdraw)
        else:
            st.button("Stop", icon=":material/stop:", on_click=stop)
        return
    show_strip(answer)
    with st.container():
        conversation.hint("in Settings", asked)
        if note := state.EXPLORE.note():
            st.caption(note)
    drawn = asking.settings if asking else None
    st.caption(
        "Click a word; Esc: whole answer."
        + (f" Drawn with the seed {drawn.seed}." if drawn and drawn.temperature > 0 else "")
    )
    with st.popover("Colour, regenerate, edit", icon=":material/more_horiz:", key="answer_popover"):
        colours.control()
        st.button("Regenerate", icon=":material/refresh:", on_click=regenerate)
        with st.form("edit", border=False):
            st.text_area("Ask about this text as if the model had said it", answer.text, key=f"edited_{answer.id}")
            st.form_submit_button("Attribute this text", on_click=attribute, args=(answer.id,))
    matrix_panel.show(answer)


def show_place(asking: Asking | None) -> None:
    """Who comes before, where somebody does."""
    if asking and (text := queued(resources.desk().place(asking.task))):
        st.text(text)


def show_strip(answer: Answer) -> None:
    """The complete answer, coloured as chosen, with what the model might have said instead."""
    problem, waiting = instead.take_typed(state.EXPLORE, answer)
    on_their_way = [colours.predicted(answer), colours.by_example(answer), matrix_panel.begun(answer)]
    desk = resources.desk()
    # Before what is drawn: it may become known in between, and has to be drawn once more then.
    pending = waiting or not state.EXPLORE.settled() or any(each and not each.task.finished for each in on_their_way)
    preparing = not desk.preparing.finished
    choices, note = instead.choices(state.EXPLORE, answer)
    passages = verbatim_panel.passages(desk, answer)
    underlined = verbatim_panel.underlined(answer, passages)
    token_strip(
        STRIP,
        answer_id=answer.id,
        tokens=answer.tokens,
        selection=span_of(state.selection()),
        streaming=False,
        on_change=selection_changed,
        pending=pending or (passages is None and preparing),
        colouring=colours.colouring(answer),
        choices=choices,
        choices_note=note,
        on_instead=choose_instead,
        verbatim=underlined,
        marks=desk.marks(answer, underlined),
    )
    with st.container():
        instead.field(state.EXPLORE, answer, problem)
    with st.container():
        predicted = instead.predicted(state.EXPLORE, answer).found if state.selection() is not None else None
        data_panel.show(desk, answer, passages, predicted)
        colours.explain(answer)
        colours.warn_unmoved(answer)


def choose_instead() -> None:
    """Ask why the selected token was said, and not the one that was clicked."""
    instead.choose(state.EXPLORE, STRIP)


def act(cards: str) -> None:
    """Do what was asked of one card: colour the answer by it, or open its matrix."""
    row = colours.take_example(cards)
    if row is not None:
        matrix_panel.open_for(row)


def withdraw() -> None:
    """Take back a question that has no answer yet."""
    state.give_up()
    state.begin(None)


def stop() -> None:
    """End the answer where it is."""
    if asking := state.asking():
        asking.stop()


def regenerate() -> None:
    """Ask the same again; another seed gives another text where chance has a say."""
    asking = state.asking()
    if asking is None:
        return
    settings = generation_settings()
    if settings.temperature > 0:
        settings = replace(settings, seed=state.next_seed(settings.seed))
    begin(lambda: resources.desk().ask(state.session(), asking.asked, settings))


def attribute(answer_id: str) -> None:
    """Take the edited text for the answer."""
    asking = state.asking()
    if asking is not None:
        text = str(st.session_state[f"edited_{answer_id}"])
        if not text.strip():
            st.session_state["refused"] = "The response is empty; give some text to ask about."
            return
        begin(lambda: resources.desk().attribute(state.session(), asking.asked, text))


def selection_changed() -> None:
    """Take over what the browser selected, if it fits the answer shown."""
    answer = state.answer()
    event = strip_event(STRIP, answer_id=answer.id, count=len(answer.tokens)) if answer else None
    if event is not None:
        state.select(event.selection)
