"""How the app says that something went wrong. Texts may hold the user's words, so none is Markdown."""

import streamlit as st


def failed(text: str) -> None:
    """Say what happened and what mends it."""
    with st.container(border=True):
        st.error("This did not work.", icon=":material/error:")
        st.text(text)
