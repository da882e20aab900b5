"""Which method scores the examples: the field that chooses it, what it costs, and the work that it needs first."""

import streamlit as st

from explorer.app.desk.desk import Desk
from explorer.app.desk.work import Fitting, Question
from explorer.app.session import resources, state
from explorer.app.widgets import messages, places
from explorer.app.widgets.filter_box import plain
from explorer.app.widgets.polling import duration
from explorer.errors import ExplorerError
from explorer.methods.description import CURVATURE_ROWS, DEFAULT, METHODS, askable, described
from explorer.methods.method import Cost, Stage
from explorer.records import Chosen, Description
from explorer.visible import one_line

CHOSEN, CONFIRMED, FITTING = "method", "method_confirmed", "method_fitting"
"""Session keys: the method by its name; the questions that a slow one was asked; what it needs once, on its way."""
SLOW_QUESTIONS = 2
"""So many questions to a slow method are answered beside each other: those of two answers that are compared."""
_PICKED = "method_picked"
LONGEST_VALUE = 40


def chosen() -> Chosen:
    """The method that scores the examples."""
    return described(str(st.session_state.get(CHOSEN, DEFAULT)))


def restore(method: Chosen) -> None:
    """Choose the method that a saved question was asked by, if this server knows it."""
    known = METHODS.get(method.description.name) == method.description
    folder = method.description.value_is_folder and method.value
    st.session_state[CHOSEN] = method.name if known and not folder else DEFAULT


def method_box() -> None:
    """The fields that choose the method, behind a button."""
    with st.popover(
        label() or "Method",
        key="method_popover",
        icon=":material/function:",
        help=f"How examples are scored: by {DEFAULT}, unless you choose another method to compare it with",
    ):
        picker()


def label() -> str:
    """Which method was chosen, as a button's label; empty for the one that one gets unasked."""
    written = one_line(chosen().written, LONGEST_VALUE)
    return f"Method: {plain(written)}" if written else ""


def picker() -> None:
    """The fields that choose the method; what it is, assumes and costs stands beneath them."""
    method = chosen()
    description = method.description
    st.session_state[_PICKED] = description.name
    st.selectbox("Examples are scored by", _askable(), key=_PICKED, format_func=_named, on_change=_take)
    if description.value and not description.value_is_folder:
        # A field of its own for each choice: one that was filled in at each rerun would lose what is being typed.
        st.text_input(
            f"With {description.value}",
            method.value,
            key=_value_key(method),
            max_chars=LONGEST_VALUE,
            placeholder="as in brackets above" if "(" in description.value else "",
            on_change=_take,
        )
    for line in about(description):
        st.text(line)
    st.page_link(places.METHODS, label="All methods, and how well they did", icon=":material/table_chart:")


def method_field(desk: Desk, key: str) -> None:
    """Choose a method for many questions; what it costs stands beneath it, unless it is what one gets unasked."""
    method = Chosen(METHODS[st.selectbox("Examples are scored by", _askable(), key=key, format_func=_named)])
    if not method.written:
        return
    try:
        cost = desk.bench.of(method).cost()
    except ExplorerError as problem:
        messages.failed(str(problem))
        return
    told = {
        Cost.LITTLE: "",
        Cost.ONCE: " Something is computed first, once, and kept in the cache's folder.",
        Cost.EACH: " Every answer takes long.",
    }
    st.text(f"Costs {method.description.costs}.{told[cost]}")


def about(description: Description) -> list[str]:
    """What a method is, assumes and costs, each in a line."""
    rows = f" Curvature rows: {CURVATURE_ROWS}." if description.family == "second order" else ""
    return [
        f"What it is: {description.what}.",
        f"Assumes {description.assumes}.",
        f"Costs {description.costs}.{rows}",
    ]


def _askable() -> list[str]:
    store = resources.store()
    known = list(askable(store.manifest.followed_by is not None, bool(store.awaited)))
    # One may be chosen by the address of another cache's question; what it lacks is said where it is asked.
    name = chosen().description.name
    return known if name in known or name not in METHODS else [*known, name]


def _named(name: str) -> str:
    return f"{name} · {METHODS[name].family}"


def _take() -> None:
    name, before = str(st.session_state[_PICKED]), chosen()
    same = name == before.description.name
    value = str(st.session_state.get(_value_key(before), "")).strip() if same else ""
    st.session_state[CHOSEN] = f"{name}:{value}" if value else name


def _value_key(method: Chosen) -> str:
    return f"method_value {method.name}"


# What is needed before the examples are known


def may_ask(desk: Desk, question: Question) -> bool:
    """Whether a question's method can be asked now; where it can't, say what it costs and offer to begin.

    Raises ExplorerError where the cache can't serve the method.
    """
    method = question.method
    asked = desk.bench.of(method)
    if asked.known(question.answer, question.selection):
        return True
    if (running := fitting(method)) is not None:
        if running.task.error:
            messages.failed(running.task.error)
        elif not running.task.finished:
            show_progress(f"Fitting {method.name}", running.stage, "fit_cancel", running.task.cancel)
            return False
    cost = asked.cost()
    if cost is Cost.LITTLE or (cost is Cost.EACH and _subject(question) in _confirmed()):
        return True
    _offer(desk, question, cost)
    return False


def fitting(method: Chosen) -> Fitting | None:
    """What a method needs once, on its way or done in this session."""
    running: Fitting | None = st.session_state.get(FITTING)
    return running if running is not None and running.method == method and not running.task.cancelled else None


def is_fitting() -> bool:
    """Whether something is being computed that a method needs once."""
    running = fitting(chosen())
    return running is not None and not running.task.finished


def show_work(question: Question, stage: Stage, finished: bool) -> None:
    """How far a slow question has come, and a way to leave it."""
    if _subject(question) in _confirmed() and not finished and stage.total:
        show_progress(f"Asking {question.method.name}", stage, "ask_cancel", _leave)


def show_progress(what: str, stage: Stage, key: str, cancel: object) -> None:
    """How far work is, how long its stage will take, and a way to end it."""
    left = stage.seconds_left
    said = f"{what}: {stage.name}, {stage.done:,} of {stage.total:,}" if stage.total else f"{what}: about to begin"
    said += f", about {duration(left)} left of this" if left is not None else ""
    bar, button = st.columns([5, 1], vertical_alignment="center")
    bar.progress(stage.share, plain(said))
    button.button("Cancel", icon=":material/stop:", key=key, on_click=cancel)  # type: ignore[arg-type]


def _offer(desk: Desk, question: Question, cost: Cost) -> None:
    method = question.method
    with st.container(border=True, key="method_offer"):
        if cost is Cost.ONCE:
            st.markdown("**Something has to be computed first, once**")
            st.text("It is kept in the cache's folder, and goes on while you look at other pages.")
        else:
            st.markdown("**Every question to this method takes long**")
        for line in about(method.description):
            st.text(line)
        if cost is Cost.ONCE:
            st.button(f"Fit {plain(method.name)}", type="primary", key="method_fit", on_click=_fit, args=(desk, method))
        else:
            st.button(
                f"Ask {plain(method.name)}", type="primary", key="method_ask", on_click=_confirm, args=(question,)
            )


def _fit(desk: Desk, method: Chosen) -> None:
    try:
        st.session_state[FITTING] = desk.fit(state.session(), method)
    except ExplorerError as problem:
        st.session_state["refused"] = str(problem)


def _confirm(question: Question) -> None:
    st.session_state[CONFIRMED] = (*_confirmed(), _subject(question))[-SLOW_QUESTIONS:]


def _confirmed() -> tuple[tuple[object, ...], ...]:
    found: tuple[tuple[object, ...], ...] = st.session_state.get(CONFIRMED, ())
    return found


def _leave() -> None:
    if (explaining := state.explaining()) is not None:
        explaining.cancel()
    st.session_state[CONFIRMED] = ()


def _subject(question: Question) -> tuple[object, ...]:
    return question.method.name, question.answer.id, question.selection
