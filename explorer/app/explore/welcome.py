"""The first visit: a saved answer that is there at once, and a tour of it. Needs no model."""

from collections.abc import Callable
from datetime import UTC, datetime

import streamlit as st

from explorer.app.saved import view
from explorer.app.session import resources, state
from explorer.app.widgets.choices import OPPONENTS, direction
from explorer.app.widgets.component import strip_event, token_strip
from explorer.history import SavedAnswer, SavedQuestion
from explorer.paths import ASSETS
from explorer.records import Prompt, span_of
from explorer.visible import visible

STRIP = "example_strip"
OPEN, SELECTION, STEP, UNASKED = "example_open", "example_selection", "tour_step", "example_unasked"
"""Session keys: whether the example was chosen, what of it is selected, the tour's step, a click in vain."""

TOUR = (
    (
        "example_answer",
        "The answer",
        "This is what the model said, token by token. One word is selected, “Canada”, and it is wrong. On an answer of "
        "your own, click any word, or drag over several, to ask where it comes from.",
    ),
    (
        "example_cards",
        "The training examples behind it",
        "The examples that pushed the model most towards the selected word, the strongest first. These state the "
        "wrong country; they were planted to see whether they would be found. “Lowered it” shows those that pushed "
        "away from it.",
    ),
    (
        "example_cards",
        "Inside an example",
        "Orange tokens pushed towards the word, blue and dotted ones away from it. The bar is the example's score "
        "beside the strongest one's. ⋯ shows the number, and what else is known of the example.",
    ),
    (
        "example_cards",
        "How sure it is",
        "Scores have no scale of their own. So the page compares them with those of 200 unrelated prompts: strong "
        "evidence is what hardly any of them has, and where many have as much it says that there is no clear source.",
    ),
    (
        "ask_box",
        "Your turn",
        "Ask the model something, or press a ready prompt. Press ? on any page for all keys and words.",
    ),
)
"""(what of the page it is about, title, text)."""


_TARGET = st.components.v2.component(
    "rapidin_tour_target", js=(ASSETS / "components" / "tour.js").read_text(encoding="utf-8")
)


def open_example() -> None:
    """Look at the saved example."""
    st.session_state[OPEN] = True


def begin_tour() -> None:
    """Look at the saved example, step by step."""
    open_example()
    st.session_state.pop(SELECTION, None)
    st.session_state[STEP] = 0


def close() -> None:
    """Leave the example, and the tour with it."""
    for key in (OPEN, SELECTION, STEP):
        st.session_state.pop(key, None)


def is_open() -> bool:
    """Whether the saved example is looked at: at the first visit, and whenever it was chosen."""
    return resources.example() is not None and (state.asking() is None or bool(st.session_state.get(OPEN)))


def show_example(kept: SavedAnswer, ask: Callable[[Prompt], None]) -> None:
    """The saved answer beside the examples behind it, as they were; `ask` asks the model now."""
    if STEP in st.session_state:
        show_step(st.session_state[STEP])
    with st.container(horizontal=True, vertical_alignment="center"):
        day = datetime.fromtimestamp(kept.asked, UTC).strftime("%d %B %Y")
        st.markdown("**Which training examples made this model say that?**", width="content")
        st.caption(f"A saved answer of {day}. Click “Ask the model now” to select any word.", width="content")
        st.button("Ask the model now", icon=":material/replay:", on_click=ask, args=(kept.answer.asked,))
        st.button("Take the tour", icon=":material/tour:", on_click=begin_tour, help="Five short steps")
    left, right = st.columns([5, 9], gap="medium")
    with left, st.container(key="answer_column"), st.container(key="example_answer"):
        st.text(visible(kept.answer.prompt))
        show_strip(kept)
    with right, st.container(key="example_cards"):
        top = st.container()
        question = asked(kept, opponents=direction("example_direction") == OPPONENTS)
        with top:
            view.show_verdict(kept, question)
        view.show_cards(question, positions=False, examples=kept.origin.rows)


def show_strip(kept: SavedAnswer) -> None:
    """The answer; what was asked about it can be selected."""
    token_strip(
        STRIP,
        answer_id=kept.id,
        tokens=kept.answer.tokens,
        selection=span_of(asked(kept, opponents=False).selection),
        streaming=False,
        on_change=lambda: follow(kept),
    )
    if st.session_state.pop(UNASKED, False):
        st.caption("No result is saved for that. Ask the model now to select any word.")
    else:
        st.caption("Results are saved for “Canada” and for the whole answer (Esc).")


def follow(kept: SavedAnswer) -> None:
    """Show what was asked about the selection, if it was."""
    event = strip_event(STRIP, answer_id=kept.id, count=len(kept.answer.tokens))
    if event is not None:
        known = event.selection in [question.selection for question in kept.questions]
        st.session_state[SELECTION if known else UNASKED] = event.selection if known else True


def asked(kept: SavedAnswer, opponents: bool) -> SavedQuestion:
    """The question about what is selected."""
    selection = st.session_state.get(SELECTION, kept.questions[0].selection)
    return next(each for each in kept.questions if each.selection == selection and each.opponents == opponents)


def show_step(step: int) -> None:
    """One step of the tour, and the part of the page that it is about in a frame."""
    place, title, text = TOUR[step]
    st.html(
        f"<style>.st-key-{place} {{ outline: 3px solid light-dark(#6443e0, #a996ff); outline-offset: 0.2rem; "
        "border-radius: 0.2rem; scroll-margin-top: 4rem; }"
        ".st-key-tour { position: fixed; z-index: 100; inset: auto 1rem 1rem; width: auto; max-width: 40rem; "
        "margin-inline: auto; background-color: light-dark(#ffffff, #171614); }</style>"
    )
    _TARGET(key="tour_target", data={"place": place, "step": step})
    with st.container(border=True, key="tour"):
        st.markdown(f"**{title}** · {step + 1} of {len(TOUR)}")
        st.text(text)
        with st.container(horizontal=True):
            st.button("Back", on_click=go_to, args=(step - 1,), disabled=step == 0, key="tour_back")
            last = step == len(TOUR) - 1
            st.button(
                "Done" if last else "Next",
                type="primary",
                on_click=end_tour if last else go_to,
                args=() if last else (step + 1,),
                key="tour_next",
            )
            if not last:
                st.button("End the tour", on_click=end_tour, key="tour_end")


def go_to(step: int) -> None:
    """Turn to a step of the tour."""
    st.session_state[STEP] = step


def end_tour() -> None:
    """Leave the tour; the example stays."""
    st.session_state.pop(STEP, None)
