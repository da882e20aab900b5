"""The explorer's pages with an empty fragment beneath them: what `clicks.py` serves and measures."""

import runpy

import streamlit as st

from explorer.serving.server import ENTRY

runpy.run_path(str(ENTRY))


@st.fragment
def empty() -> None:
    """The least that Streamlit can rerun: its time is the floor of any click's."""
    count = st.session_state["empty_count"] = st.session_state.get("empty_count", 0) + 1
    st.html(f"<span id='empty_count'>{count}</span>")
    st.button("Rerun nothing", key="empty")


empty()
