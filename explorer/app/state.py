"""The keys of one browser session, each read and written here alone."""

import uuid

import streamlit as st

from explorer.app.desk import Asking, Explaining
from explorer.records import Answer, Selection

FIRST_COUNT = 10
"""Examples shown before anyone asks for more."""


def session() -> str:
    """This browser session's name."""
    return str(st.session_state.setdefault("session", uuid.uuid4().hex))


def asking() -> Asking | None:
    """The answer asked for last."""
    return st.session_state.get("asking")


def begin(new: Asking) -> None:
    """Look at a new answer: nothing of it is selected."""
    st.session_state["asking"] = new
    st.session_state["explaining"] = None
    select(None)


def first_seed() -> None:
    """Draw the next answer with the seed that is set, not one that follows it."""
    st.session_state["regenerated"] = None


def next_seed(seed: int) -> int:
    """The seed of another answer to the same prompt: one on from the last, and from `seed` once that is set anew.

    It can't be written into the field that sets it: a browser sends what it has until the field is drawn again.
    """
    since, times = st.session_state.get("regenerated") or (seed, 0)
    times = times + 1 if since == seed else 1
    st.session_state["regenerated"] = (seed, times)
    return int(seed + times) % 2**31


def answer() -> Answer | None:
    """The answer as far as it has come."""
    current = asking()
    return current.answer if current else None


def selection() -> Selection:
    """What is selected of the answer."""
    return st.session_state.get("selection")


def select(new: Selection) -> None:
    """Ask about something else of the same answer."""
    st.session_state["selection"] = new
    st.session_state["count"] = FIRST_COUNT


def count() -> int:
    """How many examples are shown."""
    return int(st.session_state.get("count", FIRST_COUNT))


def show_more() -> None:
    """Show ten more."""
    st.session_state["count"] = count() + FIRST_COUNT


def explaining() -> Explaining | None:
    """The work behind the shown examples."""
    return st.session_state.get("explaining")


def explain(new: Explaining) -> None:
    """Remember the work behind the shown examples."""
    st.session_state["explaining"] = new
